"""Image tokenizers and autoencoders with a discriminator and a perceptual loss.

| preset | starts from | data | cost | expect |
|---|---|---|---|---|
| flickr8k (default) | vqvae:flickr8k | Flickr8k | minutes | experiments/vqgan_stage |
| vqgan_f16 | nothing | your web shards | a pod | VQGAN's images |
| kl_f8 | nothing | your web shards | a pod | Stable Diffusion's autoencoder |
| tiny, tiny_kl | nothing | shapes | seconds | nothing: for tests |

`flickr8k` goes on from a trained VQ-VAE, and compares features of a classifier:

    mmjax train --config configs/vqvae.py:flickr8k --workdir runs/vqvae
    mmjax train --config configs/classifier.py:tiny_imagenet --workdir runs/features
    mmjax train --config configs/adversarial.py:flickr8k --workdir runs/vqgan \\
      --config.graft.params=runs/vqvae --config.graft.codebook=runs/vqvae \\
      --config.graft.likelihood=runs/vqvae --config.graft.features=runs/features

The presets at paper size compare features by LPIPS, whose weights come in by
`mmjax convert` of the `lpips` package's state dict, and `--config.graft.features`.

Of their numbers these were read in the originals' code and configuration files: the
networks, the step that the discriminator starts at, its weight, its layers and the
weights of all losses (taming-transformers for `vqgan_f16`); 50,001, 0.5 and the KL
weight (latent-diffusion for `kl_f8`). Adam's betas and the learning rate of 4.5e-6
times the batch are theirs by report. The batch and the schedule are ours; theirs is
constant. CompVis' code gave the learned variance of `kl_f8` to no optimizer; here it
is trained.
"""

from ml_collections import ConfigDict

from mmjax_configs import autoencoder_kl, classifier, common, vqvae

LPIPS = dict(kind="lpips", image_size=256, weight=1.0)


def _played(config: ConfigDict, *, lr: float, perceptual: dict) -> ConfigDict:
    """A stage-1 config with both players, each with an Adam of its own."""
    inner = config.task
    config.task = ConfigDict(
        dict(
            name="adversarial",
            stage1=inner,
            discriminator=dict(width=64, depth=3, norm="batch"),
            weight=0.8,
            start=0,
            warmup=0,
            perceptual=perceptual,
        )
    )
    config.optim.update(name="adam", lr=lr, b1=0.5, b2=0.9, eps=1e-8, weight_decay=0.0)
    config.optim.groups = dict(discriminator=dict(match="^discriminator/"))
    return config


def _stages(config: ConfigDict, *, weight: float) -> dict:
    """The perceptual loss in the stages of a config's classifier."""
    network = dict(config.task, kind="classifier", weight=weight)
    del network["name"], network["smoothing"]
    return network


def flickr8k() -> ConfigDict:
    """16 x 16 codes of Flickr8k photos; the VQ-VAE's encoder and codes move on.

    Of weight 1, the perceptual loss' gradient at the images is 35 times the pixels'.
    """
    stages = _stages(classifier.tiny_imagenet(), weight=0.1)
    config = _played(vqvae.flickr8k(), lr=3e-4, perceptual=stages)
    config.steps, config.optim.warmup, config.log_every = 600, 50, 25
    config.task.stage1.loss_name = "l1"
    config.task.weight = 0.2  # at VQGAN's 0.8 so short a run ends in a regular texture
    config.task.start, config.task.warmup = 100, 100
    config.task.discriminator = dict(width=32, depth=2, norm="batch")
    config.graft = dict.fromkeys(("params", "codebook", "likelihood", "features"), "")
    config.checkpoint.every = 100
    for judge in config.evals.values():
        judge.every = config.steps
    return config


def vqgan_f16() -> ConfigDict:
    """Esser et al. 2021, ImageNet, f = 16 with 1024 codes (taming-transformers)."""
    made = vqvae.vqgan_f16()
    config = _played(made, lr=4.5e-6 * made.batch_size, perceptual=LPIPS)
    config.task.start = 250_001
    config.graft = dict(features="")
    return config


def kl_f8() -> ConfigDict:
    """Rombach et al. 2022, table 8, f = 8 with 4 channels (latent-diffusion)."""
    made = autoencoder_kl.kl_f8()
    config = _played(made, lr=4.5e-6 * made.batch_size, perceptual=LPIPS)
    config.task.start, config.task.weight = 50_001, 0.5
    config.graft = dict(features="")
    return config


def _tiny(config: ConfigDict) -> ConfigDict:
    """Both players learn from the first step, the generator sees the other's second."""
    stages = _stages(classifier.tiny(), weight=1.0)
    config = _played(config, lr=2e-3, perceptual=stages)
    config.task.discriminator = dict(width=8, depth=1, norm="group")
    config.task.start, config.task.warmup = 1, 1
    return config


def tiny() -> ConfigDict:
    """Seconds on a CPU; every part of a real run, none of its size."""
    return _tiny(vqvae.tiny())


def tiny_kl() -> ConfigDict:
    """As tiny, an autoencoder with a learned variance, and batch norms."""
    config = _tiny(autoencoder_kl.tiny())
    config.task.discriminator.norm = "batch"
    return config


PRESETS = {f.__name__: f for f in (flickr8k, vqgan_f16, kl_f8, tiny, tiny_kl)}
get_config = common.chooser(PRESETS)
