"""Runs of this experiment: (name, config)."""

RUNS = (
    ("vqvae", "configs/vqvae.py:flickr8k"),
    ("longer", "configs/vqvae.py:flickr8k"),
    ("features", "configs/classifier.py:tiny_imagenet"),
    ("judge", "configs/classifier.py:tiny_imagenet"),
    ("fine", "configs/classifier.py:tiny_imagenet"),
    ("strong", "configs/adversarial.py:flickr8k"),
    ("vqgan", "configs/adversarial.py:flickr8k"),
)
