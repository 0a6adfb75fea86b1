"""Pictures and tables of generate.ipynb and overlap.ipynb, of what phases C and D wrote."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from fly64lib.design.study import SPLITS, split_file
from fly64lib.evaluation.columns import markdown_table
from fly64lib.simulation.overlap_measures import fluence_map, scanned_region
from fly64lib.simulation.probes import outer_half_maximum_diameter
from ptycho_torch.data.checks import mean_photons, pattern_chunks
from ptycho_torch.data.contract import ScanData, read_scan
from ptycho_torch.fields import to_dict
from ptycho_torch.files import write_json
from ptycho_torch.physics import optics
from ptycho_torch.versions import software_versions

Halves = dict[str, ScanData]


def phase_c_scans(phase_c_root: str | Path, doses: Sequence[float]) -> dict[float, Halves]:
    """Both halves of every dose, patterns mapped."""
    return {
        dose: {split: read_scan(split_file(phase_c_root, dose, split)) for split in SPLITS}
        for dose in doses
    }


def object_picture(image: np.ndarray) -> Figure:
    """Phase and amplitude of an object (H, W)."""
    figure = Figure(figsize=(12, 5.2), layout="constrained")
    parts = (("phase / rad", np.angle(image), "viridis"), ("amplitude", np.abs(image), "gray"))
    for ax, (title, part, colours) in zip(figure.subplots(1, 2), parts, strict=True):
        drawn = ax.imshow(part, cmap=colours, interpolation="nearest")
        drawn.set_clim(np.percentile(part, (0.5, 99.5)))
        figure.colorbar(drawn, ax=ax)
        ax.set(title=title, xlabel="x / px", ylabel="y / px")
    return figure


def probe_picture(probe: np.ndarray) -> Figure:
    """The probe (modes, N, N) on the object, with its diameter D, and on the detector without."""
    waves = torch.from_numpy(np.asarray(probe, dtype=np.complex64))
    figure = Figure(figsize=(9.5, 3.9), layout="constrained")
    place, detector = figure.subplots(1, 2)
    middle, D_px = probe.shape[-1] // 2, outer_half_maximum_diameter(probe)
    drawn = place.imshow(waves.abs().square().sum(0).numpy(), cmap="magma")
    place.add_patch(Circle((middle, middle), D_px / 2, fill=False, color="white", linestyle=":"))
    place.set(title=f"on the object; circle: D = {D_px:.1f} px", xlabel="x / px", ylabel="y / px")
    figure.colorbar(drawn, ax=place, label="photons per pixel and exposure")
    seen = optics.propagate(waves).abs().square().sum(0).numpy()
    drawn = detector.imshow(np.log10(1 + seen), cmap="magma")
    detector.set(title="on the detector, no object", xlabel="column", ylabel="row")
    figure.colorbar(drawn, ax=detector, label="log$_{10}$(1 + expected photons)")
    return figure


def patterns_picture(scans: Mapping[float, Halves], split: str = "test", count: int = 4) -> Figure:
    """Counts of the same positions at every dose: log10(1 + photons), a colour scale each."""
    figure = Figure(figsize=(2.4 * count + 1, 2.5 * len(scans)), layout="constrained")
    axes = figure.subplots(len(scans), count, squeeze=False)
    for row, (dose, halves) in zip(axes, scans.items(), strict=True):
        scan = halves[split]
        # not the turns at the scan's ends
        chosen = np.linspace(0, scan.n - 1, count + 2).astype(int)[1:-1]
        counts = np.log10(1 + np.square(np.asarray(scan.diffraction[chosen])))
        colours = {"cmap": "magma", "vmin": 0, "vmax": counts.max(), "interpolation": "nearest"}
        for ax, (y, x), pattern in zip(row, scan.positions[chosen], counts, strict=True):
            drawn = ax.imshow(pattern, **colours)
            ax.set(xticks=[], yticks=[], title=f"y = {y:.0f}, x = {x:.0f} px")
        row[0].set_ylabel(f"dose {dose:g}")
        figure.colorbar(drawn, ax=list(row), label="log$_{10}$(1 + photons)")
    return figure


def split_picture(halves: Halves) -> Figure:
    """Positions of both halves on the object's phase, their guard band, and the light along y."""
    scan, colours = halves["train"], {"train": "tab:orange", "test": "tab:cyan"}
    geometry = scan.metadata["geometry"]
    figure = Figure(figsize=(12, 5), layout="constrained")
    place, light = figure.subplots(1, 2)
    place.imshow(np.angle(scan.object_guess), cmap="gray")
    for split, half in halves.items():
        style = {"color": colours[split], "label": f"{split}, {half.n}"}
        place.plot(half.xcoords, half.ycoords, ".", markersize=1.5, **style)
        fluence, scanned = _fluence(half)
        # The largest fluence of a row: a mean would hide a pixel that both halves light.
        brightest = np.maximum(fluence.max(axis=1) / np.median(scanned), 1e-6)
        light.semilogy(brightest, color=colours[split], label=split)
    light.axhline(0.01, color="0.5", linestyle=":", label="lit above 1 %")
    for ax, band in ((place, place.axhspan), (light, light.axvspan)):
        low, high = (geometry["middle_px"] + side * geometry["guard_px"] / 2 for side in (-1, 1))
        band(low, high, color="tab:red", alpha=0.15, label="guard band")
        ax.legend(fontsize="small", loc="upper right")
    place.set(title="patch centres on the object's phase", xlabel="x / px", ylabel="y / px")
    light.set_title(f"{geometry['pixels_lit_by_both_halves']} pixels are lit by both halves")
    light.set(xlabel="y / px", ylabel="brightest pixel of the row / median fluence")
    light.set_ylim(1e-5, 30)
    return figure


