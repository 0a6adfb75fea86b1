"""A complete, correct DATA-001 file of odd sizes, made with numpy alone."""

import json
from pathlib import Path

import numpy as np

from ptycho_torch.data.scan import ScanData

n, N, H, W = 6, 9, 17, 31  # odd, and a canvas that is not square


def arrays(seed: int = 3) -> dict[str, np.ndarray]:
    """A complete, correct file, made with numpy alone."""
    rng = np.random.default_rng(seed)

    def wave(*shape: int) -> np.ndarray:
        return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)

    counts = rng.poisson(40.0, (n, N, N))
    metadata = {
        "dose": 40.0 * N**2,
        "object_kind": "truth",
        "probe_kind": "initial",
        "sample": "Ångström",
        "seeds": [1, 2],
    }
    return {
        "diffraction": np.sqrt(counts).astype(np.float32),
        "xcoords": rng.uniform(N / 2, W - N / 2, n),
        "ycoords": rng.uniform(N / 2, H - N / 2, n),
        "probeGuess": wave(2, N, N),
        "objectGuess": wave(H, W),
        "Y": wave(n, N, N),
        "scan_index": np.arange(0, 20 * n, 20),
        "groups": np.array([[0, 1, 2, 3], [5, 4, 1, 0]]),
        "metadata": np.array(json.dumps(metadata)),
        "weather": rng.normal(size=(2, 3)),
        "temperature_K": np.arange(n),
    }


def save(path: Path, contents: dict[str, np.ndarray]) -> Path:
    np.savez(path, **contents, allow_pickle=True)
    return path


def whole_scan(**changes: object) -> ScanData:
    """The same in memory, with other fields as given."""
    made = arrays()
    names = {"probe": "probeGuess", "object_guess": "objectGuess", "truth_patches": "Y"}
    same = ("diffraction", "xcoords", "ycoords", "scan_index", "groups")
    fields = {name: made[key] for name, key in ({name: name for name in same} | names).items()}
    fields["metadata"] = json.loads(str(made["metadata"]))
    fields["extra"] = {key: made[key] for key in ("weather", "temperature_K")}
    return ScanData(**fields | changes)
