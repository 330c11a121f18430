"""Multimodal fusion: several modalities of a record, one answer.

A name may go on with a block of BLOCKS, as in `mosi-gated`, and with a field that then
is the only input, as in `avletters-cross_modal-lips`.

| preset | data | models | 1 CPU core | expect |
|---|---|---|---|---|
| mosi (default) | CMU-MOSI, 62 videos | 5 seeds x 10 folds | minutes | mosi_fusion |
| avletters | lips and sound of 26 letters | 5 seeds | minutes | avletters_fusion |
| tiny | halves of drawn shapes | 2 x 2 | seconds | nothing: for tests |
| tiny_chain | drawn curves, a class a step | 1 | seconds | nothing: for tests |
| tiny_series | drawn curves, a number a step | 1 | seconds | nothing: for tests |

Data: `mosi/` and `avletters/` in MMJAX_DATA.
"""

from ml_collections import ConfigDict

from mmjax_configs import common
from mmjax_configs.common import ROOT

BLOCKS = {
    "early": dict(kind="early", hidden=(32,)),
    "late_mean": dict(kind="late", rule="mean"),
    "late_product": dict(kind="late", rule="product"),
    "late_learned": dict(kind="late", rule="learned"),
    "hybrid": dict(kind="hybrid"),
    "gated": dict(kind="gated"),
    "tensor": dict(kind="tensor"),
    "low_rank": dict(kind="low_rank"),
    "cross_modal": dict(kind="cross_modal"),
    "memory": dict(kind="memory"),
}
_MOSI = ("words", "audio", "video")


def _run(*, steps: int, batch_size: int, inputs: dict, **task: object) -> ConfigDict:
    """inputs: the fields by name, the label's among them as the last."""
    config = common.run(steps=steps, batch_size=batch_size)
    *names, target = inputs
    config.task = ConfigDict(
        dict(name="fusion", inputs=tuple(names), target=target, **task)
    )
    config.data.fields = ConfigDict(inputs)
    config.optim.lr, config.optim.weight_decay = 3e-3, 0.1
    config.optim.b2 = 0.999
    return config


def mosi() -> ConfigDict:
    """A sentiment for every utterance; a tenth of the videos is held out in turn.

    The features are those of classifiers that have seen these labels: see mosi_fusion.
    """
    series = dict(kind="sequence", length=63)
    fields = {k: dict(series, width=50, normalize="standard") for k in _MOSI}
    config = _run(
        steps=150,
        batch_size=62,
        inputs=fields | dict(label=dict(series, width=1)),
        outputs=2,
        per="step",
        block=BLOCKS["early"],
        columns=16,
        members=5,
        folds=10,
    )
    config.data.fields.index = dict(kind="index")
    config.data.train = dict(
        kind="series",
        source=f"npz:{ROOT}/mosi/mosi_unimodal50-train.npz?columns=words:text,"
        "audio:audio,video:video,mask:mask,label:label",
        series=(*_MOSI, "label"),
        mask="mask",
        keep=True,
    )
    judged = dict(source=config.data.train, batch_size=62, every=config.steps)
    config.evals.fusion = dict(judged, type="fusion", noise=(1.0, 3.0))
    config.evals.fits = dict(
        judged, type="fusion_fits", fits=("svm", "stacking", "mkl", "hmm"), every=0
    )
    return config


def _avletters(rep: int) -> dict:
    """Utterances of a repetition, each at 20 moments."""
    strips = f"npz:{ROOT}/avletters/avletters-reps12.npz?label=letter"
    frames = dict(kind="frames", source=strips, height=30, where=f"rep:{rep}")
    series = dict(series=("mfcc", "frames"), steps=20, keep=True)
    return dict(kind="series", source=frames, **series)


def avletters() -> ConfigDict:
    """Repetition 1 of every letter trains, repetition 2 tests."""
    series = dict(kind="sequence", length=20, normalize="pca")
    config = _run(
        steps=300,
        batch_size=130,
        inputs=dict(
            sound=dict(series, of="mfcc", components=26),
            lips=dict(series, of="frames", components=64),
            label=dict(kind="label"),
        ),
        outputs=26,
        pool="flat",
        block=BLOCKS["early"],
        columns=64,
        members=5,
    )
    config.task.noise = ConfigDict(dict(sound=0.5, lips=0.5))
    config.data.train = _avletters(1)
    judged = dict(source=_avletters(2), batch_size=130, cluster="speaker")
    config.evals.fusion = dict(judged, type="fusion", every=config.steps)
    config.evals.fusion.noise = (1.0, 3.0)
    config.evals.fits = dict(
        judged,
        type="fusion_fits",
        train=_avletters(1),
        fits=("svm", "stacking", "mkl", "hmm", "coupled_hmm"),
        every=0,
    )
    return config


def tiny() -> ConfigDict:
    """Seconds on a CPU; every part of a real run, none of its size."""
    halves = {
        name: dict(kind="pixels", part=name, width=128) for name in ("left", "right")
    }
    config = _run(
        steps=4,
        batch_size=16,
        inputs=halves | dict(label=dict(kind="label")),
        outputs=64,
        block=dict(kind="tensor", width=8),
        columns=3,
        members=2,
        folds=2,
        noise=dict(left=0.1),
    )
    config.data.fields.index = dict(kind="index")
    config.log_every, config.checkpoint.every = 1, 2
    config.data.train = "shapes:train?size=16&objects=1&count=64"
    config.evals.fusion = dict(
        type="fusion", every=4, source=config.data.train, noise=(1.0,), resamples=20
    )
    config.evals.fits = dict(
        type="fusion_fits", every=0, source=config.data.train, fits=("svm",), folds=2
    )
    return config


def tiny_chain() -> ConfigDict:
    """A memory over two curves, and a chain over the frame that each moment is."""
    series = dict(kind="sequence", length=16)
    config = _run(
        steps=4,
        batch_size=16,
        inputs=dict(
            first=dict(series, width=4),
            second=dict(series, width=6),
            truth=dict(series, width=1),
        ),
        outputs=16,
        per="step",
        block=dict(kind="memory", width=4, memory=4),
        columns=4,
        chain=True,
    )
    config.log_every, config.checkpoint.every = 1, 2
    config.data.train = "warps:train?count=32&frames=16&shift=0"
    val = "warps:val?count=16&frames=16&shift=0"
    config.evals.fusion = dict(
        type="fusion", every=4, source=val, target="truth", resamples=20
    )
    return config


def tiny_series() -> ConfigDict:
    """Two curves that ask each other which frame each moment is."""
    config = tiny_chain()
    config.task.block = ConfigDict(dict(kind="cross_modal", width=4))
    config.task.update(objective="numbers", outputs=1, chain=False)
    config.evals.fusion.numbers = True
    return config


PRESETS = {f.__name__: f for f in (mosi, avletters, tiny, tiny_chain, tiny_series)}
_chosen = common.chooser(PRESETS)


def get_config(arg: str = "") -> ConfigDict:
    """The preset before the first `-`; after it a block, or the one input."""
    preset, *names = arg.split("-")
    config = _chosen(preset)
    for name in names:
        if name in BLOCKS:
            config.task.block = ConfigDict(BLOCKS[name])
        elif name in config.task.inputs:
            config.task.inputs = (name,)
            if "noise" in config.task:
                config.task.noise = ConfigDict({name: config.task.noise[name]})
        else:
            known = ", ".join((*BLOCKS, *config.task.inputs))
            raise ValueError(f"no block or input {name!r}; there are {known}")
    return config
