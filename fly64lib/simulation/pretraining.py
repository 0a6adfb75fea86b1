"""A network that knows many objects, made from simulated scans of procedural objects alone.

    python -m fly64lib.simulation.pretraining CANVASES OUT.pt

Each canvas is a small scan of its own: an object of any family, a zone plate's probe of other
optics (often fly001's), another kind and spacing of positions, 200 to 400,000 photons an exposure.
What the solver makes of its counts, and the object, are kept in CANVASES, made where absent. The
network then sees random windows of them in random orientations. The bundle serves every scan of the
same N and M: nothing of a scan's own probe or object is in it."""

from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import torch
from jaxtyping import Complex, Float
from torch import Tensor
from tqdm import tqdm
from tyro.conf import Positional

from fly64lib.simulation.families import drawn_window
from fly64lib.simulation.probes import ZonePlate, outer_half_maximum_diameter, zone_plate_probe
from fly64lib.simulation.views import select_groups
from ptycho_torch.commands import run_options
from ptycho_torch.config import ModelConfig, TrainingConfig
from ptycho_torch.errors import DataContractError
from ptycho_torch.fields import Positive, Seed, Threads, config
from ptycho_torch.files import atomic_path
from ptycho_torch.network.features import Features, fluence_of, make_features
from ptycho_torch.network.model import Canvases, PtychoModel
from ptycho_torch.physics.geometry import Detector, Geometry, Patterns
from ptycho_torch.physics.noise import draw_counts
from ptycho_torch.training.bundle import save_bundle

DOSES = 200.0, 4e5  # photons per exposure, drawn evenly on a logarithmic axis
_MOST_PATTERNS = 350
_OWN_OPTICS = 0.4  # share of canvases under fly001's probe
_DIAMETERS = 0.2, 0.73  # of the outer half maximum, in patch sides
_WINDOW_PX, _BATCH = 112, 6
_LIT = 0.5  # least share of a window that light reaches
_TURN = 0.3  # rad, most of a global phase that is put on
_WARMUP, _MOST_SLOPE = 100, 1.0
_LEAST_ERROR = 1e-7  # mean squared, under the log: what an exact canvas would score


@config
class Pretraining:
    """A bundle for any scan of N px patterns and M px patches, of procedural objects alone."""

    canvases: Positional[Path]  # folder of simulated canvases, made where absent
    output: Positional[Path]  # the bundle
    N: Positive = 64  # detector side
    M: Positive = 96  # side of probe and patches
    count: Positive = 600  # canvases
    steps: Positive = 4000  # of the optimiser
    learning_rate: Annotated[float, "of Adam, falling to 0 as a cosine"] = 2e-3
    width: Positive = 32
    depth: Positive = 3
    seed: Seed = 0
    threads: Threads = 1


class Simulated(NamedTuple):
    """A simulated canvas, whose object is known everywhere."""

    features: Features
    truth: Canvases


def positions(rng: np.random.Generator, diameter_px: float) -> Float[np.ndarray, "n 2"]:
    """Patch centres (y, x) in px: tight groups, near or far, or jittered single images, over an
    area of 1.5 .. 3 by 2 .. 4.5 probe diameters. Groups are chosen from a raster as fly001's."""
    D = diameter_px
    height, width = rng.uniform(1.5, 3.0) * D, rng.uniform(2.0, 4.5) * D
    single = rng.choice(["group", "single"], p=[0.65, 0.35]) == "single"
    step = (np.exp(rng.uniform(np.log(0.11), np.log(0.7))) if single else 0.055) * D
    axes = np.arange(0, height, step), np.arange(0, width, step)
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
    centres = grid + rng.uniform(-0.3, 0.3, grid.shape) * step
    if not single:
        spacing = rng.uniform(0.25, 1.0) * D
        centres = centres[np.unique(select_groups(centres, spacing, seed=int(rng.integers(2**31))))]
    centres = centres + rng.uniform(0, 1, 2)
    few = len(centres) <= _MOST_PATTERNS
    return centres if few else centres[rng.permutation(len(centres))[:_MOST_PATTERNS]]


def drawn_probe(rng: np.random.Generator, M: int) -> Complex[np.ndarray, "M M"]:
    """fly001's probe, or that of another zone plate, stop and defocus."""
    if rng.random() < _OWN_OPTICS:
        return zone_plate_probe(M)
    while True:
        optics = ZonePlate(
            outermost_zone_nm=50 / rng.uniform(0.6, 1.2),
            central_stop_um=rng.uniform(0, 80),
            defocus_mm=rng.uniform(0.3, 1.2) * rng.choice([1, 1, -1]),
            outer_zone_amplitude=rng.uniform(0.4, 1),
        )
        probe = zone_plate_probe(M, optics=optics)
        try:
            diameter = outer_half_maximum_diameter(probe[None])
        except DataContractError:  # it does not fall off within its window
            continue
        if _DIAMETERS[0] < diameter / M < _DIAMETERS[1]:
            return probe


@torch.no_grad()
def simulated(seed: int, N: int, M: int) -> Simulated:
    """A canvas by its seed: the features of a small simulated scan, and its object."""
    rng = np.random.default_rng([77, seed])
    probe = drawn_probe(rng, M)
    places = torch.from_numpy(positions(rng, outer_half_maximum_diameter(probe[None])))
    wave = torch.from_numpy(probe.astype(np.complex64))[None]
    wave = wave / wave.abs().square().sum().sqrt()
    geometry = Geometry.of(places, wave, detector=Detector(N))
    image = drawn_window(geometry.shape[1:], round(232 * M / N), rng)
    truth = torch.from_numpy(image)[None]
    geometry = geometry.under(wave * np.exp(rng.uniform(*np.log(DOSES))) ** 0.5)
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    expected = (geometry.expected(truth, chunk) for chunk in geometry.chunks())
    counts = torch.cat([draw_counts(mean, generator) for mean in expected])
    return Simulated(make_features(Patterns(geometry, counts.__getitem__)), truth)


