"""VQGAN with a Gumbel bottleneck, as taming-transformers released it at f = 8.

| preset | data | codes | cost | expect |
|---|---|---|---|---|
| f8 (default) | your web shards | 32 x 32 of 8192 at 256 px | a pod | see below |
| tiny | shapes | 8 x 8 of 16 at 16 px | seconds | nothing: it is for tests |

`f8` has the layers of the released model, its codes and its temperature. It is trained
on squared errors alone, so its images are softer; the released weights come in by
`mmjax convert`.
"""

from ml_collections import ConfigDict

from mmjax_configs import common


def f8() -> ConfigDict:
    """32 x 32 codes of a 256 px image (Esser et al. 2021), without its GAN."""
    config = common.run(steps=1_000_001, batch_size=96)  # the temperature's
    net = dict(kind="vqgan", mult=(1, 1, 2, 4), attention=(3,))
    spec = dict(kind="gumbel_vq", image_size=256, vocab_size=8192, net=net)
    config.task = ConfigDict(dict(name="gumbel_vq", tokenizer=spec))
    config.data.train = "webdataset:SHARDS-*.tar"
    config.data.fields.image = common.photos(256, flip=True)
    config.data.workers = 16
    config.optim.b1, config.optim.b2, config.optim.eps = 0.5, 0.9, 1e-8
    config.optim.lr, config.optim.warmup = 4.5e-6 * 96, 5000
    config.optim.weight_decay = 0.0
    config.checkpoint.every = 5000
    return config


def tiny() -> ConfigDict:
    """Seconds on a CPU; every part of a real run, none of its size."""
    config = f8()
    config.steps, config.batch_size, config.log_every = 4, 16, 1
    net = dict(kind="vqgan", width=16, mult=(1, 2), depth=1, attention=(1,))
    config.task.tokenizer = dict(
        kind="gumbel_vq",
        image_size=16,
        vocab_size=16,
        code_dim=8,
        net=dict(net, hidden=8, groups=8),
    )
    config.data.train = "shapes:train?size=16&count=256"
    config.data.fields.image = common.images(16)
    config.data.workers = 0
    config.optim.lr, config.optim.warmup = 2e-3, 1
    config.checkpoint.every = 2
    source = "shapes:val?size=16&count=32"
    config.evals.val = dict(type="reconstruction", every=4, source=source)
    return config


PRESETS = {f.__name__: f for f in (f8, tiny)}
get_config = common.chooser(PRESETS)
