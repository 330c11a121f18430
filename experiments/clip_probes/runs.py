"""Runs of this experiment: (name, config)."""

RUNS = (
    ("flickr8k", "configs/clip.py:flickr8k"),
    ("emoji", "configs/clip.py:emoji"),
)