def simulated_loss(
    canvas: Canvases, truth: Canvases, fluence: Float[Tensor, "canvases H W"]
) -> Float[Tensor, ""]:
    """log10 of the mean squared errors of amplitude and of phase, added; mean over canvases, whose
    global phase is removed.

    A decibel is worth the same at every dose, so that one network can learn all of them. A pixel's
    weight is its fluence up to the median of the lit ones, so that the bright middle does not
    decide alone."""
    lit = torch.where(fluence > 0.1 * fluence.mean((-2, -1), keepdim=True), fluence, torch.nan)
    weight = torch.minimum(lit, lit.flatten(1).nanmedian(1).values[:, None, None]).nan_to_num(0)
    weight = weight / weight.sum((-2, -1), keepdim=True)
    turn = torch.angle((weight * canvas.detach() * truth.conj()).sum((-2, -1), keepdim=True))
    change = (canvas * torch.exp(-1j * turn) - truth) * truth.conj() / truth.abs().clamp_min(0.1)
    parts = (change.real, change.imag)  # amplitude, phase
    errors = [(weight * part.square()).sum((-2, -1)) + _LEAST_ERROR for part in parts]
    return (torch.log10(errors[0]) + torch.log10(errors[1])).mean()


def canvas(folder: Path, seed: int, N: int, M: int) -> tuple[Tensor, Tensor]:
    """Channels and truth of a canvas, from the folder; made where absent."""
    path = folder / f"{seed:05d}_N{N}_M{M}.npz"
    if not path.is_file():
        made = simulated(seed, N, M)
        channels, truth = made.features.channels[0].half().numpy(), made.truth[0].numpy()
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez(file, channels=channels, truth=truth)
    with np.load(path) as stored:
        return torch.from_numpy(stored["channels"]), torch.from_numpy(stored["truth"])


def window(rng: np.random.Generator, channels: Tensor, truth: Tensor) -> tuple | None:
    """A random window in a random orientation, under a global phase; None where little is lit."""
    rows, columns = (int(rng.integers(side - _WINDOW_PX + 1)) for side in truth.shape)
    kept = slice(rows, rows + _WINDOW_PX), slice(columns, columns + _WINDOW_PX)
    lit = 10 ** (2 * channels[-1].float()) - 0.1
    if (lit[kept] > 0.1 * lit.mean()).float().mean() < _LIT:
        return None
    turns, mirrored = int(rng.integers(4)), rng.random() < 0.5
    seen = channels[:, kept[0], kept[1]].float().clone()
    phase = rng.uniform(-_TURN, _TURN)
    seen[[1, 3]] += phase

    def turned(image: Tensor) -> Tensor:
        image = torch.rot90(image, turns, (-2, -1))
        return image.flip(-1) if mirrored else image

    return turned(seen), turned(truth[kept])


def pretrain(options: Pretraining) -> Path:
    """Make what canvases are missing, train, and write the bundle."""
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    options.canvases.mkdir(parents=True, exist_ok=True)
    seeds = tqdm(range(options.count), desc="canvases", unit="", dynamic_ncols=True)
    data = [canvas(options.canvases, seed, options.N, options.M) for seed in seeds]
    data = [one for one in data if min(one[1].shape) >= _WINDOW_PX]
    sizes = {"width": options.width, "depth": options.depth}
    model_config = ModelConfig(N=options.N, objective="general", **sizes)
    probe = torch.from_numpy(zone_plate_probe(options.M).astype(np.complex64))[None]
    model = PtychoModel(model_config, probe)
    optimizer = torch.optim.AdamW(model.parameters(), options.learning_rate, weight_decay=1e-4)
    rng = np.random.default_rng(options.seed)
    bar = tqdm(range(options.steps), desc="steps", unit="", dynamic_ncols=True)
    smooth = None
    for step in bar:
        rate = min(1.0, (step + 1) / _WARMUP) * 0.5 * (1 + np.cos(np.pi * step / options.steps))
        for group in optimizer.param_groups:
            group["lr"] = options.learning_rate * rate
        chosen: list[tuple] = []
        while len(chosen) < _BATCH:
            if one := window(rng, *data[rng.integers(len(data))]):
                chosen.append(one)
        channels, truth = (torch.stack(part) for part in zip(*chosen, strict=True))
        found = model.object_canvas(Features(channels))
        loss = simulated_loss(found, truth, fluence_of(channels))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), _MOST_SLOPE)
        optimizer.step()
        own = float(loss.detach())
        smooth = own if smooth is None else 0.99 * smooth + 0.01 * own
        bar.set_postfix(loss=f"{smooth:.3f}")
        if step % 500 == 499 or step + 1 == options.steps:
            about = {"canvases": len(data), "steps": step + 1, "M": options.M, "loss": smooth}
            training = TrainingConfig(model=model_config, steps=options.steps, seed=options.seed)
            save_bundle(options.output, model, training, about)
    return options.output


def command(options: Pretraining) -> int:
    print(pretrain(options))
    return 0


def main(argv: list[str] | None = None) -> int:
    return run_options(Pretraining, command, argv, "python -m fly64lib.simulation.pretraining")


if __name__ == "__main__":
    raise SystemExit(main())
