"""`fly64 export SRC.npz DST`: a DATA-001 scan in other programs' formats, its object as an image,
or with a result in it.

.cxi            the scan, its probe and object                    PREFIX --format ptychi   the pair
PREFIX_dp, _para.hdf5 .tif            objectGuess: phase and amplitude, float32         .png
the same, with a scale bar .npz            the scan again, with the object (and probe) of --object
FILE: a reconstruction becomes DATA-001"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from fly64lib.formats import cxi, ptychi
from fly64lib.formats.raw import as_modes, as_object
from ptycho_torch.commands import add_option, run_command
from ptycho_torch.data.contract import ScanData, read_scan, write_scan
from ptycho_torch.data.npz import broken, open_npz
from ptycho_torch.errors import ConfigError, MissingDependencyError, PtychoError
from ptycho_torch.files import atomic_path

SUFFIXES = {".cxi": "cxi", ".tif": "tiff", ".tiff": "tiff", ".png": "png", ".npz": "data"}
FORMATS = ("cxi", "ptychi", "tiff", "png", "data")


def export_scan(
    source: str | Path,
    target: str | Path,
    format: str | None = None,
    *,
    object_file: str | Path | None = None,
    pixel_size_nm: float | None = None,
    energy_kev: float | None = None,
    distance_m: float | None = None,
) -> list[Path]:
    """Write the DATA-001 file `source` as `format` (default: by the suffix of `target`); the files
    that were written.

    `object_file`: an npz with `object`, and perhaps `probe`, that take the place of the file's own,
    as a reconstruction. The size of the object's pixel is the metadata's, unless given; positions
    in metres need it."""
    source, target = Path(source), Path(target)
    format = format or SUFFIXES.get(target.suffix)
    if format not in FORMATS:
        raise ConfigError(
            f"{target}: no format goes with {target.suffix!r}; pass --format " + " | ".join(FORMATS)
        )
    if target.exists() and target.samefile(source):
        raise ConfigError(f"{target}: this is the source; choose another name")
    scan = read_scan(source, load_truth=format not in ("tiff", "png"))
    if object_file:
        scan = with_object(scan, Path(object_file))
    pixel_nm = pixel_size_nm or scan.metadata.get("object_pixel_nm")
    if pixel_nm is not None and not (type(pixel_nm) in (int, float) and 0 < pixel_nm < 1e9):
        raise broken(
            source,
            "metadata",
            f"object_pixel_nm is {pixel_nm!r}",
            "a size in nm > 0",
            "pass --pixel-size-nm NM",
        )
    if format in ("cxi", "ptychi"):
        if pixel_nm is None:
            raise broken(
                source,
                "metadata",
                "no object_pixel_nm",
                "the size of the object's pixel, since this format keeps positions in metres",
                "pass --pixel-size-nm NM",
            )
        if format == "ptychi":
            return ptychi.write(target, scan, pixel_nm * 1e-9)
        return cxi.write(target, scan, pixel_nm * 1e-9, energy_kev, distance_m)
    if format == "data":
        write_scan(target, scan)
    else:
        (write_tiff if format == "tiff" else write_png)(target, scan.object_guess, pixel_nm)
    return [target]


def with_object(scan: ScanData, path: Path) -> ScanData:
    """The scan with the object, and the probe if there is one, that a reconstruction left in
    `path`."""
    with open_npz(path) as archive:
        key = next((key for key in ("object", "objectGuess") if key in archive.members), None)
        if key is None:
            raise broken(
                path,
                "object",
                f"missing; the keys are {', '.join(archive.members) or 'none'}",
                "the object (H, W)",
                "name a reconstruction's object.npz",
            )
        image = as_object(archive.read(key), path, key).astype(np.complex64)
        probe = (
            as_modes(archive.read("probe"), path, "probe").astype(np.complex64)
            if "probe" in archive.members
            else None
        )
    if image.shape != scan.canvas_shape:
        raise broken(
            path,
            key,
            f"{image.shape[0]} x {image.shape[1]} px",
            f"{scan.canvas_shape[0]} x {scan.canvas_shape[1]} px, the scan's canvas",
            "name the scan that this object was reconstructed from",
        )
    kinds = {"object_kind": "reconstruction"} | (
        {"probe_kind": "reconstruction"} if probe is not None else {}
    )
    return replace(
        scan,
        object_guess=image,
        probe=scan.probe if probe is None else probe,
        metadata=scan.metadata | kinds,
    )


def write_tiff(path: str | Path, image: np.ndarray, pixel_nm: float | None) -> None:
    """Phase (rad) and amplitude of a complex (H, W) image as two float32 channels; ImageJ reads the
    pixel size from it."""
    try:
        import tifffile
    except ImportError as error:
        raise MissingDependencyError("TIFF needs tifffile: pip install 'fly64[formats]'") from error
    channels = np.stack([np.angle(image), np.abs(image)]).astype(np.float32)
    scale = {"resolution": (1e3 / pixel_nm, 1e3 / pixel_nm)} if pixel_nm else {}
    with atomic_path(path) as temporary:
        tifffile.imwrite(
            temporary,
            channels,
            imagej=True,
            **scale,
            metadata={
                "axes": "CYX",
                "Labels": ["phase / rad", "amplitude"],
                "unit": "um" if pixel_nm else "pixel",
            },
        )


def write_png(path: str | Path, image: np.ndarray, pixel_nm: float | None) -> None:
    """Phase and amplitude of a complex (H, W) image, with a scale bar."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 5), layout="constrained")
    parts = (np.angle(image), "phase / rad"), (np.abs(image), "amplitude")
    for axes, (values, label) in zip(figure.subplots(1, 2), parts, strict=True):
        low, high = np.percentile(values, [0.5, 99.5])
        figure.colorbar(
            axes.imshow(values, cmap="gray", vmin=low, vmax=max(high, low + 1e-3)),
            ax=axes,
            label=label,
        )
        _scale_bar(axes, image.shape, pixel_nm)
        axes.set_axis_off()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)


