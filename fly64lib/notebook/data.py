"""What generate.ipynb and overlap.ipynb show of the data that phases C and D wrote: pictures, and
tables of rows."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from fly64lib.design import SPLITS, split_file
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
        low, high = np.percentile(part, (0.5, 99.5))
        figure.colorbar(
            ax.imshow(part, cmap=colours, vmin=low, vmax=high, interpolation="nearest"), ax=ax
        )
        ax.set(title=title, xlabel="x / px", ylabel="y / px")
    return figure


def probe_picture(probe: np.ndarray) -> Figure:
    """The probe (modes, N, N) on the object, with its diameter D, and as the detector sees it
    without an object."""
    waves = torch.from_numpy(np.asarray(probe, dtype=np.complex64))
    figure = Figure(figsize=(9.5, 3.9), layout="constrained")
    place, detector = figure.subplots(1, 2)
    middle, diameter = probe.shape[-1] // 2, outer_half_maximum_diameter(probe)
    drawn = place.imshow(waves.abs().square().sum(0).numpy(), cmap="magma")
    place.add_patch(
        Circle((middle, middle), diameter / 2, fill=False, color="white", linestyle=":")
    )
    place.set(
        title=f"on the object; circle: D = {diameter:.1f} px", xlabel="x / px", ylabel="y / px"
    )
    figure.colorbar(drawn, ax=place, label="photons per pixel and exposure")
    seen = optics.propagate(waves).abs().square().sum(0).numpy()
    drawn = detector.imshow(np.log10(1 + seen), cmap="magma")
    detector.set(title="on the detector, no object", xlabel="column", ylabel="row")
    figure.colorbar(drawn, ax=detector, label="log$_{10}$(1 + expected photons)")
    return figure


def patterns_picture(scans: Mapping[float, Halves], split: str = "test", count: int = 4) -> Figure:
    """Counts of the same `count` positions at every dose: log10(1 + photons), one colour scale a
    dose."""
    figure = Figure(figsize=(2.4 * count + 1, 2.5 * len(scans)), layout="constrained")
    for row, (dose, halves) in zip(
        figure.subplots(len(scans), count, squeeze=False), scans.items(), strict=True
    ):
        scan = halves[split]
        chosen = np.linspace(0, scan.n - 1, count + 2).astype(int)[
            1:-1
        ]  # not the turns at the scan's ends
        counts = np.log10(1 + np.square(np.asarray(scan.diffraction[chosen])))
        for ax, image, pattern in zip(row, chosen, counts, strict=True):
            drawn = ax.imshow(
                pattern, cmap="magma", vmin=0, vmax=counts.max(), interpolation="nearest"
            )
            ax.set(
                xticks=[],
                yticks=[],
                title=f"y = {scan.ycoords[image]:.0f}, x = {scan.xcoords[image]:.0f} px",
            )
        row[0].set_ylabel(f"dose {dose:g}")
        figure.colorbar(drawn, ax=list(row), label="log$_{10}$(1 + photons)")
    return figure


def split_picture(halves: Halves) -> Figure:
    """Positions of both halves on the object's phase with the guard band between them, and the
    light along y."""
    scan, colours = halves["train"], {"train": "tab:orange", "test": "tab:cyan"}
    geometry = scan.metadata["geometry"]
    figure = Figure(figsize=(12, 5), layout="constrained")
    place, light = figure.subplots(1, 2, width_ratios=(1, 1))
    place.imshow(np.angle(scan.object_guess), cmap="gray")
    for split, half in halves.items():
        place.plot(
            half.xcoords,
            half.ycoords,
            ".",
            color=colours[split],
            markersize=1.5,
            label=f"{split}, {half.n}",
        )
        fluence = fluence_map(_positions(half), half.probe, half.canvas_shape)
        median = np.median(fluence[scanned_region(_positions(half))])
        # The largest fluence of a row: a mean would hide a pixel that both halves light.
        light.semilogy(
            np.maximum(fluence.max(axis=1) / median, 1e-6), color=colours[split], label=split
        )
    light.axhline(0.01, color="0.5", linestyle=":", label="lit above 1 %")
    for ax, band in ((place, place.axhspan), (light, light.axvspan)):
        low, high = (geometry["middle_px"] + side * geometry["guard_px"] / 2 for side in (-1, 1))
        band(low, high, color="tab:red", alpha=0.15, label="guard band")
        ax.legend(fontsize="small", loc="upper right")
    place.set(title="patch centres on the object's phase", xlabel="x / px", ylabel="y / px")
    light.set(
        title=f"{geometry['pixels_lit_by_both_halves']} pixels are lit by both halves",
        xlabel="y / px",
        ylabel="brightest pixel of the row / median fluence",
        ylim=(1e-5, 30),
    )
    return figure


def dose_rows(scans: Mapping[float, Halves]) -> list[dict]:
    """A row per dose and half: what was asked for and what the patterns hold."""
    rows = []
    for dose, halves in scans.items():
        for split, scan in halves.items():
            blocks = [np.square(block) for _, block in pattern_chunks(scan.diffraction)]
            fluence = fluence_map(_positions(scan), scan.probe, scan.canvas_shape)[
                scanned_region(_positions(scan))
            ]
            rows.append(
                {
                    "dose asked": dose,
                    "half": split,
                    "patterns": scan.n,
                    "photons per exposure, measured": mean_photons(scan.diffraction),
                    "photons per object pixel": float(fluence.mean()),
                    "brightest pixel, photons": float(max(block.max() for block in blocks)),
                    "pixels without a photon, %": (
                        100 * float(np.mean([(block < 0.5).mean() for block in blocks]))
                    ),
                }
            )
    return rows


def overlap_rows(bundle: Mapping[str, Mapping[str, Mapping[str, dict]]]) -> list[dict]:
    """A row per view and split of `overlap_figures.json`: the four figures of VIEW-001, the fourth
    at every dose."""
    doses = sorted(bundle, key=lambda name: float(name.removeprefix("dose_")))
    return [
        {
            "view": view,
            "half": split,
            "images": figures["images"],
            "groups": figures["groups"],
            "(1) within groups": figures["within_groups"]["mean_disc_overlap"],
            "(2) between images": figures["between_images"]["mean_disc_overlap"],
            "(3) between groups": figures["between_groups"]["mean_disc_overlap"],
            **{
                f"(4) photons per object pixel, {dose}": bundle[dose][view][split]["fluence"][
                    "photons_per_pixel"
                ]
                for dose in doses
            },
            "(4) pixels under a tenth, %": 100 * figures["fluence"]["share_under_tenth"],
        }
        for view, splits in bundle[doses[0]].items()
        for split, figures in splits.items()
    ]


def markdown(rows: Sequence[Mapping[str, object]]) -> str:
    """Rows of one set of columns as a Markdown table; a dash where there is no number."""
    lines = ["| " + " | ".join(rows[0]) + " |", "|" + " --- |" * len(rows[0])]
    for row in rows:
        cells = (
            "–" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
            for value in row.values()
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write_result(path: str | Path, parameters: object, **content: object) -> Path:
    """Write a notebook's result, the file whose presence says that it ran to its end; return its
    absolute path."""
    path, given = Path(path).resolve(), to_dict(parameters)
    write_json(path, {"parameters": given, **content, "versions": software_versions()})
    return path


def _positions(scan: ScanData) -> np.ndarray:
    """Patch centres (n, 2) as (y, x), px."""
    return np.stack([scan.ycoords, scan.xcoords], axis=1)
