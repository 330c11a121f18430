"""Runs of this experiment: (name, config)."""

RUNS = (
    ("judge_clip", "configs/clip.py:shapes"),
    ("judge", "configs/classifier.py:shapes"),
    ("vqvae", "configs/vqvae.py:shapes"),
    ("prior", "configs/prior.py:shapes"),
    ("kl", "configs/autoencoder_kl.py:shapes"),
    ("diffusion", "configs/diffusion.py:shapes"),
    ("pixels", "configs/diffusion.py:shapes_pixels"),
    ("clip", "configs/clip.py:shapes_transformer"),
    ("df_gan", "configs/df_gan.py:shapes"),
)
