"""Runs of this experiment: (name, config)."""

RUNS = tuple(
    (name, f"configs/translation.py:{name}")
    for name in (
        "lips",
        "lips_online",
        "lips_online_late",
        "lips_unknown",
        "lips_lstm",
        "lips_lstm_online",
    )
)
