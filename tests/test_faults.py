"""No kill and no full disk costs a result, in any phase: a rerun ends with the bytes of an
undisturbed run."""

import errno
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from small_scan import small_raw

from fly64lib import comparison, generation, overlap, training
from ptycho_torch.commands import record_rows
from ptycho_torch.data.npz import write_npz
from ptycho_torch.errors import PtychoError, StorageError
from ptycho_torch.files import atomic_path, folder_lock, read_json, write_json
from ptycho_torch.iteration.thinning import ThinnedCounts
from ptycho_torch.training.lightning_module import AtomicCheckpointIO

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
import faults  # noqa: E402  the benchmark is the test, at more kills

PHASES = ("generation", "overlap", "training", "bundling", "reconstruction", "comparison")


@pytest.fixture(scope="module")
def counts(tmp_path_factory) -> dict:
    """Two kills and one full disk of every phase of a tiny study, in processes of their own."""
    result = tmp_path_factory.mktemp("faults") / "counts.json"
    options = ["--kills", "2", "--full", "1", "--json", result]
    run = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "faults.py", *options],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert result.is_file(), run.stderr
    return json.loads(result.read_text())


@pytest.mark.slow
@pytest.mark.parametrize("phase", PHASES)
def test_a_phase_that_was_killed_at_random_moments_or_ran_out_of_disk_ends_as_if_undisturbed(
    counts, phase
):
    assert "lost" not in counts[phase], counts[phase]["lost"]
    assert counts[phase]["kills"]["kills"] == counts[phase]["kills"]["survived"] == 2
    assert counts[phase]["full"]["full disks"] == counts[phase]["full"]["survived"] == 1


@pytest.fixture
def toy(monkeypatch, tmp_path) -> tuple[Path, Path]:
    """A phase of the benchmark that writes one file; an undisturbed run's folder and another."""
    monkeypatch.setattr(faults, "PHASES", {"toy": (lambda: 0, ("T",))})
    for name in ("undisturbed", "disturbed"):
        (tmp_path / name / "T").mkdir(parents=True)
        write_json(tmp_path / name / "T" / "a.json", {"value": [1, 2], "seconds": len(name)})
    return tmp_path / "undisturbed", tmp_path / "disturbed"


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("a.json", '{"value": [1', "is not whole"),
        ("a.json", '{"value": [1, 3]}', "differs"),
        ("b.npz", "?", "is in no undisturbed run"),
    ],
)
def test_the_benchmark_calls_lost_what_is_cut_other_or_left_over(toy, name, text, why):
    faults.check("toy", *toy, complete=True)  # times may differ
    (toy[1] / "T" / name).write_text(text)
    with pytest.raises(faults.Lost, match=why):
        faults.check("toy", *toy, complete=False)


def test_the_benchmark_misses_no_file_and_no_rest_of_one(toy):
    (toy[1] / "T" / ".tmp-1-a.json").write_text("")
    faults.check("toy", *toy, complete=False)
    with pytest.raises(faults.Lost, match="were left"):
        faults.check("toy", *toy, complete=True)
    (toy[1] / "T" / "a.json").unlink()
    with pytest.raises(faults.Lost, match="missing"):
        faults.check("toy", *toy, complete=True)


# --- one writer ---


def limited(code: str, folder: Path, largest_file: int) -> subprocess.CompletedProcess:
    """Python `code` in `folder`, where no file may grow beyond `largest_file` bytes: a refusal to
    write like a full disk's."""
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        text=True,
        capture_output=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        preexec_fn=lambda: resource.setrlimit(
            resource.RLIMIT_FSIZE, (largest_file, resource.RLIM_INFINITY)
        ),
    )


