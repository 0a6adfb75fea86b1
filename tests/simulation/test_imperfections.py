"""Imperfections of the experiment: each against an independent simulation or a limit, and none of
them changes nothing."""

from dataclasses import replace

import numpy as np
import oracle
import pytest
from small_scan import geometry

from fly64lib.design.study import StudyDesign, split_file
from fly64lib.generation import generate_datasets
from fly64lib.simulation.experiment import Experiment, expected_patterns
from fly64lib.simulation.imperfections import PERFECT, Imperfections
from fly64lib.simulation.probes import zone_plate_probe
from ptycho_torch.data.contract import read_scan
from ptycho_torch.errors import ConfigError
from ptycho_torch.fields import to_dict

SMALL = StudyDesign(doses=(1e4,), scan_step=12, simulation="matched")
FEW = slice(0, 12)


def experiment(modes: int = 1) -> Experiment:
    image, probe, y, x, _ = geometry(modes=modes)
    return Experiment(image, probe, np.stack([y, x], axis=1)[FEW], 32, 32, {})


def seen(**kinds) -> np.ndarray:
    return expected_patterns(experiment(), imperfections=Imperfections(**kinds)).astype(np.float64)


def files(root) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in root.rglob("*.npz")}


def test_without_imperfections_the_files_are_the_bytes_that_they_were(tmp_path, monkeypatch):
    """Against the simulation as it is without them: the patterns at the stored positions, drawn as
    they are."""
    generate_datasets(tmp_path / "with", SMALL, imperfections=Imperfections())
    monkeypatch.setattr(Imperfections, "true_probe", lambda self, probe: probe)
    monkeypatch.setattr(Imperfections, "file_probe", lambda self, probe: probe)
    monkeypatch.setattr(Imperfections, "true_positions", lambda self, positions, *_: [positions])
    monkeypatch.setattr(Imperfections, "working_pixels", lambda self, N: 1)
    generate_datasets(tmp_path / "without", SMALL)
    assert len(files(tmp_path / "with")) == 3 and files(tmp_path / "with") == files(
        tmp_path / "without"
    )
    assert "imperfections" not in (tmp_path / "with" / "run_manifest.json").read_text()
    assert "imperfections" not in read_scan(split_file(tmp_path / "with", 1e4, "test")).metadata


def test_the_file_names_its_imperfections_and_holds_stored_positions_and_the_given_probe(
    tmp_path,
):
    kinds = Imperfections(jitter_px=1.5, incoherent=0.1, beam_stop_px=3.0, probe_error=0.05)
    generate_datasets(tmp_path / "perfect", SMALL)
    generate_datasets(tmp_path / "not", SMALL, imperfections=kinds)
    perfect, real = (
        read_scan(split_file(tmp_path / name, 1e4, "test")) for name in ("perfect", "not")
    )
    assert (
        real.metadata["imperfections"] == to_dict(kinds)
        and real.metadata["probe_kind"] == "initial"
    )
    assert perfect.metadata["probe_kind"] == "truth" == real.metadata["object_kind"]
    np.testing.assert_array_equal(real.xcoords, perfect.xcoords)
    np.testing.assert_array_equal(real.object_guess, perfect.object_guess)
    assert real.modes == 1
    scale = np.linalg.norm(real.probe) / np.linalg.norm(perfect.probe)
    assert scale == pytest.approx(1, rel=0.02)
    assert np.linalg.norm(real.probe - scale * perfect.probe) / np.linalg.norm(
        real.probe
    ) == pytest.approx(0.05, rel=1e-3)
    k = np.arange(64) - 32
    stopped = np.hypot(k[:, None], k) <= 3
    assert (real.diffraction[:, stopped] == 0).all() and (perfect.diffraction[:, stopped] > 0).any()
    assert (real.diffraction.sum(0)[~stopped] > 0).mean() > 0.8
    other = generate_datasets(tmp_path / "not", SMALL)  # the same folder asked for without them
    assert (
        files(tmp_path / "not") == files(tmp_path / "perfect")
        and "imperfections" not in other["inputs"]
    )


def test_jitter_moves_true_positions_by_its_rms_along_each_axis_and_patterns_are_made_there():
    x, y = np.random.default_rng(0).uniform(100, 200, (2, 4000))
    stored = np.stack([y, x], axis=1)
    (true,) = Imperfections(jitter_px=1.5).true_positions(stored, 32, (300, 300))
    for error in (true - stored).T:
        assert (
            error.std() == pytest.approx(1.5, rel=0.05) and abs(error.mean()) < 4 * 1.5 / 4000**0.5
        )
    assert abs(np.corrcoef(*(true - stored).T)[0, 1]) < 0.06
    one = experiment()
    (true,) = Imperfections(jitter_px=0.5).true_positions(one.positions_px, 32, one.object.shape)
    np.testing.assert_allclose(
        seen(jitter_px=0.5),
        oracle.expected_counts(one.object, one.probe, *true.T),
        rtol=1e-3,
        atol=1e-7,
    )
    assert not np.allclose(seen(jitter_px=0.5), seen(), rtol=1e-2, atol=1e-6)


