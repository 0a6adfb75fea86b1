"""HDF5 and npz files of no known format, whose data sets the user names (`--patterns-key` and so
on). Nothing of such a file is read that was not named."""

from pathlib import Path

import numpy as np

from fly64lib.formats.base import Access, Format
from fly64lib.formats.raw import RawScan, Stack, as_modes, columns, need
from ptycho_torch.data.container import refused
from ptycho_torch.data.npz import open_npz


def read(path: Path, access: Access) -> RawScan:
    """Read the named data sets. Counts, or what `--values` says; positions in px, or what
    `--position-unit` says."""
    names = access.names
    with path.open("rb") as handle:
        packed = handle.read(2) == b"PK"
    file = access.files.enter_context(open_npz(path)) if packed else access.hdf5(path)
    if not names.patterns_key or not (names.positions_key or (names.y_key and names.x_key)):
        text = f"named data sets without names; the keys are {', '.join(file.keys()[:12])};"
        text += " expected patterns and positions; name them: --patterns-key KEY --positions-key"
        raise refused(path, None, f"{text} KEY, or --y-key KEY --x-key KEY")
    key = need(file, "patterns (n, N, N)", names.patterns_key)
    if names.positions_key:
        at = file.read(need(file, "positions (n, 2)", names.positions_key))
        at = at.T if at.ndim == 2 and at.shape[0] == 2 != at.shape[1] else at
        if at.ndim != 2 or at.shape[1] != 2 or at.dtype.kind not in "iuf":
            text = f"{at.dtype} {at.shape}; expected (n, 2), y then x; or name two lists: --y-key"
            raise refused(path, names.positions_key, f"{text} KEY --x-key KEY")
        at = at.astype(np.float64)
    else:
        at = columns(file, names.y_key, names.x_key)
    patterns = file.map(key, access.work) if packed else file.dataset(key)
    scan = RawScan(path, [Stack(patterns, len(at), path, key)], at)
    if names.numbers_key:
        scan.numbers = columns(file, names.numbers_key)[:, 0]
    if names.mask_key:
        named = need(file, "a mask (N, N)", names.mask_key)
        mask = file.read(named) if packed else file.read(named, "iufb")
        if mask.shape != scan.detector_px:
            text = f"shape {mask.shape}; expected {scan.detector_px} as the patterns; store theirs"
            raise refused(path, names.mask_key, text)
        scan.bad = mask != 0
    if names.probe_key:
        scan.probe = as_modes(file, need(file, "a probe", names.probe_key))
    return scan


FORMAT = Format(read=read, table={"*": "read where an option names it"})
