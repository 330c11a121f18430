"""Deep fragment embeddings: regions of images and fragments of sentences.

| preset | data | cost on 1 core | expect |
|---|---|---|---|
| flickr8k (default) | 21 regions an image, triplets | 10 minutes | see experiments |
| flickr8k_whole | the same, whole images alone | 3 minutes | see experiments |
| flickr8k_max | flickr8k by DVSA's maximum | 10 minutes | see experiments |
| flickr8k_cosine | the best regions in one cosine | 5 minutes | R@10 58, 48 % |
| flickr8k_cosine_whole | the same, whole images alone | 75 s | R@10 52, 47 % |
| flickr8k_attention | flickr8k by cross attention | 12 minutes | see experiments |
| kilogram | pieces of tangrams, their phrases | a minute | see experiments |
| kilogram_supervised | the same, told the gold pieces | a minute | the same |
| tiny | boxes of shapes, bigrams of captions | seconds | nothing |

Flickr8k needs the features that docs/fragments.md makes, in MMJAX_DATA/features.
"""

from ml_collections import ConfigDict

from mmjax_configs import common
from mmjax_configs.common import ROOT

_FEATURES = f"npz:{ROOT}/features/flickr8k"


def _run(
    *, steps: int, batch_size: int, regions: dict, sentence: dict, **task: object
) -> ConfigDict:
    config = common.run(steps=steps, batch_size=batch_size)
    config.task = ConfigDict(dict(name="fragments", **task))
    del config.data.fields["image"]
    config.data.fields.regions = ConfigDict(dict(kind="sequence", **regions))
    config.data.fields.sentence = ConfigDict(dict(kind="fragments", **sentence))
    config.optim.weight_decay = 0.0
    return config


def flickr8k() -> ConfigDict:
    """Karpathy et al. 2014: both objectives, the score of the paper."""
    config = _run(
        steps=8000,
        batch_size=64,
        regions=dict(length=21, width=1280, normalize="pca", components=256),
        sentence=dict(count=12, words=5000, relations=60, path=f"{ROOT}/parses.jsonl"),
        words=5000,
        relations=60,
        embed_dim=256,
        dropout=0.3,
        ranking=1.0,
        margin=1.0,
        alignment=0.5,
    )
    config.data.train = f"{_FEATURES}-train-regions.npz?text=captions&key=key"
    config.optim.update(lr=2e-3, clip_norm=1.0)
    config.evals.dev = dict(
        type="fragments",
        every=config.steps,
        source=f"{_FEATURES}-dev-regions.npz?text=captions&key=key",
    )
    return config


def flickr8k_whole() -> ConfigDict:
    """Whole images alone: one region."""
    return _whole(flickr8k())


def _whole(config: ConfigDict) -> ConfigDict:
    config.data.fields.regions.length = 1
    config.data.train = f"{_FEATURES}-train-whole.npz?text=captions&key=key"
    dev = f"{_FEATURES}-dev-whole.npz?text=captions&key=key"
    config.evals.dev.source = dev
    return config


def flickr8k_max() -> ConfigDict:
    """Every fragment's best region (Karpathy and Fei-Fei 2015)."""
    config = flickr8k()
    config.task.score = "max"
    return config


def flickr8k_cosine() -> ConfigDict:
    """Every fragment's best region within a cosine, by CLIP's loss, much regularised.

    Widths, dropout, learning rate and steps are those that were best on dev for whole
    images, in trials of one seed.
    """
    config = flickr8k()
    config.steps = config.evals.dev.every = 940
    config.batch_size = 128
    config.data.fields.regions.normalize = "standard"
    del config.data.fields.regions["components"]
    config.task.update(score="cosine", ranking=0.0, alignment=0.0, contrastive=1.0)
    config.task.update(embed_dim=512, word_dim=300, dropout=0.5, fragment_dropout=0.2)
    return config


def flickr8k_cosine_whole() -> ConfigDict:
    """The same of whole images alone."""
    return _whole(flickr8k_cosine())


def flickr8k_attention() -> ConfigDict:
    """Stacked cross attention (Lee et al. 2018), with the hardest negatives."""
    config = flickr8k()
    config.task.update(score="attention", alignment=0.0, hardest=True, margin=0.2)
    return config


def kilogram() -> ConfigDict:
    """Phrases of seven pieces; which piece a phrase is of is not told."""
    config = _run(
        steps=1000,
        batch_size=64,
        regions=dict(length=7, width=73),
        sentence=dict(of="phrases", phrases=True, count=7, words=2000, relations=2),
        words=2000,
        relations=2,
        embed_dim=128,
        word_dim=64,
        dropout=0.1,
        score="max",
    )
    data = f"kilogram:{ROOT}/kilogram?group=_&part="
    config.data.train = f"{data}train"
    config.optim.update(lr=2e-3)
    config.evals.held_out = dict(
        type="fragment_regions", every=config.steps, source=f"{data}held_out"
    )
    return config


def kilogram_supervised() -> ConfigDict:
    """Attention told its gold pieces: what weak supervision can hope for."""
    config = kilogram()
    config.task.update(supervised=1.0, ranking=0.0, alignment=0.0)
    return config


def tiny() -> ConfigDict:
    """Seconds on a CPU; every part of a real run, none of its size."""
    config = _run(
        steps=4,
        batch_size=16,
        regions=dict(of="boxes", length=4, width=4),
        sentence=dict(count=6, parser="bigrams", words=40, relations=3, least=1),
        words=40,
        relations=3,
        embed_dim=8,
        word_dim=8,
        dropout=0.1,
    )
    config.log_every, config.checkpoint.every = 1, 2
    config.data.train = "shapes:train?size=16&count=64&objects=2"
    source = "shapes:val?size=16&count=16&objects=2"
    config.evals.val = dict(type="fragments", every=4, source=source, resamples=20)
    return config


PRESETS = {
    f.__name__: f
    for f in (
        flickr8k,
        flickr8k_whole,
        flickr8k_max,
        flickr8k_cosine,
        flickr8k_cosine_whole,
        flickr8k_attention,
        kilogram,
        kilogram_supervised,
        tiny,
    )
}
get_config = common.chooser(PRESETS)
