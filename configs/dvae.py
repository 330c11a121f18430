"""The discrete VAE: images as a grid of codes, stage 1 of DALL-E.

| preset | data | cost | expect |
|---|---|---|---|
| shapes (default) | made by our code | 2 CPU cores | README |
| flickr8k, emoji | Flickr8k shards; Noto emoji, 64 px | 2 CPU cores | README |
| paper | your web shards, 256 px | 64 V100 in the paper | the paper |
| tiny | shapes | seconds | nothing: it is for tests |
"""

from ml_collections import ConfigDict

from mmjax_configs import common
from mmjax_configs.common import ROOT


def _run(
    *, steps: int, batch_size: int, size: int, codes: int, **net: int
) -> ConfigDict:
    """The paper's optimizer and schedules, these scaled to `steps`."""
    config = common.run(steps=steps, batch_size=batch_size)
    spec = dict(kind="dvae", image_size=size, vocab_size=codes, **net)
    config.task = ConfigDict(
        dict(
            name="dvae",
            tokenizer=spec,
            kl_weight=6.6,
            kl_steps=steps // 2,
            temperature_start=1.0,
            temperature=1 / 16,
            temperature_steps=steps,
            alarm=0.1,
        )
    )
    config.data.fields.image = common.images(size)
    config.optim.b2, config.optim.eps = 0.999, 1e-8
    config.optim.weight_decay = 1e-4
    return config


def _judge(config: ConfigDict, name: str, source: str) -> None:
    """Reconstruction, and the bound, of a held-out source."""
    every = dict(every=config.steps, source=source)
    config.evals[name] = dict(type="reconstruction", **every)
    config.evals[f"{name}_elbo"] = dict(type="elbo", **every)


def shapes() -> ConfigDict:
    """8 x 8 codes of a 32 px scene."""
    config = _run(steps=1500, batch_size=32, size=32, codes=256, hidden=32, groups=3)
    config.data.train = "shapes:train?size=32&count=12000&keep=true"
    config.optim.lr = 1e-3
    _judge(config, "val", "shapes:val?size=32&count=512")
    return config


def flickr8k() -> ConfigDict:
    """16 x 16 codes of Flickr8k's photos."""
    config = _run(steps=1500, batch_size=16, size=64, codes=512, hidden=32, groups=3)
    config.data.train = f"webdataset:{ROOT}/flickr8k/flickr8k-train-128-*.tar?keep=true"
    config.data.fields.image.update(
        train_scale=(0.5, 1.0), train_ratio=(1.0, 1.0), flip=True
    )
    config.optim.lr = 1e-3
    dev = f"webdataset:{ROOT}/flickr8k/flickr8k-dev-128-00000.tar"
    _judge(config, "dev", dev)
    return config


def emoji() -> ConfigDict:
    """16 x 16 codes of Noto emoji."""
    config = _run(steps=1500, batch_size=16, size=64, codes=512, hidden=32, groups=3)
    tar = f"webdataset:{ROOT}/emoji/noto128-shared.tar?"
    config.data.train = f"{tar}part=train&keep=true"
    config.data.fields.image.update(train_scale=(0.7, 1.0))
    config.optim.lr = 1e-3
    _judge(config, "held_out", f"{tar}part=held_out")
    return config


def tiny() -> ConfigDict:
    """Seconds on a CPU; every part of a real run, none of its size."""
    config = _run(
        steps=4,
        batch_size=16,
        size=16,
        codes=32,
        hidden=8,
        groups=3,
        blocks_per_group=1,
        init_width=8,
    )
    config.log_every = 1
    config.data.train = "shapes:train?size=16&count=256"
    config.optim.ema = 0.9
    config.checkpoint.every = 2
    source = "shapes:val?size=16&count=32"
    config.evals.val = dict(type="mean_loss", every=4, source=source)
    return config


def paper() -> ConfigDict:
    """Ramesh et al. 2021, appendix A: 8192 codes, 32 x 32 of them in 256 px.

    The learning rate is at its end after 1,200,000 of 3,000,000 updates.
    """
    config = _run(steps=3_000_000, batch_size=512, size=256, codes=8192)
    config.task.kl_steps, config.task.temperature_steps = 5000, 150_000
    config.task.tokenizer.dtype = "bfloat16"
    config.data.train = "webdataset:SHARDS-*.tar"
    config.data.fields.image = common.photos(  # Listing 1
        256, method="area", train_zoom=(9 / 8, 12 / 8), flip=True
    )
    config.data.workers = 16
    config.optim.lr, config.optim.final_lr = 1e-4, 1.25e-6
    config.optim.warmup, config.optim.decay_steps = 0, 1_200_000
    config.optim.ema = 0.999
    config.checkpoint.every = 10_000
    return config


PRESETS = {f.__name__: f for f in (shapes, flickr8k, emoji, tiny, paper)}
get_config = common.chooser(PRESETS)
