"""Runs of this experiment: (name, config)."""

RUNS = (
    ("flickr8k_cbow", "configs/clip.py:flickr8k_cbow"),
    ("emoji", "configs/clip.py:emoji"),
)
