"""DATA-001: one ptychographic scan in one npz file: read, checked and written.

The table :data:`KEYS` is the contract (`docs/data_contract.md` shows the same one). Counts are the
only data unit: `diffraction` is the amplitude sqrt(counts), zero frequency on pixel N // 2, and sum
|probe|^2 is the photons per exposure through an empty object. Positions are patch centres in pixels
of `objectGuess`, y along rows:

    top-left (row, column) = (ycoords - N / 2, xcoords - N / 2)
    corner = round(top-left) in [0, H - N] x [0, W - N]

Reading refuses whatever breaks the contract, key by key, with the file, the key, what was found,
what was expected and what to do. Nothing is repaired. Patterns are mapped, never loaded
(:mod:`ptycho_torch.data.npz`), and checked in chunks."""

import json
from pathlib import Path

import numpy as np

from ptycho_torch.data.checks import check_layout, check_values
from ptycho_torch.data.container import refused
from ptycho_torch.data.npz import open_npz, write_npz
from ptycho_torch.data.scan import KEYS, ScanData
from ptycho_torch.errors import PtychoError
from ptycho_torch.files import json_text

__all__ = ["KEYS", "ScanData", "check_scan", "read_scan", "write_scan"]
MAP_ABOVE = 2**20  # bytes; larger extra arrays are mapped too
_WANTED = "expected the text of a JSON object; write a dict as np.array(json.dumps(metadata))"
_RENAMED = {"probeGuess": "probe", "objectGuess": "object_guess", "Y": "truth_patches"}
_FIELDS = {key.name: _RENAMED.get(key.name, key.name) for key in KEYS}  # on disk: of ScanData


def read_scan(
    path: str | Path, *, load_truth: bool = False, cache_dir: str | Path | None = None
) -> ScanData:
    """Read and check a DATA-001 file.

    `diffraction`, and `Y` if `load_truth`, are mapped (from `cache_dir` if the file is compressed,
    see :func:`ptycho_torch.data.npz.cache_folder`). Without `load_truth` the values of `Y` are not
    touched, and the scan does not hold them. Raises :class:`DataContractError`."""
    with open_npz(path) as archive:
        members, arrays, extra = archive.members, {}, {}
        if "diff3d" in members and "diffraction" not in members:
            raw = members["diff3d"]
            text = f"a raw upstream file, intensity {raw.dtype} {raw.shape}; expected key"
            text += f" 'diffraction' with amplitude (n, N, N); convert it: fly64 import {path}"
            raise refused(path, "diff3d", f"{text} DST.npz")
        check_layout(KEYS, members, path)
        for key, member in members.items():
            if key == "Y" and not load_truth:
                continue
            known = key in _FIELDS
            large = key in ("diffraction", "Y") if known else member.nbytes > MAP_ABOVE
            value = archive.map(key, cache_dir) if large else archive.read(key)
            (arrays if known else extra)[_FIELDS.get(key, key)] = value
    if "metadata" in arrays:
        arrays["metadata"] = _parse_metadata(arrays["metadata"], path)
    scan = ScanData(**arrays, extra=extra)
    check_values(scan, path)
    return scan


def write_scan(path: str | Path, scan: ScanData) -> None:
    """Check a scan and write it as DATA-001: atomically, stored (it can be mapped), the same scan
    the same bytes."""
    check_scan(scan, path)
    write_npz(path, _disk_arrays(scan, path))


def check_scan(scan: ScanData, source: object) -> None:
    """Raise :class:`DataContractError`, naming `source`, if the scan breaks the contract."""
    check_layout(KEYS, _disk_arrays(scan, source), source)
    check_values(scan, source)


def _disk_arrays(scan: ScanData, source: object) -> dict[str, np.ndarray]:
    """The arrays of a scan under their names on disk; what is absent or empty is not written."""
    fields = ((key, getattr(scan, name)) for key, name in _FIELDS.items() if key != "metadata")
    arrays = {key: value for key, value in fields if value is not None}
    if len(scan.probe) == 1:
        arrays["probeGuess"] = scan.probe[0]
    if scan.metadata:
        try:
            arrays["metadata"] = np.array(json_text(scan.metadata))
        except PtychoError as error:
            text = f"it {error}; expected a dict that JSON can hold; change that entry"
            raise refused(source, "metadata", text) from error
    for key, value in scan.extra.items():
        arrays[key] = np.asanyarray(value)
        if key in _FIELDS or not key or not key.isprintable() or arrays[key].dtype.hasobject:
            text = f"an extra array of that name and dtype {arrays[key].dtype}; expected a name"
            text += " the contract does not use, and plain numbers or text; rename or convert it"
            raise refused(source, key, text)
    return arrays


def _parse_metadata(text: np.ndarray, source: object) -> dict:
    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    try:
        metadata = json.loads(str(text.item()), parse_constant=refuse)
    except (ValueError, RecursionError, SystemError) as error:
        text = f"text that is not JSON ({str(error)[:200]}); {_WANTED}"
        raise refused(source, "metadata", text) from error
    if not isinstance(metadata, dict):
        raise refused(source, "metadata", f"JSON of a {type(metadata).__name__}; {_WANTED}")
    return metadata
