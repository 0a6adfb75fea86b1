"""The fly64 dose x overlap study: specimen, simulation, views, phases, judgement, report."""
