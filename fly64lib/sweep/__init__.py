"""The whole study as one resumable graph of executed notebooks, run by Snakemake on this machine,
Slurm or PBS.

`profile` (what a run does, and its list of notebooks), `Snakefile` (which depends on which),
`sources` (what code a notebook runs, so that a change reruns only what it reaches), `control`
(start, resume, status, cancel)."""
