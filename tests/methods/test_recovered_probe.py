"""A scan under a probe that is recovered from its own patterns."""

import numpy as np
import pytest
import torch
from small_scan import small_raw

from fly64lib.evaluation.gauge import align
from fly64lib.evaluation.judgement import judge, region_of
from fly64lib.methods.base import ProbeCondition
from fly64lib.methods.classical import Classical
from fly64lib.methods.recovered_probe import (
    halves_under_one_probe,
    seen_alone,
    under_recovered_probe,
)
from fly64lib.simulation.probes import defocused


def test_what_the_detector_sees_of_a_probe_is_all_of_its_far_field_there_and_nothing_beside():
    probe = torch.randn(2, 24, 24, dtype=torch.complex64, generator=torch.manual_seed(0))
    seen = seen_alone(probe, 16)
    before, after = (
        np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(one.numpy(), axes=(1, 2))), axes=(1, 2))
        for one in (probe, seen)
    )
    inside = np.zeros((24, 24), bool)
    inside[4:20, 4:20] = True
    np.testing.assert_allclose(after[:, inside], before[:, inside], rtol=1e-4, atol=1e-4)
    assert np.abs(after[:, ~inside]).max() < 1e-4
    torch.testing.assert_close(seen_alone(probe, 24), probe)


def sought(defocus_rad: float) -> ProbeCondition:
    return ProbeCondition(probe="recovered", probe_defocus_rad=defocus_rad)


def alike(one: torch.Tensor, other: torch.Tensor) -> float:
    """How alike two probes are beside a phase and a scale; 1: the same."""
    product = (one.conj() * other).sum().abs()
    return float(product / (one.abs().square().sum() * other.abs().square().sum()).sqrt())


def test_a_probe_out_of_focus_is_recovered_and_with_it_the_object():
    raw = small_raw(1e5, N=32, across=9)
    blind = raw.without_truth()
    found = under_recovered_probe(blind, sought(0.5))
    wrong = defocused(raw.probe, 0.5)
    assert alike(found.probe, raw.probe) > 0.995 > alike(wrong, raw.probe) + 0.02
    np.testing.assert_array_equal(found.scan.diffraction, raw.scan.diffraction)
    scans = {"known": blind, "recovered": found, "wrong": blind.under(wrong.numpy())}
    objects = {
        name: Classical(weight=30.0).reconstruct(scan).object for name, scan in scans.items()
    }
    probes = {name: scan.scan.probe for name, scan in scans.items()}
    rows = judge(objects, raw, gauge="unknown_probe", probes=probes)
    psnr = {row["method"]: row["phase_psnr"] for row in rows}
    assert psnr["recovered"] > psnr["known"] - 2 and psnr["recovered"] > psnr["wrong"] + 3


def test_both_halves_get_the_probe_of_the_first_and_labels_in_its_gauge():
    """Labels are as far from what is solved under that probe as any truth is from its object, and
    the patches are those of the object."""
    train, test = (small_raw(1e5, seed, truth=True, N=32, across=9) for seed in (0, 1))
    given = halves_under_one_probe(train, test, sought(0.5))
    alone = under_recovered_probe(train.without_truth(), sought(0.5))
    for half, raw in zip(given, (train, test), strict=True):
        np.testing.assert_array_equal(half.scan.probe, alone.scan.probe)
        np.testing.assert_array_equal(half.scan.diffraction, raw.scan.diffraction)
        region = region_of(half)
        made = Classical().reconstruct(half.without_truth()).object[region]
        gaps = {
            name: np.linalg.norm(one.scan.object_guess[region] - made) / np.linalg.norm(made)
            for name, one in {"given": half, "before": raw}.items()
        }
        aligned = align(made, raw.scan.object_guess[region], "unknown_probe").image
        truth = raw.scan.object_guess[region]
        least = np.linalg.norm(aligned - truth) / np.linalg.norm(truth)
        assert gaps["given"] == pytest.approx(least, rel=0.1) and gaps["before"] > 2 * least
        (y, x), M = half.positions[7].round().int().tolist(), half.M
        patch = half.scan.object_guess[y - M // 2 : y - M // 2 + M, x - M // 2 : x - M // 2 + M]
        np.testing.assert_array_equal(half.scan.truth_patches[7], patch)
        assert half.metadata["recovered_probe"]["probe_defocus_rad"] == 0.5


def test_a_right_probe_is_kept_and_so_is_a_poor_one_where_photons_are_few():
    for dose, defocus in ((1e5, 0.0), (100.0, 0.2)):
        raw = small_raw(dose, N=32, across=5)
        found = under_recovered_probe(raw.without_truth(), sought(defocus))
        start = defocused(raw.probe, defocus) if defocus else raw.probe
        torch.testing.assert_close(
            found.probe, start, rtol=1e-4, atol=1e-4 * float(start.abs().max())
        )


def test_an_object_is_judged_on_patterns_under_its_own_probe():
    """Object and probe may trade a factor: half of the one goes with twice the other."""
    raw = small_raw(1e4, N=32, across=5)
    objects = {"half": raw.scan.object_guess / 2, "alone": raw.scan.object_guess / 2}
    probes = {"half": raw.scan.probe * 2}
    rows = {row["method"]: row for row in judge(objects, raw, probes=probes, held_out=raw)}
    for name in ("deviance", "deviance_held_out"):
        np.testing.assert_allclose(rows["half"][name], rows["truth"][name], rtol=1e-5)
        assert rows["alone"][name] > 2 * rows["truth"][name]
