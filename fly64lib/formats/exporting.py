"""`fly64 export SRC.npz DST`: a DATA-001 scan in other programs' formats, its object as an image,
or with a result in it."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from fly64lib.design.registries import FORMATS
from fly64lib.formats.base import Format, Optics, writer_of
from fly64lib.formats.options import ExportOptions
from fly64lib.formats.raw import as_modes, as_object, need, optional
from ptycho_torch.data.container import refused
from ptycho_torch.data.contract import read_scan, write_scan
from ptycho_torch.data.npz import open_npz
from ptycho_torch.data.scan import ScanData
from ptycho_torch.errors import ConfigError


def exported(options: ExportOptions) -> int:
    """Write a DATA-001 file in another format, and print the files that were written."""
    source, target = options.source, options.target
    format = FORMATS[writer_of(target, options.format)]
    if target.exists() and target.samefile(source):
        raise ConfigError(f"{target}: this is the source; choose another name")
    scan = read_scan(source, load_truth=True)
    if options.object:
        scan = with_object(scan, options.object)
    if format.read and (beyond := _beyond(scan)):
        text = (
            f"it has {beyond}, which would be lost; expected a scan with M = N and nothing of these"
        )
        raise refused(source, None, f"{text}; export the object alone, as .tif or .png")
    pixel_nm = options.optics.pixel_size_nm or scan.metadata.get("object_pixel_nm")
    if pixel_nm is not None and not (type(pixel_nm) in (int, float) and 0 < pixel_nm < 1e9):
        text = f"object_pixel_nm is {pixel_nm!r}; expected a size in nm > 0"
        raise refused(source, "metadata", f"{text}; pass --pixel-size-nm NM")
    print(*format.write(target, scan, replace(options.optics, pixel_size_nm=pixel_nm)), sep="\n")
    return 0


def _beyond(scan: ScanData) -> str:
    """What a scan holds that other programs' formats of patterns have no place for."""
    found = [f"an object of {scan.M} px for {scan.N} of the detector"] if scan.M > scan.N else []
    names = ("detector_mask", "brightness", "background")
    return ", ".join(found + [name for name in names if getattr(scan, name) is not None])


def with_object(scan: ScanData, path: Path) -> ScanData:
    """The scan with the `object`, and `probe` if there is one, of a reconstruction's npz."""
    with open_npz(path) as archive:
        key = need(archive, "the object (H, W) of a reconstruction", "object", "objectGuess")
        image = as_object(archive, key).astype(np.complex64)
        probe = optional(archive, as_modes, "probe")
    if image.shape != scan.canvas_shape:
        size, canvas = ("{} x {}".format(*shape) for shape in (image.shape, scan.canvas_shape))
        text = f"{size} px; expected {canvas} px, the scan's canvas; name the scan that this object"
        raise refused(path, key, f"{text} was reconstructed from")
    about = scan.metadata | {"object_kind": "reconstruction"}
    if probe is not None:
        about["probe_kind"] = "reconstruction"
        scan = replace(scan, probe=probe.astype(np.complex64))
    return replace(scan, object_guess=image, metadata=about)


def _write_data001(path: Path, scan: ScanData, optics: Optics) -> list[Path]:
    write_scan(path, scan)
    return [path]


DATA001 = Format(write=_write_data001, endings=(".npz",))  # for a scan with another object in it
