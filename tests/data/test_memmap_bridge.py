"""From file to tensors: whole counts by index, truth only on request, memory that does not grow
with the scan."""

import importlib
from pathlib import Path

import numpy as np
import pytest
import torch

from ptycho_torch.data.contract import ScanData, write_scan
from ptycho_torch.errors import DataContractError
from ptycho_torch.memmap_bridge import PyTorchMemmapBridge, RawDataTorch, open_scan

n, N = 7, 6


def make_scan(counts: np.ndarray, **fields) -> ScanData:
    rng = np.random.default_rng(2)
    wave = (rng.normal(size=(2, N, N)) + 1j * rng.normal(size=(2, N, N))).astype(np.complex64)
    given = {
        "xcoords": rng.uniform(3, 20, n),
        "ycoords": rng.uniform(3, 10, n),
        "probe": wave,
        "object_guess": np.exp(1j * rng.random((13, 23))).astype(np.complex64),
        "truth_patches": np.exp(1j * rng.random((n, N, N))).astype(np.complex64),
        "scan_index": np.arange(n) * 3,
        "groups": np.array([[0, 2], [6, 5], [1, 4]]),
    }
    return ScanData(np.sqrt(counts).astype(np.float32), **given | fields)


@pytest.fixture
def counts() -> np.ndarray:
    return (
        np.random.default_rng(5).poisson(3.0, (n, N, N)) * 10 ** np.arange(n)[:, None, None]
    )  # 1e0 to 1e7 photons a pixel


@pytest.mark.parametrize(
    "indices",
    [[4, 0, 4], np.array([6, 1]), torch.tensor([2]), slice(1, 6, 2), np.array([[0, 2], [6, 5]])],
    ids=["list", "array", "tensor", "slice", "groups"],
)
def test_counts_come_back_exactly_for_any_way_to_index(tmp_path, counts, indices):
    write_scan(tmp_path / "a.npz", make_scan(counts))
    raw = PyTorchMemmapBridge(tmp_path / "a.npz").raw_data_torch
    came = raw.counts(indices)
    assert came.dtype == torch.float32
    expected = counts[indices if isinstance(indices, slice) else np.asarray(indices)]
    np.testing.assert_allclose(
        came.numpy(), expected, rtol=2e-7, atol=0
    )  # exact below 2^22, then float32's own spacing
    small = expected < 2**22
    np.testing.assert_array_equal(came.numpy()[small], expected[small])


def test_the_bridge_hands_out_the_files_arrays_with_positions_as_row_and_column(tmp_path, counts):
    scan = make_scan(counts, metadata={"sample": "star"})
    write_scan(tmp_path / "a.npz", scan)
    raw = PyTorchMemmapBridge(tmp_path / "a.npz").raw_data_torch
    assert isinstance(raw, RawDataTorch) and isinstance(raw.scan.diffraction, np.memmap)
    assert (raw.source, raw.n, raw.N, raw.metadata) == (
        tmp_path / "a.npz",
        n,
        N,
        {"sample": "star"},
    )
    assert (
        raw.positions.dtype == torch.float64
        and raw.probe.dtype == raw.object_guess.dtype == torch.complex64
    )
    np.testing.assert_array_equal(raw.positions.numpy(), np.stack([scan.ycoords, scan.xcoords], 1))
    np.testing.assert_array_equal(raw.probe.numpy(), scan.probe)
    np.testing.assert_array_equal(raw.object_guess.numpy(), scan.object_guess)
    np.testing.assert_array_equal(raw.groups, scan.groups)
    np.testing.assert_array_equal(raw.scan_index, scan.scan_index)
    np.testing.assert_allclose(raw.photons_per_exposure, counts.sum() / n, rtol=1e-6)


def test_batches_are_copies_that_may_be_changed(tmp_path, counts):
    write_scan(tmp_path / "a.npz", make_scan(counts))
    raw = PyTorchMemmapBridge(tmp_path / "a.npz", with_truth=True).raw_data_torch
    for take in (raw.counts, raw.truth_patches):
        before = take(slice(0, 3)).clone()
        take(slice(0, 3)).mul_(0)
        assert torch.equal(take(slice(0, 3)), before)


