"""Runs of this experiment: (name, config)."""

RUNS = (("bridge0", "configs/coordinated.py:bridging"),)
