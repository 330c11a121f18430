"""Runs of this experiment: (name, config)."""

RUNS = (("dbm", "configs/boltzmann.py:spoken_digits"),)
