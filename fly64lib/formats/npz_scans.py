"""Scans in npz files: fly64 as upstream distributes it, and tike's public Siemens star (bzip2
around an npz).

fly64   diff3d (n, N, N) or (N, N, n) counts (or `diffraction`, amplitude), xcoords and ycoords (n,)
px of
        objectGuess from its corner, probeGuess (N, N), objectGuess (H, W)
tike    data (1, n, N, N) counts, zero frequency at the corner; scan (1, n, 2) y then x, px, any
origin;
        probe (1, 1, 1, modes, N, N)
"""

import bz2
import shutil
from pathlib import Path

import numpy as np

from fly64lib.formats.raw import (
    RawScan,
    array_blocks,
    as_modes,
    as_object,
    column,
    stack_reader,
    stack_shape,
)
from ptycho_torch.data.checks import check_layout
from ptycho_torch.data.contract import KEYS
from ptycho_torch.data.npz import (
    BOMB_BYTES,
    BOMB_RATIO,
    CHUNK,
    MAX_BYTES,
    NpzFile,
    broken,
    open_npz,
)
from ptycho_torch.errors import DataContractError, PtychoError

PATTERNS = {
    "diff3d": "intensity",
    "diffraction": "amplitude",
}  # upstream's two names, and what lies under them


def read_npz(path: Path, work: Path, known: str | None = None) -> RawScan:
    """Read either layout; deflated arrays are unpacked to the folder `work`, which must outlive the
    scan."""
    with open_npz(path) as archive:
        found = known or npz_format(archive)
        return (_tike if found == "tike" else _fly64)(archive, work)


def read_bz2(path: Path, work: Path, known: str | None = None) -> RawScan:
    """Unpack a bzip2 file to the folder `work`, as far as a real scan could be packed, and read the
    npz in it."""
    limit = min(
        MAX_BYTES,
        max(BOMB_BYTES, BOMB_RATIO * path.stat().st_size),
        shutil.disk_usage(work).free - BOMB_BYTES,
    )
    inner, written = work / path.name.removesuffix(".bz2"), 0
    try:
        with bz2.open(path) as packed, inner.open("wb") as out:
            while chunk := packed.read(CHUNK):
                written += len(chunk)
                if written > limit:
                    raise broken(
                        path,
                        None,
                        f"unpacks to more than {limit} bytes",
                        "a scan that fits",
                        "unpack it by hand if it is real, where there is room",
                    )
                out.write(chunk)
    except (OSError, EOFError, ValueError) as error:
        if isinstance(error, PtychoError):
            raise
        raise broken(
            path, None, f"damaged or truncated bzip2 ({error})", "a complete file", "copy it again"
        ) from error
    try:
        scan = read_npz(inner, work, known)
    except DataContractError as error:
        raise DataContractError(str(error).replace(str(inner), str(path))) from error
    scan.source = path
    return scan


def npz_format(archive: NpzFile) -> str:
    """Which layout an npz has, by its keys; DATA-001 and anything else is refused."""
    keys, path = set(archive.members), archive.path
    if {"data", "scan"} <= keys:
        return "tike"
    if "diffraction" in keys and "diff3d" not in keys:
        try:
            check_layout(KEYS, archive.members, path)
        except DataContractError:
            return "fly64"
        raise broken(
            path,
            None,
            "this is a DATA-001 file already",
            "another program's file",
            "use it as it is: every command "
            "of fly64 reads it (fly64 export writes it in other formats)",
        )
    if "diff3d" in keys:
        return "fly64"
    raise broken(
        path,
        None,
        f"an npz with the keys {', '.join(sorted(keys)[:12]) or 'none'}",
        "the keys of fly64 (diff3d, xcoords, ycoords) or of tike (data, scan)",
        "rename its keys, see docs/import_export.md",
    )


def _fly64(archive: NpzFile, work: Path) -> RawScan:
    path = archive.path
    key = next((key for key in PATTERNS if key in archive.members), "diff3d")
    _need(archive, key, "xcoords", "ycoords")
    x, y = (column(archive.read(name), path, name) for name in ("xcoords", "ycoords"))
    if len(x) != len(y):
        raise broken(
            path,
            "ycoords",
            f"{len(y)} values",
            f"{len(x)} as in 'xcoords'",
            "store both for every pattern",
        )
    image = (
        as_object(archive.read("objectGuess"), path, "objectGuess")
        if "objectGuess" in archive.members
        else None
    )
    probe = (
        as_modes(archive.read("probeGuess"), path, "probeGuess")
        if "probeGuess" in archive.members
        else None
    )
    scan = _scan(archive, work, key, np.stack([y, x], 1), probe, "fly64")
    scan.values, scan.object_guess, scan.offset_px = (
        PATTERNS[key],
        image,
        None if image is None else (0.0, 0.0),
    )
    if "scan_index" in archive.members and archive.members["scan_index"].shape == (scan.n,):
        scan.extra["scan_index"] = archive.read("scan_index")
    return scan


def _tike(archive: NpzFile, work: Path) -> RawScan:
    _need(archive, "data", "scan")
    positions = archive.read("scan")
    if (
        positions.ndim < 2
        or positions.shape[-1] != 2
        or positions.size != 2 * positions.shape[-2]
        or positions.dtype.kind not in "iuf"
    ):
        raise broken(
            archive.path,
            "scan",
            f"{positions.dtype} {positions.shape}",
            "(1, n, 2), y then x, of one view",
            "export one view from tike",
        )
    probe = (
        as_modes(archive.read("probe"), archive.path, "probe")
        if "probe" in archive.members
        else None
    )
    scan = _scan(archive, work, "data", positions.reshape(-1, 2).astype(np.float64), probe, "tike")
    scan.values, scan.zero_frequency = "intensity", "corner"
    return scan


def _scan(
    archive: NpzFile,
    work: Path,
    key: str,
    positions: np.ndarray,
    probe: np.ndarray | None,
    name: str,
) -> RawScan:
    member, n = archive.members[key], len(positions)
    if member.dtype.kind not in "iufb":
        raise broken(
            archive.path, key, f"dtype {member.dtype}", "real numbers", "a detector measures counts"
        )
    leading, axis, detector = stack_shape(member.shape, n, archive.path, key)
    read = stack_reader(archive.map(key, work), leading, axis)
    return RawScan(
        archive.path,
        name,
        n,
        detector,
        lambda: array_blocks(read, n, detector[0] * detector[1]),
        positions,
        probe=probe,
    )


def _need(archive: NpzFile, *keys: str) -> None:
    for key in keys:
        if key not in archive.members:
            raise broken(
                archive.path,
                key,
                f"missing; the keys are {', '.join(sorted(archive.members)[:12]) or 'none'}",
                "patterns and a position for each",
                "see docs/import_export.md for what this format must hold",
            )
