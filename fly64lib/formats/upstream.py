"""fly64 as upstream distributes it, an npz file:

diff3d (n, N, N) or (N, N, n)    counts; or `diffraction`, amplitude
xcoords, ycoords (n,)            px of objectGuess from its corner
probeGuess (N, N), objectGuess (H, W), scan_index (n,)    where there
"""

from pathlib import Path

from fly64lib.formats.base import Access, Format
from fly64lib.formats.raw import RawScan, Stack, as_modes, as_object, columns, need, optional
from ptycho_torch.data.npz import open_npz

PATTERNS = {"diff3d": "intensity", "diffraction": "amplitude"}  # and what lies under the names


def read(path: Path, access: Access) -> RawScan:
    """Read a file; deflated patterns are unpacked to the work folder."""
    with open_npz(path) as archive:
        key = need(archive, "patterns and a position for each", *PATTERNS)
        positions = columns(archive, "ycoords", "xcoords")
        stack = Stack(archive.map(key, access.work), len(positions), path, key)
        scan = RawScan(path, [stack], positions, values=PATTERNS[key])
        scan.object_guess = optional(archive, as_object, "objectGuess")
        scan.offset_px = None if scan.object_guess is None else (0.0, 0.0)
        scan.probe = optional(archive, as_modes, "probeGuess")
        index = archive.find("scan_index")
        if index and archive.members[index].shape == (scan.n,):
            scan.extra[index] = archive.read(index)
        return scan


FORMAT = Format(kind="npz", keys=tuple(PATTERNS), read=read)
