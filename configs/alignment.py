"""Learned alignment in time: two towers over frames.

| preset | data | cost on 1 CPU core | expect |
|---|---|---|---|
| avletters (default) | audio to lips, AVLetters, the audio cut and warped | minutes | |
| avletters_soft_dtw, avletters_tcc | the same by other losses | minutes | |
| tiny | drawn curves | seconds | nothing: it is for tests |
| tiny_soft_dtw | the same, by soft-DTW between the towers | seconds | nothing |
"""

from ml_collections import ConfigDict

from mmjax_configs import common
from mmjax_configs.common import ROOT


def _run(*, steps: int, batch_size: int, first: dict, second: dict) -> ConfigDict:
    """first, second: `length` and `width` of the two series."""
    config = common.run(steps=steps, batch_size=batch_size)
    config.task = ConfigDict(dict(name="alignment", first=dict(), second=dict()))
    config.data.fields = ConfigDict(
        dict(
            first=dict(kind="sequence", normalize="standard", **first),
            second=dict(kind="sequence", normalize="standard", **second),
            truth=dict(kind="sequence", length=first["length"], width=1, optional=True),
        )
    )
    config.optim.lr = 1e-3
    config.optim.weight_decay = 0.01
    return config


def avletters() -> ConfigDict:
    """MFCC at 50 Hz against lips at 25 Hz; a fifth of the utterances is held out."""
    config = _run(
        steps=300,
        batch_size=32,
        first=dict(length=80, width=26, rate=50.0),
        second=dict(length=40, width=1200, rate=25.0),
    )
    strips = f"npz:{ROOT}/avletters/avletters-reps12.npz"
    data = dict(
        kind="warped",
        source=dict(kind="frames", source=strips, height=30),
        first="mfcc",
        second="frames",
        first_rate=50.0,
        second_rate=25.0,
        shift=0.4,
        keep=True,
    )
    config.data.train = dict(data, part="train")
    config.task.loss_name = "clock"  # both were recorded on one
    config.optim.warmup = 30
    config.evals.held_out = dict(
        type="alignment", every=100, source=dict(data, part="held_out")
    )
    return config


def avletters_soft_dtw() -> ConfigDict:
    """Which sound belongs to which lips is known, and not when."""
    config = avletters()
    config.task.loss_name = "soft_dtw"
    return config


def avletters_tcc() -> ConfigDict:
    """Temporal cycle consistency, without labels."""
    config = avletters()
    config.task.loss_name = "tcc"
    return config


def tiny() -> ConfigDict:
    """Seconds on a CPU; every part of a real run, none of its size."""
    config = _run(
        steps=4,
        batch_size=16,
        first=dict(length=16, width=4),
        second=dict(length=12, width=6),
    )
    tower = dict(width=8, depth=1, reach=1)
    config.task.update(embed_dim=4, first=dict(tower), second=dict(tower))
    config.task.temperature = 0.5  # the paper's 0.1 multiplies rounding, too
    config.log_every = 1
    config.data.train = "warps:train?count=64&frames=16"
    config.checkpoint.every = 2
    config.evals.val = dict(
        type="alignment", every=4, source="warps:val?count=16&frames=16"
    )
    return config


def tiny_soft_dtw() -> ConfigDict:
    """`tiny` by soft-DTW, which meets the next row's series."""
    config = tiny()
    config.task.loss_name = "soft_dtw"
    return config


PRESETS = {
    f.__name__: f
    for f in (avletters, avletters_soft_dtw, avletters_tcc, tiny, tiny_soft_dtw)
}
get_config = common.chooser(PRESETS)