WRITERS = {
    "npz": "from ptycho_torch.data.npz import write_npz; import numpy as np\n"
    "def write(): write_npz('target', {'a': np.zeros(10**5), 'b': np.ones(10**5)})",
    "numpy": "from ptycho_torch.files import atomic_path; import numpy as np\ndef write():\n  with"
    " atomic_path('target') as t, t.open('wb') as f: np.savez(f, a=np.zeros(10**5))",
    "json": "from ptycho_torch.files import write_json\ndef write(): write_json('target',"
    " list(range(10**5)))",
    "tensors": "import torch; from ptycho_torch.training.lightning_module import AtomicCheckpointIO"
    "\ndef write(): AtomicCheckpointIO().save_checkpoint({'a': torch.zeros(10**5)}, 'target')",
    "picture": "from ptycho_torch.files import atomic_path; from matplotlib.figure import"
    " Figure; import numpy as np\ndef write():\n  f = Figure(); "
    "f.subplots().imshow(np.random.rand(300, 300))\n"
    "  with atomic_path('target') as t: f.savefig(t, format='png', dpi=300)",
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_refusal_of_the_disk_is_one_error_that_names_file_and_disk_and_keeps_what_was_there(
    writer, tmp_path
):
    (tmp_path / "target").write_text("earlier")
    run = limited(
        f"{WRITERS[writer]}\nfrom ptycho_torch.errors import StorageError\n"
        "try: write()\nexcept StorageError as error: print(error)",
        tmp_path,
        20_000,
    )
    assert run.returncode == 0 and not run.stderr, run.stderr
    assert re.fullmatch(
        r"target: cannot be written: the disk at /\S* takes no larger file \(.*; [\d.]+ MB free\);"
        r" what was "
        r"there before is kept: make room .*\n",
        run.stdout,
    ), run.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["target"] and (
        tmp_path / "target"
    ).read_text() == "earlier"


@pytest.mark.parametrize(
    ("number", "said"),
    [(errno.ENOSPC, "is full"), (errno.EROFS, "is read-only"), (errno.EDQUOT, "quota")],
)
def test_each_refusal_says_what_the_disk_lacks_also_where_a_library_hides_it(
    number, said, tmp_path
):
    target = tmp_path / "x.npz"
    with (
        pytest.raises(StorageError, match=rf"x\.npz: cannot be written: the disk at /.* {said}"),
        atomic_path(target),
    ):
        try:
            raise OSError(number, os.strerror(number))
        except OSError:
            raise ValueError("a zip with an open member cannot be closed") from None
    with (
        pytest.raises(FileNotFoundError),
        atomic_path(tmp_path / "y"),
    ):  # any other error stays what it is
        raise FileNotFoundError(errno.ENOENT, "none")


def test_the_same_tensors_give_the_same_bytes(tmp_path):
    for name in ("a.pt", "b.pt"):
        AtomicCheckpointIO().save_checkpoint({"w": torch.arange(5.0), "n": 3}, tmp_path / name)
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "b.pt").read_bytes()
    assert torch.load(tmp_path / "a.pt", weights_only=True)["n"] == 3


@pytest.mark.slow
def test_a_full_temporary_folder_is_an_error_and_not_a_bus_error_in_the_middle_of_training(
    tmp_path,
):
    raw = small_raw(1e3)
    kept = ThinnedCounts(raw, torch.arange(raw.n), 0.8, 3)
    counted = kept.kept(torch.arange(raw.n)) + kept.rest(torch.arange(raw.n))
    np.testing.assert_array_equal(counted.numpy(), raw.counts(torch.arange(raw.n)).numpy())
    assert not list(Path(tempfile.gettempdir()).glob("temporary file of thinned photons*"))
    run = limited(
        f"import sys; sys.path.insert(0, {str(ROOT / 'tests')!r})\nimport torch; from small_scan"
        " import small_raw\nfrom ptycho_torch.iteration.thinning import ThinnedCounts; from"
        " ptycho_torch.errors import StorageError\nraw = small_raw(1e3)\ntry: ThinnedCounts(raw,"
        " torch.arange(raw.n), 0.8, 3)\nexcept StorageError as error: print(error)",
        tmp_path,
        50_000,
    )
    assert (
        run.returncode == 0 and "thinned photons: cannot be written: the disk at" in run.stdout
    ), (run.stdout, run.stderr)


