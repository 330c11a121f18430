"""Runs of this experiment: (name, config)."""

RUNS = (("rbm", "configs/boltzmann.py:mnist"),)
