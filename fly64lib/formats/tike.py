"""tike's public Siemens star, an npz file:

data (1, n, N, N)                  counts, zero frequency at the corner
scan (1, n, 2)                     y then x, px, any origin
probe (1, 1, 1, modes, N, N)       where there
"""

from pathlib import Path

import numpy as np

from fly64lib.formats.base import Access, Format
from fly64lib.formats.raw import RawScan, Stack, as_modes, need, optional
from ptycho_torch.data.container import refused
from ptycho_torch.data.npz import open_npz


def read(path: Path, access: Access) -> RawScan:
    """Read one view; deflated patterns are unpacked to the work folder."""
    with open_npz(path) as archive:
        key = need(archive, "patterns", "data")
        scan = archive.read(need(archive, "a position for each pattern", "scan"))
        one_view = scan.ndim >= 2 and scan.shape[-1] == 2 and scan.size == 2 * scan.shape[-2]
        if not one_view or scan.dtype.kind not in "iuf":
            expected = "(1, n, 2), y then x, of one view; export one view from tike"
            raise refused(path, "scan", f"{scan.dtype} {scan.shape}; expected {expected}")
        positions = scan.reshape(-1, 2).astype(np.float64)
        stack = Stack(archive.map(key, access.work), len(positions), path, key)
        known = {"values": "intensity", "zero_frequency": "corner"}
        probe = optional(archive, as_modes, "probe")
        return RawScan(path, [stack], positions, probe=probe, **known)


FORMAT = Format(kind="npz", keys=("scan",), read=read)
