"""VQ-VAE beside dVAE at 64 codes of 256.

The band was written before any of these runs, and after README's figures of photos and
emoji (24.1 and 18.3 dB, 25.9 and 17.1 dB) had been seen.
"""

EXPERIMENT = dict(
    claim="At equal bits and steps a VQ-VAE rebuilds images better than a dVAE does.",
    source="Ramesh et al. 2021, section 2.1, which takes the dVAE and does not compare",
    arms=dict(
        vqvae=dict(
            config="configs/vqvae.py:shapes",
            overrides={"task.tokenizer.vocab_size": 256},
        ),
        dvae=dict(config="configs/dvae.py:shapes"),
    ),
    metrics=("val/used",),
    checks=(
        dict(
            says="the VQ-VAE is 2 dB or more above the dVAE",
            kind="difference",
            arms=("vqvae", "dvae"),
            metric="val/psnr",
            band=(2.0, None),
        ),
    ),
    scales=dict(
        tiny=dict(
            overrides={"steps": 4, "batch_size": 8, "evals.val.limit": 16},
            seeds=2,
            minutes=2,
        ),
        small=dict(overrides={"steps": 1200}, seeds=3, minutes=30),
    ),
)
