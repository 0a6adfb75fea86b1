"""Trained networks as methods: a bundle applied to a scan through the engine's one `reconstruct()`.

A name with `+refine` corrects what the network of its first part gives on the scan's own counts."""

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from fly64lib.methods.base import MethodResult, Network, Scan, measured
from ptycho_torch.errors import ConfigError
from ptycho_torch.fields import Threads, config, to_dict


@config
class Learned:
    """A bundle applied to a scan; the scan's own groups, with their real neighbours."""

    bundle: Path | None  # that training wrote
    refined: bool = False  # the object is corrected on the scan's own counts
    threads: Threads = 1

    network: ClassVar[Network | None] = None

    def reconstruct(self, scan: Scan) -> MethodResult:
        """The object of a scan from all of its patterns. The probe is taken as known."""
        import torch

        from ptycho_torch.inference.apply import reconstruct
        from ptycho_torch.inference.refinement import refine
        from ptycho_torch.iteration.ring_prior import to_settings
        from ptycho_torch.training.bundle import load_bundle, shipped

        torch.set_num_threads(self.threads)
        bundle = load_bundle(self.bundle or shipped(scan.N, scan.M))
        whole = replace(bundle.config, n_images=None, n_groups=None)
        with measured(scan) as cost:
            found = (refine if self.refined else reconstruct)(bundle.model, scan, whole)
        if not torch.isfinite(torch.view_as_real(found.object)).all():
            which = self.bundle or "the network of the package"
            text = f"{which} gives an object on {scan.source} that is not finite"
            raise ConfigError(f"{text}; train it again")
        source = "simulated objects"
        if bundle.config.model.objective != "general":
            trained_on = Path(bundle.statistics["source"]).name
            source = f"{bundle.statistics['images']} patterns of {trained_on}"
        note, settings = f"trained on {source}", to_dict(self)
        if self.refined:
            settings["kept"] = found.kept
            settings |= to_settings(found.prior) if found.prior else {}
            note += {"network": "; kept as it is", "none": "; refused: solved without it"}.get(
                found.kept, "; refined near it"
            )
        settings["bundle_sha256"] = bundle.sha256
        return MethodResult(found.object.numpy(), cost=cost, settings=settings, note=note)


@config
class Pinn(Learned):
    """pinn-sim's network, adapted without truth on the other half of this condition's own scan, or
    one trained on that alone"""

    network: ClassVar[Network | None] = Network("poisson")


@config
class PinnRefined(Pinn):
    """pinn's object, refined on the scan's own counts as far as photons held out support it"""

    refined: bool = True


@config
class PinnSim(Learned):
    """one network for any scan of its pixels, trained on simulated procedural objects under many
    probes; it comes with the package"""

    bundle: Path | None = None  # None: the one that comes with the package


@config
class PinnSimRefined(PinnSim):
    """pinn-sim's object, refined likewise"""

    refined: bool = True


@config
class Supervised(Learned):
    """the same network trained on truth patches: what labels would add"""

    network: ClassVar[Network | None] = Network("supervised")
