"""The executed reference of each notebook: what it is run with, and which of its numbers are held,
how closely.

A new notebook needs one entry here and `python tests/remake_references.py --reason "..."`.
References run in this order, in one folder, so that each finds what those before it wrote; one that
is `alone` may run at any time."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
from nbval.plugin import get_sanitize_patterns

FOLDER = Path(__file__).parent / "reference"
SANITIZE = FOLDER / "sanitize.cfg"
CELL_TIMEOUT_S = 600  # for hung cells only
CHECK = """from regression import check

result = "{result}"
print(check(result, "expected/{name}.json"))"""


@dataclass(frozen=True)
class Reference:
    """Paths are relative to tests/reference; the notebooks' default folders lie there, under
    runs/."""

    parameters: dict[str, Any]
    result: str | None = None  # the file that the notebook writes last; None: it writes nothing
    columns: dict[str, float] = field(
        default_factory=dict
    )  # of the result -> tolerance, see reference/regression.py
    alone: bool = False  # reads no other's results, nor do others read its: may run beside them


# Tolerances: another machine's arithmetic changes the last digits of the expected counts, by that
# now and then a whole Poisson draw, and so the numbers of a network trained for a few steps by some
# tenths of a dB. The wrong physics of test_references.py and a lost training cost several dB. The
# report's target lies between the rows' FRC, far from each.
_DATA = "runs/study/phase_{phase}/dose_1000"
_SPARSE = {"dose": 1e3, "view": "sparse"}
_SCORES = {
    "phase_psnr": 0.5,
    "amplitude_psnr": 0.5,
    "phase_ms_ssim": 0.03,
    "frc_half": 0.06,
    "deviance": 0.03,
}

REFERENCES = {
    "generate": Reference(
        {"doses": [1e3], "scan_step": 4, "simulation": "matched"},
        "runs/study/phase_c/generate.json",
        {
            "rows/*/half": 0,
            "rows/*/patterns": 0,
            "rows/*/photons per exposure, measured": 5,
            "rows/*/photons per object pixel": 0.1,
            "rows/*/pixels without a photon, %": 0.3,
        },
    ),
    "overlap": Reference(
        {"controls": False},
        "runs/study/overlap/overlap.json",
        {
            "rows/*/view": 0,
            "rows/*/images": 0,
            "rows/*/groups": 0,
            "rows/*/(1) within groups": 1e-3,
            "rows/*/(2) between images": 1e-3,
            "rows/*/(4) photons per object pixel, dose_1000": 0.1,
        },
    ),
    "train": Reference(
        _SPARSE
        | {
            "steps": 20,
            "batch_size": 13,
            "train_npz": _DATA.format(phase="d") + "/sparse/sparse_train.npz",
            "test_npz": _DATA.format(phase="d") + "/sparse/sparse_test.npz",
            "output_dir": _DATA.format(phase="e") + "/sparse/gs2",
        },
        _DATA.format(phase="e") + "/sparse/gs2/metrics.json",
        {
            "runs/*/training/images": 0,
            "runs/*/training/groups": 0,
            "runs/*/rows/*/method": 0,
            **{f"runs/*/rows/*/{name}": tolerance for name, tolerance in _SCORES.items()},
        },
    ),
    "reconstruct": Reference(
        _SPARSE | {"method": "pinn,classical", "steps": 20},
        _DATA.format(phase="f") + "/sparse/classical/result.json",
        {"method": 0, "settings/steps": 0},
    ),
    "compare": Reference(
        _SPARSE,
        _DATA.format(phase="g") + "/sparse/comparison.json",
        {
            "rows/*/method": 0,
            "rows/*/images": 0,
            "rows/*/photons_per_pixel": 0.05,
            "rows/*/phase_psnr": 0.5,
            "rows/*/amplitude_psnr": 0.5,
            "rows/*/frc_half": 0.06,
        },
    ),
    "report": Reference(
        {"resolution": 0.38},
        "runs/study/report.json",
        {
            "answers/*/method": 0,
            "answers/*/view": 0,
            "answers/*/metric": 0,
            "answers/*/needs/*/0": 0,
            "missing/*": 0,
            "failed/*": 0,
        },
    ),
    "explore": Reference({"method": "pinn"}),
    "infer": Reference(
        {
            "bundle": _DATA.format(phase="e") + "/sparse/gs2/bundle.pt",
            "data_npz": _DATA.format(phase="d") + "/sparse/sparse_test.npz",
            "output_npz": "runs/infer/object.npz",
        },
        "runs/infer/object.npz",
        {
            "object_kind": 0,
            **{
                f"reconstruction/rows/0/{name}": _SCORES[name]
                for name in ("phase_psnr", "amplitude_psnr")
            },
        },
    ),
    "cut": Reference(
        {
            "source": "runs/infer/object.npz",
            "output": "runs/cut",
            "shares": [1.0, 0.1],
            "overlaps": [0.8, 0.1],
            "methods": "classical",
            "replicates": 1,
        },
        "runs/cut/cut.json",
        {
            "left_out/*/overlap": 0,
            "rows/*/images": 0,
            "rows/*/dose_share": 1e-6,
            "rows/*/phase_rms_rad": 0.05,
            "rows/*/deviance_held_out": 0.05,
        },
    ),
    "plan": Reference(
        {"photons": 1e3},
        "runs/plan/plan.json",
        {
            "pixel_nm": 1e-6,
            "rows/*/by": 0,
            "rows/*/exposures": 1,
            "rows/*/step_nm": 0.1,
        },
        alone=True,
    ),
    "own_scan": Reference(
        {
            "source": "runs/study/phase_c/dose_1000/patched_test.npz",
            "output": "runs/own_scan",
            "methods": "classical",
            "model": False,
        },
        "runs/own_scan/result.json",
        {"best": 0, "M": 0, "rows/*/method": 0, "rows/*/deviance_held_out": 0.03},
    ),
    "robustness": Reference(
        {"imperfection": "motion_px", "strengths": 1, "method": "pinn", "training_steps": 4},
        "runs/robustness/robustness.json",
        {
            "rows/*/method": 0,
            "rows/*/strength": 0,
            "rows/*/phase_psnr_skill": 0.5,
            "rows/*/deviance": 0.03,
        },
        alone=True,
    ),
}


def check_cell(name: str) -> nbformat.NotebookNode | None:
    """The last cell of a reference, which its notebook does not have."""
    result = REFERENCES[name].result
    return (
        nbformat.v4.new_code_cell(CHECK.format(result=result, name=name), id="check")
        if result
        else None
    )


def sanitized(text: str) -> str:
    """Text without what differs between machines, by the rules that nbval compares with."""
    for rule, replacement in get_sanitize_patterns(SANITIZE.read_text(encoding="utf-8")):
        text = re.sub(rule, replacement, text)
    return text
