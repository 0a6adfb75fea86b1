"""Draws objects.png: a specimen that no training saw, few photons, by three methods.

python docs/images/draw_objects.py runs/objects"""

import sys
from pathlib import Path

from fly64lib.design.study import StudyDesign, split_file, view_file
from fly64lib.evaluation.judgement import judge, on_detector_grid, region_of
from fly64lib.generation import generate_datasets
from fly64lib.methods.by_name import reconstruct
from fly64lib.overlap import generate_overlap_views
from fly64lib.plots import figures
from ptycho_torch.memmap_bridge import open_scan

DOSE, VIEW, METHODS = 1e4, "sparse", ("lsqml", "classical", "pinn-sim+refine")


def main(root: Path) -> None:
    """Simulate where absent, reconstruct, draw, and print the scores."""
    design = StudyDesign(doses=(DOSE,), specimen="labyrinth", M=96, scan_step=2, views=(VIEW,))
    generate_datasets(root / "C", design)
    generate_overlap_views(root / "C", root / "D", root / "overlap", design)
    scan = open_scan(view_file(root / "C", root / "D", DOSE, VIEW, "test"))
    region = region_of(open_scan(split_file(root / "C", DOSE, "test")))
    objects = {name: reconstruct(scan, name).object for name in METHODS}
    for row in judge(objects, scan, region=region):
        print(row["method"], round(row["phase_psnr"], 1), round(row["amplitude_psnr"], 1))
    seen = {name: on_detector_grid(image, scan) for name, image in objects.items()}
    truth = on_detector_grid(scan.scan.object_guess, scan)
    picture = figures.objects(seen, truth, region)
    figures.saved(picture, Path(__file__).with_name("objects.png"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
