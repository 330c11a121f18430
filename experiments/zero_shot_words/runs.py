"""Runs of this experiment: (name, config)."""

RUNS = (("devise0", "configs/coordinated.py:devise"),)
