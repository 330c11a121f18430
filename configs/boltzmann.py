"""Boltzmann machines: RBM, deep belief nets, deep Boltzmann machines, multimodal ones.

| preset | data | layers | 1 CPU core | expect |
|---|---|---|---|---|
| mnist (default) | MNIST, bits drawn anew | 784-500, PCD | minutes | rbm_mnist |
| mnist_dbm | the same | 784-500-1000 | hours | not run |
| mnist_dbn | the same | 784-500-2000 | hours | not run |
| digits | MNIST and its classes | 784-500 + 10, joint 500 | an hour | not run |
| spoken_digits | MNIST, spoken digits | joint 500 | minutes | multimodal_digits |
| multimodal | Noto emoji, keywords | 768 + words, 512-512 each | hours | not run |
| tiny, tiny_dbn, tiny_joint | shapes | tens of units | seconds | for tests |

MNIST is read as a TFDS set: `mmjax data build mnist --manual-dir DIR`.
"""

from ml_collections import ConfigDict

from mmjax_configs import common
from mmjax_configs.common import ROOT


def _run(*, steps: int, batch_size: int, lr: float, **task: object) -> ConfigDict:
    """What the presets share: plain SGD, whose rate falls along a cosine."""
    config = common.run(steps=steps, batch_size=batch_size)
    config.task = ConfigDict(dict(name="boltzmann", **task))
    config.optim.name, config.optim.momentum = "sgd", 0.0
    config.optim.lr, config.optim.weight_decay = lr, 0.0
    config.optim.warmup = 0
    return config


def _image(side: int, *widths: int, channels: int = 1, **more: object) -> dict:
    return dict(units=side * side * channels, channels=channels, widths=widths, **more)


def _mnist(*widths: int, steps: int, **task: object) -> ConfigDict:
    image = _image(28, *widths, binarise=True)
    config = _run(
        steps=steps, batch_size=100, lr=0.05, pathways=dict(image=image), **task
    )
    config.data.fields.image = common.images(28)
    config.data.train = "tfds:mmjax_mnist/train?keep=true"
    test = "tfds:mmjax_mnist/test?keep=true"
    config.evals.test = dict(type="log_probability", every=steps, source=test)
    config.evals.filters = dict(type="filters", every=0, source=test, limit=1)
    return config


def mnist() -> ConfigDict:
    """500 hidden units (Salakhutdinov and Murray 2008), by PCD with fast weights."""
    return _mnist(500, steps=5000, sweeps=1, chains=100)


def mnist_dbm() -> ConfigDict:
    """500 and 1000 hidden units (Salakhutdinov and Hinton 2009)."""
    return _mnist(500, 1000, steps=60_000, pretrain=15_000, sweeps=5, mean_field=10)


def mnist_dbn() -> ConfigDict:
    """500 and 2000 hidden units: greedy, then up-down."""
    return _mnist(500, 2000, steps=60_000, kind="dbn", pretrain=20_000)


def digits() -> ConfigDict:
    """Images of digits and their classes: each from the other."""
    pathways = dict(
        image=_image(28, 500, binarise=True),
        label=dict(visible="softmax", units=10),
    )
    config = _mnist(500, steps=20_000)
    config.task.pathways = ConfigDict(pathways)
    config.task.joint = 500
    config.task.pretrain = 5000
    return config


def spoken_digits() -> ConfigDict:
    """Written and spoken digits under one layer; the sound is what can be missing."""
    pathways = dict(
        image=_image(28, 500, binarise=True),
        sound=dict(visible="gaussian", units=480, widths=(300,)),
    )
    config = _run(
        steps=9000,
        batch_size=100,
        lr=0.01,
        pathways=pathways,
        joint=500,
        pretrain=3000,
        sweeps=2,
    )
    config.data.fields.update(image=common.images(28), sound=common.voice())
    config.data.train = common.spoken_digits("train", limit=10_000, keep=True)
    config.evals.missing = dict(
        type="missing_field",
        every=config.steps,
        field="sound",
        train=common.spoken_digits("train", limit=4000),
        source=common.spoken_digits("test", limit=2000),
        l2=1e-3,
    )
    return config


def multimodal() -> ConfigDict:
    """Emoji and their keywords, as the paper's images and tags."""
    words = dict(visible="softmax", units=1024, words=5, widths=(512, 512))
    image = _image(16, 512, 512, channels=3, visible="gaussian", mean=0.7, std=0.3)
    config = _run(
        steps=20_000,
        batch_size=100,
        lr=0.005,
        pathways=dict(image=image, keywords=words),
        joint=512,
        pretrain=4000,
        sweeps=5,
    )
    tar = f"webdataset:{ROOT}/emoji/noto128-shared.tar?text=keywords&label=group"
    config.data.train = f"{tar}&part=train&keep=true"
    config.data.fields.image = common.images(16)
    texts = dict(kind="texts", of="text", count=12, cut=True)
    config.data.fields.keywords = common.text(1024, 8) | texts
    config.data.fields.label = dict(kind="label")
    held_out = f"{tar}&part=held_out"
    config.evals.held_out = dict(type="log_probability", every=0, source=held_out)
    config.evals.missing = dict(
        type="missing_field",
        every=config.steps,
        field="keywords",
        train=config.data.train,
        source=held_out,
        l2=1e-2,
    )
    return config


def tiny() -> ConfigDict:
    """Seconds on a CPU: an RBM with all that it has, at none of its size."""
    config = _run(
        steps=4,
        batch_size=16,
        lr=0.05,
        pathways=dict(image=_image(8, 12, binarise=True)),
        chains=8,
        sweeps=2,
        fast=0.01,
        sparsity=0.1,
    )
    config.data.fields.image = common.images(8)
    config.data.train = "shapes:train?size=16&count=64"
    config.checkpoint.every, config.log_every = 2, 1
    val = "shapes:val?size=16&count=16"
    config.evals.val = dict(
        type="log_probability", every=4, source=val, betas=20, runs=8
    )
    return config


def tiny_dbn() -> ConfigDict:
    """Two layers, the lower ones directed; CD, which has no chains."""
    config = tiny()
    config.task.pathways.image.widths = (12, 6)
    config.task.pretrain, config.task.fast = 1, 0.0
    config.task.kind, config.task.persistent = "dbn", False
    return config


def tiny_joint() -> ConfigDict:
    """An image and its text under one layer; every device moves all chains."""
    config = tiny()
    config.task.fast, config.task.moved = 0.0, "all"
    config.task.pathways = ConfigDict(
        dict(
            image=_image(8, 12, channels=3, visible="gaussian", mean=0.5, std=0.25),
            tokens=dict(visible="softmax", units=259, words=5, widths=(6,)),
        )
    )
    config.task.joint, config.task.pretrain = 6, 1
    config.data.fields.tokens = dict(kind="text", tokenizer="bytes", context=24)
    return config


PRESETS = {
    f.__name__: f
    for f in (
        mnist,
        mnist_dbm,
        mnist_dbn,
        digits,
        spoken_digits,
        multimodal,
        tiny,
        tiny_dbn,
        tiny_joint,
    )
}
get_config = common.chooser(PRESETS)
