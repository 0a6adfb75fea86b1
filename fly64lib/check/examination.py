"""A scan with all that was measured of it, and what it is judged to be."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from fly64lib.check.measurements import Measurements
from fly64lib.check.verdicts import CHECKS, Verdict
from ptycho_torch.data.contract import read_scan

GOOD, WARNINGS = 0, 1  # exit codes; 2: the file breaks DATA-001


@dataclass(frozen=True, eq=False)
class Examination:
    """Measurements of a file that keeps the contract, and the verdict of every check."""

    of: Measurements
    verdicts: Mapping[str, Verdict]

    @property
    def exit_code(self) -> int:
        return GOOD if all(one.good for one in self.verdicts.values()) else WARNINGS

    def text(self) -> str:
        """A line per verdict, and under a warning what to do."""
        return "\n".join(
            f"{'ok  ' if one.good else 'look'} {name}: {one.found}"
            + ("" if one.good else f"\n       to do: {one.advice}")
            for name, one in self.verdicts.items()
        )

    def to_dict(self) -> dict:
        """Plain values for scripts."""
        verdicts = [{"what": name, **asdict(one)} for name, one in self.verdicts.items()]
        return {"file": str(self.of.source), "exit_code": self.exit_code, "verdicts": verdicts}


def examine_scan(path: str | Path, cache_dir: str | Path | None = None) -> Examination:
    """Check a DATA-001 file. Raises DataContractError where it breaks the contract."""
    of = Measurements(Path(path), read_scan(path, cache_dir=cache_dir))
    return Examination(of, {name: judge(of) for name, judge in CHECKS.items()})
