"""What methods share, and the two reference rows."""

from dataclasses import replace

import numpy as np
import oracle
import pytest
import torch
from small_scan import geometry, small_raw

from fly64lib.methods.base import measured
from fly64lib.methods.reference import Flat, Truth
from fly64lib.methods.starting_probes import orthogonal_modes, photons_restored, with_modes
from fly64lib.simulation.probes import defocused
from ptycho_torch.errors import DataContractError
from ptycho_torch.memmap_bridge import RawDataTorch

GEOMETRY = {"N": 32, "across": 7}


def test_flat_is_the_empty_object_and_truth_only_what_is_said_to_be_true():
    raw = small_raw(1e3, **GEOMETRY)
    assert (Flat().reconstruct(raw).object == np.ones(raw.scan.canvas_shape)).all()
    np.testing.assert_array_equal(Truth().reconstruct(raw).object, raw.scan.object_guess)
    for metadata, kind in (({"object_kind": "initial"}, "'initial'"), ({}, "'not stated'")):
        other = RawDataTorch(replace(raw.scan, metadata=metadata), "scan.npz")
        with pytest.raises(DataContractError, match=f"scan.npz: its object_kind is {kind}"):
            Truth().reconstruct(other)


def test_the_cost_of_a_block_is_filled_when_it_ends():
    with measured() as cost:
        sum(range(10**6))
    assert 0 < cost.cpu_seconds < 60 and 0 < cost.seconds < 60
    assert cost.peak_memory_mb is None or 10 < cost.peak_memory_mb < 1e6


def test_a_defocused_probe_keeps_its_power_and_comes_back_under_the_opposite_defocus():
    probe = torch.from_numpy(geometry(N=16, across=3, modes=2)[1])
    wrong = defocused(probe, 1.0)
    torch.testing.assert_close(wrong.abs().square().sum(), probe.abs().square().sum())
    before, after = oracle.far_field(probe.numpy()), oracle.far_field(wrong.numpy())
    q = np.arange(16) - 8
    square = q[:, None] ** 2 + q**2
    mean = (square * np.abs(before) ** 2).sum() / (np.abs(before) ** 2).sum()
    # Only phases turn, 1 rad in the mean.
    np.testing.assert_allclose(after, before * np.exp(1j * square / mean), atol=1e-6)
    torch.testing.assert_close(defocused(wrong, -1.0), probe)


def test_restoring_the_photons_leaves_the_exit_waves_alone():
    rng = np.random.default_rng(2)
    image, probe = oracle.complex_field(rng, 5, 5), oracle.complex_field(rng, 2, 5, 5)
    same, scaled = photons_restored(image, probe, 123.0)
    assert (np.abs(scaled) ** 2).sum() == pytest.approx(123.0)
    np.testing.assert_allclose(same * scaled, image * probe)


def test_a_start_of_modes_keeps_power_and_what_is_there_and_orthogonal_modes_the_intensity():
    probe = small_raw(1e4, modes=2, **GEOMETRY).probe
    more = with_modes(probe, 5)
    power = more.abs().square().sum((1, 2))
    assert more.shape == (5, 32, 32) and torch.linalg.matrix_rank(more.flatten(1)) == 5
    torch.testing.assert_close(power.sum(), probe.abs().square().sum())
    torch.testing.assert_close(more[:2] / more[:2].abs().max(), probe / probe.abs().max())
    assert power[2:].max() < 0.015 * power.sum()
    for count in (1, 2):
        torch.testing.assert_close(with_modes(probe, count), probe)
    other = orthogonal_modes(more)
    patch = torch.exp(1j * torch.rand(1, 32, 32, generator=torch.Generator().manual_seed(0)))
    patterns = (torch.fft.fft2(beam * patch).abs().square().sum(0) for beam in (other, more))
    torch.testing.assert_close(*patterns, rtol=1e-3, atol=1e-2)
    overlaps = other.flatten(1) @ other.flatten(1).conj().T
    across = overlaps - torch.diag(overlaps.diagonal())
    assert across.abs().max() < 1e-3 * power.sum()
