"""Runs of this experiment: (name, config)."""

RUNS = (
    ("early", "configs/fusion.py:mosi-early"),
    ("late_mean", "configs/fusion.py:mosi-late_mean"),
    ("late_product", "configs/fusion.py:mosi-late_product"),
    ("late_learned", "configs/fusion.py:mosi-late_learned"),
    ("hybrid", "configs/fusion.py:mosi-hybrid"),
    ("gated", "configs/fusion.py:mosi-gated"),
    ("tensor", "configs/fusion.py:mosi-tensor"),
    ("low_rank", "configs/fusion.py:mosi-low_rank"),
    ("cross_modal", "configs/fusion.py:mosi-cross_modal"),
    ("memory", "configs/fusion.py:mosi-memory"),
    ("words", "configs/fusion.py:mosi-words"),
    ("video", "configs/fusion.py:mosi-video"),
)
