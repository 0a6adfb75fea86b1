"""Checkpoints of an unfinished training: written whole, and found again."""

import io
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from ptycho_torch.config import TrainingConfig
from ptycho_torch.errors import PtychoError
from ptycho_torch.files import atomic_path


def resumable(config: TrainingConfig, checkpoint: Path, epochs: int) -> tuple[Path | None, int]:
    """An unfinished run's checkpoint, if it is of this very configuration, and how many epochs it
    has behind it."""
    if not (config.checkpointing and checkpoint.is_file()):
        return None, 0
    try:
        saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
        same, done = saved["hyper_parameters"]["config"] == config.to_dict(), saved["epoch"] + 1
    except Exception as error:  # torch raises many kinds for a damaged archive
        text = f"{checkpoint}: cannot be read ({type(error).__name__}); remove it to train afresh"
        raise PtychoError(text) from error
    return (checkpoint, done) if same and done < epochs else (None, 0)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes atomically, the same content as the same bytes.

    Lightning writes into the system's temporary folder and moves the file: across file systems that
    is a copy, and a process killed during it leaves half a checkpoint. Here it goes through memory:
    torch names the archive after the file it writes to, and dresses a full disk up as an error of
    its own."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: None = None
    ) -> None:
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        with atomic_path(path) as temporary:
            temporary.write_bytes(buffer.getbuffer())
