"""VQGAN's stage on a VQ-VAE. Its bands were written before its runs."""

_FROM = ("params", "codebook", "likelihood")
_START = {f"graft.{place}": "{vqvae}" for place in _FROM}
_GAN = {**_START, "graft.features": "{features}"}
_CLASSES = "configs/classifier.py:tiny_imagenet"
_OTHER = {
    "task.image.width": 32,
    "task.image.stem": 4,
    "task.image.depths": (1, 1, 1),
}

EXPERIMENT = dict(
    claim="At equal codes a discriminator and a perceptual loss make reconstructions "
    "whose features are closer to those of the photos, at the price of PSNR.",
    source="Esser et al. 2021",
    arms=dict(
        vqvae=dict(config="configs/vqvae.py:flickr8k"),
        features=dict(config=_CLASSES),
        judge=dict(config=_CLASSES, overrides=_OTHER),
        longer=dict(
            config="configs/vqvae.py:flickr8k",
            overrides={"steps": 600, "optim.lr": 3e-4, **_START},
        ),
        strong=dict(
            config="configs/adversarial.py:flickr8k",
            overrides={"task.weight": 0.8, **_GAN},
        ),
        vqgan=dict(config="configs/adversarial.py:flickr8k", overrides=_GAN),
    ),
    checks=(
        dict(
            says="PSNR is 0.3 to 2 dB under that of the VQ-VAE trained on",
            kind="difference",
            arms=("longer", "strong"),
            metric="dev/psnr",
            band=(0.3, 2.0),
        ),
        dict(
            says="at least 90 % of the codes are in use",
            kind="mean",
            arms=("strong",),
            metric="dev/used",
            band=(0.9, None),
        ),
    ),
    scales=dict(small=dict(seeds=3, minutes=300)),
)