def test_no_patch_is_moved_off_the_object():
    stored = np.array([[16.0, 16.0], [50.0, 84.0], [64.0, 50.0]])
    for true in Imperfections(jitter_px=20, motion_px=8).true_positions(stored, 32, (80, 100)):
        assert (true >= 16).all() and (true <= (64, 84)).all()


def test_an_exposure_in_motion_is_the_mean_of_the_patterns_along_its_way():
    one = experiment()
    way = np.gradient(one.positions_px, axis=0)
    way /= np.linalg.norm(way, axis=1, keepdims=True)
    many = [
        oracle.expected_counts(one.object, one.probe, *(one.positions_px + at * 3.0 * way).T)
        for at in np.linspace(-0.5, 0.5, 41)[:-1] + 0.0125
    ]
    error = np.abs(seen(motion_px=3.0) - np.mean(many, axis=0)).sum() / np.sum(many[0])
    change = np.abs(seen() - np.mean(many, axis=0)).sum() / np.sum(many[0])
    assert error < 0.02 < 0.1 < change


def test_motion_goes_to_none_with_its_square():
    change = [np.abs(seen(motion_px=way) - seen()).sum() for way in (0.1, 0.2)]
    assert change[1] / change[0] == pytest.approx(4, rel=0.15)


def test_the_modes_add_up_incoherently_are_orthogonal_and_share_the_power_as_asked():
    one = experiment()
    modes = Imperfections(incoherent=0.2).true_probe(one.probe)
    gram = np.array([[np.vdot(a, b) for a in modes] for b in modes])
    np.testing.assert_allclose(
        gram, np.diag([0.8, 0.1, 0.1]) * np.linalg.norm(one.probe) ** 2, atol=1e-12
    )
    single = [oracle.expected_counts(one.object, mode[None], *one.positions_px.T) for mode in modes]
    np.testing.assert_allclose(seen(incoherent=0.2), sum(single), rtol=1e-3, atol=1e-7)
    assert len(Imperfections(incoherent=0.2).true_probe(experiment(modes=2).probe)) == 4


def test_light_is_neither_made_nor_lost_by_what_happens_before_the_detector():
    """Through an empty object every photon arrives, and each of them is at the probe's power."""
    one = replace(experiment(), object=np.ones_like(experiment().object))
    for kinds in ({"motion_px": 4.0}, {"incoherent": 0.3}, {"jitter_px": 2.0}):
        counts = expected_patterns(one, imperfections=Imperfections(**kinds)).sum((1, 2))
        np.testing.assert_allclose(counts, np.linalg.norm(one.probe) ** 2, rtol=1e-4)


@pytest.mark.parametrize(
    "kinds", [{"probe_error": 0.1}, {"probe_defocus_rad": 1.0}, {"probe_error": 0.2, "seed": 3}]
)
def test_the_probe_that_methods_get_is_wrong_by_what_was_asked_at_the_same_power(kinds):
    probe = zone_plate_probe(32)[None].astype(np.complex64)
    wrong = Imperfections(**kinds).file_probe(probe)
    assert (
        np.linalg.norm(wrong) == pytest.approx(np.linalg.norm(probe), rel=1e-5)
        and wrong.dtype == np.complex64
    )
    if "probe_error" in kinds:
        assert np.linalg.norm(wrong - probe) / np.linalg.norm(probe) == pytest.approx(
            kinds["probe_error"], rel=1e-4
        )
    else:
        far = [np.abs(oracle.far_field(one[0].astype(complex))) for one in (wrong, probe)]
        np.testing.assert_allclose(*far, atol=1e-5)  # defocus is a phase on the detector
        assert np.linalg.norm(wrong - probe) > 0.2


def test_the_stop_and_the_dead_pixels_read_zero_and_no_others():
    k = np.arange(32) - 16
    np.testing.assert_array_equal(
        Imperfections(beam_stop_px=4.0).working_pixels(32), np.hypot(k[:, None], k) > 4
    )
    dead = ~Imperfections(dead_share=0.05, seed=1).working_pixels(32)
    assert dead.sum() == round(0.05 * 1024) and not np.array_equal(
        dead, ~Imperfections(dead_share=0.05).working_pixels(32)
    )
    assert (
        PERFECT.working_pixels(33).all()
        and Imperfections(beam_stop_px=0.5).working_pixels(32).sum() == 1023
    )


@pytest.mark.parametrize(
    "kinds",
    [{"jitter_px": -1.0}, {"incoherent": 1.0}, {"dead_share": float("nan")}, {"motion_px": "far"}],
)
def test_strengths_that_make_no_sense_are_refused_by_name(kinds):
    with pytest.raises(ConfigError, match=next(iter(kinds))):
        Imperfections(**kinds)
