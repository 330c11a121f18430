"""Deep cross-modal hashing (Jiang and Li 2017), beside closed forms.

| preset | data | cost on one core | expect |
|---|---|---|---|
| emoji (default) | Noto emoji, their words; classes: groups | seconds | experiments |
| tiny | shapes and captions, classes | seconds | nothing: it is for tests |
| tiny_pair | halves of shapes, pairs alone | seconds | the same |

`--config.task.bits=16` is another length. The evaluator fits CCA-ITQ and SCM itself.
"""

from ml_collections import ConfigDict

from mmjax_configs import common
from mmjax_configs.common import ROOT


def captions() -> dict:
    """The English captions of MMJAX_DATA/text, which teach word vectors."""
    text = f"{ROOT}/text"
    parts = (
        f"tsv:{text}/flickr8k_train_dev_captions.tsv.gz?image=none&text=caption",
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


def emoji() -> ConfigDict:
    """64 bits; four in five emoji are the database, the others ask."""
    config = run(
        steps=600,
        batch_size=256,
        name="hashing",
        bits=64,
        views=("image", "words"),
        encoder=dict(kind="mlp", hidden=(512,), act="relu"),
    )
    noto = f"webdataset:{ROOT}/emoji/noto128-shared.tar"
    source = f"{noto}?text=caption,keywords&label=group&keep=true&part="
    config.data.train = f"{source}train"
    corpus = captions()
    corpus["parts"] += ((config.data.train, 1.0),)
    config.data.fields.image = common.images(16)
    config.data.fields.words = dict(kind="words", corpus=corpus, every=True)
    config.data.fields.label = dict(kind="label")
    config.optim.lr = 1e-3
    held_out = dict(source=f"{source}held_out", train=config.data.train)
    judged = dict(type="hashing", gallery="train", **held_out)
    config.evals.test = dict(judged, every=config.steps)
    closed = ("real", "cca_itq", "scm")
    config.evals.closed = dict(judged, methods=closed, reg=0.1)
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
    config = _tiny(views=("image", "words"))
    config.data.fields.image = common.images(16)
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


PRESETS = {f.__name__: f for f in (emoji, tiny, tiny_pair)}
get_config = common.chooser(PRESETS)
