"""Whatever a user gets wrong, of whatever kind: exit code 2, one line `error: ...` that says what
and what to do, nothing left.

A row says what is wrong, how it is made in an empty folder, the command, and words of the message.
Broken *contents* of scan files, another 66 kinds, are in test_checks.py; containers in
test_npz.py."""

import bz2
import gzip
import json
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fly64lib.cli.main import main
from ptycho_torch.config import ModelConfig, TrainingConfig
from ptycho_torch.data.contract import ScanData, write_scan
from ptycho_torch.network.model import PtychoModel
from ptycho_torch.training.bundle import read_sealed, save_bundle, write_sealed

N = 16
CONFIG = TrainingConfig(model=ModelConfig(N=N, width=8, depth=1))


def scan() -> ScanData:
    rng = np.random.default_rng(0)
    y, x = rng.uniform(N / 2, 40 - N / 2, (2, 12))
    probe = 8 * np.exp(-np.square(np.indices((N, N)) - N // 2).sum(0) / 18).astype(np.complex64)
    return ScanData(
        np.sqrt(rng.poisson(6.0, (12, N, N))).astype(np.float32),
        x,
        y,
        probe,
        np.ones((40, 40), np.complex64),
    )


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    """A folder with a scan and a bundle that fit each other."""
    folder = tmp_path_factory.mktemp("sound")
    write_scan(folder / "scan.npz", scan())
    torch.manual_seed(0)
    save_bundle(
        folder / "bundle.pt",
        PtychoModel(CONFIG.model, torch.from_numpy(scan().probe)),
        CONFIG,
        {"images": 12},
    )
    return folder


Make = Callable[[Path], object]
ROWS: dict[str, tuple[Make | None, str, str]] = {}


def rows(kind: str, **table: tuple[Make | None, str, str]) -> None:
    ROWS.update({f"{kind}: {name.replace('_', ' ')}": row for name, row in table.items()})


def put(name: str, content: bytes | str) -> Make:
    return lambda here: (here / name).write_bytes(
        content if isinstance(content, bytes) else content.encode()
    )


def changed(**arrays: object) -> Make:
    """bad.npz: the sound scan, with fields as given, through numpy so that nothing checks it."""

    def make(here: Path) -> None:
        with np.load(here / "scan.npz") as held:
            found = dict(held)
        found |= {
            key: value(found.get(key)) if callable(value) else value
            for key, value in arrays.items()
        }
        np.savez(
            here / "bad.npz", **{key: value for key, value in found.items() if value is not None}
        )

    return make


def rewritten(change: Callable[[dict, dict], object]) -> Make:
    """bad.pt: the sound bundle's tensors and text, changed, with their checksum."""

    def make(here: Path) -> None:
        tensors, text = read_sealed(here / "bundle.pt")
        change(tensors, text)
        write_sealed(here / "bad.pt", tensors, text)

    return make


def bytes_of(source: str, target: str, change: Callable[[bytearray], object]) -> Make:
    def make(here: Path) -> None:
        held = bytearray((here / source).read_bytes())
        came = change(held)
        (here / target).write_bytes(held if came is None else came)

    return make


class Touch:
    """Pickles to a call that leaves a file."""

    def __reduce__(self):
        return Path.touch, (Path("executed"),)


def notebook(cells: list | None = None, **document: object) -> str:
    return json.dumps(
        {
            "cells": cells or [],
            "metadata": {"kernelspec": {"name": "python3", "display_name": "x"}},
            "nbformat": 4,
            "nbformat_minor": 5,
        }
        | document
    )


def phase_c(here: Path) -> None:
    for split in ("train", "test"):
        write_scan(
            here / "C" / "dose_1000" / f"patched_{split}.npz",
            replace(scan(), metadata={"object_kind": "initial"}),
        )


def study(text: str) -> Make:
    return lambda here: ((here / "S").mkdir(), (here / "S" / "study.json").write_text(text))


def overwritten(at: int, value: bytes) -> Callable[[bytearray], None]:
    def change(held: bytearray) -> None:
        held[at : at + len(value)] = value

    return change


rows(
    "command line",
    nothing=(None, "", "fly64 needs a command; fly64 --help lists them"),
    unknown_command=(None, "trian", "no command 'trian'; did you mean 'train'?"),
    check_of_nothing=(None, "check", "Missing from fly64 check: FILE"),
    no_bin=(None, "import a b.npz --bin 0", "bin=0: expected greater than or equal to 1"),
    negative_pixel=(None, "export a b.npz --pixel-size-nm -1", "pixel_size_nm=-1.0: expected"),
    notebook_without_output=(None, "notebook train", "Missing from fly64 notebook: OUTPUT"),
    parameter_without_value=(
        None,
        "notebook train o.ipynb -p dose",
        "Missing value for argument '-p/--parameter'. Expected 2 values",
    ),
    run_without_profile=(None, "run --output S", "Missing from fly64 run: --profile"),
    cores_in_words=(
        None,
        "run --profile smoke --output S --cores many",
        "Error parsing --cores: invalid literal for int()",
    ),
    unknown_executor=(
        None,
        "run --profile smoke --output S --executor cloud",
        "invalid choice 'cloud' for argument '--executor'",
    ),
    misspelt_option=(
        None,
        "run --profile smoke --output S --core-count 3",
        "Unrecognized options: --core-count",
    ),
    seconds_in_words=(
        None,
        "notebook train o.ipynb --timeout-s soon",
        "could not convert string to float: 'soon'",
    ),
    unknown_view=(
        None,
        "train --phase-c-root C --phase-d-root D --artifact-root A --view dens",
        "view='dens' is not known; did you mean 'dense'?",
    ),
    steps_with_a_point=(
        None,
        "train --phase-c-root C --phase-d-root D --artifact-root A --steps 1.5",
        "--steps: invalid literal for int()",
    ),
    unknown_method=(
        None,
        "reconstruct --phase-c-root C --phase-d-root D --artifact-root A --method magic",
        "invalid choice 'magic' for argument '--methods'",
    ),
    dose_in_words=(
        None,
        "generate --output-root C --dose many",
        "Error parsing --doses: Could not find valid parse for arguments: ['many']",
    ),
    roots_missing=(
        None,
        "compare --phase-c-root C",
        "Missing from fly64 compare: --phase-d-root",
    ),
    bundle_without_data=(
        None,
        "reconstruct --bundle bundle.pt",
        "Missing from fly64 reconstruct: --data",
    ),
)
rows(
    "number",
    cores_zero=(
        None,
        "run --profile smoke --output S --cores 0",
        "cores=0: expected greater than or equal to 1",
    ),
    negative_seconds=(
        None,
        "notebook train o.ipynb --timeout-s -5",
        "timeout_s=-5.0: expected greater than or equal to 1",
    ),
    seconds_not_a_number=(
        None,
        "notebook train o.ipynb --cell-timeout-s nan",
        "cell_timeout_s=nan: expected greater than or equal to 1",
    ),
    dose_below_a_photon=(
        None,
        "generate --output-root C --dose 0.5",
        "dose=0.5 is not a whole number of photons",
    ),
    dose_not_a_number=(
        None,
        "generate --output-root C --dose nan",
        "dose=nan is not a whole number",
    ),
    dose_without_end=(
        None,
        "generate --output-root C --dose inf",
        "dose=inf is not a whole number",
    ),
    same_dose_twice=(
        None,
        "generate --output-root C --dose 1000 --dose 1e3",
        "must be different values, at least one",
    ),
    tiny_detector=(
        None,
        "generate --output-root C --N 4",
        "N=4: expected greater than or equal to 16",
    ),
    negative_replicate=(
        None,
        "generate --output-root C --replicate -1",
        "replicate=-1: expected greater than or equal to 0",
    ),
    no_scan_left=(
        None,
        "generate --output-root C --scan-step 99",
        "scan_step=99: expected less than or equal to 16",
    ),
    unknown_specimen=(
        None,
        "generate --output-root C --specimen star",
        "invalid choice 'star' for argument '--specimen'",
    ),
    negative_seed=(
        None,
        "train --phase-c-root C --phase-d-root D --artifact-root A --seed -1",
        "seed=-1: expected greater than or equal to 0",
    ),
    learning_backwards=(
        None,
        "train --phase-c-root C --phase-d-root D --artifact-root A --learning-rate -1",
        "learning_rate=-1.0: expected greater than or equal to",
    ),
    no_threads=(
        None,
        "reconstruct --bundle bundle.pt --data scan.npz --threads 0",
        "threads=0: expected greater than or equal to 1",
    ),
    no_iterations=(
        phase_c,
        "reconstruct --phase-c-root C --phase-d-root D --artifact-root A --method lsqml --dose"
        " 1000 --view baseline --num-epochs 0",
        "num_epochs=0: expected greater than or equal to 1",
    ),
)
rows(
    "notebook parameter",
    misspelt=(
        None,
        "notebook train o.ipynb -p dosee 1000",
        "unknown parameter 'dosee' of train.ipynb; did you mean 'dose'?",
    ),
    of_another_notebook=(
        None,
        "notebook overlap o.ipynb -p learning_rate 1",
        "unknown parameter 'learning_rate' of overlap",
    ),
    dose_in_words=(
        None,
        "notebook train o.ipynb -p dose high",
        "dose='high': expected a valid number",
    ),
    infinite=(None, "notebook train o.ipynb -p dose 1e999", "dose=inf is not a whole number"),
    no_truth_value=(
        None,
        "notebook train o.ipynb -p progress maybe",
        "progress='maybe': expected a valid bool",
    ),
    gridsize_three=(
        None,
        "notebook train o.ipynb -p gridsize 3",
        "gridsize=3: expected 1 or 2",
    ),
    unknown_view=(
        None,
        "notebook train o.ipynb -p view denser",
        "view='denser' is not known; did you mean 'dense'?",
    ),
    unknown_objective=(
        None,
        "notebook train o.ipynb -p objective mse",
        "objective='mse': expected 'poisson', 'supervised'",
    ),
    negative_seed=(
        None,
        "notebook train o.ipynb -p seed -1",
        "seed=-1: expected greater than or equal to 0",
    ),
    no_steps=(
        None,
        "notebook train o.ipynb -p steps 0",
        "steps=0: expected greater than or equal to 1",
    ),
    no_threads=(
        None,
        "notebook train o.ipynb -p threads 0",
        "threads=0: expected greater than or equal to 1",
    ),
    empty_batch=(
        None,
        "notebook train o.ipynb -p batch_size 0",
        "batch_size=0: expected greater than or equal to 1",
    ),
    unknown_device=(
        None,
        "notebook train o.ipynb -p accelerator tpu",
        "accelerator='tpu': expected 'cpu', 'gpu' or 'auto'",
    ),
    unknown_specimen=(
        None,
        "notebook train o.ipynb -p specimen star",
        "specimen='star' is not known; there are",
    ),
    test_without_train=(
        None,
        "notebook train o.ipynb -p test_npz b.npz",
        "test_npz is given without train_npz",
    ),
    method_twice=(
        None,
        "notebook reconstruct o.ipynb -p method lsqml,lsqml",
        "method: ('lsqml', 'lsqml') must be different values",
    ),
    no_noise_model=(
        None,
        "notebook reconstruct o.ipynb -p noise_model none",
        "noise_model='none': expected 'poisson' or 'gaussian'",
    ),
    no_views_overlap=(
        None,
        "notebook overlap o.ipynb -p s_img 1.5",
        "s_img=1.5: expected less than or equal to 1",
    ),
    gauge=(None, "notebook compare o.ipynb -p gauge free", "gauge='free': expected 'known_probe'"),
    target_beyond_nyquist=(
        None,
        "notebook report o.ipynb -p resolution 2",
        "resolution=2: expected less than or equal to 1",
    ),
    infer_threads=(
        None,
        "notebook infer o.ipynb -p threads 0",
        "threads=0: expected greater than or equal to 1",
    ),
)
rows(
    "notebook file",
    unknown_name=(None, "notebook trian o.ipynb", "there is no notebook 'trian'"),
    absent=(None, "notebook mine.ipynb o.ipynb", "mine.ipynb: no such notebook"),
    output_is_no_notebook=(
        None,
        "notebook train out.txt",
        "output out.txt: expected another file than the source, named *.ipynb",
    ),
    output_is_the_source=(
        put("a.ipynb", notebook()),
        "notebook a.ipynb a.ipynb",
        "expected another file than the source",
    ),
    not_json=(
        put("a.ipynb", "hello"),
        "notebook a.ipynb o.ipynb",
        "a.ipynb: not a notebook that Jupyter can read",
    ),
    json_of_something_else=(
        put("a.ipynb", "{}"),
        "notebook a.ipynb o.ipynb",
        "a.ipynb: not a notebook that Jupyter can read",
    ),
    no_kernel=(
        put("a.ipynb", notebook(metadata={})),
        "notebook a.ipynb o.ipynb",
        "names no kernel; open and save it",
    ),
    takes_no_parameters=(
        put("a.ipynb", notebook()),
        "notebook a.ipynb o.ipynb -p dose 3",
        "no cell tagged 'parameters'",
    ),
    output_under_a_file=(put("f", ""), "notebook train f/o.ipynb -p dose 1000", "f: "),
)
rows(
    "profile",
    unknown=(
        None,
        "run --profile fast --output S",
        "profile='fast' is not one of 'full', 'laptop', 'quick', 'smoke'",
    ),
    misspelt_setting=(
        None,
        "run --profile smoke --output S --set dosis=3",
        "unknown parameter 'dosis' of Profile; did you",
    ),
    no_equals=(
        None,
        "run --profile smoke --output S --set doses",
        "--set doses: expected key=value",
    ),
    doses_in_words=(
        None,
        "run --profile smoke --output S --set doses=many",
        "doses.0='many': expected a valid number",
    ),
    view_twice=(
        None,
        "run --profile smoke --output S --set views=dense,dense",
        "must be different names, at least one",
    ),
    unknown_method=(
        None,
        "run --profile smoke --output S --set methods=magic",
        "method='magic' is not known",
    ),
    control_by_iteration=(
        None,
        "run --profile smoke --output S --set methods=lsqml --set control_methods=lsqml",
        "expected some, none of lsqml, lsqml-fine, rpie, dm",
    ),
    no_threads=(
        None,
        "run --profile smoke --output S --set threads=0",
        "threads=0: expected greater than or equal to 1",
    ),
    negative_replicates=(
        None,
        "run --profile smoke --output S --set replicates=-1",
        "replicates=-1: expected greater than or equal to 1",
    ),
    steps_with_a_point=(
        None,
        "run --profile smoke --output S --set train_steps=1.5",
        "steps=1.5: expected a valid integer",
    ),
    unknown_specimen=(
        None,
        "run --profile smoke --output S --set specimen=star",
        "specimen='star' is not known; there are",
    ),
    unknown_device=(
        None,
        "run --profile smoke --output S --set accelerator=tpu",
        "accelerator='tpu': expected 'cpu', 'gpu' or 'auto'",
    ),
)
rows(
    "study folder",
    holds_something_else=(
        lambda here: ((here / "S").mkdir(), put("S/a.txt", "mine")(here)),
        "run --profile smoke --output S",
        "is not empty and holds no study; choose another folder",
    ),
    is_a_file=(put("S", "mine"), "run --profile smoke --output S", "S: "),
    none_there=(None, "status S", "S holds no study; start one: fly64 run"),
    study_not_json=(study("{"), "resume S", "study.json: cannot be read as JSON"),
    study_of_another_kind=(study("[1]"), "status S", "study.json: not a study's record"),
    study_without_settings=(study('{"name": "x"}'), "cancel S", "study.json: not a study's record"),
    notebooks_absent=(
        None,
        "run --profile smoke --output S --notebooks mine",
        "mine: no such folder of notebooks",
    ),
    init_into_a_file=(put("S", "mine"), "init S", "S: "),
    init_again=(
        put("train.ipynb", "mine"),
        "init .",
        "already has train.ipynb; choose another folder",
    ),
)
rows(
    "scan file",
    absent=(
        None,
        "check no.npz",
        "no.npz: cannot be opened (No such file or directory); expected a readable npz file",
    ),
    a_folder=(
        lambda here: (here / "bad.npz").mkdir(),
        "check bad.npz",
        "bad.npz: cannot be opened (Is a directory)",
    ),
    empty=(
        put("bad.npz", ""),
        "check bad.npz",
        "bad.npz: empty (0 bytes); expected an npz file that holds the keys of",
    ),
    text=(
        put("bad.npz", "x,y\n1,2\n"),
        "check bad.npz",
        "bad.npz: not a zip file; expected an npz file",
    ),
    hdf5=(
        put("bad.npz", b"\x89HDF\r\n\x1a\n" + bytes(99)),
        "check bad.npz",
        "an HDF5 file; expected an npz file that holds the "
        "keys of DATA-001; copy or write it again, or convert it: fly64 import bad.npz DST.npz",
    ),
    gzipped=(
        lambda here: put("bad.npz", gzip.compress((here / "scan.npz").read_bytes()))(here),
        "check bad.npz",
        "a gzip file",
    ),
    bzipped=(
        lambda here: put("bad.npz", bz2.compress((here / "scan.npz").read_bytes()))(here),
        "check bad.npz",
        "a bzip2 file",
    ),
    single_array=(
        lambda here: np.save(here / "bad.npy", np.ones(3)),
        "check bad.npy",
        "a single .npy array",
    ),
    half=(
        bytes_of("scan.npz", "bad.npz", lambda held: held[: len(held) // 2]),
        "check bad.npz",
        "a truncated or damaged zip",
    ),
    one_wrong_byte=(
        bytes_of("scan.npz", "bad.npz", overwritten(900, b"\xee")),
        "check bad.npz",
        "damaged or truncated",
    ),
    text_in_a_zip=(
        lambda here: zipfile.ZipFile(here / "bad.npz", "w").writestr("a.txt", "x"),
        "check bad.npz",
        "bad.npz",
    ),
    raw_upstream=(
        lambda here: np.savez(here / "bad.npz", diff3d=np.ones((4, 4, 3), np.uint16)),
        "check bad.npz",
        "a raw upstream file, intensity uint16",
    ),
    float64=(
        changed(diffraction=np.float64),
        "check bad.npz",
        "dtype float64; expected float32; store it with",
    ),
    counts=(
        changed(diffraction=lambda d: np.rint(d**2)),
        "check bad.npz",
        "intensity (counts); expected amplitude",
    ),
    pickled=(changed(notes=np.array([Touch()], dtype=object)), "check bad.npz", "a pickled array"),
    scaled_for_reconstruction=(
        changed(diffraction=lambda d: d * np.float32(1.1)),
        "reconstruct --bundle bundle.pt --data bad.npz",
        "are not whole, such as",
    ),
    absent_for_reconstruction=(
        None,
        "reconstruct --bundle bundle.pt --data no.npz",
        "no.npz: cannot be opened",
    ),
    base_absent=(None, "generate --output-root C --base-npz no.npz", "no.npz: cannot be opened"),
    base_is_a_folder=(
        lambda here: (here / "b").mkdir(),
        "generate --output-root C --base-npz b",
        "b: cannot be opened",
    ),
    base_of_metres=(
        changed(xcoords=lambda x: x * 1e-9),
        "generate --output-root C --base-npz bad.npz",
        "not metres",
    ),
)
rows(
    "bundle",
    absent=(
        None,
        "reconstruct --bundle no.pt --data scan.npz",
        "no.pt: no such bundle; training writes one as",
    ),
    a_folder=(
        lambda here: (here / "b").mkdir(),
        "reconstruct --bundle b --data scan.npz",
        "b: no such bundle",
    ),
    empty=(
        put("bad.pt", ""),
        "reconstruct --bundle bad.pt --data scan.npz",
        "bad.pt: not a bundle that this version of the project can use",
    ),
    text=(
        put("bad.pt", "hello"),
        "reconstruct --bundle bad.pt --data scan.npz",
        "bad.pt: not a bundle that this version of the project can use",
    ),
    a_scan=(None, "reconstruct --bundle scan.npz --data scan.npz", "scan.npz: not a bundle"),
    half=(
        bytes_of("bundle.pt", "bad.pt", lambda held: held[: len(held) // 2]),
        "reconstruct --bundle bad.pt --data scan.npz",
        "bad.pt: not a bundle that this version of the project can use",
    ),
    one_wrong_byte=(
        bytes_of("bundle.pt", "bad.pt", overwritten(6000, b"\xee")),
        "reconstruct --bundle bad.pt --data scan.npz",
        "changed or truncated after it was written",
    ),
    a_header_without_end=(
        bytes_of("bundle.pt", "bad.pt", overwritten(6, b"\xee")),
        "reconstruct --bundle bad.pt --data scan.npz",
        "its header claims",
    ),
    code_in_it=(
        lambda here: torch.save(Touch(), here / "bad.pt"),
        "reconstruct --bundle bad.pt --data scan.npz",
        "nothing of it was executed",
    ),
    a_checkpoint=(
        lambda here: torch.save({"state_dict": {}, "epoch": 1}, here / "model.ckpt"),
        "reconstruct --bundle model.ckpt --data scan.npz",
        "give the bundle.pt that training writes, not a",
    ),
    of_the_future=(
        bytes_of("bundle.pt", "bad.pt", lambda held: held.replace(b"bundle-2", b"bundle-9")),
        "reconstruct --bundle bad.pt --data scan.npz",
        "its format is 'fly64-bundle-9', expected 'fly64-bundle-2'",
    ),
    no_statistics=(
        rewritten(lambda t, c: c.pop("statistics")),
        "reconstruct --bundle bad.pt --data scan.npz",
        "it lacks 'statistics'",
    ),
    a_weight_less=(
        rewritten(lambda t, c: t.pop("network.stem.bias")),
        "reconstruct --bundle bad.pt --data scan.npz",
        "network.stem.bias are missing, or not of this configuration",
    ),
    a_weight_of_another_shape=(
        rewritten(lambda t, c: t.update({"network.stem.bias": torch.ones(3)})),
        "reconstruct --bundle bad.pt --data scan.npz",
        "stem.bias is torch.float32 (3,), expected",
    ),
    nan_in_the_weights=(
        rewritten(lambda t, c: t["network.stem.bias"].fill_(np.nan)),
        "reconstruct --bundle bad.pt --data scan.npz",
        "stem.bias holds NaN",
    ),
    unknown_setting=(
        rewritten(lambda t, c: c["config"].update(batchsize=3)),
        "reconstruct --bundle bad.pt --data scan.npz",
        "unknown parameter 'batchsize' of TrainingConfig; did you mean 'batch_size'?",
    ),
    setting_out_of_range=(
        rewritten(lambda t, c: c["config"].update(keep=7.0)),
        "reconstruct --bundle bad.pt --data scan.npz",
        "keep=7.0: expected less",
    ),
    unknown_network=(
        rewritten(lambda t, c: c["config"]["model"].update(network="theirs")),
        "reconstruct --bundle bad.pt --data scan.npz",
        "network='theirs' is not known; there are unet",
    ),
    config_is_text=(
        rewritten(lambda t, c: c.update(config="small")),
        "reconstruct --bundle bad.pt --data scan.npz",
        "config is a str",
    ),
    statistics_are_a_number=(
        rewritten(lambda t, c: c.update(statistics=3)),
        "reconstruct --bundle bad.pt --data scan.npz",
        "statistics is a int",
    ),
    probe_dark=(
        rewritten(lambda t, c: t["probe"].zero_()),
        "reconstruct --bundle bad.pt --data scan.npz",
        "its probe is zero everywhere",
    ),
    probe_of_another_N=(
        rewritten(lambda t, c: t.update(probe=t["probe"][:, 1:, 1:])),
        "reconstruct --bundle bad.pt --data scan.npz",
        "its probe is torch.complex64 (1, 15, 15), expected complex64 (modes, M, M) with M >= 16",
    ),
    network_of_gigabytes=(
        rewritten(lambda t, c: c["config"]["model"].update(width=512, depth=6)),
        "reconstruct --bundle bad.pt --data scan.npz",
        "are missing, or not of this configuration",
    ),
    for_another_probe=(
        changed(probeGuess=lambda p: np.roll(p, 5)),
        "reconstruct --bundle bundle.pt --data bad.npz",
        "at least 0.99 is needed; train for this probe or choose another bundle",
    ),
    for_another_number_of_modes=(
        changed(probeGuess=lambda p: np.stack([p, p])),
        "reconstruct --bundle bundle.pt --data bad.npz",
        "the model was trained for (1, 16, 16): another number of modes",
    ),
)
rows(
    "output",
    is_the_data=(
        None,
        "reconstruct --bundle bundle.pt --data scan.npz --output scan.npz",
        "expected another file than the",
    ),
    is_a_folder=(
        lambda here: (here / "o.npz").mkdir(),
        "reconstruct --bundle bundle.pt --data scan.npz --output o.npz",
        "output o.npz is a folder; give the name of a file in it",
    ),
    is_no_npz=(None, "reconstruct --bundle bundle.pt --data scan.npz --output o.h5", "named *.npz"),
    under_a_file=(
        put("f", ""),
        "reconstruct --bundle bundle.pt --data scan.npz --output f/o.npz",
        "output f/o.npz: f is not a folder that can be written to; choose another one",
    ),
    picture_under_a_file=(put("f", ""), "check scan.npz --picture f/p.png", "f: "),
    picture_of_no_format=(
        None,
        "check scan.npz --picture p.docx",
        "picture p.docx: expected a name that ends in .png",
    ),
    picture_is_a_folder=(
        lambda here: (here / "p.png").mkdir(),
        "check scan.npz --picture p.png",
        "p.png",
    ),
    root_is_a_file=(put("C", ""), "generate --output-root C --dose 1000", "C: "),
    where_nobody_can_write=(
        None,
        "generate --output-root /proc/fly64/C --dose 1000",
        "/proc/fly64",
    ),
)
rows(
    "phase",
    nothing_generated=(
        None,
        "train --phase-c-root C --phase-d-root D --artifact-root A --dose 1000",
        "patched_train.npz: no such file; run python -m fly64lib.generation first",
    ),
    no_data_for_views=(
        None,
        "overlap --phase-c-root C --output-root D --artifact-root A",
        "expected the data of phase C",
    ),
    data_root_is_a_file=(
        put("C", ""),
        "overlap --phase-c-root C --output-root D --artifact-root A",
        "expected the data of ",
    ),
    no_patterns_for_methods=(
        None,
        "reconstruct --phase-c-root C --phase-d-root D --artifact-root A --method dm --dose 1000",
        "patched_test.npz: no such file; run python -m fly64lib.generation first",
    ),
    no_truth=(
        lambda here: (
            phase_c(here),
            shutil.copy(
                here / "C/dose_1000/patched_test.npz", here / "C/dose_1000/held_out_test.npz"
            ),
        ),
        "compare --phase-c-root C --phase-d-root D --reconstruction-root R --output-root O"
        " --dose 1000 --view baseline",
        "its object is not the truth (object_kind 'initial')",
    ),
    no_reconstructions=(
        None,
        "compare --phase-c-root C --phase-d-root D --reconstruction-root R --output-root O"
        " --dose 1000",
        "R: no reconstructions; run python -m fly64lib.reconstruction first",
    ),
)


def test_the_corpus_is_large_and_of_many_kinds():
    kinds = {name.split(":")[0] for name in ROWS}
    assert len(ROWS) >= 100 and len(kinds) >= 10


@pytest.mark.slow
@pytest.mark.parametrize("what", ROWS)
def test_bad_input_is_refused_in_one_line_and_nothing_is_left(
    what, sound, tmp_path, monkeypatch, capsys
):
    make, command, words = ROWS[what]
    for file in sound.iterdir():
        shutil.copy(file, tmp_path)
    monkeypatch.chdir(tmp_path)
    if make:
        make(tmp_path)
    before = {
        path.relative_to(tmp_path): path.is_file() and path.read_bytes()
        for path in tmp_path.rglob("*")
    }
    try:
        code = main(command.split())
    except SystemExit as ended:  # argparse
        code = ended.code
    said = capsys.readouterr()
    assert words in said.err, said.err
    assert code == 2
    assert said.err.count("error: ") == 1 and "Traceback" not in said.err and said.out == ""
    after = {
        path.relative_to(tmp_path): path.is_file() and path.read_bytes()
        for path in tmp_path.rglob("*")
    }
    assert {path: held for path, held in after.items() if held is not False} == {
        path: held for path, held in before.items() if held is not False
    }
