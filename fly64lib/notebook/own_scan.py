"""One's own scan to an object: `fly64 reconstruct scan.npz`, and what own_scan.ipynb shows.

Another program's file is imported first. The scan is looked at, what it needs is found
(:mod:`fly64lib.methods.scan_model`), the methods reconstruct nine tenths of the patterns under
that, and the last tenth says which one is the best; that one gets all patterns. A learned row is
the best only where it beats the classical one by more than chance.

    OUTPUT/scan.npz             the imported scan, where the file was another program's
           reconstruction.npz   DATA-001: the object, probe, positions; `phase_deviation` beside
           reconstruction.cxi   on the detector's own grid, for other programs
           objects.png  error.png  index.html
           positions.png               where positions were corrected
           result.json          last: all numbers

A run that was stopped goes on with what it has found, if file and options are the same."""

import sys
import time
from dataclasses import asdict, dataclass, field, replace
from math import inf, isfinite
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm
from tyro.conf import Positional

from fly64lib.check.examination import examine_scan
from fly64lib.design.registries import FORMATS, METHODS
from fly64lib.evaluation.detector_grid import scan_on_detector_grid
from fly64lib.evaluation.moves import Moves, moves
from fly64lib.formats.base import Optics, is_data001
from fly64lib.formats.importing import import_scan
from fly64lib.formats.options import ImportOptions
from fly64lib.methods.base import MethodResult
from fly64lib.methods.by_name import network_of
from fly64lib.methods.probe_recovery import held_out
from fly64lib.methods.scan_model import ADDITIONS, ScanModel, find_model
from fly64lib.notebook.parameters import OwnScanParameters, OwnScanSettings
from fly64lib.plots import figures, positions
from fly64lib.report.offline import write_page
from fly64lib.simulation.overlap_measures import scanned_region
from ptycho_torch.data.contract import write_scan
from ptycho_torch.data.scan import ScanData
from ptycho_torch.errors import ConfigError
from ptycho_torch.fields import config, field_names, to_dict
from ptycho_torch.files import folder_lock, json_text, read_json, sha256_file, write_json
from ptycho_torch.inference.refinement import NEAR
from ptycho_torch.iteration.image_prior import logs_of, object_of
from ptycho_torch.iteration.newton import Newton
from ptycho_torch.iteration.posterior import deviations
from ptycho_torch.iteration.prior_search import clearly_less
from ptycho_torch.iteration.ring_prior import from_settings
from ptycho_torch.iteration.slopes import deviances, gradient
from ptycho_torch.memmap_bridge import RawDataTorch, open_scan
from ptycho_torch.training.bundle import shipped
from ptycho_torch.versions import software_versions

_PICTURES = {
    "objects.png": "Phase and amplitude by each method, from nine tenths of the patterns, on the"
    " scanned region; the global phase is removed.",
    "error.png": "Standard deviation of the best object's phase, by the counts and the image prior."
    " What the model itself misses is not in it.",
    "positions.png": "From the stated positions to those that were found, on the plan and in the"
    " scan's order; a shift that all share is left out.",
}
_SAMPLES = 4  # of the error map
_PROBED = 64  # patterns on which a step is timed
_PASSES = {"model": 56, "method": 97}  # of an addition beside its joint steps; of a method


@config
class OwnScan(OwnScanSettings):
    """A scan to its object: what it needs is found, methods are judged on patterns held out.

    Phase F of the study, with its own options: python -m fly64lib.reconstruction --help; a trained
    network applied to a scan: fly64 reconstruct --bundle B --data X.npz."""

    source: Positional[Path]  # a DATA-001 scan, or a file that fly64 import reads
    output: Path | None = None  # folder; if not given, SOURCE's name with _reconstructed, here
    json: bool = False  # the numbers on stdout, for scripts


@dataclass(frozen=True, eq=False)
class OwnResult:
    """What was found of a scan."""

    scan: RawDataTorch  # with the best object
    model: ScanModel
    best: str  # method
    rows: list[dict]  # of each method: deviances of patterns fitted and held out, costs
    objects: dict[str, np.ndarray]  # of nine tenths of the patterns, by method
    phase_deviation: np.ndarray  # (H, W), rad
    moved: Moves | None = None  # the positions, from the stated ones
    verdicts: list[dict] = field(default_factory=list)  # of fly64 check
    folder: Path | None = None


def reconstruct_scan(source: str | Path, output: str | Path | None = None, **options) -> OwnResult:
    """The object of one's own scan, all files written; options as of `fly64 reconstruct`."""
    return run(OwnScanParameters(source=str(source), output=output and str(output), **options))


