"""What the sweep, the report and the notebooks ask of methods by name."""

from collections.abc import Iterable
from typing import Any

from fly64lib.design.registries import METHODS
from fly64lib.methods.base import MethodResult, Network, Scan, attribute
from ptycho_torch.errors import ConfigError

PROBE_BY = "classical"  # finds the probe, where a study does not know it


def reconstruct(scan: Scan, method: str, **settings: Any) -> MethodResult:
    """The object of a scan by a name of :data:`fly64lib.design.registries.METHODS` and settings.

    A truth that the scan holds is withheld from the method, unless it is the reference. Raises
    :class:`ptycho_torch.errors.PtychoError`."""
    chosen = METHODS[method]
    seen = scan if attribute(chosen, "sees_truth") else scan.without_truth()
    return chosen(**settings).reconstruct(seen)


def base_of(method: str) -> str:
    """The method that `method` starts from, `pinn` of `pinn+refine`; else itself."""
    return method.partition("+")[0]


def network_of(method: str) -> Network | None:
    """The network that a method needs; None for one that needs no training."""
    return attribute(METHODS[method], "network")


def networks(methods: Iterable[str]) -> list[Network]:
    """The different networks that methods need trained for each condition, in their order."""
    return [network for network in dict.fromkeys(map(network_of, methods)) if network]


def method_of(objective: str) -> str:
    """The method whose network is trained with an objective."""
    for name in METHODS:
        if (network := network_of(name)) and network.objective == objective:
            return name
    if objective == "general":  # that no study trains
        return "pinn-sim"
    raise ConfigError(f"no method needs a network of objective {objective!r}")


def own_notebook(method: str) -> bool:
    """Whether a method's runs take so long that each is a notebook of its own."""
    return attribute(METHODS[method], "own_notebook")


def described(method: str) -> str:
    """What a reader of the report learns about a method or reference."""
    return attribute(METHODS[method], "description") if method in METHODS else ""
