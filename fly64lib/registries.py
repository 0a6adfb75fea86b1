"""What a study chooses from by name: one line an entry, the file that holds it imported on demand.

Another package adds an entry by an entry point of the group (docs/extending.md).
"""

from ptycho_torch.registry import Registry

SPECIMENS = Registry(
    "specimen",
    "fly64.specimens",
    {
        "siemens_star": "fly64lib.simulation.specimens:siemens_star",
        "dead_leaves": "fly64lib.simulation.specimens:dead_leaves",
        "lines": "fly64lib.simulation.specimens:lines",
    },
)
