"""Runs of this experiment: (name, config)."""

RUNS = (("ground0", "configs/coordinated.py:grounding"),)
