"""npz files of fly64, as upstream distributes it, and of tike's public Siemens star.

    fly64   diff3d (n, N, N) or (N, N, n)    counts; or `diffraction`, amplitude
            xcoords, ycoords (n,)            px of objectGuess from its corner
            probeGuess (N, N), objectGuess (H, W), scan_index (n,)    where there

    tike    data (1, n, N, N)                counts, zero frequency at the corner
            scan (1, n, 2)                   y then x, px, any origin
            probe (1, 1, 1, modes, N, N)     where there

Deflated patterns are unpacked to the work folder."""

from pathlib import Path

import numpy as np

from fly64lib.formats.base import Access, Format
from fly64lib.formats.raw import RawScan, Stack, as_modes, as_object, columns, need, optional
from fly64lib.formats.tables import UNUSED
from ptycho_torch.data.container import refused
from ptycho_torch.data.npz import open_npz

PATTERNS = {"diff3d": "intensity", "diffraction": "amplitude"}  # and what lies under the names


def read_fly64(path: Path, access: Access) -> RawScan:
    """Read a file of upstream's."""
    with open_npz(path) as archive:
        key = need(archive, "patterns and a position for each", *PATTERNS)
        if all(map(archive.find, PATTERNS)):
            text = "patterns, and others in 'diffraction'; expected one of the two; leave out one"
            raise refused(path, key, text)
        positions = columns(archive, "ycoords", "xcoords")
        stack = Stack(archive.map(key, access.work), len(positions), path, key)
        scan = RawScan(path, [stack], positions, values=PATTERNS[key])
        scan.object_guess = optional(archive, as_object, "objectGuess")
        scan.offset_px = None if scan.object_guess is None else (0.0, 0.0)
        scan.probe = optional(archive, as_modes, "probeGuess")
        if mask := archive.find("detector_mask"):
            scan.bad = ~archive.read(mask).astype(bool)
        if there := archive.find("brightness", "background"):
            text = "belongs to a scan that is DATA-001 already, and would be lost; expected another"
            raise refused(path, there, f"{text} program's file; use this one as it is")
        index = archive.find("scan_index")
        if index and archive.members[index].shape != (stack.n,):
            text = f"shape {archive.members[index].shape}; expected {(stack.n,)}, one for each"
            raise refused(path, index, f"{text} pattern; correct it or leave it out")
        if index:
            scan.extra[index] = archive.read(index)
        return scan


def read_tike(path: Path, access: Access) -> RawScan:
    """Read one view."""
    with open_npz(path) as archive:
        key = need(archive, "patterns", "data")
        scan = archive.read(need(archive, "a position for each pattern", "scan"))
        one_view = scan.ndim >= 2 and scan.shape[-1] == 2 and scan.size == 2 * scan.shape[-2]
        if not one_view or scan.dtype.kind not in "iuf":
            expected = "(1, n, 2), y then x, of one view; export one view from tike"
            raise refused(path, "scan", f"{scan.dtype} {scan.shape}; expected {expected}")
        positions = scan.reshape(-1, 2).astype(np.float64)
        stack = Stack(archive.map(key, access.work), len(positions), path, key)
        probe = optional(archive, as_modes, "probe")
        return RawScan(path, [stack], positions, "px", "intensity", "corner", probe=probe)


FLY64_TABLE = {
    **dict.fromkeys(PATTERNS, "patterns; one of the two"),
    "[xy]coords": "positions",
    "probeGuess": "probe",
    "objectGuess": "object",
    "scan_index": "kept; one for each pattern",
    "detector_mask": "bad pixels",
    "brightness": "refused",
    "background": "refused",
    "[xy]coords_start": f"{UNUSED}: where the stage was sent",
    "Y": f"{UNUSED}: truth",
    "groups": f"{UNUSED}: made again from the positions",
    "metadata": f"{UNUSED}",
    "probeInitial": f"{UNUSED}",
}
TIKE_TABLE = {
    "data": "patterns",
    "scan": "positions",
    "probe": "probe",
    "psi": f"{UNUSED}: it lies by tike's own rule",
    "eigen_*": f"{UNUSED}: the probe is the same for all",
}
FLY64 = Format(kind="npz", keys=tuple(PATTERNS), read=read_fly64, table=FLY64_TABLE)
TIKE = Format(kind="npz", keys=("scan",), read=read_tike, table=TIKE_TABLE)
