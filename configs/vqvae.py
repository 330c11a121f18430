"""VQ-VAE: pictures as a grid of codes, stage 1 of a two-stage model."""

import os

from ml_collections import ConfigDict

from configs import common

ROOT = os.environ.get("MMJAX_DATA", "../shared/data")


def _run(
    *, steps: int, batch_size: int, size: int, codes: int, net: dict
) -> ConfigDict:
    config = common.run(steps=steps, batch_size=batch_size)
    config.task = ConfigDict(
        dict(
            name="vqvae",
            tokenizer=dict(kind="vqvae", image_size=size, vocab_size=codes, net=net),
        )
    )
    config.data.tokenizer = dict(kind="none")
    config.data.image = dict(size=size, mode="squash", train_scale=(1.0, 1.0))
    config.optim.weight_decay = 0.0
    config.optim.b2 = 0.99
    return config


def shapes() -> ConfigDict:
    """8 x 8 codes of a 32 px scene, in two minutes on two CPU cores."""
    net = dict(kind="conv", widths=(64,), stem=4, depth=2, decoder_depth=2)
    config = _run(steps=1500, batch_size=64, size=32, codes=256, net=net)
    config.data.train = "shapes:train?size=32&count=12000&keep=true"
    config.optim.lr = 2e-3
    return config


PRESETS = {f.__name__: f for f in (shapes,)}


def get_config(arg: str = "shapes") -> ConfigDict:
    """The preset `arg`."""
    return common.choose(arg, PRESETS, "shapes")
