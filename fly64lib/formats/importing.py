"""`fly64 import SRC DST.npz`: another program's scan as DATA-001, checked by the forward model and
shown in a picture.

What the file does not say is found in the data, or asked for by a flag; nothing is guessed
silently: every decision is printed and kept in the metadata under `import`."""

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from fly64lib.formats import cxi, ptychi, ptypy
from fly64lib.formats.frames import Frames, Reading, decide, look, patterns, window
from fly64lib.formats.hdf5 import open_hdf5
from fly64lib.formats.npz_scans import read_bz2, read_npz
from fly64lib.formats.orientation import ORIENTATIONS, Verdict, find_orientation, turned
from fly64lib.formats.positions import UNITS_M, placed, probe_for
from fly64lib.formats.raw import RawScan
from ptycho_torch.commands import add_option, run_command
from ptycho_torch.data.checks import mean_photons
from ptycho_torch.data.contract import KEYS, ScanData, check_scan, write_scan
from ptycho_torch.data.npz import broken
from ptycho_torch.errors import ConfigError, DataContractError, PtychoError

HDF5 = {"cxi": cxi, "ptychi": ptychi, "ptypy": ptypy}
FORMATS = ("fly64", "tike", *HDF5)


def import_scan(
    source: str | Path, target: str | Path, options: argparse.Namespace
) -> tuple[ScanData, Verdict]:
    """Convert `source` to the DATA-001 file `target`; `options` are the command's. Raises
    :class:`PtychoError`."""
    source, target = Path(source), Path(target)
    if target.suffix != ".npz" or target.exists() and not options.overwrite:
        raise ConfigError(
            f"{target}: "
            + (
                "it is there already; choose another name, or pass --overwrite"
                if target.suffix == ".npz"
                else "the result is an .npz file; name it so"
            )
        )
    if not source.is_file():
        raise broken(source, None, "no such file", "a scan to import", "check the path")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with (
            tempfile.TemporaryDirectory(prefix=".fly64-import-", dir=target.parent) as work,
            opened(source, Path(work), options) as raw,
        ):
            scan, verdict = _converted(raw, Path(work), options)
            write_scan(target, scan)
            if options.picture != "none":
                from fly64lib.formats.picture import draw_import

                draw_import(Path(options.picture or target.with_suffix(".png")), scan, verdict)
            return scan, verdict
    except OSError as error:
        if isinstance(error, PtychoError):
            raise
        raise PtychoError(
            f"{target}: cannot be written ({error}); choose a folder that can be, with room for the"
            " scan twice"
        ) from error


@contextmanager
def opened(path: Path, work: Path, options: argparse.Namespace) -> Iterator[RawScan]:
    """The scan in whatever format the file has, by its first bytes and keys, or in the one asked
    for."""
    with path.open("rb") as handle:
        start = handle.read(8)
    asked = options.format
    with ExitStack() as keep:
        if start[:3] == b"BZh" or start[:2] == b"PK":
            try:
                raw = (read_npz if start[:2] == b"PK" else read_bz2)(path, work, asked)
            except (
                DataContractError
            ) as error:  # of a file that is no npz, the reader would say: import it
                raise DataContractError(
                    str(error).partition(", or convert it: fly64 import")[0]
                ) from error
            yield raw
        elif start == b"\x89HDF\r\n\x1a\n":
            file = keep.enter_context(open_hdf5(path))
            found = (
                [asked]
                if asked in HDF5
                else [name for name, reader in HDF5.items() if reader.recognised(file)]
            )
            if len(found) != 1 or asked not in (None, *found):
                raise broken(
                    path,
                    None,
                    "an HDF5 file with " + ", ".join(file.children("/")[:12]),
                    f"the keys of {asked or 'cxi (entry_1), ptychi (dp) or ptypy (chunks)'}",
                    "name its format with --format, and for pty-chi the file with the patterns",
                )
            yield (
                ptychi.read(file, path, options.parameters, keep)
                if found[0] == "ptychi"
                else HDF5[found[0]].read(file, path)
            )
        else:
            raise broken(
                path,
                None,
                f"a file that begins with {start!r}",
                "an npz (fly64, tike), bzip2 or HDF5 file (CXI, pty-chi, PtyPy)",
                "convert it to one of these; docs/import_export.md lists their keys",
            )


