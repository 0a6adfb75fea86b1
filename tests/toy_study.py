"""Stand-ins for the study's notebooks that write the same files at once: the sweep's graph can be
run in seconds.

Every file's content is what its notebook was given, so that equal content means equal inputs. Each
notebook adds a line to `ran.log` in the study's folder when it starts."""

from pathlib import Path

import nbformat
from nbformat import v4

_PARAMETERS = {
    "generate": ["doses", "scan_step", "replicate", "output_root"],
    "overlap": [
        *("doses", "views", "replicate", "controls", "phase_c_root", "output_root"),
        "artifact_root",
    ],
    "train": [
        *("dose", "view", "training", "N", "replicate", "train_npz", "test_npz", "threads"),
        "output_dir",
    ],
    "reconstruct": [
        *("dose", "view", "method", "settings", "threads", "phase_c_root", "phase_d_root"),
        *("training_root", "artifact_root"),
    ],
    "compare": [
        *("dose", "view", "method", "limits", "phase_c_root", "phase_d_root"),
        *("reconstruction_root", "output_root"),
    ],
    "report": ["study_dir"],
}
_START = """import time
from pathlib import Path

def write(path, *content):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(repr(content))
    return path.resolve()

with open("ran.log", "a") as log:
    log.write(WHO + "\\n")
"""
_WORK = {
    "generate": (
        """WHO = "generate"
{start}
for dose in doses:
    for file in ("patched_train", "patched_test", "held_out_test"):
        write(f"{{output_root}}/dose_{{dose:.0f}}/{{file}}.npz", dose, scan_step, replicate)
last = write(f"{{output_root}}/generate.json", doses)"""
    ),
    "overlap": (
        """WHO = "overlap"
{start}
last = write(f"{{artifact_root}}/overlap.json", doses)"""
    ),
    "train": (
        """WHO = f"train {{view}} {{training['objective']}}"
{start}
time.sleep({train_seconds})
write(f"{{output_dir}}/bundle.pt", training["steps"], Path(train_npz).read_text())
last = write(f"{{output_dir}}/metrics.json", training)"""
    ),
    "reconstruct": (
        """WHO = f"reconstruct {{method}}"
{start}
for name in method.split(","):
    bundle = Path(f"{{training_root}}/dose_{{dose:.0f}}/{{view}}/gs1/bundle.pt")
    folder = f"{{artifact_root}}/dose_{{dose:.0f}}/{{view}}/{{name}}"
    write(f"{{folder}}/object.npz", bundle.read_text() if name == "pinn" else settings[name])
    last = write(f"{{folder}}/result.json", name)"""
    ),
    "compare": (
        """WHO = "compare"
{start}
here = f"dose_{{dose:.0f}}/{{view}}"
objects = sorted(Path(reconstruction_root, here).glob("*/object.npz"))
texts = [path.read_text() for path in objects]
last = write(f"{{output_root}}/{{here}}/comparison.json", texts)"""
    ),
    "report": (
        """WHO = "report"
{start}
write("report.json")
last = write("index.html")"""
    ),
}


def write_toy_notebooks(folder: Path, train_seconds: float = 0) -> Path:
    """Write the six notebooks into `folder`; a training takes `train_seconds` longer."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, parameters in _PARAMETERS.items():
        cells = [
            v4.new_code_cell(
                "\n".join(f"{one} = None" for one in parameters), metadata={"tags": ["parameters"]}
            ),
            v4.new_code_cell(_WORK[name].format(start=_START, train_seconds=train_seconds)),
            v4.new_code_cell('print(f"results: {last}")'),
        ]
        kernel = {
            "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}
        }
        nbformat.write(v4.new_notebook(cells=cells, metadata=kernel), folder / f"{name}.ipynb")
    return folder
