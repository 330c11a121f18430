"""Runs of this experiment: (name, config)."""

RUNS = (
    ("shapes", "configs/clip.py:shapes"),
    ("flickr8k_cbow", "configs/clip.py:flickr8k_cbow"),
)
