"""Phase C: one data set per dose and split, of the embedded twin or a base file's experiment.

    python -m fly64lib.generation --output-root ROOT [--base-npz BASE] [--dose 1000 ...]

Writes `ROOT/dose_1000/patched_{train,test}.npz` (DATA-001, with truth patches) and
`ROOT/run_manifest.json` with the SHA-256 of each. `held_out_test.npz` beside them holds further
exposures of the test half at random positions: no method gets them, every method's object is scored
on them. A file that the manifest vouches for, made from the same inputs, is not made again."""

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from fly64lib.design.study import SPLITS, ScanDesign, held_out_file, part_of, split_file
from fly64lib.evaluation import light_beside
from fly64lib.simulation import experiment as simulated
from fly64lib.simulation.experiment import Experiment
from fly64lib.simulation.imperfections import PERFECT, Imperfections
from fly64lib.simulation.manifest import MANIFEST, Manifest
from fly64lib.simulation.split import split_scan
from ptycho_torch.commands import command_line
from ptycho_torch.data.checks import mean_photons
from ptycho_torch.data.contract import ScanData, read_scan, write_scan
from ptycho_torch.fields import config, to_dict
from ptycho_torch.files import folder_lock, read_json, sha256_file
from ptycho_torch.memmap_bridge import RawDataTorch
from ptycho_torch.versions import software_versions

HELD_OUT = "held_out"
HELD_OUT_SEED = 7919  # apart from the scan's own draws
HELD_OUT_PATTERNS = 256


def generate_datasets(
    output_root: str | Path,
    design: ScanDesign,
    progress: bool = False,
    imperfections: Imperfections = PERFECT,
) -> dict:
    """Write all doses and splits of `design` under `output_root` and return the manifest.

    Without a `base_npz` the embedded twin is simulated; with one the object, probe and positions of
    any DATA-001 file, on the file's own grid (matched by nature, and labelled so). Doses may be
    made one after another: the manifest keeps all. `imperfections` are in the patterns (and in the
    file's probe) and named in the metadata; methods do not know them."""
    root, design = Path(output_root), part_of(ScanDesign, design)
    # A broken base file is refused before anything is written.
    base = base_experiment(design.base_npz) if design.base_npz else None
    inputs = {
        "design": to_dict(design),
        "base_sha256": sha256_file(design.base_npz) if base else None,
    } | ({} if imperfections == PERFECT else {"imperfections": to_dict(imperfections)})
    with folder_lock(root):
        manifest = Manifest(root, "C", inputs, varying=("doses",))
        wanted = product(design.doses, (*SPLITS, HELD_OUT))
        files = {_file(dose, split): (dose, split) for dose, split in wanted}
        missing = [name for name in files if name not in manifest.files]
        if missing:
            experiment = base or simulated.embedded_experiment(design)
            exposures = _Exposures(experiment, design, imperfections, progress)
            for name in tqdm(missing, desc="phase C", unit=" file", disable=not progress):
                dose, split = files[name]
                scan = exposures.measured(dose, split)
                write_scan(root / name, scan)
                manifest.add(name, dose=dose, split=split, images=scan.n)
        return read_json(root / MANIFEST)


def base_experiment(base_npz: str | Path) -> Experiment:
    """Object, probe and positions of a DATA-001 file, as the truth of a matched simulation."""
    scan = read_scan(base_npz)
    description = {
        "specimen": f"base file {Path(base_npz).name}",
        "simulation": "matched",
        "scan": f"{scan.n} positions of the base file",
        "base_object_kind": scan.metadata.get("object_kind", "not stated"),
        "base_probe_kind": scan.metadata.get("probe_kind", "not stated"),
    }
    return Experiment(scan.object_guess, scan.probe, scan.positions, scan.N, scan.M, description)


