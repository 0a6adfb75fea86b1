"""Plants an inconsistency into a small file, imports it, checks what comes out, and counts how
often a wrong scan passes both.

    python benchmarks/planted_faults.py [--faults 200] [--seed 0] [--minutes 60]

Each fault is a kind, a format and numbers drawn for it. Three ends are right: the import refuses
the file; it mends it, so that patterns and positions are the true ones up to a common shift; or
`check` warns. Files without a fault are among them. Exit code 1: something wrong passed, or a good
file did not."""

import contextlib
import io
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from common import main, table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from reported_scan import N, reported_scan, write_cxi, write_pair, write_ptyd

from fly64lib.check.examination import examine_scan
from fly64lib.formats.importing import import_scan
from fly64lib.formats.options import ImportOptions
from ptycho_torch.data.scan import ScanData
from ptycho_torch.errors import DataContractError
from ptycho_torch.fields import Positive, Whole, config

TURNS = ("flip-y", "flip-x", "flip-yx", "swap", "swap-flip-y", "swap-flip-x", "swap-flip-yx")
OFF_PX = 0.5  # from which a position is wrong


@config
class PlantedOptions:
    """Plant faults in small files, and count those that import and check let pass."""

    faults: Positive = 200
    seed: Whole = 0
    minutes: Positive = 60  # stop after these


Rng = np.random.Generator
Plant = Callable[[dict, Rng], None]  # changes counts, at, probe, or numbers of a scan


def nothing(scan: dict, rng: Rng) -> None:
    """A good file, which has to be imported: a refusal of everything proves nothing."""


def turned(scan: dict, rng: Rng) -> None:
    """Axes of the positions flipped or swapped."""
    turn = TURNS[rng.integers(len(TURNS))]
    at = scan["at"] - scan["at"].mean(0)
    at = at[:, ::-1] if turn.startswith("swap") else at
    ends = turn.rpartition("flip-")[2] if "flip" in turn else ""
    scan["at"] = at * [-1 if axis in ends else 1 for axis in "yx"]


def patterns_turned(scan: dict, rng: Rng) -> None:
    """Patterns mirrored or transposed, but not the probe."""
    ways = (lambda c: c[:, ::-1], lambda c: c[:, :, ::-1], lambda c: c.swapaxes(1, 2))
    scan["counts"] = ways[rng.integers(3)](scan["counts"])


def out_of_order(scan: dict, rng: Rng) -> None:
    """Positions column by column, backwards, snake-wise, or with a stretch exchanged."""
    every = np.arange(90)
    snake = every.reshape(9, 10).copy()
    snake[1::2] = snake[1::2, ::-1]
    first = rng.integers(10, 50)
    part = every.copy()
    part[first : first + 30] = part[first : first + 30][::-1]
    orders = every.reshape(9, 10).T.ravel(), every[::-1], snake.ravel(), part
    scan["at"] = scan["at"][orders[rng.integers(4)]]


def out_of_step(scan: dict, rng: Rng) -> None:
    """Positions late or early by up to three."""
    scan["at"] = np.roll(scan["at"], rng.choice([-3, -2, -1, 1, 2, 3]), 0)


def lost_frame(scan: dict, rng: Rng) -> None:
    """A frame was lost in the middle, and one more taken at the end."""
    lost = rng.integers(15, 86)
    scan["counts"] = np.delete(scan["counts"], lost, 0)
    scan["counts"] = np.concatenate([scan["counts"], scan["counts"][-1:]])


def fewer_frames(scan: dict, rng: Rng) -> None:
    """A frame was lost, and its position not."""
    scan["counts"] = np.delete(scan["counts"], rng.integers(90), 0)


def from_one(scan: dict, rng: Rng) -> None:
    """Positions have numbers, which count from 1."""
    scan["numbers"] = np.arange(1, 91)


def wrong_numbers(scan: dict, rng: Rng) -> None:
    """Positions have numbers, of another scan's order."""
    scan["numbers"] = rng.permutation(90)


def unit(scan: dict, rng: Rng) -> None:
    """Positions a thousand times too large or small."""
    scan["at"] = scan["at"] * rng.choice([1e-3, 1e3])


def scale(scan: dict, rng: Rng) -> None:
    """Positions in pixels of another size."""
    scan["at"] = scan["at"] * rng.choice([0.5, 0.8, 1.25, 2.0])


def marks(scan: dict, rng: Rng) -> None:
    """A dead row marked by a large number, or a saturated pixel."""
    counts = scan["counts"].astype(np.float32)
    mark = rng.choice([2.0**32 - 1, 2.0**31 - 1, np.nan, -1, 6.5e8])
    counts[:, rng.integers(N), :] = mark
    scan["counts"] = counts


