"""A trained model as one file that loads alone: weights, configuration, probe, data statistics,
legacy names, versions.

Written by torch.save from tensors and plain types. torch's reader compares no checksums and builds
whatever sizes a file claims, so a bundle is looked at before torch sees it: its bytes against the
SHA-256 that it carries (the comment of the zip, over all that stands before it), its container, and
the names that its pickle asks for. It is then read with `weights_only=True`: no code runs from a
bundle."""

import hashlib
import io
import json
import pickletools
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ptycho_torch.config import TrainingConfig, update_legacy_dict
from ptycho_torch.errors import DataContractError, PtychoError
from ptycho_torch.files import atomic_path, json_text, sha256_file
from ptycho_torch.network.model import PtychoModel
from ptycho_torch.versions import software_versions

_FORMAT = "fly64-bundle-1"
_SEAL, _DIGITS = b"fly64 bundle, sha256 of all before: ", 64
_GLOBALS = {
    "collections OrderedDict",
    "torch._utils _rebuild_tensor_v2",
    *(
        f"torch {kind}Storage"
        for kind in ("Float", "ComplexFloat", "Half", "BFloat16", "Double", "Long")
    ),
}
_NAMING = {
    "STACK_GLOBAL",
    "INST",
    "OBJ",
    "NEWOBJ",
    "NEWOBJ_EX",
    "EXT1",
    "EXT2",
    "EXT4",
}  # torch.save writes none of these
_PICKLE_BYTES = (
    2**22
)  # of tensor names, sizes and plain values; the largest network's take some 100 kB
_PARTS = 100_000  # values in a bundle, each counted as often as it is referred to


@dataclass(frozen=True)
class Bundle:
    """What :func:`load_bundle` returns."""

    model: PtychoModel
    config: TrainingConfig
    statistics: dict[
        str, Any
    ]  # of the training data: images, photons per exposure, counts, provenance
    versions: dict[str, str]
    sha256: str
    legacy: dict[str, Any] = field(
        default_factory=dict
    )  # the configuration under upstream's names (params.cfg)


def save_bundle(
    path: str | Path, model: PtychoModel, config: TrainingConfig, statistics: dict[str, Any]
) -> str:
    """Write a bundle atomically and return the SHA-256 of the file."""
    legacy: dict[str, Any] = {}
    update_legacy_dict(legacy, config)
    weights = {name: tensor.contiguous() for name, tensor in model.network.state_dict().items()}
    content = {
        "format": _FORMAT,
        "sealed": True,
        "config": config.to_dict(),
        "weights": weights,
        "probe": model.probe,
        "statistics": json.loads(json_text(statistics)),
        "legacy": legacy,
        "versions": software_versions(),
    }
    write_tensors(path, content, sealed=True)
    return sha256_file(path)


