"""Coordinated spaces: co-learning from views that not every record has.

| preset | data | cost on one core | expect |
|---|---|---|---|
| devise (default) | emoji; images to word vectors of names | a minute | experiments |
| grounding | emoji, three groups left out; words to images | a minute | the same |
| bridging | photos with English; English, German, French lines | 2 minutes | the same |
| tiny | shapes, words that some rows lack | seconds | nothing: it is for tests |
| tiny_devise | shapes, hinge rank to fixed vectors | seconds | the same |
"""

from ml_collections import ConfigDict

from mmjax_configs import common, hashing

UNSEEN = ("animals-nature", "food-drink", "travel-places")
SEEN = ("activities", "objects", "people-body", "smileys-emotion", "symbols", "flags")
LINES = "jsonl:runs/bridging/text.jsonl?image=none&text"  # of experiments/bridging


def _emoji(part: str, **task: object) -> ConfigDict:
    """A run on emoji; `part` is the option of the source that chooses those of it."""
    config = hashing.run(steps=600, batch_size=256, name="coordinated", **task)
    name, _, value = part.partition("=")
    config.data.train = hashing.noto("subgroup", **{name: value})
    corpus = hashing.captions()
    values = "&values=group:group"
    corpus["parts"] += ((f"{hashing.NOTO}{values}&{part}", 1.0),)
    config.data.fields.photo = hashing.network()
    config.data.fields.words = dict(kind="words", corpus=corpus, every=True)
    config.optim.lr = 1e-3
    return config


def devise() -> ConfigDict:
    """Frome et al. 2013: held-out emoji are named by their images alone."""
    config = _emoji(
        "part=train",
        width=128,
        views=("photo", "words"),
        encoder=hashing.MLP,
        encoders=dict(words=dict(kind="fixed")),
        objective="hinge_rank",
    )
    unseen = dict(
        type="view_retrieval", source=hashing.noto("subgroup", part="held_out")
    )
    config.data.fields.label = dict(kind="label")  # ConSE's classes: the subgroups
    config.evals.unseen = dict(unseen, every=config.steps)
    fitted = dict(unseen, features="views", train=config.data.train)
    config.evals.conse = dict(fitted, fit="conse")
    config.evals.ridge = dict(fitted, fit="ridge")
    return config


def grounding() -> ConfigDict:
    """Words and images of some groups; similarities are judged on other groups."""
    config = _emoji(
        "where=group:" + "|".join(SEEN),
        width=64,
        views=("words", "photo"),
        encoder=hashing.MLP,
    )
    config.evals.unseen = dict(
        type="grounding",
        image="photo",
        every=config.steps,
        source=hashing.noto("subgroup", where="group:" + "|".join(UNSEEN)),
        train=config.data.train,
    )
    return config


def bridging() -> ConfigDict:
    """English joins photos to German and French, which no photo was paired with."""
    photos = hashing.flickr8k_features("train")
    lines = f"{LINES}=en&values=german:de,french:fr"
    views = ("photo", "english", "german", "french")
    config = hashing.run(
        steps=1500,
        batch_size=512,
        name="coordinated",
        width=128,
        views=views,
        encoder=hashing.MLP,
        links=tuple((view, "english") for view in views if view != "english"),
        scale=20.0,
    )
    both = dict(kind="mixture", parts=((photos, 1.0), (lines, 1.0)))
    config.data.train = both
    fields = config.data.fields
    fields.photo = dict(hashing.network(), optional=True)
    fields.english = dict(kind="words", corpus=both)
    for view, code in (("german", "de"), ("french", "fr")):
        corpus = f"{LINES}={code}"
        fields[view] = dict(kind="words", of=view, optional=True, corpus=corpus)
    config.optim.lr = 1e-3
    dev = "jsonl:runs/bridging/test.jsonl?image=none&key=key"
    test = dict(
        kind="pairs",
        left=hashing.flickr8k_features("dev"),
        right=f"{dev}&values=german:de,french:fr",
        on="key",
    )
    links = (*((view, "photo") for view in views[1:]), ("german", "english"))
    config.evals.test = dict(
        type="view_retrieval", every=config.steps, source=test, links=links
    )
    return config


def _tiny(**task: object) -> ConfigDict:
    config = hashing.run(
        steps=4,
        batch_size=16,
        name="coordinated",
        width=8,
        views=("photo", "words"),
        encoder=dict(kind="mlp", hidden=(8,), act="relu"),
        **task,
    )
    config.log_every, config.checkpoint.every = 1, 2
    one = "size=16&objects=1"
    config.data.train = f"shapes:train?{one}&count=64"
    config.data.fields.photo = common.images(16, of="image")
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
    config.evals.ground = dict(judged, type="grounding", image="photo", components=4)
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


PRESETS = {f.__name__: f for f in (devise, grounding, bridging, tiny, tiny_devise)}
get_config = common.chooser(PRESETS)
