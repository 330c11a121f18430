"""Diffusion models: images from noise, of pixels or of an autoencoder's latents.

    mmjax train --config configs/autoencoder_kl.py:shapes --workdir runs/kl
    mmjax train --config configs/diffusion.py:shapes --workdir runs/diffusion \\
      --config.graft.autoencoder=runs/kl

| preset | noised | net | cost | expect |
|---|---|---|---|---|
| shapes (default) | latents, 4 x 4 x 16 | DiT | 35 minutes of a core | README |
| shapes_pixels | pixels, 32 x 32 | DiT, 4 x 4 | 2 CPU cores | not measured yet |
| shapes_unet | latents, 4 x 4 x 16 | UNet | 2 CPU cores | not measured yet |
| tiny, tiny_pixels | shapes of 16 px | DiT, UNet | seconds | nothing: for tests |
"""

from ml_collections import ConfigDict

from mmjax_configs import autoencoder_kl, common


def _run(*, steps: int, batch_size: int, size: int, **task: object) -> ConfigDict:
    """What the presets share."""
    config = common.run(steps=steps, batch_size=batch_size)
    config.task = ConfigDict(dict(name="diffusion", **task))
    config.data.fields.image = common.images(size)
    config.data.fields.latent = dict(kind="latents")  # of `mmjax data encode`
    config.optim.b2, config.optim.eps = 0.99, 1e-8
    config.optim.weight_decay = 0.0
    config.optim.clip_norm = 1.0
    config.graft = ConfigDict(dict(autoencoder=""))
    return config


def _reads(config: ConfigDict, vocab: int, context: int, **tower: object) -> None:
    """Texts by a transformer trained with the net (Rombach et al. 2022, 4.3)."""
    spec = dict(kind="transformer", vocab_size=vocab, context=context, **tower)
    config.task.tower = spec
    config.task.train_tower = True
    config.data.fields.tokens = common.text(vocab, context)


def shapes() -> ConfigDict:
    """Scenes of 4 x 4 latents from their captions."""
    stage1 = autoencoder_kl.shapes().task.autoencoder
    config = _run(steps=3000, batch_size=128, size=32, stage1=stage1)
    config.task.net = dict(kind="dit", patch=1, width=192, depth=4, heads=6, near=True)
    _reads(config, 640, 24, width=128, depth=3, heads=4)
    config.task.pooled = True
    config.task.prediction = "flow"
    config.task.schedule = dict(kind="flow")
    config.task.times, config.task.times_mean = "logit_normal", 0.5
    config.task.sampling = dict(sampler="dpm_solver", steps=20, guidance=3.0)
    config.data.train = (
        ("shapes:train?size=32&count=15000&seed=2&words=full&objects=1", 1.0),
        ("shapes:train?size=32&count=60000&seed=3&words=full&objects=2", 4.0),
    )
    config.optim.name = "muon"
    config.optim.lr = 6e-3
    config.optim.warmup = 100
    config.optim.ema = 0.995
    config.evals.val = dict(
        type="mean_loss", every=config.steps, source="shapes:val?size=32&count=512"
    )
    judged = dict(type="generation", every=config.steps)
    known = dict(source="shapes:val?size=32&count=200", known=config.data.train)
    config.evals.drawn = judged | known
    config.evals.unseen = judged | dict(source="shapes:unseen?size=32&count=200")
    return config


def shapes_pixels() -> ConfigDict:
    """Scenes of 32 x 32 pixels from their captions, without an autoencoder."""
    config = shapes()
    config.task.stage1, config.task.image_size = ConfigDict(), 32
    config.task.net.patch = 4
    config.task.prediction, config.task.weighting = "x0", "flow"
    config.graft = ConfigDict()
    return config


def shapes_unet() -> ConfigDict:
    """As shapes, by a UNet of two levels."""
    config = shapes()
    net = dict(kind="unet", width=96, mult=(1, 2), depth=1, attention=(0, 1))
    config.task.net = ConfigDict(dict(net, heads=4, groups=8))
    config.optim.name, config.optim.lr = "adamw", 1.5e-3
    return config


def tiny() -> ConfigDict:
    """Seconds on a CPU; every part of a real run, none of its size."""
    stage1 = autoencoder_kl.tiny().task.autoencoder
    config = _run(steps=4, batch_size=16, size=16, stage1=stage1)
    config.log_every = 1
    config.task.net = dict(kind="dit", patch=2, width=32, depth=2, heads=2)
    _reads(config, 520, 16, width=32, depth=2, heads=2)
    config.task.train_tower, config.task.pooled = False, True
    config.task.prediction, config.task.weighting = "v", "min_snr"
    config.task.caption_dropout = 0.5
    config.task.sampling = dict(sampler="ddim", steps=3, eta=0.5, guidance=2.0)
    config.data.train = "shapes:train?size=16&count=256"
    config.optim.ema = 0.9
    config.checkpoint.every = 2
    config.graft = ConfigDict()  # stage 1 and the tower stay random
    source = "shapes:val?size=16&count=32"
    config.evals.val = dict(type="mean_loss", every=4, source=source)
    return config


def tiny_pixels() -> ConfigDict:
    """As tiny, of pixels, by a UNet, of labels in place of texts."""
    config = tiny()
    del config.task["tower"], config.data.fields["tokens"]
    config.task.stage1, config.task.image_size = ConfigDict(), 16
    net = dict(kind="unet", width=16, mult=(1, 2), depth=1, attention=(1,))
    config.task.net = ConfigDict(dict(net, heads=2, groups=4))
    config.task.update(classes=64, pooled=False, prediction="eps", weighting="none")
    config.task.sampling.clip = 1.0
    config.data.fields.label = dict(kind="label")
    config.data.train += "&objects=1"
    config.evals.val.source += "&objects=1"
    return config


_ALL = (shapes, shapes_pixels, shapes_unet, tiny, tiny_pixels)
PRESETS = {f.__name__: f for f in _ALL}
get_config = common.chooser(PRESETS)
