"""Runs of this experiment: (name, config)."""

RUNS = (("mfeat", "configs/cca.py:mfeat"),)
