"""Runs of this experiment: (name, config)."""

RUNS = (
    ("short", "configs/cca.py:noisy_mnist_relu"),
    ("dcca", "configs/cca.py:noisy_mnist"),
    ("dccae", "configs/cca.py:noisy_mnist_ae"),
)
