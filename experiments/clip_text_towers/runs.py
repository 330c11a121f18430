"""Runs of this experiment: (name, config)."""

RUNS = (
    ("shapes_cbow", "configs/clip.py:shapes"),
    ("shapes_transformer", "configs/clip.py:shapes_transformer"),
    ("flickr8k_cbow", "configs/clip.py:flickr8k_cbow"),
    ("flickr8k_transformer", "configs/clip.py:flickr8k"),
)
