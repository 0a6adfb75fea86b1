"""A probe recovered from a scan's own patterns, judged on patterns that were kept out."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_scan import small_scan

from fly64lib.cli.main import main
from fly64lib.methods.probe_recovery import held_out, recover_probe
from ptycho_torch.data.contract import ScanData, read_scan, write_scan
from ptycho_torch.errors import ConfigError

GEOMETRY = {"N": 32, "across": 9}


@pytest.fixture(scope="module")
def two_modes() -> ScanData:
    return small_scan(3e4, modes=2, **GEOMETRY)


@pytest.fixture
def one_known(two_modes: ScanData, tmp_path: Path) -> Path:
    """Its file, as of somebody who knows the strongest mode only and takes all photons for its
    own."""
    photons, strongest = (np.abs(two_modes.probe) ** 2).sum(), two_modes.probe[:1]
    probe = strongest * np.float32((photons / (np.abs(strongest) ** 2).sum()) ** 0.5)
    metadata = {"object_kind": "initial", "probe_kind": "initial"}
    write_scan(
        tmp_path / "scan.npz",
        replace(
            two_modes,
            probe=probe,
            metadata=metadata,
            object_guess=np.ones_like(two_modes.object_guess),
        ),
    )
    return tmp_path / "scan.npz"


def test_the_missing_mode_is_found_and_patterns_held_out_say_so(
    one_known: Path, two_modes: ScanData, capsys: pytest.CaptureFixture
) -> None:
    output = one_known.with_name("recovered.npz")
    assert main(["probe", str(one_known), str(output), "--modes", "2", "--steps", "120"]) == 0
    said = capsys.readouterr().out
    assert f"on {held_out(two_modes.n).sum()} patterns held out" in said and str(output) in said
    before, after = read_scan(one_known), read_scan(output)
    told = after.metadata["probe_recovery"]
    assert told["deviance_after"] < 0.7 * told["deviance_before"]
    assert (after.metadata["probe_kind"], after.metadata["object_kind"]) == (
        "reconstruction",
        "reconstruction",
    )
    assert after.probe.shape == (2, 32, 32) and (np.abs(after.probe) ** 2).sum() == pytest.approx(
        (np.abs(before.probe) ** 2).sum(), rel=1e-4
    )
    np.testing.assert_array_equal(after.diffraction, before.diffraction)
    assert sorted(path.name for path in one_known.parent.iterdir()) == ["recovered.npz", "scan.npz"]


def test_a_probe_that_explains_no_more_is_not_written(
    two_modes: ScanData, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Six modes for a beam that has one, under 300 photons: they fit noise."""
    write_scan(tmp_path / "scan.npz", small_scan(300, **GEOMETRY))
    assert (
        main(["probe", str(tmp_path / "scan.npz"), str(tmp_path / "out.npz"), "--modes", "6"]) == 1
    )
    assert "keep the file's; nothing was written" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["scan.npz"]


def test_of_a_simulated_scan_the_truth_stays(two_modes: ScanData, tmp_path: Path) -> None:
    photons = (np.abs(two_modes.probe) ** 2).sum()
    probe = two_modes.probe[:1] * np.float32(
        (photons / (np.abs(two_modes.probe[0]) ** 2).sum()) ** 0.5
    )
    write_scan(tmp_path / "scan.npz", replace(two_modes, probe=probe))
    assert (
        main(
            [
                "probe",
                str(tmp_path / "scan.npz"),
                str(tmp_path / "out.npz"),
                "--modes",
                "2",
                "--steps",
                "40",
            ]
        )
        == 0
    )
    found = read_scan(tmp_path / "out.npz")
    np.testing.assert_array_equal(found.object_guess, two_modes.object_guess)
    assert found.metadata["object_kind"] == "truth"


def test_bad_requests_are_named(
    two_modes: ScanData, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(ConfigError, match="7 patterns: a probe is recovered from 20 or more"):
        recover_probe(two_modes.subset(np.arange(7)), 2)
    write_scan(tmp_path / "scan.npz", two_modes)
    for output, modes, message in (
        ("scan.npz", "2", "expected another file"),
        ("out.txt", "2", "named *.npz"),
        ("out.npz", "99", "probe_modes=99"),
    ):
        assert (
            main(["probe", str(tmp_path / "scan.npz"), str(tmp_path / output), "--modes", modes])
            == 2
        )
        assert message in capsys.readouterr().err
