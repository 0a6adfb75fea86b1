"""How far can dose and overlap be cut? A study of ptychographic reconstruction, and its tools.

    import fly64lib

    train, test = fly64lib.simulate(fly64lib.ScanDesign(doses=[1e4], scan_step=2), "baseline")
    scan = fly64lib.open_scan(test)
    found = fly64lib.reconstruct(scan, "classical", steps=40)
    rows = fly64lib.judge({"classical": found.object}, scan)

The rooms, from the ground up: `simulation`, `evaluation`, `methods`, `plots`, the study's phases C
to G (`generation`, `overlap`, `training`, `reconstruction`, `comparison`), `formats`, `check`,
`report`, `notebook`, `sweep`, `cli` (docs/architecture.md). A name below is imported when used."""

from importlib import import_module

_PLACES = {
    "open_scan": "ptycho_torch.memmap_bridge",
    "simulate": "fly64lib.notebook.datasets",
    "train_cdi_model_torch": "ptycho_torch.workflows.components",
    "reconstruct": "fly64lib.methods.by_name",
    "reconstruct_scan": "fly64lib.notebook.own_scan",
    "judge": "fly64lib.evaluation.judgement",
    "limits": "fly64lib.evaluation.limits",
    "examine_scan": "fly64lib.check.examination",
    "ScanDesign": "fly64lib.design.study",
    "StudyDesign": "fly64lib.design.study",
    "TrainingConfig": "ptycho_torch.config",
    "METHODS": "fly64lib.design.registries",
    "SPECIMENS": "fly64lib.design.registries",
    "PROBES": "fly64lib.design.registries",
    "METRICS": "fly64lib.design.registries",
    "FORMATS": "fly64lib.design.registries",
    "NETWORKS": "ptycho_torch.config",
}
__all__ = list(_PLACES)


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module 'fly64lib' has no attribute {name!r}; it has {__all__}")
    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
