"""Runs of this experiment: (name, config)."""

RUNS = (
    ("batches", "configs/cca.py:split_mnist_batches"),
    ("pretrain", "configs/cca.py:split_mnist_pretrain"),
    ("full_batch", "configs/cca.py:split_mnist"),
)