def test_truth_is_mapped_when_asked_for_and_never_opened_otherwise(tmp_path, counts):
    scan = make_scan(counts)
    write_scan(tmp_path / "a.npz", scan)
    asked = PyTorchMemmapBridge(tmp_path / "a.npz", with_truth=True).raw_data_torch
    assert isinstance(asked.scan.truth_patches, np.memmap)
    np.testing.assert_array_equal(asked.truth_patches([3, 1]).numpy(), scan.truth_patches[[3, 1]])
    with pytest.raises(
        DataContractError, match=r"a\.npz: key 'Y': no truth patches here; expected .*with_truth"
    ):
        PyTorchMemmapBridge(tmp_path / "a.npz").raw_data_torch.truth_patches([0])
    write_scan(tmp_path / "b.npz", make_scan(counts, truth_patches=None))
    with pytest.raises(DataContractError, match=r"b\.npz: key 'Y': no truth"):
        PyTorchMemmapBridge(tmp_path / "b.npz", with_truth=True).raw_data_torch.truth_patches([0])


@pytest.mark.parametrize(
    "wrong", [lambda c: c + 0.3, lambda c: 0.7 * c], ids=["background subtracted", "rescaled"]
)
def test_amplitudes_whose_squares_are_not_whole_counts_are_refused_not_rounded(
    tmp_path, counts, wrong
):
    write_scan(tmp_path / "a.npz", make_scan(wrong(counts)))
    with pytest.raises(
        DataContractError,
        match=r"a\.npz: key 'diffraction': \d+ squares in this batch are not whole, such as "
        r".*; expected .*; undo",
    ):
        PyTorchMemmapBridge(tmp_path / "a.npz").raw_data_torch.counts(slice(0, 3))


def test_the_real_scan_holds_whole_counts_with_its_stated_dose(real_scan_path, tmp_path):
    raw = PyTorchMemmapBridge(real_scan_path, cache_dir=tmp_path).raw_data_torch
    with np.load(real_scan_path) as by_numpy:
        squares = by_numpy["diffraction"].astype(np.float64) ** 2
    counts = raw.counts(slice(None)).numpy()
    assert np.array_equal(counts, np.rint(counts)) and np.abs(counts - squares).max() < 1e-3
    np.testing.assert_allclose(
        raw.photons_per_exposure, raw.metadata["photons_per_exposure"], rtol=1e-6
    )
    np.testing.assert_allclose(
        raw.photons_per_exposure, float((raw.probe.abs() ** 2).sum()), rtol=5e-3
    )
    assert raw.counts([515, 0]).shape == (2, 64, 64) and raw.positions.shape == (516, 2)


@pytest.mark.slow
def test_six_times_the_patterns_take_no_more_memory(monkeypatch):
    """Loaded, the 1,000 patterns more would be 16 MB of amplitudes and 31 MB of truth."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    peaks = importlib.import_module("memory_of_patterns").measure((200, 1200))
    assert peaks[1200] - peaks[200] < 10


def test_the_patterns_of_some_images_are_their_counts_at_their_places(tmp_path, counts):
    write_scan(tmp_path / "a.npz", make_scan(counts))
    raw, images = open_scan(tmp_path / "a.npz"), np.array([5, 0, 3])
    for whole in (False, True):
        some, every = raw.patterns(images, whole=whole), raw.patterns(whole=whole)
        for patterns, chosen in ((some, images), (every, np.arange(n))):
            place, order = patterns.geometry, torch.tensor([2, 0])
            corners = place.address[:, 1:] + torch.tensor(place.origin)
            centres = corners + place.residual_px + N / 2
            np.testing.assert_allclose(centres, raw.positions[chosen], atol=1e-6)
            assert torch.equal(patterns.measured(order), raw.counts(chosen[order]))
            assert torch.equal(place.probe, raw.probe)
        assert (some.geometry.shape[1:] == raw.scan.canvas_shape) == whole


def test_a_part_of_a_scan_and_a_scan_under_another_probe_keep_all_else(tmp_path, counts):
    write_scan(tmp_path / "a.npz", make_scan(counts))
    raw, images = open_scan(tmp_path / "a.npz"), np.array([5, 0, 3])
    part, under = raw.subset(images), raw.under(raw.scan.probe[:1] * 2)
    assert part.n == 3 and torch.equal(part.positions, raw.positions[images])
    assert torch.equal(part.counts([0, 1, 2]), raw.counts(images))
    assert torch.equal(under.probe, raw.probe[:1] * 2)
    assert torch.equal(under.counts(images), raw.counts(images))
    for other in (part, under):
        assert other.source == raw.source and torch.equal(other.object_guess, raw.object_guess)
