"""CLIP: contrastive pre-training of an image and a text tower.

| preset | data | cost on 2 CPU cores | expect |
|---|---|---|---|
| shapes (default) | made by our code | 4 minutes | README, "The demo" |
| shapes_transformer | the same, text by a transformer | | experiments |
| flickr8k, flickr8k_cbow | Flickr8k shards | | README, "Real photos" |
| own | `--config.data.train=folder:photos` | minutes | docs/own.md |
| emoji | Noto emoji, names and keywords | | README, "Real photos" |
| cifar10, gtsrb | class names in prompts as captions | | README, "Real photos" |
| vit_b32, vit_b16, vit_l14 | your web shards | a pod | the paper |
| vit_l14_336 | the same, from vit_l14: `--config.graft.params=RUN` | a pod | |
| rn50, rn101, rn50x4, rn50x16, rn50x64 | your web shards | a pod | the paper |
| tiny | shapes | seconds | nothing: it is for tests |
"""

import functools

from ml_collections import ConfigDict

from mmjax_configs import common
from mmjax_configs.common import ROOT

EPOCH = 12_207  # steps of 32,768 pairs that see 400M of them
UNIT = dict(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


def _shapes_evals(every: int, size: int = 32) -> ConfigDict:
    """Zero-shot on 64 colour-shape classes, seen and unseen, and retrieval."""
    zero_shot = dict(type="zero_shot", every=every, templates="shapes")
    one = f"size={size}&objects=1"
    return ConfigDict(
        dict(
            val=dict(zero_shot, source=f"shapes:val?{one}&count=2000"),
            unseen=dict(zero_shot, source=f"shapes:unseen?{one}&count=2000"),
            retrieval=dict(
                type="retrieval",
                every=every,
                source=f"shapes:val?size={size}&objects=2&count=1000",
            ),
            # Not while it trains: `mmjax eval RUN --evals arithmetic`.
            arithmetic=dict(type="arithmetic", source=f"shapes:val?{one}&count=2000"),
        )
    )


def shapes() -> ConfigDict:
    """Small conv tower and bag of words: a demo for two CPU cores."""
    config = common.run(steps=1100, batch_size=256)
    config.task = ConfigDict(
        dict(
            name="clip",
            image=dict(kind="conv", width=32, depths=(1, 1, 1)),
            text=dict(kind="cbow", width=256),
            embed_dim=256,
            vocab_size=640,
            context=24,
            image_size=32,
            equal_captions="positive",
            **UNIT,
        )
    )
    # Names are learned from single objects; the whole captions of two are what the
    # model has to tell apart when it ranks images drawn for such a caption.
    scenes = "shapes:train?size=32&keep=true"
    config.data.train = (
        (f"{scenes}&count=12000&objects=1", 3.0),
        (f"{scenes}&count=12000&objects=2&seed=1", 1.0),
        (f"{scenes}&count=40000&objects=2&seed=3&words=full", 5.0),
    )
    config.data.fields.tokens = common.text(640, 24)
    config.data.fields.image = common.images(32)
    config.optim.lr = 4e-3
    config.optim.lr_mult = (("logit_scale", 3.0),)  # it has a long way to go
    config.optim.weight_decay = 0.05
    config.evals = _shapes_evals(every=config.steps)
    return config


def shapes_transformer() -> ConfigDict:
    """As shapes, with a transformer reading the words in order."""
    config = shapes()
    config.task.text = dict(kind="transformer", width=128, depth=2, heads=4)
    config.optim.lr = 1e-3
    return config


def tiny() -> ConfigDict:
    """Seconds on a CPU; every part of a real run, none of its size."""
    config = common.run(steps=4, batch_size=16)
    config.log_every = 1
    config.task = ConfigDict(
        dict(
            name="clip",
            image=dict(kind="vit", width=32, depth=2, patch=8),
            text=dict(kind="transformer", width=32, depth=2, heads=2),
            embed_dim=16,
            vocab_size=520,
            context=16,
            image_size=16,
            act="quick_gelu",
            scan=False,
            remat="none",
            dtype="float32",
            loss_name="info_nce",
            **UNIT,
        )
    )
    config.data.train = "shapes:train?size=16&count=256"
    config.data.fields.tokens = common.text(520, 16)
    config.data.fields.image = common.images(16)
    config.optim.ema = 0.9
    config.checkpoint.every = 2
    config.evals = _shapes_evals(every=4, size=16)
    for name in config.evals:
        config.evals[name].limit = 32
    config.evals.arithmetic.top = 1  # of 32 images a class has one or two
    return config


def _captioned(*, size: int, steps: int, batch_size: int) -> ConfigDict:
    """Real captioned images at a size that suits CPUs."""
    config = common.run(steps=steps, batch_size=batch_size)
    config.task = ConfigDict(
        dict(
            name="clip",
            image=dict(kind="conv", width=64, depths=(1, 1, 1), stem=4),
            text=dict(kind="transformer", width=256, depth=2, heads=4),
            embed_dim=256,
            vocab_size=4096,
            context=32,
            image_size=size,
        )
    )
    config.data.fields.tokens = common.text(4096, 32)
    config.data.fields.image = common.images(size, train_scale=(0.5, 1.0), flip=True)
    config.optim.lr = 1e-3
    config.optim.clip_norm = 1.0
    return config


def own() -> ConfigDict:
    """Your captioned images at 64 px: give --config.data.train=folder:photos."""
    config = common.own(_captioned(size=64, steps=600, batch_size=64))
    config.data.fields.image = common.photos(64, flip=True)
    config.task.equal_captions = "positive"  # photos of one class may share theirs
    config.evals.held_out = dict(
        type="retrieval", every=200, source="held_out", matches="equal"
    )
    return config


def flickr8k() -> ConfigDict:
    """Flickr8k from scratch: 6,000 photos with five captions each."""
    config = _captioned(size=64, steps=1500, batch_size=128)
    config.data.train = f"webdataset:{ROOT}/flickr8k/flickr8k-train-128-*.tar?keep=true"
    dev = f"webdataset:{ROOT}/flickr8k/flickr8k-dev-128-00000.tar"
    config.evals.dev = dict(type="retrieval", every=500, source=dev)
    return config


def flickr8k_cbow() -> ConfigDict:
    """As flickr8k, with a bag of words for a text tower."""
    config = flickr8k()
    config.task.text = dict(kind="cbow", width=256)
    return config


def emoji() -> ConfigDict:
    """Noto emoji with their English names and keywords."""
    config = _captioned(size=64, steps=800, batch_size=128)
    fields = "text=caption,keywords"
    tar = f"webdataset:{ROOT}/emoji/noto128-shared.tar?{fields}"
    config.data.train = f"{tar}&part=train&keep=true"
    config.data.fields.image.train_scale = (0.7, 1.0)
    config.evals.held_out = dict(
        type="retrieval", every=400, source=f"{tar}&part=held_out"
    )
    config.evals.seen = dict(
        type="retrieval", every=800, source=f"{tar}&part=train&limit=293"
    )
    return config


def _labelled(
    train: str, test: str, captions: tuple[str, ...], templates: str, steps: int
) -> ConfigDict:
    """Class names in prompts as captions; judged zero-shot on other images."""
    config = _captioned(size=32, steps=steps, batch_size=128)
    config.task.text = dict(kind="cbow", width=256)
    config.task.image.update(stem=2, width=32)
    config.task.equal_captions = "positive"
    config.data.train = f"npz:{ROOT}/{train}keep=true&template={'|'.join(captions)}"
    config.data.fields.tokens.vocab_size = 1024
    config.task.vocab_size = 1024
    config.data.fields.image.train_scale = (0.6, 1.0)
    config.evals.test = dict(
        type="zero_shot",
        every=steps // 3,
        source=f"npz:{ROOT}/{test}",
        templates=templates,
    )
    config.evals.probe = dict(  # every=0: by `mmjax eval` alone
        type="linear_probe",
        source=f"npz:{ROOT}/{test}",
        train=f"npz:{ROOT}/{train}keep=true",
        val=0.2,
    )
    return config


def cifar10() -> ConfigDict:
    """The CIFAR-10 subset: 6,000 training images."""
    return _labelled(
        "cifar10/cifar10-train-6k.npz?",
        "cifar10/cifar10-test-2k.npz",
        ("a photo of a {}.", "a blurry photo of a {}.", "a photo of the small {}."),
        "cifar10",
        steps=900,
    )


def gtsrb() -> ConfigDict:
    """German traffic signs: four fifths of the tracks to train on, one to test."""
    file = "gtsrb/gtsrb-train.npz?group=_&"
    config = _labelled(
        f"{file}part=train&",
        f"{file}part=held_out",
        ('a photo of a "{}" traffic sign.', 'a close up of a "{}" traffic sign.'),
        "gtsrb",
        steps=600,
    )
    config.data.fields.image.flip = False  # left and right mean something here
    return config


def _paper_evals(every: int) -> ConfigDict:
    """Off until their data are named: `--config.evals.imagenet.source=SPEC`.

    The probe also takes `--config.evals.probe.train=SPEC` and runs by `mmjax eval`
    alone. ImageNet's class names are `class_names=FILE`, where the source has none.
    """
    data = dict(source="", batch_size=2048)
    return ConfigDict(
        dict(
            imagenet=dict(
                data,
                type="zero_shot",
                every=every,
                templates="clip80",
                repeated_names=True,  # as two pairs of the paper's 1,000 names are
            ),
            retrieval=dict(
                data, type="retrieval", every=every, template="a photo of {}"
            ),
            probe=dict(data, type="linear_probe", val=0.1),
        )
    )


def _published(name: str, lr: float, *, resnet: bool) -> ConfigDict:
    """The paper's run (Radford et al. 2021, Tables 18 to 20)."""
    config = common.run(steps=390_625, batch_size=32_768)  # 32 epochs of 400M pairs
    size = {"RN50x4": 288, "RN50x16": 384, "RN50x64": 448, "ViT-L/14@336": 336}
    config.task = ConfigDict(
        dict(name="clip", preset=name, scan=not resnet, remat="full", dtype="bfloat16")
    )
    config.data.train = "webdataset:SHARDS-*.tar"
    config.data.fields.tokens = dict(
        kind="text",
        tokenizer="clip",
        path=f"{ROOT}/reference/openai_clip/bpe_simple_vocab_16e6.txt.gz",
        context=77,
    )
    config.data.fields.image = common.photos(
        size[name] if name in size else 224, method="bicubic"
    )
    config.data.workers = 16
    config.optim.lr = lr
    config.optim.warmup = 2000
    config.optim.b2, config.optim.eps = (0.999, 1e-8) if resnet else (0.98, 1e-6)
    config.checkpoint.every = 2000
    config.evals = _paper_evals(every=EPOCH)
    return config


def vit_l14_336() -> ConfigDict:
    """One more epoch of a trained `vit_l14`, at 336 px: `--config.graft.params=RUN`.

    Its positions are resized (bicubic). The rest of the run is `vit_l14`'s: the paper
    gives the epoch and the learning rate alone.
    """
    config = _published("ViT-L/14@336", 2e-5, resnet=False)
    config.steps = EPOCH
    config.graft = ConfigDict(dict(params=""))
    return config


_SIZES = {
    "rn50": ("RN50", 5e-4),
    "rn101": ("RN101", 5e-4),
    "rn50x4": ("RN50x4", 5e-4),
    "rn50x16": ("RN50x16", 4e-4),
    "rn50x64": ("RN50x64", 3.6e-4),
    "vit_b32": ("ViT-B/32", 5e-4),
    "vit_b16": ("ViT-B/16", 5e-4),
    "vit_l14": ("ViT-L/14", 4e-4),
}
PRESETS = {
    f.__name__: f
    for f in (
        shapes,
        shapes_transformer,
        tiny,
        own,
        flickr8k,
        flickr8k_cbow,
        emoji,
        cifar10,
        gtsrb,
        vit_l14_336,
    )
}
for _key, (_name, _lr) in _SIZES.items():
    PRESETS[_key] = functools.partial(
        _published, _name, _lr, resnet=_name.startswith("RN")
    )
get_config = common.chooser(PRESETS)
