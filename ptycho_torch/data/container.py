"""What a file is before it is read: a zip as np.savez writes it, or why not.

Nothing is unpacked here. Sizes are those that the zip claims; :mod:`ptycho_torch.data.npz` compares
them with what it reads."""

import zipfile
from pathlib import Path
from typing import BinaryIO

from ptycho_torch.errors import DataContractError

MAX_MEMBERS = 256
MAX_BYTES = 64 * 2**30  # of one array
# deflate packs constants 1000 : 1, photon counts less than 50 : 1
BOMB_BYTES, BOMB_RATIO = 2**28, 400
DESCRIPTOR = 24  # bytes that a streaming writer may leave after a member
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def refused(source: object, key: str | None, text: str) -> DataContractError:
    """The error of a file: `text` says what was found; expected what; and what to do."""
    return DataContractError(f"{source}: key {key!r}: {text}" if key else f"{source}: {text}")


def check_container(path: Path, handle: BinaryIO, archive: zipfile.ZipFile) -> None:
    """Refuse what np.savez never writes: foreign, repeated, encrypted, absurdly large or
    overlapping members, and gaps (zipfile does not tell of a member that its directory lost)."""
    infos = archive.infolist()
    if len(infos) > MAX_MEMBERS:
        text = f"{len(infos)} members; expected at most {MAX_MEMBERS} arrays; write the file again"
        raise refused(path, None, text)
    seen, end = set(), 0
    for info in sorted(infos, key=lambda info: info.header_offset):
        key = key_of(info)
        if fault := _fault(info, seen):
            raise refused(path, key, fault)
        seen.add(key)
        lies = info.compress_type == zipfile.ZIP_STORED and info.compress_size != info.file_size
        if lies or not 0 <= info.header_offset - end <= DESCRIPTOR:
            raise damaged(path, key, "its place in the file is not where the one before ends")
        end = data_start(handle, info) + info.compress_size
    if not 0 <= archive.start_dir - end <= DESCRIPTOR:
        raise damaged(path, None, "the members do not end where the directory begins")


def _fault(info: zipfile.ZipInfo, seen: set[str]) -> str | None:
    """What is wrong with a member, after those whose keys were `seen`."""
    packed, full = info.compress_size, info.file_size
    if not info.filename.endswith(".npy"):
        return "a member that is not an .npy array; expected arrays only; write it with np.savez"
    if key_of(info) in seen:
        return "the key is there twice; expected each key once; write the file again with one"
    if info.flag_bits & 1 or info.compress_type not in _METHODS:
        text = "encrypted, or compressed by a method numpy does not use; expected a stored or"
        return f"{text} deflated member; write it with np.savez or np.savez_compressed"
    if full > MAX_BYTES or (full > BOMB_BYTES and full > BOMB_RATIO * packed):
        text = f"{packed} bytes claim to unpack to {full}; expected at most {MAX_BYTES} bytes, and"
        text += f" at most {BOMB_RATIO} times what is in the file; store the array uncompressed"
        return f"{text} (np.savez) if it is real"
    return None


def key_of(info: zipfile.ZipInfo) -> str:
    """The key of a member, without its ending."""
    return info.filename.removesuffix(".npy")


def data_start(handle: BinaryIO, info: zipfile.ZipInfo) -> int:
    """File offset of a member's bytes, behind a local header of 30 bytes, name and extra field."""
    handle.seek(info.header_offset)
    lengths = handle.read(30)[26:]
    name, extra = int.from_bytes(lengths[:2], "little"), int.from_bytes(lengths[2:], "little")
    return info.header_offset + 30 + name + extra


def damaged(path: Path, key: str | None, why: object) -> DataContractError:
    """The error of a file that is not as it was written."""
    text = f"damaged or truncated ({why}); expected a complete file; copy or write it again"
    return refused(path, key, text)
