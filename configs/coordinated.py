"""Coordinated spaces: co-learning from views that not every record has.

| preset | data | cost on one core | expect |
|---|---|---|---|
| devise (default) | emoji; images to word vectors of names | a minute | experiments |
| grounding | emoji, three groups left out; words to images | a minute | experiments |
| tiny | shapes, words that some rows lack | seconds | nothing: it is for tests |
| tiny_devise | shapes, hinge rank to fixed vectors | seconds | the same |
"""

from ml_collections import ConfigDict

from mmjax_configs import common, hashing
from mmjax_configs.common import ROOT

MLP = dict(kind="mlp", hidden=(512,), act="relu")
UNSEEN = ("animals-nature", "food-drink", "travel-places")
SEEN = ("activities", "objects", "people-body", "smileys-emotion", "symbols", "flags")


def _emoji(**options: str) -> str:
    """Noto emoji; the class is the subgroup."""
    more = "&".join(f"{key}={value}" for key, value in options.items())
    noto = f"webdataset:{ROOT}/emoji/noto128-shared.tar"
    values = "label=subgroup&values=group:group"
    return f"{noto}?text=caption,keywords&{values}&keep=true&{more}"


def _run(train: str, **task: object) -> ConfigDict:
    config = hashing.run(steps=600, batch_size=256, name="coordinated", **task)
    config.data.train = train
    corpus = hashing.captions()
    corpus["parts"] += ((train, 1.0),)
    config.data.fields.image = common.images(16)
    config.data.fields.words = dict(kind="words", corpus=corpus, every=True)
    config.optim.lr = 1e-3
    return config


def devise() -> ConfigDict:
    """Frome et al. 2013: held-out emoji are named by their images alone."""
    config = _run(
        _emoji(part="train"),
        width=128,
        views=("image", "words"),
        encoder=MLP,
        encoders=dict(words=dict(kind="fixed")),
        objective="hinge_rank",
    )
    unseen = dict(type="view_retrieval", source=_emoji(part="held_out"))
    config.data.fields.label = dict(kind="label")  # ConSE's classes: the subgroups
    config.evals.unseen = dict(unseen, every=config.steps)
    fitted = dict(unseen, features="views", train=config.data.train)
    config.evals.conse = dict(fitted, fit="conse")
    config.evals.ridge = dict(fitted, fit="ridge")
    return config


def grounding() -> ConfigDict:
    """Words and images of some groups; similarities are judged on other groups."""
    config = _run(
        _emoji(where="group:" + "|".join(SEEN)),
        width=64,
        views=("words", "image"),
        encoder=MLP,
    )
    config.evals.unseen = dict(
        type="grounding",
        every=config.steps,
        source=_emoji(where="group:" + "|".join(UNSEEN)),
        train=config.data.train,
    )
    return config


def _tiny(**task: object) -> ConfigDict:
    config = hashing.run(
        steps=4,
        batch_size=16,
        name="coordinated",
        width=8,
        views=("image", "words"),
        encoder=dict(kind="mlp", hidden=(8,), act="relu"),
        **task,
    )
    config.log_every, config.checkpoint.every = 1, 2
    one = "size=16&objects=1"
    config.data.train = f"shapes:train?{one}&count=64"
    config.data.fields.image = common.images(16)
    config.data.fields.words = dict(kind="words", width=8)
    config.evals.val = dict(
        type="view_retrieval",
        every=4,
        source=f"shapes:val?{one}&count=32",
        resamples=20,
    )
    return config


def tiny() -> ConfigDict:
    """Seconds on a CPU; every part of a real run, none of its size."""
    config = _tiny()
    config.data.fields.words.update(optional=True, drop=0.3)
    judged = dict(source=config.evals.val.source, train=config.data.train)
    judged.update(every=4, resamples=20)
    config.evals.ground = dict(judged, type="grounding", components=4)
    return config


def tiny_devise() -> ConfigDict:
    """As tiny, the hinge rank loss towards word vectors."""
    fixed = dict(words=dict(kind="fixed"))
    config = _tiny(encoders=fixed, objective="hinge_rank")
    config.data.fields.label = dict(kind="label")
    judged = dict(source=config.evals.val.source, train=config.data.train)
    judged.update(every=4, resamples=20, features="views")
    config.evals.conse = dict(judged, type="view_retrieval", fit="conse")
    return config


PRESETS = {f.__name__: f for f in (devise, grounding, tiny, tiny_devise)}
get_config = common.chooser(PRESETS)
