"""Four families that know neither images nor texts, each in seconds."""

from ml_collections import ConfigDict

from mmjax_configs import common


def _run(task: dict, **fields: dict) -> ConfigDict:
    config = common.run(steps=6, batch_size=8)
    config.task = ConfigDict(task)
    config.data.fields = ConfigDict(fields)
    config.data.train = "waves:train?count=40&whole=true"
    config.optim.lr, config.optim.warmup = 1e-2, 1
    config.checkpoint.every = 2
    config.log_every = 1
    return config


VIEW_A, VIEW_B = dict(kind="vector", width=6), dict(kind="vector", width=5)


def two_views() -> ConfigDict:
    """Two vectors of one record."""
    config = _run(dict(name="two_views"), view_a=VIEW_A, view_b=VIEW_B)
    source = "waves:val?count=20&whole=true"
    config.evals.val = dict(type="closeness", every=6, source=source)
    return config


def sequences() -> ConfigDict:
    """Sequences with lengths, and a modality that every fourth record lacks."""
    wave = dict(kind="sequence", length=8, width=2, windows=True)
    view_b = dict(VIEW_B, optional=True)
    config = _run(dict(name="sequences"), wave=wave, view_b=view_b)
    config.data.train = "waves:train?count=40"
    config.evals.val = dict(type="mean_loss", every=6, source="waves:val?count=20")
    return config


def players() -> ConfigDict:
    """Two players, whose turns alternate."""
    config = _run(dict(name="players"), view_a=VIEW_A)
    config.optim.groups = dict(
        draw=dict(match="^draw/", every=2, offset=1, lr=5e-3),
        judge=dict(match="^judge/", every=2),
    )
    return config


def moments() -> ConfigDict:
    """No gradient and no parameter."""
    return _run(dict(name="moments"), view_a=VIEW_A)


PRESETS = dict(
    two_views=two_views, sequences=sequences, players=players, moments=moments
)
get_config = common.chooser(PRESETS)
