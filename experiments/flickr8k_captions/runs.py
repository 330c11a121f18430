"""Runs of this experiment: (name, config)."""

RUNS = (
    ("lstm", "configs/caption.py:flickr8k_lstm"),
    ("soft", "configs/caption.py:flickr8k_soft"),
    ("hard", "configs/caption.py:flickr8k_hard"),
    ("transformer", "configs/caption.py:flickr8k_transformer"),
)
