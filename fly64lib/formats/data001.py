"""DATA-001 itself, for a scan with another object in it."""

from pathlib import Path

from fly64lib.formats.base import Format, Optics
from ptycho_torch.data.contract import write_scan
from ptycho_torch.data.scan import ScanData


def write(path: Path, scan: ScanData, optics: Optics) -> list[Path]:
    """Write the scan as it is."""
    write_scan(path, scan)
    return [path]


FORMAT = Format(write=write, endings=(".npz",))
