"""A trained model as one file that loads alone (:class:`Bundle`).

A safetensors file: tensors, and one text of JSON in its header. Nothing in it can be executed, and
its header is compared with its length before anything is allocated. The text holds the SHA-256 of
the file as it is with zeros in that place, so that any changed byte is refused."""

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, BinaryIO

import safetensors.torch
import torch
from torch import Tensor

from ptycho_torch.config import TrainingConfig, update_legacy_dict
from ptycho_torch.errors import ConfigError, DataContractError, PtychoError
from ptycho_torch.files import atomic_path, json_text, sha256_file
from ptycho_torch.network.model import PtychoModel
from ptycho_torch.versions import software_versions

_FORMAT, _TEXT, _BLANK = "fly64-bundle-2", "fly64", b"0" * 64
# How the last bytes of fly64-bundle-1 begin, a zip that torch wrote, and their number.
_OLDER, _OLDER_BYTES = b"fly64 bundle, sha256 of all before: ", 100
_HEADER_BYTES = 2**22  # of tensor names, sizes and the text; the largest network's take some 100 kB


@dataclass(frozen=True)
class Bundle:
    """What :func:`load_bundle` returns."""

    model: PtychoModel
    config: TrainingConfig
    statistics: dict[str, Any]  # of the training data: images, photons, counts, provenance
    legacy: dict[str, Any]  # the configuration under upstream's names (params.cfg)
    versions: dict[str, str]
    sha256: str  # of the file


def save_bundle(
    path: str | Path, model: PtychoModel, config: TrainingConfig, statistics: dict[str, Any]
) -> str:
    """Write a bundle atomically and return the SHA-256 of the file."""
    legacy: dict[str, Any] = {}
    update_legacy_dict(legacy, config)
    content = {"config": config.to_dict(), "statistics": statistics, "legacy": legacy}
    write_sealed(path, model.state_dict(), content | {"versions": software_versions()})
    return sha256_file(path)


def load_bundle(path: str | Path) -> Bundle:
    """Read a bundle; nothing in it is executed, and no more memory is taken than a few times the
    file's size.

    Raises DataContractError, with its name and the reason, for a file that is damaged, that is no
    bundle or whose parts do not fit."""
    if not Path(path).is_file():
        where = "training writes one as <output_dir>/bundle.pt"
        raise DataContractError(f"{path}: no such bundle; {where}")
    try:
        tensors, content = read_sealed(path)
        parts = {name: content[name] for name in ("config", "statistics", "legacy", "versions")}
        for name, part in parts.items():
            if not isinstance(part, dict):
                raise _Refused(f"{name} is a {type(part).__name__}")
        config = TrainingConfig(**parts.pop("config"))
        _check_tensors(config, tensors)
        model = PtychoModel(config.model, tensors["probe"].clone())
        model.load_state_dict(tensors)
    except Exception as error:  # what a file may trip over has no end; all is its fault
        why = str(error) if isinstance(error, PtychoError) else f"{type(error).__name__}: {error}"
        why = f"it lacks {error}" if isinstance(error, KeyError) else why[:500]
        text = f"{path}: not a bundle that this version of the project can use ({why}); nothing of"
        raise DataContractError(f"{text} it was executed; copy it again, or train again") from error
    return Bundle(model.eval(), config, **parts, sha256=sha256_file(path))


def shipped(N: int, M: int) -> Path:
    """The bundle for N px patterns and M px patches that comes with the package; ConfigError where
    none does."""
    path = Path(str(files("ptycho_torch"))) / "network" / "bundles" / f"general_N{N}_M{M}.pt"
    if not path.is_file():
        how = f"python -m fly64lib.simulation.pretraining CANVASES OUT.pt --N {N} --M {M}"
        text = f"no network comes with the package for N = {N}, M = {M}; make one ({how}), or put"
        raise ConfigError(f"{text} the scan on a grid of 1.5 N (fly64 probe --M {N * 3 // 2})")
    return path


def write_sealed(path: str | Path, tensors: Mapping[str, Tensor], content: dict[str, Any]) -> None:
    """Write tensors and JSON-ready content with their checksum, atomically, reproducibly."""
    plain = torch.contiguous_format  # the order in memory; and none is a view of another
    apart = {name: tensor.clone(memory_format=plain) for name, tensor in tensors.items()}
    text = json_text({"sha256": _BLANK.decode(), "format": _FORMAT, **content})
    data = safetensors.torch.save(apart, {_TEXT: text})
    digest = hashlib.sha256(data).hexdigest().encode()
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.replace(_BLANK, digest, 1))


def read_sealed(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and content of a file that :func:`write_sealed` wrote and nothing has changed since.

    Another file raises nearly anything."""
    with Path(path).open("rb") as file:
        content = json.loads(_header(file)["__metadata__"][_TEXT])
        found, seal = content.pop("format"), content.pop("sha256")
        if found != _FORMAT:
            raise _Refused(f"its format is {found!r:.99}, expected {_FORMAT!r}")
        file.seek(0)
        data = file.read()
    if hashlib.sha256(data.replace(seal.encode(), _BLANK, 1)).hexdigest() != seal:
        raise _Refused("changed or truncated after it was written: its SHA-256 is not its own")
    return safetensors.torch.load(data), content


class _Refused(PtychoError):
    """Why a file is no sound bundle, in words of this module."""


def _header(file: BinaryIO) -> dict[str, Any]:
    """The header of a safetensors file: JSON behind its length, 8 bytes, little-endian."""
    start = file.read(8)
    if start.startswith(b"PK"):  # a zip
        file.seek(-min(_OLDER_BYTES, file.seek(0, io.SEEK_END)), io.SEEK_END)
        if file.read().startswith(_OLDER):
            raise _Refused("a bundle of an older version: train again")
        raise _Refused("give the bundle.pt that training writes, not a checkpoint or a scan")
    length = int.from_bytes(start, "little")
    if length > _HEADER_BYTES:
        raise _Refused(f"its header claims {length} bytes, at most {_HEADER_BYTES} are read")
    return json.loads(file.read(length))


def _check_tensors(config: TrainingConfig, tensors: Mapping[str, Tensor]) -> None:
    """The probe has N pixels or more, and every weight that the configuration implies is there.

    The network is first laid out without memory: a configuration may claim many gigabytes."""
    N, probe = config.model.N, tensors["probe"]
    square = probe.ndim == 3 and probe.shape[1] == probe.shape[2] >= N
    if probe.dtype != torch.complex64 or not square or not len(probe):
        text = f"expected complex64 (modes, M, M) with M >= {N}"
        raise _Refused(f"its probe is {_kind(probe)}, {text}")
    if not probe.abs().any():
        raise _Refused("its probe is zero everywhere")
    with torch.device("meta"):
        expected = PtychoModel(config.model, probe).state_dict()
    if names := sorted(tensors.keys() ^ expected.keys()):
        raise _Refused(f"{', '.join(names[:3])} are missing, or not of this configuration")
    for name, tensor in tensors.items():
        if _kind(tensor) != _kind(expected[name]):
            raise _Refused(f"{name} is {_kind(tensor)}, expected {_kind(expected[name])}")
        if not torch.isfinite(tensor).all():
            raise _Refused(f"{name} holds NaN or infinite values")


def _kind(tensor: Tensor) -> str:
    return f"{tensor.dtype} {tuple(tensor.shape)}"
