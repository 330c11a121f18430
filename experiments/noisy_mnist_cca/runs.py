"""Runs of this experiment: (name, config)."""

RUNS = (
    ("dcca", "configs/cca.py:noisy_mnist"),
    ("dccae", "configs/cca.py:noisy_mnist_ae"),
)
