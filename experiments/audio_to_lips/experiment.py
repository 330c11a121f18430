"""Lips from sound. Its bands were written before its runs."""

_NAMES = ("lips", "lips_online", "lips_online_late", "lips_unknown")
_NAMES += ("lips_lstm", "lips_lstm_online")

EXPERIMENT = dict(
    claim="Lips made from sound are nearer to the true ones than the speaker's mean "
    "face, and two frames of delay make up for most of what waiting for nothing costs.",
    source="",
    arms={name: dict(config=f"configs/translation.py:{name}") for name in _NAMES},
    metrics=("test/error", "test/motion"),
    checks=(
        dict(
            says="offline is below the speaker's mean face",
            kind="mean",
            arms=("lips",),
            metric="test/beats_label",
        ),
        dict(
            says="offline is below retrieval by sound",
            kind="mean",
            arms=("lips",),
            metric="test/beats_nearest",
        ),
        dict(
            says="online errs 0 to 15 % more than offline",
            kind="ratio",
            arms=("lips_online", "lips"),
            metric="test/error",
            band=(1.0, 1.15),
        ),
        dict(
            says="two frames late lies between online and offline",
            kind="order",
            arms=("lips_online", "lips_online_late", "lips"),
            metric="test/error",
        ),
        dict(
            says="not told who speaks errs more",
            kind="difference",
            arms=("lips_unknown", "lips"),
            metric="test/error",
        ),
    ),
    scales=dict(small=dict(seeds=3, minutes=10)),
)
