"""VQ-VAE: images as a grid of codes, stage 1 of a two-stage model.

| preset | data | codes | cost on 2 CPU cores | expect |
|---|---|---|---|---|
| shapes (default) | made by our code | 8 x 8 of 512 at 32 px | 2 minutes | README |
| flickr8k | Flickr8k shards | 16 x 16 of 512 at 64 px | | README |
| emoji | Noto emoji | 16 x 16 of 512 at 64 px | | README |
| own | your images | 16 x 16 of 512 at 64 px | minutes | docs/own.md |
| vqgan_f16 | your web shards | 16 x 16 of 1024 at 256 px | a pod | see below |
| tiny, tiny_gradient | shapes | 4 x 4 of 16 at 16 px | seconds | nothing: for tests |

`vqgan_f16` has the layers of taming-transformers' f16 model and its codebook, learned
by gradients with its weights of the two terms; it is trained on pixel errors alone,
with neither a discriminator nor a perceptual loss, so its images are blurred where
VQGAN's are sharp.
"""

from ml_collections import ConfigDict

from mmjax_configs import common
from mmjax_configs.common import ROOT


def _run(
    *,
    steps: int,
    batch_size: int,
    size: int,
    codes: int,
    net: dict,
    **tokenizer: object,
) -> ConfigDict:
    """What the presets share."""
    config = common.run(steps=steps, batch_size=batch_size)
    spec = dict(kind="vqvae", image_size=size, vocab_size=codes, net=net, **tokenizer)
    config.task = ConfigDict(dict(name="vqvae", tokenizer=spec))
    config.data.fields.image = common.images(size)
    config.optim.b2, config.optim.eps = 0.99, 1e-8
    config.optim.weight_decay = 0.0
    return config


def _judge(config: ConfigDict, name: str, source: str, *, every: int, **more) -> None:
    """Reconstruction, and the bound, of a held-out source."""
    config.evals[name] = dict(type="reconstruction", every=every, source=source, **more)
    config.evals[f"{name}_elbo"] = dict(
        type="elbo", every=config.steps, source=source, **more
    )


def shapes() -> ConfigDict:
    """8 x 8 codes of a 32 px scene."""
    # No block in the encoder: a code is a function of its own 4 x 4 pixels, so that a
    # plain background is one code throughout, and a prior has that much less to learn.
    net = dict(kind="conv", widths=(64,), stem=4, depth=0, decoder_depth=2, head=256)
    config = _run(steps=4500, batch_size=32, size=32, codes=512, net=net)
    config.task.edges = 1.0  # shapes are told apart by their outlines
    config.task.start = 200
    config.data.train = "shapes:train?size=32&count=20000&keep=true"
    config.optim.lr = 5e-3
    _judge(config, "val", "shapes:val?size=32&count=1000", every=config.steps)
    return config


def tiny() -> ConfigDict:
    """Seconds on a CPU; every part of a real run, none of its size."""
    net = dict(kind="conv", widths=(16,), stem=4, depth=1, decoder_depth=1)
    config = _run(steps=4, batch_size=16, size=16, codes=16, net=net, code_dim=8)
    config.log_every = 1
    config.data.train = "shapes:train?size=16&count=256"
    config.optim.lr = 2e-3
    config.checkpoint.every = 2
    _judge(config, "val", "shapes:val?size=16&count=32", every=4)
    return config


def tiny_gradient() -> ConfigDict:
    """As tiny, its codebook learned by gradients."""
    config = tiny()
    config.task.tokenizer.ema = False
    config.task.kmeans, config.task.revive_below = 0, 0.0
    return config


def _photos(*, size: int, steps: int) -> ConfigDict:
    """Real images at a size that suits CPUs."""
    net = dict(kind="conv", widths=(32, 64), stem=2, depth=1, decoder_depth=2)
    config = _run(steps=steps, batch_size=32, size=size, codes=512, net=net)
    config.data.fields.image = common.images(
        size, mode="crop", train_scale=(0.7, 1.0), flip=True
    )
    config.optim.lr = 3e-3
    return config


def own() -> ConfigDict:
    """16 x 16 codes of your images: give --config.data.train=folder:photos."""
    config = common.own(_photos(size=64, steps=1500))
    config.data.fields.image = common.photos(64, flip=True)
    _judge(config, "held_out", "held_out", every=500)
    return config


def flickr8k() -> ConfigDict:
    """16 x 16 codes of Flickr8k photos."""
    config = _photos(size=64, steps=1500)
    config.data.train = f"webdataset:{ROOT}/flickr8k/flickr8k-train-128-*.tar?keep=true"
    dev = f"webdataset:{ROOT}/flickr8k/flickr8k-dev-128-00000.tar"
    _judge(config, "dev", dev, every=500)
    return config


def emoji() -> ConfigDict:
    """16 x 16 codes of Noto emoji."""
    config = _photos(size=64, steps=1500)
    tar = f"webdataset:{ROOT}/emoji/noto128-shared.tar?text=caption,keywords"
    config.data.train = f"{tar}&part=train&keep=true"
    config.data.fields.image.flip = False
    _judge(config, "held_out", f"{tar}&part=held_out", every=500)
    return config


def vqgan_f16() -> ConfigDict:
    """16 x 16 codes of a 256 px image (Esser et al. 2021), without its GAN."""
    config = _run(
        steps=500_000,
        batch_size=256,
        size=256,
        codes=1024,
        net=dict(kind="vqgan"),
        code_dim=256,
        ema=False,
    )
    config.task.kmeans, config.task.revive_below = 0, 0.0
    config.task.commitment, config.task.codebook = 1.0, 0.25
    config.task.loss_name = "l1"
    config.data.train = "webdataset:SHARDS-*.tar"
    config.data.fields.image = common.photos(256, flip=True)
    config.data.workers = 16
    config.optim.b1, config.optim.b2 = 0.5, 0.9
    config.optim.lr = 2e-4
    config.optim.warmup = 5000
    config.checkpoint.every = 5000
    return config


PRESETS = {
    f.__name__: f
    for f in (shapes, own, flickr8k, emoji, vqgan_f16, tiny, tiny_gradient)
}
get_config = common.chooser(PRESETS)
