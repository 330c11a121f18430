"""One series from another, step by step: the lips that belong to a sound.

| preset | who speaks | a frame of the lips follows from | 1 CPU core |
|---|---|---|---|
| lips (default) | told | the whole utterance | half a minute |
| lips_online | told | the sound up to its end | half a minute |
| lips_online_late | told | the sound up to 80 ms after its end | minutes |
| lips_unknown | not told | the whole utterance | minutes |
| lips_lstm, lips_lstm_online | told | the same two, by LSTMs | minutes |
| tiny, tiny_lstm | | drawn curves | seconds |

AVLetters: repetition 1 of every letter trains, repetition 2 tests. What to expect is in
experiments/audio_to_lips.
"""

from ml_collections import ConfigDict

from mmjax_configs import common
from mmjax_configs.common import ROOT

COMPONENTS = 32  # of a frame of the lips


def _run(
    *, steps: int, batch_size: int, source: dict, target: dict, out: int
) -> ConfigDict:
    config = common.run(steps=steps, batch_size=batch_size)
    config.task = ConfigDict(
        dict(name="translation", steps=target["length"], out=out, kind="conv")
    )
    config.data.fields = ConfigDict(
        dict(
            source=dict(kind="sequence", of="first", normalize="standard", **source),
            target=dict(kind="sequence", of="second", **target),
            label=dict(kind="label"),
        )
    )
    config.optim.lr, config.optim.weight_decay = 2e-3, 0.01
    return config


def _avletters(rep: int) -> dict:
    """Whole utterances: 26 MFCC at 50 Hz, and lips of 30 x 40 grey pixels at 25 Hz."""
    strips = f"npz:{ROOT}/avletters/avletters-reps12.npz?label=speaker"
    return dict(
        kind="warped",
        source=dict(kind="frames", source=strips, height=30, where=f"rep:{rep}"),
        first="mfcc",
        second="frames",
        first_rate=50.0,
        second_rate=25.0,
        warp=0.0,
        shift=0.0,
        keep=True,
    )


def lips() -> ConfigDict:
    """Offline: convolutions that see 0.3 s on either side."""
    target = dict(length=40, rate=25.0, normalize="pca", components=COMPONENTS)
    config = _run(
        steps=400,
        batch_size=32,
        source=dict(length=80, width=26, rate=50.0),
        target=target,
        out=COMPONENTS,
    )
    config.task.update(width=64, depth=3, reach=5, speakers=10)
    config.data.train = _avletters(1)
    config.evals.test = dict(
        type="translation",
        every=config.steps,
        source=_avletters(2),
        train=_avletters(1),
        frames=(30, 40),
    )
    return config


def lips_online() -> ConfigDict:
    """Causal: a frame is shown when its sound has ended."""
    config = lips()
    config.task.causal = True
    return config


def lips_online_late() -> ConfigDict:
    """Causal, and two frames late."""
    config = lips_online()
    config.task.lookahead = 2
    return config


def lips_unknown() -> ConfigDict:
    """Nobody says who speaks."""
    config = lips()
    config.task.speakers = 0
    return config


def lips_lstm() -> ConfigDict:
    """Bidirectional LSTMs."""
    config = lips()
    config.task.update(kind="lstm", depth=2)
    return config


def lips_lstm_online() -> ConfigDict:
    """LSTMs that run forwards alone."""
    config = lips_lstm()
    config.task.causal = True
    return config


def tiny() -> ConfigDict:
    """Seconds on a CPU; every part of a real run, none of its size."""
    config = _run(
        steps=4,
        batch_size=16,
        source=dict(length=18, width=4),
        target=dict(length=12, width=6, normalize="pca", components=3),
        out=3,
    )
    config.task.update(width=8, depth=1, reach=1, causal=True)
    config.log_every = 1
    config.data.train = "warps:train?count=64&frames=18&warp=0&shift=0"
    val = "warps:val?count=16&frames=18&warp=0&shift=0"
    config.evals.val = dict(
        type="translation", every=4, source=val, train=config.data.train
    )
    config.checkpoint.every = 2
    return config


def tiny_lstm() -> ConfigDict:
    """`tiny` by LSTMs in both directions."""
    config = tiny()
    config.task.update(kind="lstm", causal=False)
    return config


PRESETS = {
    f.__name__: f
    for f in (
        lips,
        lips_online,
        lips_online_late,
        lips_unknown,
        lips_lstm,
        lips_lstm_online,
        tiny,
        tiny_lstm,
    )
}
get_config = common.chooser(PRESETS)