@pytest.mark.slow
def test_a_writer_killed_while_it_writes_large_arrays_again_and_again_leaves_one_whole_file(
    tmp_path,
):
    code = (
        "import numpy as np; from ptycho_torch.data.npz import write_npz\nprint('ready',"
        " flush=True)\nfor value in range(10**6): write_npz('a.npz', {'a': np.full(2 * 10**5,"
        " value)})"
    )
    rng = np.random.default_rng(1)
    for _ in range(4):
        with subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        ) as run:
            run.stdout.readline()
            threading.Event().wait(0.05 + rng.uniform(0, 0.2))
            run.send_signal(signal.SIGKILL)
        if (tmp_path / "a.npz").exists():
            with np.load(tmp_path / "a.npz", allow_pickle=False) as arrays:
                assert len(set(arrays["a"].tolist())) == 1 and arrays["a"].size == 2 * 10**5
    assert (tmp_path / "a.npz").exists()


# --- two runs in one folder ---


@pytest.mark.parametrize(
    "command",
    [
        (generation.main, "C", ["--output-root", "C", "--dose", "1000", "--scan-step", "12"]),
        (overlap.main, "D", ["--phase-c-root", "C", "--output-root", "D", "--artifact-root", "A"]),
        (overlap.main, "A", ["--phase-c-root", "C", "--output-root", "D", "--artifact-root", "A"]),
        (
            comparison.main,
            "G",
            [
                "--phase-c-root",
                "C",
                "--phase-d-root",
                "D",
                "--reconstruction-root",
                "F",
                "--output-root",
                "G",
            ],
        ),
    ],
    ids=["generation", "overlap", "overlap figures", "comparison"],
)
def test_the_second_of_two_runs_in_a_folder_is_told_who_holds_it_and_changes_nothing(
    command, tmp_path, monkeypatch, capsys
):
    main, folder, options = command
    monkeypatch.chdir(tmp_path)
    for split in ("train", "test"):
        write_npz(f"C/dose_1000/patched_{split}.npz", {"a": np.ones(3)})
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.npz")}
    with folder_lock(folder):
        assert main(options) == 2
        assert re.search(
            rf"error: \S*{folder} is in use by process {os.getpid()} on ", capsys.readouterr().err
        )
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_commands_that_share_a_folder_for_different_jobs_lose_no_row_of_each_other(tmp_path):
    manifest, failed = tmp_path / "training_manifest.json", []

    def command(view: str) -> None:
        try:
            for number in range(1, 9):
                rows = [
                    {"dose": dose, "view": view, "status": "complete"} for dose in range(number)
                ]
                record_rows(manifest, "E", rows, ("dose", "view"), [])
        except Exception as error:
            failed.append(error)

    threads = [
        threading.Thread(target=command, args=(view,)) for view in ("dense", "sparse", "baseline")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = sorted((row["view"], row["dose"]) for row in read_json(manifest)["jobs"])
    assert not failed and found == [
        (view, dose) for view in ("baseline", "dense", "sparse") for dose in range(8)
    ]


def test_a_command_that_is_stopped_early_keeps_the_rows_of_the_jobs_it_did_not_come_to(tmp_path):
    manifest = tmp_path / "training_manifest.json"
    record_rows(manifest, "E", [{"dose": 1, "sha": "a"}, {"dose": 2, "sha": "a"}], ("dose",), [])
    record_rows(manifest, "E", [{"dose": 1, "sha": "b"}], ("dose",), [])
    assert sorted((row["dose"], row["sha"]) for row in read_json(manifest)["jobs"]) == [
        (1, "b"),
        (2, "a"),
    ]


def test_a_log_that_the_disk_refuses_costs_no_training_and_hides_no_error(
    tmp_path, capsys, monkeypatch
):
    class Full:
        encoding = "utf-8"

        def write(self, text: str) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        flush = close = lambda self: self.write("")

    monkeypatch.setattr(training._LogFile, "_open", lambda self: Full())
    with pytest.raises(PtychoError, match="the real one"), training._logged(tmp_path / "train.log"):
        training.logging.getLogger("ptycho_torch").info("epoch 3")
        raise PtychoError("the real one")
    said = capsys.readouterr().err
    assert "train.log misses a line" in said and "epoch 3" in said and "Logging error" not in said