def _converted(raw: RawScan, work: Path, options: argparse.Namespace) -> tuple[ScanData, Verdict]:
    frames = look(raw)
    reading = decide(
        raw,
        frames,
        values=options.values or _said_values(raw, frames),
        zero_frequency=options.zero_frequency,
        centre_px=options.centre and tuple(options.centre),
        crop=options.crop,
        bin_by=options.bin,
        photons_per_unit=options.photons_per_unit,
        round_counts=options.round,
    )
    bad = window(frames.bad, reading)
    if bad.any() and options.bad_pixels != "zero":
        raise broken(
            raw.source,
            None,
            f"{int(bad.sum())} bad pixels ({frames.told_bad} by the file's mask, the others"
            " negative, not finite or saturated in some pattern)",
            "photon counts in every pixel",
            "crop them away, or pass --bad-pixels zero to count nothing there",
        )
    diffraction = np.lib.format.open_memmap(
        work / "patterns.npy", "w+", np.float32, (raw.n, reading.N, reading.N)
    )
    first = 0
    for block in patterns(raw, reading, frames.bad):
        diffraction[first : first + len(block)] = block
        first += len(block)
    # Pixels of positions and object are those of patches as wide as the frame; of the square taken,
    # if frames are not square.
    grid = raw.detector_px[0] if raw.detector_px[0] == raw.detector_px[1] else reading.crop
    photons = mean_photons(diffraction)
    if not photons > 0:
        raise broken(
            raw.source,
            None,
            "no photon in the cropped square",
            "the beam inside",
            "correct --crop or --centre",
        )
    probe, scaled = probe_for(raw, reading, grid, photons, options)
    y, x, image, known, pixel_m = placed(raw, reading, grid, options)
    changed = reading.N != raw.detector_px[0] or reading.N != raw.detector_px[1]
    left_out = (
        sorted(set(raw.extra) - {"scan_index", "groups"}) if changed else []
    )  # on the frame's grid, or perhaps
    unknown = {
        key: value
        for key, value in raw.extra.items()
        if key not in {*left_out, *(row.name for row in KEYS)}
    }
    scan = ScanData(
        diffraction,
        x,
        y,
        probe.astype(np.complex64),
        image.astype(np.complex64),
        scan_index=raw.extra.get("scan_index"),
        groups=raw.extra.get("groups"),
        truth_patches=None if changed else raw.extra.get("Y"),
        extra=unknown,
        metadata=dict(raw.metadata),
    )
    if options.orientation == "auto":
        verdict = find_orientation(scan, raw.source, known)
    else:
        verdict = Verdict(options.orientation, {}, f"positions are {options.orientation}, as asked")
    if verdict.chosen != "as-given":
        scan = turned(scan, verdict.chosen, known)
    if bad.any():
        scan.extra["bad_pixels"] = bad.reshape(reading.N, reading.bin, reading.N, reading.bin).any(
            (1, 3)
        )
    _describe(scan, raw, reading, verdict, pixel_m, known, changed, scaled, photons, options)
    scan.metadata["import"]["left_out"] = left_out
    scan.metadata["import"]["whole"] = (
        reading.round or frames.whole or reading.values == "amplitude" and frames.squares_whole
    )
    check_scan(scan, raw.source)
    return scan, verdict


def _said_values(raw: RawScan, frames: Frames) -> str | None:
    """What the format says its values are; None, so that they are looked at, where the values speak
    against it."""
    if raw.values == "intensity" and (frames.whole or not frames.squares_whole):
        return "intensity"
    return (
        "amplitude"
        if raw.values == "amplitude" and frames.squares_whole and not frames.whole
        else None
    )


