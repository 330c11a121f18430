"""Runs of this experiment: (name, config)."""

RUNS = (
    ("base", "configs/vqa.py:easy_vqa"),
    ("big", "configs/vqa.py:easy_vqa_big"),
    ("question", "configs/vqa.py:easy_vqa_question"),
    ("image", "configs/vqa.py:easy_vqa_image"),
)