class _Exposures:
    """Expected counts of a scan and of its held-out exposures, from which any dose is drawn."""

    def __init__(
        self, experiment: Experiment, design: ScanDesign, flaws: Imperfections, progress: bool
    ) -> None:
        self.design, self.imperfections, positions = design, flaws, experiment.positions_px
        probe, shape = experiment.coarse_probe, experiment.canvas_shape
        self.halves = split_scan(positions, probe, shape, design.guard_power)
        expected = simulated.expected_patterns(experiment, flaws, progress)
        # per exposure, mean over the scan, on a whole and working detector
        self.photons = float(expected.sum((1, 2), dtype=np.float64).mean())
        held_out = replace(experiment, positions_px=_between(positions[self.halves.test], design))
        expected_held_out = simulated.expected_patterns(held_out, flaws)
        for patterns in (expected, expected_held_out):
            patterns *= flaws.working_pixels(experiment.N)
        self.scan, self.held_out = (experiment, expected), (held_out, expected_held_out)

    def measured(self, dose: float, split: str) -> ScanData:
        """The scan of a split, or the held-out exposures, with counts drawn at a dose."""
        held_out, flaws = split == HELD_OUT, self.imperfections
        experiment, expected = self.held_out if held_out else self.scan
        images = np.arange(len(expected)) if held_out else self.halves[split]
        factor, seed = dose / self.photons, self.design.seed(self.design.simulation_seed)
        # Doses differ in their seeds too: equal seeds would give their noise a common pattern.
        noise_seed = seed * 1_000_003 + int(dose) + (HELD_OUT_SEED if held_out else 0)
        diffraction = simulated.draw_amplitudes(expected, images, factor, noise_seed)
        probe = (flaws.file_probe(experiment.coarse_probe) * factor**0.5).astype(np.complex64)
        metadata = {
            "object_kind": "truth",
            "probe_kind": "truth" if flaws.probe_is_true else "initial",
            "dose": dose,
            "split": "test" if held_out else split,
            "view": HELD_OUT if held_out else "baseline",
            "photons_per_exposure": mean_photons(diffraction),
            "replicate": self.design.replicate,
            "simulation_seed": seed,
            "geometry": {
                "N": experiment.N,
                "M": experiment.M,
                "guard_px": self.halves.guard_px,
                "middle_px": self.halves.middle_px,
                "pixels_lit_by_both_halves": self.halves.lit_by_both,
                "split_axis": "y",
            },
            "provenance": experiment.description,
            "versions": software_versions(),
        } | ({} if flaws == PERFECT else {"imperfections": to_dict(flaws)})
        y, x = experiment.positions_px[images].T
        scan = ScanData(diffraction, x, y, probe, experiment.truth, metadata=metadata)
        if held_out:
            return scan
        geometry = RawDataTorch(scan, "the simulation").geometry(whole=True)
        canvas = torch.from_numpy(scan.object_guess)[None]
        patches = geometry.patches(canvas, torch.arange(scan.n)).numpy()
        return replace(scan, truth_patches=patches, scan_index=images)


def _between(positions_px: np.ndarray, design: ScanDesign) -> np.ndarray:
    """Random positions inside the rectangle of these."""
    rng = np.random.default_rng([design.seed(design.simulation_seed), HELD_OUT_SEED])
    (top, left), (bottom, right) = positions_px.min(axis=0), positions_px.max(axis=0)
    x = rng.uniform(left, right, HELD_OUT_PATTERNS)
    return np.stack([rng.uniform(top, bottom, HELD_OUT_PATTERNS), x], axis=1)


def _file(dose: float, split: str) -> str:
    """Name under phase C's folder."""
    path = held_out_file("", dose) if split == HELD_OUT else split_file("", dose, split)
    return path.as_posix()


@config
class Options:
    """Phase C: one data set per dose and split."""

    output_root: Path  # folder for dose_*/patched_*.npz
    design: ScanDesign = ScanDesign()


@command_line("python -m fly64lib.generation")
def main(options: Options) -> int:
    """Generate what the options describe, and print what there is."""
    manifest = generate_datasets(**vars(options), progress=True)
    for name, row in sorted(manifest["files"].items()):
        path = options.output_root / name
        print(f"{path}  {row['images']} images  sha256 {row['sha256'][:12]}")
    if made := sorted(manifest["files"]):
        few = read_scan(options.output_root / made[0])
        print(light_beside.in_words(few.probe, few.diffraction.shape[-1]))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
