"""Runs of this experiment: (name, config)."""

RUNS = (
    ("hash64_0", "configs/hashing.py:emoji"),
    ("photos64_0", "configs/hashing.py:flickr8k"),
)
