"""Autoencoders with continuous latents: stage 1 of latent diffusion.

| preset | data | latents | cost | expect |
|---|---|---|---|---|
| kl_f8 (default) | your web shards | 32 x 32 x 4 at 256 px | a pod | see below |
| shapes | made by our code | 4 x 4 x 16 at 32 px | 6 minutes of a core | README |
| own | your images | 8 x 8 x 16 at 64 px | minutes | docs/own.md |
| tiny | shapes | 8 x 8 x 4 at 16 px | seconds | nothing: it is for tests |

`kl_f8` has the layers of Stable Diffusion's autoencoder. It is trained with neither a
discriminator nor a perceptual loss, so its images are softer than the released ones;
those weights come in by `mmjax convert`, with their scale of 0.18215. Here the scale
is 1 / std of the model's own latents, averaged while it trains and saved with it.
"""

from ml_collections import ConfigDict

from mmjax_configs import common


def kl_f8() -> ConfigDict:
    """Rombach et al. 2022, table 8, f = 8 with 4 channels, without its GAN."""
    config = common.run(steps=500_000, batch_size=96)
    net = dict(width=128, mult=(1, 2, 4, 4), attention=(), hidden=4)
    autoencoder = dict(image_size=256, code_dim=4, net=net, scale=0.0)
    config.task = ConfigDict(dict(name="autoencoder_kl", autoencoder=autoencoder))
    config.task.learned_variance = True
    config.data.train = "webdataset:SHARDS-*.tar"
    config.data.fields.image = common.photos(256, flip=True)
    config.data.workers = 16
    config.optim.b1, config.optim.b2, config.optim.eps = 0.5, 0.9, 1e-8
    config.optim.lr, config.optim.warmup = 4.5e-6 * 96, 5000
    config.optim.weight_decay = 0.0
    config.checkpoint.every = 5000
    return config


def shapes() -> ConfigDict:
    """Scenes of 32 px as 4 x 4 latents of 16 channels.

    The weight of the KL makes a decoder that does not mind noise of 0.3 standard
    deviations, so that a diffusion model need not be exact, and few latents make a
    step of it cheap.
    """
    config = common.run(steps=6000, batch_size=32)
    net = dict(kind="conv", widths=(64, 128), stem=4, depth=1, decoder_depth=3)
    spec = dict(image_size=32, code_dim=16, net=dict(net, head=256), scale=0.0)
    config.task = ConfigDict(dict(name="autoencoder_kl", autoencoder=spec))
    config.task.loss_name, config.task.kl_weight = "l2", 1e-2
    config.data.train = "shapes:train?size=32&count=20000&keep=true"
    config.data.fields.image = common.images(32)
    config.optim.b2, config.optim.eps = 0.99, 1e-8
    config.optim.lr, config.optim.warmup = 3e-3, 225
    config.optim.weight_decay = 0.0
    source = "shapes:val?size=32&count=1000"
    config.evals.val = dict(type="reconstruction", every=config.steps, source=source)
    return config


def own() -> ConfigDict:
    """8 x 8 latents of your images at 64 px: give --config.data.train=folder:photos."""
    config = common.own(shapes())
    config.steps, config.task.autoencoder.image_size = 1500, 64
    config.data.fields.image = common.photos(64, flip=True)
    config.evals = ConfigDict()
    config.evals.held_out = dict(type="reconstruction", every=500, source="held_out")
    return config


def tiny() -> ConfigDict:
    """Seconds on a CPU; every part of a real run, none of its size."""
    config = kl_f8()
    config.steps, config.batch_size, config.log_every = 4, 16, 1
    config.task.autoencoder.net = dict(
        width=16, mult=(1, 2), depth=1, attention=(1,), hidden=4, groups=8
    )
    config.task.autoencoder.update(image_size=16)
    config.data.train = "shapes:train?size=16&count=256"
    config.data.fields.image = common.images(16)
    config.data.workers = 0
    config.optim.lr, config.optim.warmup = 2e-3, 1
    config.checkpoint.every = 2
    source = "shapes:val?size=16&count=32"
    config.evals.val = dict(type="reconstruction", every=4, source=source)
    return config


PRESETS = {f.__name__: f for f in (kl_f8, shapes, own, tiny)}
get_config = common.chooser(PRESETS)
