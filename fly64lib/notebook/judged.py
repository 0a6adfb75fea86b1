"""An object on a scan as notebooks show it: a picture and a table."""

from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from fly64lib.evaluation.columns import markdown_table, table
from fly64lib.evaluation.judgement import has_truth
from fly64lib.evaluation.scores import absences
from fly64lib.plots import figures
from fly64lib.simulation.overlap_measures import scanned_region
from ptycho_torch.inference.apply import Reconstruction
from ptycho_torch.memmap_bridge import RawDataTorch
from ptycho_torch.training.bundle import Bundle

_PSNR = r"""With the error $e$ of phase or amplitude and the range $R$ of the truth,
$\mathrm{PSNR} = 10 \log_{10} (R^2 / \langle e^2 \rangle)$ dB."""
_DEVIANCE = r"""The deviance of measured counts $n$ from those expected, a detector pixel, is
$\langle 2 [n \log (n / I) - (n - I)] \rangle$: about 1 for a perfect model if counts are large."""
_FINE = """These data are simulated on a finer grid. They hold detail that no model on the grid of
the detector explains, so even the truth is above 1."""


@dataclass(frozen=True, eq=False)
class Judged:
    """An object (H, W) on the canvas of a scan, and the rows that judge it, its own first."""

    object: np.ndarray
    bundle: Bundle  # whose object it is
    raw: RawDataTorch
    rows: list[dict]
    remarks: tuple[str, ...]  # lines above the table
    reconstruction: Reconstruction | None = None  # with its fluence, where a training is judged
    gauge: str = "known_probe"  # that the rows leave out

    @property
    def truth(self) -> np.ndarray | None:
        """The truth, where the scan's file holds it."""
        return self.raw.scan.object_guess if has_truth(self.raw) else None

    def picture(self) -> Figure:
        """Truth, or what the file holds in its place, beside the object; the phase error."""
        shown = {self.rows[0]["method"]: self.object}
        if self.truth is None:
            shown["in the file (not truth)"] = self.raw.scan.object_guess
        region = scanned_region(self.raw.positions.numpy())
        return figures.objects(shown, self.truth, region, errors=True, gauge=self.gauge)

    @property
    def legend(self) -> str:
        """What the columns of :meth:`text` mean, in Markdown: of the metrics where they are there,
        of the deviance alone without truth."""
        shown = [_DEVIANCE] if self.truth is None else [_PSNR, _DEVIANCE]
        fine = self.raw.metadata.get("provenance", {}).get("simulation") == "fine"
        if fine and self.raw.M == self.raw.N:
            shown.append(_FINE)
        return "\n\n".join(shown)

    def text(self) -> str:
        """The remarks, and the rows as a Markdown table; without truth only the deviances."""
        remarks = *self.remarks, *absences(self.rows)
        return "\n\n".join([*remarks, markdown_table(*table(self.rows, "method"))])
