"""A study's folder of made-up rows, whose photons needed follow from a formula."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from ptycho_torch.data.contract import ScanData, write_scan
from ptycho_torch.files import sha256_file, write_json

SLOPE = {
    "good": 10.0,
    "poor": 5.0,
    "cramer_rao": 12.0,
    "bayesian": 14.0,
    "flat": 0.0,
}  # dB per decade of photons
OFFSET = {"good": 2.0, "poor": 1.0, "cramer_rao": 2.0, "bayesian": 4.0, "flat": 9.0}
SHARE = {
    "baseline": 0.04,
    "dense": 0.02,
    "sparse": 0.004,
    "dense_spread": 0.02,
}  # photons per pixel over dose


def share(view: str) -> float:
    """Photons per object pixel for one photon per exposure; single images thin out with the square
    of their distance."""
    view = view.removesuffix("_fluence")
    if view.startswith("single_"):
        return 0.0016 / (1 - float(view.removeprefix("single_"))) ** 2
    return SHARE[view]


def row(method: str, dose: float, view: str, replicate: int, **other: object) -> dict:
    """A row whose phase PSNR is OFFSET + SLOPE log10(photons per pixel), plus the replicate in
    dB."""
    photons = share(view) * dose
    psnr = (
        OFFSET[method] + SLOPE[method] * np.log10(photons) + (0 if method == "flat" else replicate)
    )
    return {
        "dose": dose,
        "view": view,
        "replicate": replicate,
        "gauge": "known_probe",
        "images": round(1e4 * share(view)),
        "photons_per_pixel": photons,
        "simulation": "fine",
        "specimen": "siemens_star",
        "method": method,
        "simulation_seed": 42 + 1000 * replicate,
        "phase_psnr": psnr,
        "frc_half": float(np.clip(psnr / 40, 0, 1)),
        "deviance_held_out": 10 / max(psnr, 0.1),
        "cpu_seconds": 2.0,
        "seconds": 1.0,
        "settings": '{"a": 1}',
    } | other


def write_study(
    root: Path,
    replicates: int = 1,
    views: tuple[str, ...] = ("baseline", "dense", "sparse"),
    methods: tuple[str, ...] = ("good", "poor", "flat", "cramer_rao", "bayesian"),
    first: int = 0,
    doses: tuple[float, ...] = (1e3, 1e4, 1e5),
    row: Callable[..., dict] = row,
    **other: object,
) -> Path:
    for replicate in range(first, first + replicates):
        for dose in doses:
            for view in views:
                path = (
                    root
                    / f"replicate_{replicate}"
                    / "phase_g"
                    / f"dose_{dose:.0f}"
                    / view
                    / "comparison.json"
                )
                write_json(
                    path,
                    {
                        "rows": [row(name, dose, view, replicate, **other) for name in methods],
                        "versions": {"python": "3.x"},
                    },
                )
    return root


CRITICAL = {"good": 20.0, "lsqml": 100.0, "cramer_rao": 5.0}  # photons per object pixel, planted


def planted_row(method: str, dose: float, view: str, replicate: int, **other: object) -> dict:
    """A method resolves half of Nyquist exactly from its critical photons per object pixel on,
    whatever the overlap; replicates differ by a tenth."""
    one = row("flat" if method == "flat" else "good", dose, view, replicate)
    photons = one["photons_per_pixel"] / (1 + 0.1 * replicate)
    per_decade = 0.25 * np.log10(photons / CRITICAL.get(method, 1e9))
    detail = float(np.clip(0.5 + per_decade, 0, 1))
    psnr = 20 + 10 * (detail - 0.5) / 0.25
    known = {"resolved": detail, "frc_half": min(1.0, detail + 0.02), "phase_psnr": psnr}
    known |= {"phase_ssim": 0.2 + 0.7 * detail, "pixel_nm": 56.0}
    return one | known | {"method": method} | other


def write_objects(study: Path, rows: list[dict], image: ScanData) -> None:
    """What the rows of :func:`write_study` come from, as far as explore.ipynb shows it: phase C's
    scan, objects that are the truth with a phase error by method, and a view's overlap."""
    rng = np.random.default_rng(0)
    for one in rows:
        replicate, dose = study / f"replicate_{one['replicate']}", f"dose_{one['dose']:.0f}"
        scan = replicate / "phase_c" / dose / "patched_test.npz"
        if not scan.is_file():
            scan.parent.mkdir(parents=True)
            write_scan(scan, image)
        folder = replicate / "phase_f" / dose / one["view"] / one["method"]
        folder.mkdir(parents=True)
        error = rng.normal(0, 10 ** (-one["phase_psnr"] / 20), image.object_guess.shape)
        np.savez(folder / "object.npz", object=image.object_guess * np.exp(1j * error))
        write_json(folder / "result.json", {"object_sha256": sha256_file(folder / "object.npz")})
        overlap = replicate / "overlap"
        names = ("within_groups", "between_images", "between_groups")
        measured = {name: {"mean_disc_overlap": 0.5} for name in names}
        measured |= {"groups": 24, "probe_diameter_px": 16.0, "fluence": {"share_under_tenth": 0.1}}
        write_json(overlap / dose / one["view"] / "overlap_test.json", measured)
        picture = np.full((120, 160, 3), 200, np.uint8)
        (overlap / "overlap").mkdir(exist_ok=True)
        Image.fromarray(picture).save(overlap / "overlap" / f"{one['view']}_test.png")