def stuck(scan: dict, rng: Rng) -> None:
    """A bright pixel that is always the same, or a dead one where light falls."""
    counts = scan["counts"].copy()
    if rng.random() < 0.5:
        counts[:, rng.integers(N), rng.integers(N)] = 3000
    else:
        counts[:, N // 2 + rng.integers(-2, 3), N // 2 + rng.integers(-2, 3)] = 0
    scan["counts"] = counts


def torn(scan: dict, rng: Rng) -> None:
    """Patterns of marks or without light."""
    counts = scan["counts"].astype(np.float32)
    counts[rng.choice(90, 3, False)] = rng.choice([np.nan, 2.0**32 - 1, 0.0])
    scan["counts"] = counts


def amplitudes(scan: dict, rng: Rng) -> None:
    """Roots of the counts where counts belong."""
    scan["counts"] = np.sqrt(scan["counts"]).astype(np.float32)


def scaled_counts(scan: dict, rng: Rng) -> None:
    """Counts times a gain: not whole, or whole and too many."""
    scan["counts"] = (scan["counts"] * rng.choice([0.37, 2.6])).astype(np.float32)


def outlier(scan: dict, rng: Rng) -> None:
    """A position far away."""
    scan["at"] = scan["at"].astype(float)
    scan["at"][rng.integers(90)] += rng.choice([-1, 1], 2) * 10.0 ** rng.integers(2, 7)


def jitter(scan: dict, rng: Rng) -> None:
    """Positions off by 2 px rms."""
    scan["at"] = scan["at"] + rng.normal(0, 2**0.5, (90, 2))


def corner(scan: dict, rng: Rng) -> None:
    """Zero frequency at the corner where the format has it in the middle, or a pixel beside."""
    shift = (N // 2, N // 2) if rng.random() < 0.5 else tuple(rng.choice([-3, -2, 2, 3], 2))
    scan["counts"] = np.roll(scan["counts"], shift, (1, 2))


KINDS: tuple[Plant, ...] = (
    turned, patterns_turned, out_of_order, out_of_step, lost_frame, fewer_frames, from_one,
    wrong_numbers, unit, scale, marks, stuck, torn, amplitudes, scaled_counts, outlier, jitter,
    corner, nothing,
)  # fmt: skip


def write(folder: Path, form: str, scan: dict) -> tuple[Path, dict]:
    """The file, and options that any user would give."""
    options: dict = {}
    if scan["numbers"] is not None or form == "ptychi":
        return write_pair(folder, scan, np.arange(90), scan["numbers"]), options
    if form == "cxi":
        return write_cxi(folder / "a.cxi", scan, scan["counts"]), options
    np.savez(folder / "p.npz", probeGuess=scan["probe"])
    if form == "ptypy":
        return write_ptyd(folder / "a.ptyd", scan), {"probe": folder / "p.npz"}
    keys = {"diff3d": scan["counts"], "probeGuess": scan["probe"]}
    keys |= {"ycoords": scan["at"][:, 0], "xcoords": scan["at"][:, 1]}
    np.savez(folder / "a.npz", **keys)
    return folder / "a.npz", {"zero_frequency": "centre"}


def is_right(got: ScanData, truth: dict) -> bool:
    """Patterns are the true ones of some of the true positions, up to a common shift."""
    counts = np.rint(np.square(got.diffraction.astype(float)))
    mask = np.ones((N, N), bool) if got.detector_mask is None else got.detector_mask
    flat = truth["counts"][:, mask].reshape(90, -1).astype(float)
    place = {row.tobytes(): number for number, row in enumerate(flat)}
    numbers = [place.get(row.tobytes()) for row in counts[:, mask].reshape(len(counts), -1)]
    if None in numbers:
        return False
    moved = got.positions - truth["at"][numbers]
    return bool(np.abs(moved - moved.mean(0)).max() < OFF_PX)


def outcome(kind: Plant, form: str, rng: Rng) -> str:
    """refused, mended, warned or PASSED."""
    truth = reported_scan()
    scan = dict(truth) | {"numbers": None}
    kind(scan, rng)
    with tempfile.TemporaryDirectory() as name:
        source, options = write(Path(name), form, scan)
        target = Path(name) / "out.npz"
        try:
            asked = ImportOptions(source=source, target=target, picture="none", **options)
            got, _ = import_scan(asked)
        except DataContractError:
            return "refused"
        if is_right(got, truth):
            return "mended"
        return "warned" if examine_scan(target).exit_code else "PASSED"


def planted(options: PlantedOptions) -> int:
    """Every kind and format in turn; the table by kind."""
    found: dict[str, Counter] = {kind.__name__: Counter() for kind in KINDS}
    forms, start = ("ptychi", "cxi", "ptypy", "fly64"), time.monotonic()
    for number in range(options.faults):
        if time.monotonic() - start > 60 * options.minutes:
            break
        kind = KINDS[number % len(KINDS)]
        form = forms[(number // len(KINDS) + number) % len(forms)]
        with contextlib.redirect_stdout(io.StringIO()):
            end = outcome(kind, form, np.random.default_rng([options.seed, number]))
        found[kind.__name__][end] += 1
        if end == "PASSED":
            print(f"fault {number}: {kind.__name__} in {form} passed", flush=True)
    columns = ("refused", "mended", "warned", "PASSED")
    rows = [{"kind": name} | {end: ends[end] for end in columns} for name, ends in found.items()]
    total = sum(map(Counter.total, found.values()))
    print(table(rows, ("kind", *columns)))
    passed = sum(ends["PASSED"] for ends in found.values())
    good = found["nothing"]
    print(f"{total} files, {passed} wrong ones passed, {time.monotonic() - start:.0f} s")
    return int(passed > 0 or good["mended"] < good.total())


if __name__ == "__main__":
    main(PlantedOptions, planted)