def _describe(
    scan: ScanData,
    raw: RawScan,
    reading: Reading,
    verdict: Verdict,
    pixel_m: float | None,
    known: bool,
    changed: bool,
    scaled: float,
    photons: float,
    options: argparse.Namespace,
) -> None:
    """Metadata: what the file said, what is true of the result, and how one became the other."""
    about = scan.metadata
    if changed:
        for name in ("dose", "photons_per_exposure"):
            about.pop(name, None)
    about.setdefault("photons_per_exposure", photons)
    if pixel_m:
        about["object_pixel_nm"] = pixel_m * 1e9
    about["object_kind"] = options.object_kind or (
        about.get("object_kind", "reconstruction") if known else "initial"
    )
    about["probe_kind"] = options.probe_kind or about.get("probe_kind", "initial")
    about["import"] = {
        "source": raw.source.name,
        "format": raw.format,
        "values": reading.values,
        "zero_frequency": "corner" if reading.corner else "centre",
        "centre_px": list(reading.centre_px),
        "crop": reading.crop,
        "bin": reading.bin,
        "photons_per_unit": reading.photons_per_unit,
        "orientation": verdict.chosen,
        "deviance": verdict.deviance,
        "probe_scaled_by": scaled,
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fly64 import", description=__doc__.split("\n")[0])
    parser.add_argument(
        "source", metavar="SRC", help="npz (fly64, tike), .npz.bz2, CXI, pty-chi's X_dp.hdf5, .ptyd"
    )
    parser.add_argument("target", metavar="DST.npz")
    parser.add_argument("--format", choices=FORMATS, help="default: found by the file's keys")
    parser.add_argument(
        "--parameters",
        type=Path,
        metavar="FILE",
        help="pty-chi's second file, if it has another name",
    )
    parser.add_argument("--probe", type=Path, metavar="FILE.npz", help="take probeGuess from here")
    parser.add_argument(
        "--crop", type=int, metavar="N", help="keep the central N x N detector pixels"
    )
    parser.add_argument(
        "--bin", type=int, default=1, metavar="K", help="sum K x K detector pixels, after the crop"
    )
    parser.add_argument(
        "--centre",
        type=int,
        nargs=2,
        metavar=("ROW", "COLUMN"),
        help="pixel of zero frequency, for the crop",
    )
    add_option(
        parser,
        "--zero-frequency",
        choices=("centre", "corner"),
        help="default: found in the mean pattern",
    )
    parser.add_argument(
        "--values", choices=("intensity", "amplitude"), help="default: found in the values"
    )
    add_option(
        parser,
        "--photons-per-unit",
        type=float,
        metavar="K",
        help="photons that an intensity of 1 stands for",
    )
    parser.add_argument(
        "--round", action="store_true", help="round to whole photons, which training asks for"
    )
    add_option(
        parser,
        "--bad-pixels",
        choices=("refuse", "zero"),
        default="refuse",
        help="default: %(default)s",
    )
    add_option(parser, "--position-unit", choices=("px", *UNITS_M), help="default: the format's")
    add_option(
        parser,
        "--pixel-size-nm",
        type=float,
        metavar="NM",
        help="object pixel of the frames before --crop",
    )
    parser.add_argument(
        "--orientation",
        choices=("auto", *ORIENTATIONS),
        default="auto",
        help="of the positions: first swap y "
        "and x, then flip; auto: the forward model decides (default)",
    )
    add_option(
        parser,
        "--no-object",
        action="store_true",
        help="leave the file's object out, and start from ones",
    )
    for name in ("--object-kind", "--probe-kind"):
        add_option(parser, name, choices=("truth", "reconstruction", "initial"))
    parser.add_argument(
        "--picture", metavar="PNG", help="default: beside the result; none: no picture"
    )
    parser.add_argument("--overwrite", action="store_true")
    return parser


def main(argv: list[str] | None = None) -> int:
    options = _parser().parse_args(argv)

    def command() -> int:
        for name, least in (("crop", 2), ("bin", 1), ("photons_per_unit", 0), ("pixel_size_nm", 0)):
            value = getattr(options, name)
            if value is not None and not (least <= value < 1e12 and value):
                raise ConfigError(
                    f"--{name.replace('_', '-')} {value} is out of its range; expected at least"
                    f" {least}, above 0"
                )
        scan, verdict = import_scan(options.source, options.target, options)
        about = scan.metadata["import"]
        pixel = scan.metadata.get("object_pixel_nm")
        print(
            f"{options.target}: {scan.n} patterns of {scan.N} x {scan.N} px from {about['format']},"
            f" {about['values']}, zero frequency at the {about['zero_frequency']},"
            f" {scan.metadata['photons_per_exposure']:.4g} photons per exposure"
        )
        print(
            f"object: {scan.canvas_shape[0]} x {scan.canvas_shape[1]}"
            f" px{f' of {pixel:.4g} nm' if pixel else ''}, {scan.metadata['object_kind']}; probe:"
            f" {scan.metadata['probe_kind']}"
            + (
                f", scaled by {about['probe_scaled_by']:.4g} to the measured photons"
                if about["probe_scaled_by"] != 1
                else ""
            )
        )
        if about["left_out"]:
            print(
                "left out, since they may belong to the uncropped pixels:"
                f" {', '.join(about['left_out'])}"
            )
        if not about["whole"]:
            print(
                "counts are not whole: training needs whole ones, see --round and"
                " --photons-per-unit"
            )
        print(
            verdict.said
            + "".join(
                f"\n  {score:8.3f} {name}"
                for name, score in sorted(verdict.deviance.items(), key=lambda item: item[1])
            )
        )
        return 0

    return run_command(command)


if __name__ == "__main__":
    raise SystemExit(main())
