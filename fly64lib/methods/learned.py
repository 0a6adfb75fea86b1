"""The trained network as a method: a bundle applied to a data file through the engine's one
`reconstruct()`."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from fly64lib.methods.base import MethodResult, measured
from fly64lib.methods.registry import method_of
from ptycho_torch.errors import ConfigError
from ptycho_torch.inference.apply import reconstruct
from ptycho_torch.inference.refinement import refine
from ptycho_torch.memmap_bridge import PyTorchMemmapBridge
from ptycho_torch.training.bundle import load_bundle


@dataclass(frozen=True, kw_only=True)
class Learned:
    """A method by how its bundle was trained; the file's own groups, with their real neighbours."""

    bundle: Path
    refined: bool = False  # on the file's own counts
    threads: int = 1

    @property
    def name(self) -> str:
        return method_of(load_bundle(self.bundle).config.model.objective) + "+refine" * self.refined

    def reconstruct(self, dataset: Path) -> MethodResult:
        """The object of a DATA-001 file from all of its patterns. The probe is taken as known."""
        torch.set_num_threads(self.threads)
        bundle = load_bundle(self.bundle)
        raw = PyTorchMemmapBridge(dataset).raw_data_torch
        config = replace(bundle.config, n_images=None, n_groups=None)
        with measured() as cost:
            found = (refine if self.refined else reconstruct)(bundle.model, raw, config)
        if not torch.isfinite(torch.view_as_real(found.object)).all():
            raise ConfigError(
                f"{self.bundle} gives an object on {dataset} that is not finite; train it again"
            )
        settings = {**asdict(self), "bundle": str(self.bundle), "bundle_sha256": bundle.sha256}
        source = (
            "simulated fields"
            if bundle.config.model.objective == "procedural"
            else (
                f"{bundle.statistics['images']} patterns of"
                f" {Path(bundle.statistics['source']).name}"
            )
        )
        how = (
            f"; refined with a weight of {found.weight:.3g} photons per pixel"
            if self.refined
            else ""
        )
        return MethodResult(
            found.object.numpy(),
            None,
            [],
            cost.seconds,
            cost.cpu_seconds,
            cost.peak_memory_mb,
            settings,
            f"trained on {source}{how}",
        )
