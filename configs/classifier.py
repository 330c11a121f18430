"""A classifier of our own: the network that judges generated images of its domain.

| preset | data | cost on 2 CPU cores | expect |
|---|---|---|---|
| shapes (default) | 64 colour-shape classes, all pairs | 3 minutes | 99.9 % of val |
| cifar10 | the CIFAR-10 subset | some minutes | |
| gtsrb | German traffic signs | some minutes | |
| tiny_imagenet | 100 Tiny-ImageNet classes | some minutes | |
| tiny | shapes | seconds | nothing: it is for tests |
"""

from ml_collections import ConfigDict

from mmjax_configs import common
from mmjax_configs.common import ROOT


def _run(
    *, classes: int, size: int, width: int, steps: int, batch_size: int
) -> ConfigDict:
    config = common.run(steps=steps, batch_size=batch_size)
    config.task = ConfigDict(
        dict(
            name="classifier",
            classes=classes,
            image_size=size,
            image=dict(kind="conv", width=width, depths=(1, 1, 1)),
            smoothing=0.0,
        )
    )
    config.data.fields.image = common.images(size)
    config.optim.lr = 2e-3
    config.optim.lr_mult = (("logit_scale", 3.0),)  # it has a long way to go
    config.optim.weight_decay = 0.05
    return config


def _judged(config: ConfigDict, source: str) -> ConfigDict:
    config.evals.val = dict(
        type="mean_loss", every=config.steps, source=source, partial="mask"
    )
    return config


def shapes() -> ConfigDict:
    """Colour and shape of one object; the pairs that no caption model sees as well."""
    config = _run(classes=64, size=32, width=32, steps=800, batch_size=256)
    config.optim.lr = 4e-3
    one = "size=32&objects=1"
    config.data.train = (
        (f"shapes:train?{one}&count=12000&keep=true", 9.0),
        (f"shapes:unseen?{one}&count=12000&seed=1&keep=true", 1.0),
    )
    return _judged(config, f"shapes:val?{one}&count=2000")


def cifar10() -> ConfigDict:
    """The CIFAR-10 subset: 6,000 training images."""
    config = _run(classes=10, size=32, width=48, steps=1200, batch_size=128)
    config.data.train = f"npz:{ROOT}/cifar10/cifar10-train-6k.npz?keep=true"
    config.data.fields.image.update(train_scale=(0.5, 1.0), flip=True)
    config.task.smoothing = 0.1
    return _judged(config, f"npz:{ROOT}/cifar10/cifar10-test-2k.npz")


def gtsrb() -> ConfigDict:
    """German traffic signs: four fifths of the tracks to train on, one to test."""
    config = _run(classes=43, size=32, width=32, steps=800, batch_size=128)
    file = f"npz:{ROOT}/gtsrb/gtsrb-train.npz?group=_"
    config.data.train = f"{file}&part=train&keep=true"
    config.data.fields.image.train_scale = (0.7, 1.0)
    return _judged(config, f"{file}&part=held_out")


def tiny_imagenet() -> ConfigDict:
    """100 of its classes at 64 px: 3,000 training images, for features of photos."""
    config = _run(classes=100, size=64, width=16, steps=800, batch_size=64)
    config.task.image.depths = (1, 1, 1, 1)
    file = f"{ROOT}/tiny_imagenet/tin100"
    config.data.train = f"npz:{file}-train-3k.npz?keep=true"
    config.data.fields.image.update(train_scale=(0.3, 1.0), flip=True)
    config.task.smoothing = 0.1
    return _judged(config, f"npz:{file}-val-2k.npz")


def tiny() -> ConfigDict:
    """Seconds on a CPU; every part of a real run, none of its size."""
    config = _run(classes=64, size=16, width=8, steps=4, batch_size=16)
    config.log_every = 1
    config.data.train = "shapes:train?size=16&count=256&objects=1"
    config.checkpoint.every = 2
    return _judged(config, "shapes:val?size=16&objects=1&count=32")


PRESETS = {f.__name__: f for f in (shapes, cifar10, gtsrb, tiny_imagenet, tiny)}
get_config = common.chooser(PRESETS)