def write_tensors(path: str | Path, content: dict[str, Any], sealed: bool = False) -> None:
    """Write tensors and plain types atomically; the same content gives the same bytes. `sealed`:
    with their checksum.

    Through memory: torch names the archive after the file it writes to, and dresses a full disk up
    as an error of its own."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with atomic_path(path) as temporary:
        temporary.write_bytes(_sealed(buffer.getvalue()) if sealed else buffer.getbuffer())


def load_bundle(path: str | Path) -> Bundle:
    """Read a bundle. Raises DataContractError, with its name and the reason, for a file that is
    damaged, that is no bundle or whose parts do not fit; nothing in it is executed, and no more
    memory is taken than the file has bytes."""
    path = Path(path)
    if not path.is_file():
        raise DataContractError(
            f"{path}: no such bundle; training writes one as <output_dir>/bundle.pt"
        )
    try:
        sealed = _check_container(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (
        Exception
    ) as error:  # zipfile, pickletools and torch raise many kinds for a damaged archive
        why = str(error) if isinstance(error, _Refused) else type(error).__name__
        raise DataContractError(
            f"{path}: not a bundle that this project wrote, or a damaged one ({why}); nothing of it"
            " was executed; copy it again, or train again"
        ) from error
    found = content.get("format") if isinstance(content, dict) else None
    if found != _FORMAT:
        raise DataContractError(
            f"{path}: its format is {found if isinstance(found, str) else None!r}, expected"
            f" {_FORMAT!r}; give the bundle.pt that training writes, not a checkpoint"
        )
    try:
        if content.get("sealed") and not sealed:
            raise _Refused("its checksum is lost: it is damaged")
        _check_parts(content)
        config = TrainingConfig.from_dict(content["config"])
        _check_tensors(config, content["weights"], content["probe"])
        model = PtychoModel(config.model, content["probe"])
        model.network.load_state_dict(content["weights"])
        return Bundle(
            model.eval(),
            config,
            content["statistics"],
            content["versions"],
            sha256_file(path),
            content["legacy"],
        )
    except (
        Exception
    ) as error:  # what a file's values may trip over has no end; each is the file's fault
        reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error)[:500]
        raise DataContractError(
            f"{path}: its parts do not fit each other or this version of the project ({reason});"
            " train again, or load it with the version that wrote it"
        ) from error


class _Refused(PtychoError):
    """Why a file is no sound bundle, in words of this module."""


def _sealed(archive: bytes) -> bytes:
    """The archive with its checksum behind it, as the zip's comment, which other readers of the
    file pass over."""
    if archive[-2:] != b"\0\0":
        raise PtychoError(
            "this version of torch ends its files with a comment of its own, where the checksum"
            " goes; report it"
        )
    announced = archive[:-2] + (len(_SEAL) + _DIGITS).to_bytes(2, "little") + _SEAL
    return announced + hashlib.sha256(announced).hexdigest().encode()


def _check_container(path: Path) -> bool:
    """Refuse damage, packed or overlapping members, and foreign names in the pickle. Whether the
    file is sealed."""
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if any(
            member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1 for member in members
        ):
            raise _Refused("it holds compressed or encrypted members")
        if sum(member.file_size for member in members) > size:
            raise _Refused("its members claim more bytes than the file has")
        sealed = archive.comment.startswith(_SEAL)
        if sealed:
            with path.open("rb") as handle:
                told = hashlib.sha256(handle.read(size - _DIGITS)).hexdigest()
            if archive.comment != _SEAL + told.encode():
                raise _Refused(
                    "its bytes are not those of its SHA-256: changed or truncated after it was"
                    " written"
                )
        elif wrong := archive.testzip():
            raise _Refused(f"the checksum of its part {wrong!r} is wrong")
        for member in members:
            if member.filename.endswith("/data.pkl"):
                _check_pickle(
                    member.file_size,
                    archive.read(member) if member.file_size <= _PICKLE_BYTES else b"",
                )
    return sealed


def _check_pickle(size: int, pickled: bytes) -> None:
    if size > _PICKLE_BYTES:
        raise _Refused(f"{size} bytes of pickled structure, at most {_PICKLE_BYTES} are taken")
    for opcode, argument, _ in pickletools.genops(pickled):
        if opcode.name in _NAMING or (opcode.name == "GLOBAL" and argument not in _GLOBALS):
            raise _Refused(
                f"its pickle asks for {str(argument or opcode.name).replace(' ', '.')[:100]}, a"
                " bundle holds tensors and plain values only"
            )


def _check_parts(content: dict) -> None:
    """Refuse parts of the wrong kind, and structures that refer to themselves so often that looking
    at them has no end."""
    for name, kind in {
        "weights": Mapping,
        "probe": Tensor,
        "config": dict,
        "statistics": dict,
        "versions": dict,
        "legacy": dict,
    }.items():
        if not isinstance(content[name], kind):
            raise _Refused(f"{name} is a {type(content[name]).__name__}")
    left, seen = [content], 0
    while left:
        part, seen = left.pop(), seen + 1
        if seen > _PARTS:
            raise _Refused(f"it holds more than {_PARTS} values")
        if isinstance(part, Mapping):
            left += [*part.keys(), *part.values()]
        elif isinstance(part, list | tuple):
            left += part


def _check_tensors(config: TrainingConfig, weights: Mapping[str, Tensor], probe: Tensor) -> None:
    """The probe is one of N pixels, and every weight that the configuration implies is there with
    its values.

    The network is first laid out without memory: a configuration may claim one of many gigabytes.
    """
    N = config.model.N
    if (
        probe.dtype != torch.complex64
        or probe.ndim != 3
        or not len(probe)
        or tuple(probe.shape[1:]) != (N, N)
    ):
        raise _Refused(
            f"its probe is {probe.dtype} {tuple(probe.shape)}, N = {N} expects complex64 (modes,"
            f" {N}, {N})"
        )
    with torch.device("meta"):
        expected = PtychoModel(config.model, probe).network.state_dict()
    if names := sorted(set(map(str, weights)) ^ set(expected)):
        raise _Refused(f"weights {', '.join(names[:3])} are missing, or not of this configuration")
    for name, tensor in {**weights, "probe": probe}.items():
        layout = expected.get(name, probe)
        if (
            not isinstance(tensor, Tensor)
            or tensor.shape != layout.shape
            or tensor.dtype != layout.dtype
        ):
            came = (
                f"{tensor.dtype} {tuple(tensor.shape)}"
                if isinstance(tensor, Tensor)
                else type(tensor).__name__
            )
            raise _Refused(
                f"{name} is {came}, its configuration expects {layout.dtype} {tuple(layout.shape)}"
            )
        if not tensor.is_contiguous() or not torch.isfinite(tensor).all():
            raise _Refused(f"{name} holds NaN or infinite values, or fewer than it claims")
    if not probe.abs().any():
        raise _Refused("its probe is zero everywhere")
