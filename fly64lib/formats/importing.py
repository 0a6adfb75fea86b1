"""`fly64 import SRC DST.npz`: another program's scan as DATA-001, checked by the forward model and
shown in a picture.

What the file does not say is found in the data, or asked for by an option; nothing is guessed
silently: every decision is printed and kept in the metadata under `import`."""

import bz2
import shutil
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from fly64lib.design.registries import FORMATS
from fly64lib.evaluation import light_beside
from fly64lib.formats.base import Access, Format, opened_arrays, reader_of
from fly64lib.formats.conversion import converted
from fly64lib.formats.options import ImportOptions
from fly64lib.formats.orientation import OrientationChoice
from fly64lib.formats.tables import unused
from ptycho_torch.data.container import BOMB_BYTES, BOMB_RATIO, MAX_BYTES, refused
from ptycho_torch.data.contract import write_scan
from ptycho_torch.data.npz import CHUNK
from ptycho_torch.data.scan import ScanData
from ptycho_torch.errors import ConfigError, DataContractError


def import_scan(options: ImportOptions) -> tuple[ScanData, OrientationChoice]:
    """Convert a scan to DATA-001, in a folder with room for it twice. Raises PtychoError."""
    source, target = options.source, options.target
    if target.suffix != ".npz":
        raise ConfigError(f"{target}: the result is an .npz file; name it so")
    if target.exists() and not options.overwrite:
        text = "it is there already; choose another name, or pass --overwrite"
        raise ConfigError(f"{target}: {text}")
    if not source.is_file():
        raise refused(source, None, "no such file; expected a scan to import; check the path")
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = tempfile.TemporaryDirectory(prefix=".fly64-import-", dir=target.parent)
    with folder, ExitStack() as files:
        work = Path(folder.name)
        path = unpacked(source, work)
        try:
            named = "named" if options.keys.patterns_key else None
            follow = options.follow_links
            name = reader_of(path, options.format or named, follow)
            access = Access(work, files, options.parameters, follow, options.keys)
            raw = FORMATS[name].read(path, access)
            raw.notes += _unused(path, FORMATS[name], follow)
            scan, choice = converted(replace(raw, source=source, format=name), work, options)
        except DataContractError as error:  # names the file that was given
            # of a file that is no npz, the reader would say: import it
            text = str(error).partition(", or convert it: fly64 import")[0]
            raise DataContractError(text.replace(str(path), str(source))) from error
        write_scan(target, scan)
        if options.picture != "none":
            from fly64lib.formats.images import draw_import

            draw_import(options.picture or target.with_suffix(".png"), scan, choice)
        return scan, choice


def _unused(path: Path, entry: Format, follow: bool) -> list[str]:
    """What the file holds and is not used, by the format's table."""
    kind, opened = opened_arrays(path, follow)
    with opened as file:
        names = {"npz": "keys", "HDF5": "names"}.get(kind)
        return unused(entry.table, getattr(file, names)()) if names and entry.table else []


def unpacked(path: Path, work: Path) -> Path:
    """A bzip2 file unpacked to the folder `work`, as far as a real scan could be packed; another
    file as it is."""
    with path.open("rb") as handle:
        if handle.read(3) != b"BZh":
            return path
    free = shutil.disk_usage(work).free - BOMB_BYTES
    limit = min(MAX_BYTES, max(BOMB_BYTES, BOMB_RATIO * path.stat().st_size), free)
    inner = work / path.name.removesuffix(".bz2")
    try:
        with bz2.open(path) as packed, inner.open("wb") as out:
            while out.tell() <= limit and (chunk := packed.read(CHUNK)):
                out.write(chunk)
    except (OSError, EOFError, ValueError) as error:
        text = f"damaged or truncated bzip2 ({error}); expected a complete file; copy it again"
        raise refused(path, None, text) from error
    if inner.stat().st_size > limit:
        text = f"unpacks to more than {limit} bytes; expected a scan that fits; unpack it by hand"
        raise refused(path, None, f"{text} if it is real, where there is room")
    return inner


def imported(options: ImportOptions) -> int:
    """Import, and print what was decided."""
    scan, choice = import_scan(options)
    about, (rows, columns) = scan.metadata, scan.canvas_shape
    done, pixel = about["import"], about.get("object_pixel_nm")
    patterns = f"{options.target}: {scan.n} patterns of {scan.N} x {scan.N} px"
    print(
        f"{patterns} from {done['format']}, {done['values']}, zero frequency at the"
        f" {done['zero_frequency']}, {about['photons_per_exposure']:.4g} photons per exposure"
    )
    of_size, factor = f" of {pixel:.4g} nm" if pixel else "", done["probe_scaled_by"]
    scaled = f", scaled by {factor:.4g} to the measured photons" if factor != 1 else ""
    image, probe = f"{rows} x {columns} px{of_size}, {about['object_kind']}", about["probe_kind"]
    print(f"object: {image}; probe: {probe}{scaled}")
    if done["left_out"]:
        keys = ", ".join(done["left_out"])
        print(f"left out, since they may belong to the uncropped pixels: {keys}")
    if not done["whole"]:
        print("counts are not whole: training needs whole ones, see --round and --photons-per-unit")
    print(light_beside.in_words(scan.probe, scan.N))
    print(*done["notes"], choice.reason, sep="\n")
    for name in sorted(choice.deviance, key=choice.deviance.get):
        print(f"  {choice.deviance[name]:8.3f} {name}")
    return 0
