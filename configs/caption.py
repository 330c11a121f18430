"""Captions of images.

    mmjax train --config configs/caption.py:flickr8k_soft --workdir runs/soft

| preset | decoder | reads | 1 CPU core | expect |
|---|---|---|---|---|
| shapes (default) | transformer | shapes | minutes | not run at length |
| flickr8k_lstm | Show and Tell | features | minutes | flickr8k_captions |
| flickr8k_soft, flickr8k_hard | attention | features | minutes | the same |
| flickr8k_transformer | cross-attention | features | minutes | the same |
| clip_b32 | CoCa's pooler and head | Flickr8k, by CLIP, frozen | a GPU | not run |
| tiny and tiny_KIND | soft, and of that kind | shapes | seconds | for tests |

Features of Flickr8k are `runs/flickr8k_train.npz` and `_dev.npz`, made by `mmjax embed
--records`; docs/caption.md has the commands.
"""

from ml_collections import ConfigDict

from mmjax_configs import common
from mmjax_configs.common import ROOT

# Concepts of Flickr8k's training captions, by how often they are said.
SUBJECTS = (
    "a man,a woman,a boy,a girl,a child,a person,a dog,a brown dog,a black dog,a white "
    "dog,a tan dog,two dogs,three dogs,two men,two women,two boys,two girls,two people,"
    "three people,two children,people,children,a baby,a snowboarder,a skier,a surfer,a "
    "skateboarder,a couple,a football player,a hiker"
)
ACTS = (
    "running,playing,jumping,standing,sitting,walking,riding a bike,holding a ball,"
    "climbing,smiling,looking,swimming,performing a trick,chasing a ball,leaping,"
    "laying,surfing,skiing,skateboarding,sliding,swinging,dancing,fighting,hiking,"
    "carrying a stick,catching a ball,splashing,eating,posing"
)
PLACES = (
    "in the snow,in the air,in the water,in the grass,in a field,on the beach,on the "
    "grass,in the ocean,in the sand,on the ground,through the grass,through the water,"
    "through the snow,on the street,in a pool,in the woods,down the street,on the "
    "sidewalk,on a rock,in a park,on a swing,at a table,in a crowd,on a trampoline,"
    "on a bench,in front of a building,with a stick,in a race,in the mountains,on a "
    "track"
)


def _run(
    *, steps: int, batch_size: int, context: int, min_count: int, **task: object
) -> ConfigDict:
    config = common.run(steps=steps, batch_size=batch_size)
    config.task = ConfigDict(dict(name="caption", context=context, **task))
    # Neither padding nor the mark of an unknown word is ever said.
    config.task.sampling = dict(k=3, forbid=(0, 1))
    words = dict(kind="text", tokenizer="words", context=context, min_count=min_count)
    config.data.fields = ConfigDict(dict(tokens=words))
    config.optim.b2, config.optim.eps = 0.999, 1e-8
    config.optim.lr, config.optim.weight_decay = 1e-3, 0.0
    config.optim.clip_norm = 5.0
    config.graft = ConfigDict()
    return config


def shapes() -> ConfigDict:
    """Scenes from scratch: eight by eight patches."""
    config = _run(
        steps=1500,
        batch_size=64,
        context=20,
        min_count=1,
        vocab_size=80,
        image=dict(kind="vit", width=96, depth=2, heads=4, patch=4),
        image_size=32,
        decoder=dict(kind="transformer", width=96, depth=2, heads=4, dropout=0.1),
    )
    config.data.fields.image = common.images(32)
    config.data.train = "shapes:train?size=32&count=40000&keep=true"
    config.evals.val = dict(
        type="captions", every=config.steps, source="shapes:val?size=32&count=1000"
    )
    return config


def _flickr8k(kind: str, *, decoder: dict, **task: object) -> ConfigDict:
    """On frozen features of 4 x 4 cells, by the words seen five times or more."""
    config = _run(
        steps=1800,
        batch_size=64,
        context=20,
        min_count=5,
        vocab_size=2600,
        decoder=dict(kind=kind, dropout=0.2, **decoder),
        **task,
    )
    config.optim.lr = 2e-3
    config.data.fields.features = ConfigDict(
        dict(kind="latents", of="regions", normalize="standard")
    )
    files = "npz:runs/flickr8k_{}.npz?text=captions&key=key"
    config.data.train = files.format("train")
    dev = files.format("dev")
    config.evals.loss = dict(type="mean_loss", every=250, source=dev)
    config.evals.dev = dict(type="captions", every=config.steps, source=dev)
    # Not while it trains: `mmjax eval RUN --evals examples`.
    templates = ("{subject} {act} {place}", "{subject} {place}")
    slots = dict(subject=SUBJECTS, act=ACTS, place=PLACES)
    config.evals.examples = dict(
        type="captions",
        source=dev,
        methods=("nearest", "consensus", "phrases", "template"),
        train=config.data.train,
        options=dict(
            templates=templates,
            slots={name: tuple(text.split(",")) for name, text in slots.items()},
        ),
    )
    photos = f"webdataset:{ROOT}/flickr8k/flickr8k-dev-128-00000.tar"
    config.evals.sheet = dict(
        type="captions",
        source=dict(kind="pairs", left=dev, right=photos, on="key"),
        limit=12,
        shown=12,
        png="captions.png",
        metrics=(),
    )
    return config