def _scale_bar(axes: object, shape: tuple[int, int], pixel_nm: float | None) -> None:
    """A bar of 1, 2 or 5 times a power of ten, about a fifth of the width, on a dark strip below
    the image."""
    size, unit = (pixel_nm, "nm") if pixel_nm else (1.0, "px")
    fifth = shape[1] * size / 5
    decade = 10 ** np.floor(np.log10(fifth))
    length = decade * max(step for step in (1, 2, 5) if step * decade <= fifth)
    label = f"{length / 1e3:g} um" if unit == "nm" and length >= 1e3 else f"{length:g} {unit}"
    axes.plot(
        [0, length / size], [shape[0] * 1.04] * 2, "k-", lw=4, solid_capstyle="butt", clip_on=False
    )
    axes.text(length / size + shape[1] * 0.02, shape[0] * 1.04, label, va="center")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fly64 export",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", metavar="SRC.npz", help="a DATA-001 scan")
    parser.add_argument("target", metavar="DST")
    parser.add_argument("--format", choices=FORMATS, help="default: by the suffix of DST")
    parser.add_argument(
        "--object",
        metavar="FILE.npz",
        help="a reconstruction's object.npz, in place of objectGuess",
    )
    add_option(
        parser,
        "--pixel-size-nm",
        type=float,
        metavar="NM",
        help="object pixel (default: the metadata's object_pixel_nm)",
    )
    add_option(
        parser,
        "--energy-kev",
        type=float,
        metavar="KEV",
        help="CXI: with the distance, the optics are written too",
    )
    add_option(parser, "--distance-m", type=float, metavar="M", help="CXI: specimen to detector")
    return parser


def main(argv: list[str] | None = None) -> int:
    options = _parser().parse_args(argv)

    def command() -> int:
        for name in ("pixel_size_nm", "energy_kev", "distance_m"):
            if getattr(options, name) is not None and not 0 < getattr(options, name) < 1e9:
                raise ConfigError(
                    f"--{name.replace('_', '-')} {getattr(options, name)} is out of its range;"
                    " expected above 0"
                )
        try:
            written = export_scan(
                options.source,
                options.target,
                options.format,
                object_file=options.object,
                pixel_size_nm=options.pixel_size_nm,
                energy_kev=options.energy_kev,
                distance_m=options.distance_m,
            )
        except OSError as error:
            if isinstance(error, PtychoError):
                raise
            raise PtychoError(
                f"{options.target}: cannot be written ({error}); choose a folder that can be, with"
                " room"
            ) from error
        print(*written, sep="\n")
        return 0

    return run_command(command)


if __name__ == "__main__":
    raise SystemExit(main())
