"""What configs share: defaults of a run, where data lie, how a preset is named."""

import os
from collections.abc import Callable, Mapping

from ml_collections import ConfigDict

# Real data are read below it; where it is not set, opening them says so.
ROOT = os.environ.get("MMJAX_DATA", "$MMJAX_DATA")


def run(*, steps: int, batch_size: int) -> ConfigDict:
    """A run's top level; the families fill in task, data and evals."""
    config = ConfigDict()
    config.seed = 0
    config.steps = steps
    config.batch_size = batch_size
    config.log_every = 50
    config.task = ConfigDict()
    config.data = ConfigDict(
        dict(
            fields=dict(image=dict(kind="image", size=32), label=dict(kind="label")),
            threads=2,
            workers=0,
            prefetch=2,
            max_broken=0.01,
        )
    )
    config.optim = ConfigDict(
        dict(
            name="adamw",
            lr=5e-4,
            schedule="cosine",
            warmup=max(1, steps // 20),
            final_lr=0.0,
            decay_steps=0,
            b1=0.9,
            b2=0.98,
            eps=1e-6,
            weight_decay=0.2,
            clip_norm=0.0,
            lr_mult=(),
            freeze=(),
            accum=1,
            ema=0.0,
        )
    )
    config.parallel = ConfigDict(dict(mode="jit", mesh=dict(data=-1, fsdp=1, tensor=1)))
    config.checkpoint = ConfigDict(dict(every=max(1, steps // 4), keep=2))
    config.evals = ConfigDict()
    return config


def own(config: ConfigDict) -> ConfigDict:
    """A run on data that `--config.data.train=SPEC` names, a fifth of them held out.

    Evaluators read that fifth as the source `held_out`.
    """
    config.data.train = ""
    config.data.held_out = True
    with config.ignore_type():
        config.optim.warmup = 0.05  # of the steps, however many are asked for
    return config


def images(size: int, **more: object) -> dict:
    """The field of square images of `size` pixels a side, whole and not mirrored."""
    squashed = dict(kind="image", size=size, mode="squash", train_scale=(1.0, 1.0))
    return squashed | more


def photos(size: int, **more: object) -> dict:
    """The field of square cuts of photos: of the short side, and never stretched."""
    cut = dict(kind="image", size=size, mode="crop", train_crop="square")
    return cut | more


def text(vocab_size: int, context: int) -> dict:
    """The field of texts in byte pairs learned from the training captions."""
    return dict(kind="text", tokenizer="bpe", vocab_size=vocab_size, context=context)


def chooser(presets: Mapping[str, Callable]) -> Callable[[str], ConfigDict]:
    """The `get_config` of a file: `--config file.py:arg` names one of its presets.

    Without a name it is the first of them.
    """

    def get_config(arg: str = "") -> ConfigDict:
        name = arg or next(iter(presets))
        if name not in presets:
            known = ", ".join(sorted(presets))
            raise ValueError(f"no preset {name!r}; there are {known}")
        return presets[name]()

    return get_config


def spoken_digits(split: str, **more: object) -> dict:
    """MNIST's `train` or `test`, each digit with a recording of it, in turn.

    Recordings are those of the Free Spoken Digit Dataset; its test ones are the first
    five of every speaker and digit.
    """
    takes = range(5) if split == "test" else range(5, 50)
    voices = dict(
        kind="wav",
        path=f"{ROOT}/fsdd/recordings",
        label="{label}_{speaker}_{n}",
        where="n:" + "|".join(map(str, takes)),
        keep=True,
    )
    images = f"mnist:{ROOT}/tfds_manual/mnist?split={split}"
    return dict(kind="pairs", left=images, right=voices, on="label", **more)


def voice() -> dict:
    """The field of a spoken digit: 24 frames of 20 log mel energies, 480 numbers."""
    return dict(
        kind="audio",
        of="audio",
        rate=8000,
        seconds=0.64,
        window_ms=50.0,
        hop_ms=25.0,
        mels=20,
        normalize="standard",
    )
