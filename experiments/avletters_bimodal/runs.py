"""Runs of this experiment: (name, config)."""

RUNS = (
    ("dbn", "configs/bimodal_autoencoder.py:avletters_dbn"),
    ("both", "configs/bimodal_autoencoder.py:avletters"),
    ("back", "configs/bimodal_autoencoder.py:avletters_back"),
    ("lips", "configs/bimodal_autoencoder.py:avletters_lips"),
    ("lips_no_sound", "configs/bimodal_autoencoder.py:avletters_lips_no_sound"),
    ("sound", "configs/bimodal_autoencoder.py:avletters_sound"),
    ("shallow", "configs/bimodal_autoencoder.py:avletters_shallow"),
)
