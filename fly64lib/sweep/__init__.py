"""The whole study as one resumable graph of executed notebooks, run by Snakemake: `profile` (what a
run does), `Snakefile` (what depends on what), `folder` (the record), `control` (start, go on)."""
