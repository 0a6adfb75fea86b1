"""The study's methods: what each is, which trained network it needs, in which notebook it runs.

`METHODS` is the one list; the sweep, the report and the command lines read it. A name such as
`pinn+refine` is a method that starts from what `pinn` gives, so it needs the network of `pinn`."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fly64lib.design import VIEW_GRIDSIZE, dose_folder


@dataclass(frozen=True)
class Network:
    """How a method's network is trained by train.ipynb, and where under phase E's folder it
    lies."""

    objective: str  # of train.ipynb
    scope: str = (
        "condition"  # one for each dose and view; or "replicate": one for all of a replicate
    )
    parameters: Mapping[str, Any] = field(
        default_factory=dict
    )  # further ones of train.ipynb; {r} becomes the replicate

    def folder(self, dose: float, view: str) -> str:
        """Relative to phase E's folder. Control views are single images and take the baseline's
        network."""
        if self.scope == "replicate":
            return f"sim/{self.objective}"
        view = view if view in VIEW_GRIDSIZE else "baseline"
        return f"{dose_folder(dose)}/{view}/{training_name(VIEW_GRIDSIZE[view], self.objective)}"


@dataclass(frozen=True)
class Method:
    """A line of the report's glossary, and what the sweep has to know."""

    text: str
    network: Network | None = None
    own_notebook: bool = False  # the others are done in seconds and share one notebook a condition


METHODS = {
    "pinn": Method(
        "physics-informed network, trained without truth on the other half of this condition's own"
        " scan",
        Network("poisson"),
    ),
    "pinn+refine": Method(
        "pinn's object, refined on the scan's own counts as far as photons held out bear it out"
    ),
    "pinn-sim": Method(
        "one network for all doses and views, trained on simulated procedural objects under the"
        " same probe",
        Network("procedural", "replicate"),
    ),
    "pinn-sim+refine": Method("pinn-sim's object, refined likewise"),
    "supervised": Method(
        "the same network trained on truth patches: what labels would add", Network("supervised")
    ),
    "lsqml": Method(
        "pty-chi's iterative least-squares maximum likelihood, from an empty object",
        own_notebook=True,
    ),
    "rpie": Method("pty-chi's regularised ptychographic iterative engine", own_notebook=True),
    "dm": Method("pty-chi's difference map", own_notebook=True),
    "classical": Method(
        "accelerated gradient iteration on the whole canvas, its smoothness tuned on held-out"
        " photons"
    ),
    "flat": Method("1 everywhere: what knowing nothing scores; a method has to beat it"),
    "truth": Method("the object that was simulated"),
}
METHOD_NAMES = tuple(METHODS)
ITERATIVE = tuple(name for name, method in METHODS.items() if method.own_notebook)  # pty-chi's


def training_name(gridsize: int, objective: str) -> str:
    """Phase E's folder of a condition's network, such as `gs2` or `gs2_supervised`."""
    return f"gs{gridsize}" + ("" if objective == "poisson" else f"_{objective}")


def base_of(method: str) -> str:
    """The method that `method` starts from: `pinn` of `pinn+refine`; itself where there is no
    `+`."""
    return method.partition("+")[0]


def network_of(method: str) -> Network | None:
    """The network that a method needs; None for one that needs no training."""
    known = METHODS.get(base_of(method))
    return known.network if known else None


def method_of(objective: str) -> str:
    """The method whose network is trained with an objective of train.ipynb."""
    return next(
        name
        for name, method in METHODS.items()
        if method.network and method.network.objective == objective
    )


def networks(methods: Iterable[str], scope: str) -> list[Network]:
    """The different networks of a scope that methods need, in their order."""
    found = []
    for network in map(network_of, methods):
        if network is not None and network.scope == scope and network not in found:
            found.append(network)
    return found


def described(method: str) -> str:
    """What a reader of the report is told about a method or reference."""
    return METHODS[method].text if method in METHODS else ""