def flickr8k_lstm() -> ConfigDict:
    """Show and Tell (Vinyals et al. 2015): features of the whole image, once."""
    config = _flickr8k("lstm", decoder=dict(width=320))
    config.data.fields.features = ConfigDict(
        dict(kind="vector", of="features", normalize="standard")
    )
    return config


def flickr8k_soft() -> ConfigDict:
    """Show, Attend and Tell (Xu et al. 2015), soft attention."""
    config = _flickr8k("soft", decoder=dict(width=256), doubly=1.0)
    config.evals.sheet.attention = "attention"
    return config


def flickr8k_hard() -> ConfigDict:
    """The same, hard attention."""
    config = _flickr8k("hard", decoder=dict(width=256))
    config.evals.sheet.attention = "attention"
    return config


def flickr8k_transformer() -> ConfigDict:
    """Three blocks of self- and cross-attention."""
    decoder = dict(width=256, depth=3, heads=4)
    config = _flickr8k("transformer", decoder=decoder)
    config.task.decoder.dropout = 0.2
    config.optim.lr = 1e-3
    config.evals.sheet.attention = "attention"
    return config


def clip_b32() -> ConfigDict:
    """A caption head on a released image tower, which stays as it is."""
    config = _run(
        steps=5000,
        batch_size=128,
        context=24,
        min_count=5,
        vocab_size=2600,
        image=dict(kind="vit", width=768, depth=12, patch=32),
        image_size=224,
        act="quick_gelu",
        mean=(0.48145466, 0.4578275, 0.40821073),
        std=(0.26862954, 0.26130258, 0.27577711),
        decoder=dict(
            kind="transformer", width=512, depth=6, heads=8, queries=32, dropout=0.1
        ),
    )
    config.data.fields.image = dict(kind="image", size=224, method="bicubic")
    shards = f"webdataset:{ROOT}/flickr8k/flickr8k-{{}}-128-*.tar"
    config.data.train = shards.format("train")
    dev = shards.format("dev")
    config.evals.dev = dict(type="captions", every=config.steps, source=dev)
    config.optim.lr, config.optim.freeze = 3e-4, ("^image/",)
    config.graft["params/image"] = ""  # a run: mmjax convert openai_clip
    return config


def _tiny(kind: str, **task: object) -> ConfigDict:
    """Seconds on a CPU; every part of a real run, none of its size."""
    config = _run(
        steps=4,
        batch_size=16,
        context=12,
        min_count=1,
        vocab_size=60,
        image=dict(kind="vit", width=16, depth=1, heads=2, patch=8),
        image_size=16,
        decoder=dict(kind=kind, width=16, dropout=0.1),
        **task,
    )
    config.log_every = 1
    config.data.fields.image = common.images(16)
    config.data.fields.tokens.vocab_size = 60
    config.data.train = "shapes:train?size=16&count=64"
    config.checkpoint.every = 2
    config.evals.val = dict(
        type="captions", every=4, source="shapes:val?size=16&count=16", resamples=10
    )
    return config


def tiny() -> ConfigDict:
    """Soft attention over four patches."""
    return _tiny("soft", doubly=1.0)


def tiny_hard() -> ConfigDict:
    """Hard attention."""
    return _tiny("hard")


def tiny_lstm() -> ConfigDict:
    """Show and Tell."""
    return _tiny("lstm")


def tiny_transformer() -> ConfigDict:
    """Attention throughout, to what three queries pool."""
    config = _tiny("transformer")
    config.task.decoder.update(depth=2, heads=2, queries=3)
    return config


PRESETS = {
    f.__name__: f
    for f in (
        shapes,
        flickr8k_lstm,
        flickr8k_soft,
        flickr8k_hard,
        flickr8k_transformer,
        clip_b32,
        tiny,
        tiny_hard,
        tiny_lstm,
        tiny_transformer,
    )
}
get_config = common.chooser(PRESETS)
