"""What a study chooses from by name: one line an entry, the file that holds it imported on demand.

Another package adds an entry by an entry point of the group (docs/extending.md)."""

from ptycho_torch.registry import Registry

SPECIMENS = Registry(
    "specimen",
    "fly64.specimens",
    {
        "siemens_star": "fly64lib.simulation.specimens:siemens_star",
        "dead_leaves": "fly64lib.simulation.specimens:dead_leaves",
        "lines": "fly64lib.simulation.specimens:lines",
        "labyrinth": "fly64lib.simulation.kept_out:labyrinth",
        "circuit": "fly64lib.simulation.kept_out:circuit",
    },
)

PROBES = Registry(
    "probe", "fly64.probes", {"zone_plate": "fly64lib.simulation.probes:zone_plate_probe"}
)

METHODS = Registry(
    "method",
    "fly64.methods",
    {
        "pinn": "fly64lib.methods.learned:Pinn",
        "pinn+refine": "fly64lib.methods.learned:PinnRefined",
        "pinn-sim": "fly64lib.methods.learned:PinnSim",
        "pinn-sim+refine": "fly64lib.methods.learned:PinnSimRefined",
        "supervised": "fly64lib.methods.learned:Supervised",
        "lsqml": "fly64lib.methods.ptychi:LSQML",
        "lsqml-fine": "fly64lib.methods.ptychi:LSQMLFine",
        "rpie": "fly64lib.methods.ptychi:RPIE",
        "dm": "fly64lib.methods.ptychi:DM",
        "classical": "fly64lib.methods.classical:Classical",
        "flat": "fly64lib.methods.reference:Flat",
        "truth": "fly64lib.methods.reference:Truth",
    },
)

_METRICS = (
    *("phase_psnr", "phase_ssim", "phase_ms_ssim", "phase_mae", "phase_mse"),
    *("amplitude_psnr", "amplitude_ssim", "amplitude_ms_ssim", "amplitude_mae", "amplitude_mse"),
    *("frc_half", "frc_half_bit"),
)
METRICS = Registry(
    "metric",
    "fly64.metrics",
    {name: f"fly64lib.evaluation.metrics:{name}" for name in _METRICS}
    | {"resolved": "fly64lib.evaluation.faithful:resolved"},
)

FORMATS = Registry(
    "format",
    "fly64.formats",
    {
        "fly64": "fly64lib.formats.npz_files:FLY64",
        "tike": "fly64lib.formats.npz_files:TIKE",
        "cxi": "fly64lib.formats.cxi:FORMAT",
        "ptychi": "fly64lib.formats.ptychi:FORMAT",
        "ptypy": "fly64lib.formats.ptypy:FORMAT",
        "named": "fly64lib.formats.named:FORMAT",
        "tiff": "fly64lib.formats.images:TIFF",
        "png": "fly64lib.formats.images:PNG",
        "data": "fly64lib.formats.exporting:DATA001",
    },
)
