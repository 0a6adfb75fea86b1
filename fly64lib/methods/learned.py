"""The trained network as a method: a bundle applied to a data file through the engine's one `reconstruct()`."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from fly64lib.methods import MethodResult, measured
from ptycho_torch.bundle import load_bundle
from ptycho_torch.errors import ConfigError
from ptycho_torch.inference import reconstruct
from ptycho_torch.memmap_bridge import PyTorchMemmapBridge


@dataclass(frozen=True, kw_only=True)
class Learned:
    """`pinn` or `supervised`, by how the bundle was trained; the file's own groups, with their real neighbours."""

    bundle: Path
    threads: int = 1

    @property
    def name(self) -> str:
        return "supervised" if load_bundle(self.bundle).config.model.objective == "supervised" else "pinn"

    def reconstruct(self, dataset: Path) -> MethodResult:
        """The object of a DATA-001 file from all of its patterns. The probe is taken as known."""
        torch.set_num_threads(self.threads)
        bundle = load_bundle(self.bundle)
        raw = PyTorchMemmapBridge(dataset).raw_data_torch
        with measured() as cost:
            found = reconstruct(bundle.model, raw, replace(bundle.config, n_images=None, n_groups=None))
        if not torch.isfinite(torch.view_as_real(found.object)).all():
            raise ConfigError(f"{self.bundle} gives an object on {dataset} that is not finite; train it again")
        trained = bundle.statistics
        settings = {**asdict(self), "bundle": str(self.bundle), "bundle_sha256": bundle.sha256}
        return MethodResult(found.object.numpy(), None, [], cost.seconds, cost.cpu_seconds, cost.peak_memory_mb, settings,
                            f"trained on {trained.get('images', 'an unknown number of')} patterns of "
                            f"{Path(trained.get('source', 'an unnamed file')).name}")
