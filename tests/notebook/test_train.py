"""What train.ipynb says of measured data: honest legends, and a warning under a wrong beam."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from small_scan import small_scan

from fly64lib.methods.starting_probes import starting_probe
from fly64lib.notebook import train
from fly64lib.notebook.judged import Judged
from fly64lib.notebook.parameters import TrainParameters
from fly64lib.plots import figures
from fly64lib.training import described
from ptycho_torch.config import TrainingConfig
from ptycho_torch.data.contract import ScanData, write_scan
from ptycho_torch.memmap_bridge import RawDataTorch


def measured(scan: ScanData, kind: str = "initial") -> ScanData:
    return replace(scan, metadata={"object_kind": kind, "probe_kind": kind})


def job_of(folder: Path, scan: ScanData, test: str | None = None) -> tuple[str, train.TrainingJob]:
    write_scan(folder / "scan.npz", scan)
    shutil.copyfile(folder / "scan.npz", folder / "copy.npz")
    files = {"train_npz": str(folder / "scan.npz"), "test_npz": test and str(folder / test)}
    (found,) = train.training_jobs(TrainParameters(**files, N=32, output_dir="out")).items()
    return found


@pytest.mark.parametrize("test", ["scan.npz", "copy.npz"])
def test_a_file_that_is_trained_on_is_called_no_test(tmp_path: Path, test: str) -> None:
    label, job = job_of(tmp_path, small_scan(1e4, N=32), test)
    assert label == "fitted and scored on the same patterns" and train.on_the_same(job)
    history = [{"epoch": 0, "train_loss": 2.0, "val_loss": 2.0}]
    legends = [
        [text.get_text() for text in figures.loss_curves(history, same).axes[0].get_legend().texts]
        for same in (False, True)
    ]
    assert legends[0][1] == "held-out half, only watched"
    assert legends[1][1] == "the same patterns, watched: no test"


def test_training_under_a_wrong_beam_is_warned_of_before_it_starts(tmp_path: Path) -> None:
    scan = measured(small_scan(1e4, N=32, across=13))
    assert train.doubt(job_of(tmp_path, scan, "scan.npz")[1]) == ""
    wrong = starting_probe(RawDataTorch(scan, "scan.npz"), 2.0).numpy()
    _, job = job_of(tmp_path, replace(scan, probe=wrong), "scan.npz")
    warning = train.doubt(job)
    assert warning.startswith("warning: under the probe of scan.npz the best object leaves R = 2")
    assert "fly64 probe SCAN.npz OUT.npz --modes 3" in warning


def test_what_explains_a_table_speaks_of_the_columns_that_are_there() -> None:
    scan = small_scan(1e4, N=32)
    fine = {"object_kind": "truth", "provenance": {"simulation": "fine"}}

    def legend(of: ScanData) -> str:
        return Judged(of.object_guess, None, RawDataTorch(of, "scan.npz"), [], ()).legend

    assert "PSNR" in legend(scan) and "finer grid" not in legend(scan)
    assert "finer grid" in legend(replace(scan, metadata=fine))
    assert "PSNR" not in legend(measured(scan)) and "deviance" in legend(measured(scan))


def test_the_log_names_the_settings_that_differ_in_one_short_line() -> None:
    config = TrainingConfig(steps=20, output_dir="a/very/long/folder", nphotons=1e3)
    assert described(config) == "steps 20"
    assert described(TrainingConfig()) == "the default settings"
