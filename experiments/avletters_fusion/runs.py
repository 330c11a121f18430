"""Runs of this experiment: (name, config)."""

RUNS = (
    ("early", "configs/fusion.py:avletters-early"),
    ("late_mean", "configs/fusion.py:avletters-late_mean"),
    ("late_product", "configs/fusion.py:avletters-late_product"),
    ("late_learned", "configs/fusion.py:avletters-late_learned"),
    ("hybrid", "configs/fusion.py:avletters-hybrid"),
    ("gated", "configs/fusion.py:avletters-gated"),
    ("tensor", "configs/fusion.py:avletters-tensor"),
    ("low_rank", "configs/fusion.py:avletters-low_rank"),
    ("cross_modal", "configs/fusion.py:avletters-cross_modal"),
    ("memory", "configs/fusion.py:avletters-memory"),
    ("sound", "configs/fusion.py:avletters-sound"),
    ("lips", "configs/fusion.py:avletters-lips"),
    ("cross_modal_sound", "configs/fusion.py:avletters-cross_modal-sound"),
    ("cross_modal_lips", "configs/fusion.py:avletters-cross_modal-lips"),
)
