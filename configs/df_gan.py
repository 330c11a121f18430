"""DF-GAN: images from a caption in one pass, by two players.

The text tower is a trained CLIP's, and so is its tokenizer:

    mmjax train --config configs/clip.py:shapes_transformer --workdir runs/clip
    mmjax train --config configs/df_gan.py:shapes --workdir runs/df_gan \\
      --config.graft.text=runs/clip#params/text \\
      --config.data.fields.tokens.path=runs/clip

| preset | CLIP (configs/clip.py) | cost | expect |
|---|---|---|---|
| shapes (default) | shapes_transformer | 2 CPU cores | not measured yet |
| emoji | emoji | 2 CPU cores | not measured yet |
| birds_256 | yours, of bird photos | a GPU, days | the paper |
| tiny, tiny_labels | random; none | seconds | nothing: for tests |
"""

from ml_collections import ConfigDict

from mmjax_configs import clip, common
from mmjax_configs.common import ROOT


def _run(*, steps: int, batch_size: int, size: int, **task: object) -> ConfigDict:
    """What the presets share: the paper's optimizers."""
    config = common.run(steps=steps, batch_size=batch_size)
    config.task = ConfigDict(dict(name="df_gan", image_size=size, **task))
    config.data.fields.image = common.images(size)
    config.optim.update(name="adam", lr=1e-4, schedule="constant", warmup=0)
    config.optim.update(b1=0.0, b2=0.9, eps=1e-8, weight_decay=0.0, ema=0.999)
    config.optim.groups = ConfigDict(
        dict(
            discriminator=dict(match="^discriminator/", lr=4e-4),
            generator=dict(match="^generator/", lr=1e-4),
        )
    )
    return config


def _reads(config: ConfigDict, of: ConfigDict) -> None:
    """The text tower and the tokens of a CLIP's config, whose run is grafted."""
    shared = dict(vocab_size=of.task.vocab_size, context=of.task.context)
    shared["act"] = of.task.act if "act" in of.task else "quick_gelu"  # CLIP's default
    config.task.tower = dict(shared, **of.task.text)
    config.data.fields.tokens = of.data.fields.tokens.to_dict()
    config.data.fields.tokens.path = ""
    config.graft = ConfigDict(dict(text=""))


def shapes() -> ConfigDict:
    """Scenes of 32 px from their captions."""
    config = _run(steps=8000, batch_size=64, size=32, width=32, patch=2)
    _reads(config, clip.shapes_transformer())
    config.task.base_blocks = 1
    config.data.train = (
        ("shapes:train?size=32&count=15000&seed=2&words=full&objects=1", 1.0),
        ("shapes:train?size=32&count=60000&seed=3&words=full&objects=2", 4.0),
    )
    config.evals.val = dict(
        type="mean_loss", every=1000, source="shapes:val?size=32&count=512"
    )
    return config


def emoji() -> ConfigDict:
    """Noto emoji of 64 px from their names and keywords."""
    config = _run(steps=8000, batch_size=32, size=64, width=32, patch=2)
    _reads(config, clip.emoji())
    config.data.train = (
        f"webdataset:{ROOT}/emoji/noto128-shared.tar?text=caption,keywords"
        "&part=train&keep=true"
    )
    config.evals.held_out = dict(
        type="mean_loss",
        every=1000,
        source=config.data.train.replace("part=train", "part=held_out"),
    )
    return config


def birds_256() -> ConfigDict:
    """The paper's CUB run by the authors' numbers, over a CLIP of 256 numbers.

    Its text vector is an LSTM's. 1,301 epochs of 8,855 photos by 32,
    of random crops of 1/1.19 of the side, mirrored. The average is ours.
    """
    config = _run(steps=1301 * (8855 // 32), batch_size=32, size=256, width=32)
    config.task.tower = dict(kind="transformer", width=256, depth=4, heads=4)
    config.task.tower.update(vocab_size=8192, context=48)
    config.data.fields.tokens = common.text(8192, 48)
    config.data.fields.tokens["path"] = ""
    config.data.fields.image = common.photos(256, train_zoom=(1.19, 1.19), flip=True)
    config.data.train = "webdataset:SHARDS-*.tar"
    config.data.workers = 8
    config.task.sampling = dict(truncation=0.0)
    config.checkpoint.every = 10_000
    config.graft = ConfigDict(dict(text=""))
    return config


def tiny() -> ConfigDict:
    """Seconds on a CPU; every part of a real run, none of its size."""
    config = _run(steps=4, batch_size=16, size=16, width=8, patch=2)
    config.task.update(noise=8, base_blocks=1)
    _reads(config, clip.tiny())
    config.log_every = 1
    config.data.train = "shapes:train?size=16&count=256"
    config.optim.ema = 0.9
    config.checkpoint.every = 2
    config.graft = ConfigDict()  # the tower stays random
    source = "shapes:val?size=16&count=32"
    config.evals.val = dict(type="mean_loss", every=4, source=source)
    return config


def tiny_labels() -> ConfigDict:
    """As tiny, of labels in place of texts."""
    config = tiny()
    del config.task["tower"], config.data.fields["tokens"]
    config.task.update(classes=64, patch=1, base_blocks=0)
    config.data.fields.label = dict(kind="label")
    config.data.train += "&objects=1"
    config.evals.val.source += "&objects=1"
    return config


PRESETS = {f.__name__: f for f in (shapes, emoji, birds_256, tiny, tiny_labels)}
get_config = common.chooser(PRESETS)
