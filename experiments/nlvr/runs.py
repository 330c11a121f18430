"""Runs of this experiment: (name, config)."""

RUNS = (("nlvr", "configs/vqa.py:nlvr"),)