def run(options: OwnScan | OwnScanParameters) -> OwnResult:
    """Import, look, find the model, reconstruct, judge, write. Raises PtychoError."""
    source = Path(options.source)
    folder = Path(options.output or f"{source.name.partition('.')[0]}_reconstructed")
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"output {folder} is a file; give the name of a folder")
    started = time.monotonic()
    until = inf if options.time_limit is None else started + options.time_limit
    torch.set_num_threads(options.threads)
    with folder_lock(folder):
        path = _data001(source, folder)
        looked = examine_scan(path)
        _say("looked at the scan:\n" + looked.text())
        original = open_scan(path)
        raw = original.without_truth()
        methods = _usable(options.methods, raw)
        key = json_text({"sha256": sha256_file(path), "steps": options.steps})
        model = ScanModel(raw)
        if options.model:
            _say(f"this takes {_in_words(_estimate(raw, options, methods))}, roughly")
            bar = tqdm(total=len(ADDITIONS), desc="what the scan needs", unit="")

            def told(name: str) -> None:
                bar.set_postfix_str(name)
                bar.update()

            limits = {"until": until, "told": told, "folder": folder / "model", "key": key}
            with bar:
                model = find_model(raw, steps=options.steps, threads=options.threads, **limits)
        result = _judged(model, methods, options.threads)
        stated = raw.scan.positions * (result.scan.M / raw.M)
        moved = moves(stated, result.scan.scan.positions)
        result = replace(result, moved=moved, verdicts=looked.to_dict()["verdicts"], folder=folder)
        _write(result, options, original, time.monotonic() - started)
    return result


def command(options: OwnScan) -> int:
    """Reconstruct, and print what was found."""
    result = run(options)
    if options.json:
        print(json_text(read_json(result.folder / "result.json"), indent=2))
        return 0
    print(in_words(result))
    print(f"results: {result.folder / 'index.html'}")
    return 0


def in_words(result: OwnResult) -> str:
    """What was found, in a few lines."""
    lines = []
    for one in result.model.tried:
        word = "kept" if one.kept else "not kept: no better than chance"
        lines.append(f"{one.name}: deviance held out {one.before:.3f} -> {one.after:.3f}, {word}")
    lines += [f"{name}: left out, the time limit was over" for name in result.model.left_out]
    if result.moved:
        lines.append(str(result.moved))
    for row in result.rows:
        lines.append(f"{row['method']}: deviance held out {row['deviance_held_out']:.3f}")
    lines.append(f"best: {result.best}{'' if learned_adds(result) else '; ' + NOTHING_ADDED}")
    return "\n".join(lines)


NOTHING_ADDED = "the network explains the patterns held out no better than the classical iteration"


def pictures(result: OwnResult) -> list[str]:
    """Names of the pictures of a result."""
    return [name for name in _PICTURES if name != "positions.png" or result.moved]


def learned_adds(result: OwnResult) -> bool:
    """Whether the best method is a learned one, or none was tried."""
    return result.best != "classical" or len(result.rows) == 1


def _data001(source: Path, folder: Path) -> Path:
    """The scan's DATA-001 file: the source, or what it is imported to."""
    if source.is_file() and source.suffix == ".npz" and is_data001(source):
        return source
    target = folder / "scan.npz"
    done = folder / "imported.json"
    about = {"source": str(source.resolve()), "sha256": source.is_file() and sha256_file(source)}
    if not (target.is_file() and done.is_file() and read_json(done) == about):
        import_scan(ImportOptions(source=source, target=target, overwrite=True))
        write_json(done, about)
    return target