def dose_rows(scans: Mapping[float, Halves]) -> list[dict]:
    """A row per dose and half: what was asked for and what the patterns hold."""
    rows = []
    for dose, halves in scans.items():
        for split, scan in halves.items():
            blocks = [np.square(block) for _, block in pattern_chunks(scan.diffraction)]
            dark = float(np.mean([(block < 0.5).mean() for block in blocks]))
            row = {
                "dose asked": dose,
                "half": split,
                "patterns": scan.n,
                "photons per exposure, measured": mean_photons(scan.diffraction),
                "photons per object pixel": float(_fluence(scan)[1].mean()),
                "brightest pixel, photons": float(max(block.max() for block in blocks)),
                "pixels without a photon, %": 100 * dark,
            }
            rows.append(row)
    return rows


def overlap_rows(bundle: Mapping[str, Mapping[str, Mapping[str, dict]]]) -> list[dict]:
    """A row per view and split of `overlap_figures.json`: VIEW-001's four, the fourth by dose."""
    doses, rows = sorted(bundle, key=lambda name: float(name.removeprefix("dose_"))), []
    for view, splits in bundle[doses[0]].items():
        for split, figures in splits.items():
            row = {"view": view, "half": split}
            row |= {name: figures[name] for name in ("images", "groups")}
            for number, name in enumerate(("within_groups", "between_images", "between_groups"), 1):
                row[f"({number}) {name.replace('_', ' ')}"] = figures[name]["mean_disc_overlap"]
            for dose in doses:
                fluence = bundle[dose][view][split]["fluence"]
                row[f"(4) photons per object pixel, {dose}"] = fluence["photons_per_pixel"]
            under = figures["fluence"]["share_under_tenth"]
            rows.append(row | {"(4) pixels under a tenth, %": 100 * under})
    return rows


def markdown(rows: Sequence[Mapping[str, object]]) -> str:
    """Rows of one set of columns as a Markdown table; a dash where there is no number."""

    def cell(value: object) -> str:
        return "–" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)

    return markdown_table(list(rows[0]), [list(map(cell, row.values())) for row in rows])


def write_result(path: str | Path, parameters: object, **content: object) -> Path:
    """Write the file whose presence says that a notebook ran to its end; its absolute path."""
    about = {"parameters": to_dict(parameters), "versions": software_versions()}
    write_json(path, about | content)
    return Path(path).resolve()


def _fluence(scan: ScanData) -> tuple[np.ndarray, np.ndarray]:
    """Photons on each object pixel (H, W), and those of the scanned region."""
    fluence = fluence_map(scan.positions, scan.probe, scan.canvas_shape)
    return fluence, fluence[scanned_region(scan.positions)]
