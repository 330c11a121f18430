"""Deep cross-modal hashing (Jiang and Li 2017), beside closed forms.

| preset | data | cost on one core | expect |
|---|---|---|---|
| emoji (default) | Noto emoji, their words; classes: groups | a minute | experiments |
| flickr8k | Flickr8k and captions; pairs | a minute | the same |
| tiny | shapes and captions, classes | seconds | nothing: it is for tests |
| tiny_pair | halves of shapes, pairs alone | seconds | the same |

`--config.task.bits=16` is another length. The evaluator fits CCA-ITQ and SCM itself.

Images of the first two are features of a frozen network, files of `FEATURES` that
`mmjax embed RUN --records SOURCE --out FILE` writes; see experiments/hashing.
"""

from ml_collections import ConfigDict

from mmjax_configs import common
from mmjax_configs.common import ROOT

FEATURES = "runs/features"
MLP = dict(kind="mlp", hidden=(512,), act="relu")
NOTO = f"webdataset:{ROOT}/emoji/noto128-shared.tar?text=caption,keywords"


def captions() -> dict:
    """English captions of Flickr8k's training photos, COCO and Multi30k, for words."""
    text = f"{ROOT}/text"
    parts = (
        f"webdataset:{ROOT}/flickr8k/flickr8k-train-128-*.tar?text=captions",
        f"jsonl:{text}/coco_val2017_captions.jsonl.gz?image=none&text=captions",
        f"tsv:{text}/multi30k_train_en_de_fr.tsv.gz?image=none&text=en",
    )
    return dict(kind="mixture", parts=tuple((part, 1.0) for part in parts))


def run(*, steps: int, batch_size: int, **task: object) -> ConfigDict:
    """A run of two views: an image and the words of its texts."""
    config = common.run(steps=steps, batch_size=batch_size)
    config.task = ConfigDict(task)
    config.optim.weight_decay = 0.0
    config.data.fields = ConfigDict()
    return config


def network(width: int = 1280) -> dict:
    """The field of a frozen network's features of an image."""
    return dict(kind="vector", of="features", width=width, normalize="standard")


def noto(label: str, **options: str) -> dict:
    """Noto emoji with features; `label` is the json's field that is the class."""
    left = f"{NOTO}&label={label}&values=group:group&keep=true"
    right = f"npz:{FEATURES}/emoji.npz?columns=features,key&key=key"
    return dict(kind="pairs", left=left, right=right, on="key", **options)


def flickr8k_features(split: str) -> str:
    """Flickr8k's features and captions."""
    columns = "columns=features,captions,key&text=captions&key=key"
    return f"npz:{FEATURES}/flickr8k-{split}.npz?{columns}"


def _judged(config: ConfigDict, **judged: object) -> ConfigDict:
    """The run's own codes as it ends, and closed forms when they are asked for."""
    judged = dict(judged, type="hashing", train=config.data.train)
    config.evals.test = dict(judged, every=config.steps)
    config.evals.closed = dict(judged, methods=("real", "cca_itq", "scm"), reg=0.1)
    return config


def emoji() -> ConfigDict:
    """64 bits; four in five emoji are the database, the others ask."""
    config = run(
        steps=600,
        batch_size=256,
        name="hashing",
        bits=64,
        views=("photo", "words"),
        encoder=MLP,
    )
    config.data.train = noto("group", part="train")
    corpus = captions()
    corpus["parts"] += ((f"{NOTO}&part=train", 1.0),)
    config.data.fields.photo = network()
    config.data.fields.words = dict(kind="words", corpus=corpus, every=True)
    config.data.fields.label = dict(kind="label")
    config.optim.lr = 1e-3
    return _judged(config, gallery="train", source=noto("group", part="held_out"))


def flickr8k() -> ConfigDict:
    """64 bits of photos and of one caption; similar is what belongs together."""
    config = run(
        steps=1000,
        batch_size=512,
        name="hashing",
        bits=64,
        views=("photo", "words"),
        encoder=MLP,
        similar="pair",
    )
    config.data.train = flickr8k_features("train")
    config.data.fields.photo = network()
    config.data.fields.words = dict(kind="words")
    config.optim.lr = 1e-3
    test = flickr8k_features("dev")
    config = _judged(config, relevant="cluster", source=test)
    pairs = dict(relevant="pair", methods=("codes", "real", "cca_itq"))
    config.evals.pair = dict(config.evals.closed, **pairs)
    return config


def _tiny(**task: object) -> ConfigDict:
    config = run(
        steps=4,
        batch_size=16,
        name="hashing",
        bits=8,
        encoder=dict(kind="mlp", hidden=(8,), act="relu"),
        **task,
    )
    config.log_every, config.checkpoint.every = 1, 2
    config.data.train = "shapes:train?size=16&objects=1&count=64"
    config.evals.val = dict(
        type="hashing",
        every=4,
        source="shapes:val?size=16&objects=1&count=32",
        train=config.data.train,
        methods=("codes", "real", "cca_itq", "scm"),
        bits=(8,),
        precision=(5,),
        resamples=20,
        reg=0.1,
    )
    return config


def tiny() -> ConfigDict:
    """Seconds on a CPU; every part of a real run, none of its size."""
    config = _tiny(views=("photo", "words"))
    config.data.fields.photo = common.images(16, of="image")
    config.data.fields.words = dict(kind="words", width=10)
    config.data.fields.label = dict(kind="label")
    return config


def tiny_pair() -> ConfigDict:
    """As tiny: the halves of an image, which is similar to itself alone."""
    config = _tiny(similar="pair")
    for view, part in (("view_a", "left"), ("view_b", "right")):
        config.data.fields[view] = dict(kind="pixels", part=part, width=128)
    config.evals.val.update(relevant="cluster", clusters=4)
    pairs = dict(relevant="pair", methods=("codes", "cca_itq"))
    config.evals.pair = dict(config.evals.val, **pairs)
    return config


PRESETS = {f.__name__: f for f in (emoji, flickr8k, tiny, tiny_pair)}
get_config = common.chooser(PRESETS)