def _usable(asked: tuple[str, ...], raw: RawDataTorch) -> tuple[str, ...]:
    """The methods that need no training; of the default ones those that there is a network for."""
    for name in asked:
        if network_of(name):
            how = "train.ipynb and infer.ipynb train and apply one"
            raise ConfigError(f"method {name} needs a network trained for this scan; {how}")
    if asked != OwnScanSettings().methods:
        return asked
    try:
        shipped(raw.N, raw.M if raw.M > raw.N else raw.N * 3 // 2)
    except ConfigError as error:
        _say(f"classical only: {error}")
        return ("classical",)
    return asked


def _estimate(raw: RawDataTorch, options: OwnScanSettings, methods: tuple[str, ...]) -> float:
    """Seconds that a run takes, from the time of one step on some patterns."""
    few = raw.finer(raw.N * 3 // 2) if raw.M == raw.N else raw
    few = few.subset(np.arange(min(_PROBED, raw.n)))
    modes = [max(addition.modes, raw.scan.modes) for addition in ADDITIONS]
    modes = modes if options.model else [raw.scan.modes]
    patterns = few.patterns()
    probe = patterns.geometry.probe[:1].expand(max(modes), -1, -1) / max(modes) ** 0.5
    patterns = patterns.under(probe)
    canvas = torch.ones(patterns.geometry.shape, dtype=torch.complex64)
    gradient(canvas, patterns)
    start = time.perf_counter()
    gradient(canvas, patterns)
    one = (time.perf_counter() - start) * raw.n / few.n
    passes = (len(methods) + 1) * _PASSES["method"]
    if options.model:
        passes += sum(modes) / max(modes) * (2 * options.steps + _PASSES["model"])
    return one * passes


def _judged(model: ScanModel, methods: tuple[str, ...], threads: int) -> OwnResult:
    """Every method on nine tenths of the patterns, the best one on all of them."""
    scan, held = model.scan, held_out(model.scan.n)
    parts = {"fitted": scan.subset(~held).without_truth(), "held_out": scan.subset(held)}
    rows, results, of_patterns = [], {}, {}
    for name in tqdm(methods, desc="methods", unit=""):
        found = METHODS[name](threads=threads).reconstruct(parts["fitted"])
        results[name], canvas = found, torch.from_numpy(found.object)[None]
        row = {"method": name, "note": found.note, "cpu_seconds": found.cost.cpu_seconds}
        for part, data in parts.items():
            own = deviances(canvas, data.patterns(whole=True))
            row[f"deviance_{part}"] = float(own.mean())
        rows.append(row)
        of_patterns[name] = own
    objects = {name: found.object for name, found in results.items()}
    best = methods[0]
    for name in methods[1:]:
        if clearly_less(of_patterns[name], of_patterns[best]):
            best = name
    image, deviation = _on_all_patterns(scan, results[best])
    whole = RawDataTorch(replace(scan.scan, object_guess=image), scan.source)
    return OwnResult(whole, model, best, rows, objects, deviation)


def _on_all_patterns(scan: RawDataTorch, found: MethodResult) -> tuple[np.ndarray, np.ndarray]:
    """The object (H, W) that a method found from nine tenths of the patterns, stepped on with all,
    and the standard deviation of its phase, rad, by counts and prior; 0 where no light went.

    Under the prior that the method chose: about an empty object, or about what the network made of
    it. A method without one is held to its object."""
    chosen = from_settings(found.settings)
    prior = chosen or NEAR
    patterns = scan.patterns()
    geometry, newton = patterns.geometry, Newton(patterns)
    logs = logs_of(geometry.crop(torch.from_numpy(found.object)), geometry.fluence())
    empty = chosen is not None and found.settings.get("kept", "none") == "none"
    solved = newton.solve(logs, prior, centre=0.0 if empty else logs)
    deviation = deviations(newton, solved, prior, samples=_SAMPLES)[1:]
    image = geometry.embed(object_of(solved)).numpy()
    return image, geometry.embed(deviation, outside=0.0).numpy()


def _write(
    result: OwnResult, options: OwnScan | OwnScanParameters, original: RawDataTorch, seconds: float
) -> None:
    """All files, result.json last."""
    folder, scan = result.folder, result.scan.scan
    region = scanned_region(scan.positions)
    picture = figures.objects(result.objects, None, region)
    figures.saved(picture, folder / "objects.png")
    figures.saved(figures.deviation(result.phase_deviation[region]), folder / "error.png")
    if moved := result.moved:
        figures.saved(positions.moved(moved), folder / "positions.png")
    asked = to_dict(options)
    numbers = {
        "source": str(options.source),
        "data_sha256": sha256_file(original.source),
        "options": {name: asked[name] for name in field_names(OwnScanSettings)},
        "tried": [asdict(one) for one in result.model.tried],
        "left_out": result.model.left_out,
        "positions_moved_px": moved and {"rms": moved.rms_px, "most": moved.most_px},
        "rows": result.rows,
        "best": result.best,
        "M": result.scan.M,
        "modes": scan.modes,
        "seconds": seconds,
        "verdicts": result.verdicts,
        "versions": software_versions(),
    }
    write_scan(folder / "reconstruction.npz", _complete(result, numbers, original))
    if pixel := _pixel_nm(original):
        coarse = scan_on_detector_grid(result.scan)
        size = pixel * original.M / original.N
        plain = replace(coarse.scan, brightness=None, background=None, detector_mask=None)
        FORMATS["cxi"].write(folder / "reconstruction.cxi", plain, Optics(pixel_size_nm=size))
    shown = {name: _PICTURES[name] for name in pictures(result)}
    write_page("own_scan", folder / "index.html", shown, of=numbers, summary=in_words(result))
    write_json(folder / "result.json", numbers)


def _pixel_nm(original: RawDataTorch) -> float | None:
    pixel = original.metadata.get("object_pixel_nm")
    known = type(pixel) in (int, float) and isfinite(pixel) and pixel > 0
    return float(pixel) if known else None


def _complete(result: OwnResult, numbers: dict, original: RawDataTorch) -> ScanData:
    """The scan with all that was found, and what its file says of itself."""
    scan = result.scan.scan
    found = any(one.kept for one in result.model.tried)
    kinds = {"object_kind": "reconstruction"} | ({"probe_kind": "reconstruction"} if found else {})
    about = {key: numbers[key] for key in ("data_sha256", "tried", "rows", "best", "versions")}
    if pixel := _pixel_nm(original):
        kinds["object_pixel_nm"] = pixel * original.M / result.scan.M
    return replace(
        scan,
        extra={"phase_deviation": result.phase_deviation.astype(np.float32)},
        metadata=original.metadata | kinds | {"reconstruction": about},
    )


def _in_words(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
