"""What configs share: defaults of a run, and how a preset is named."""

from ml_collections import ConfigDict


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
            tokenizer=dict(kind="bytes"),
            image=dict(size=32),
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


def choose(arg: str, presets: dict, default: str) -> ConfigDict:
    """The preset that `--config file.py:arg` names."""
    name = arg or default
    if name not in presets:
        raise ValueError(f"no preset {name!r}; there are {', '.join(sorted(presets))}")
    return presets[name]()
