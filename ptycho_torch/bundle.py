"""A trained model as one file that loads alone: weights, configuration, probe, data statistics, legacy names, versions.

Written by torch.save from tensors and plain types, read with `weights_only=True`: no code runs from a bundle.
"""

import io
import json
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ptycho_torch.config import TrainingConfig, update_legacy_dict
from ptycho_torch.errors import DataContractError, PtychoError
from ptycho_torch.files import atomic_path, json_text, sha256_file
from ptycho_torch.model import PtychoModel

_FORMAT = "fly64-bundle-1"


@dataclass(frozen=True)
class Bundle:
    """What :func:`load_bundle` returns."""

    model: PtychoModel
    config: TrainingConfig
    statistics: dict[str, Any]  # of the training data: images, photons per exposure, provenance
    versions: dict[str, str]
    sha256: str


def save_bundle(path: str | Path, model: PtychoModel, config: TrainingConfig, statistics: dict[str, Any]) -> str:
    """Write a bundle atomically and return its SHA-256."""
    legacy: dict[str, Any] = {}
    update_legacy_dict(legacy, config)
    content = {"format": _FORMAT, "config": config.to_dict(), "weights": model.network.state_dict(),
               "probe": model.probe, "statistics": json.loads(json_text(statistics)), "legacy": legacy,
               "versions": software_versions()}
    write_tensors(path, content)
    return sha256_file(path)


def write_tensors(path: str | Path, content: dict[str, Any]) -> None:
    """Write tensors and plain types atomically; the same content gives the same bytes.

    Through memory: torch names the archive after the file it writes to, and dresses a full disk up as an error of its own.
    """
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with atomic_path(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def load_bundle(path: str | Path) -> Bundle:
    """Read a bundle. A file that is not one is refused with its name; nothing in it is executed."""
    path = Path(path)
    if not path.is_file():
        raise DataContractError(f"{path}: no such bundle; training writes one as <output_dir>/bundle.pt")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged archive or for a pickle with code in it
        raise DataContractError(f"{path}: not a bundle that this project wrote, or a damaged one ({type(error).__name__})"
                                "; nothing of it was executed") from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise DataContractError(f"{path}: its format is {content.get('format') if isinstance(content, dict) else None!r}, "
                                f"expected {_FORMAT!r}")
    try:
        config = TrainingConfig.from_dict(content["config"])
        model = PtychoModel(config.model, content["probe"])
        model.network.load_state_dict(content["weights"])
        return Bundle(model.eval(), config, content["statistics"], content["versions"], sha256_file(path))
    except (LookupError, TypeError, RuntimeError, PtychoError) as error:
        raise DataContractError(f"{path}: its parts do not fit each other or this version of the project ({error}); train "
                                "again, or load it with the version that wrote it") from error


def software_versions() -> dict[str, str]:
    """Versions that decide whether two runs can give the same bits."""
    found = {"python": platform.python_version(), "numpy": np.__version__, "torch": str(torch.__version__)}
    try:
        found["fly64"] = version("fly64")
    except PackageNotFoundError:
        found["fly64"] = "not installed"
    return found
