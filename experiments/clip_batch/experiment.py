"""Batch size against retrieval at equal rows.

The bands were written before any of these runs.
"""

_TINY = {
    "steps": 4,
    "batch_size": 16,
    "evals.val.limit": 32,
    "evals.unseen.limit": 32,
    "evals.retrieval.limit": 32,
}

_SEEN = 102_400  # rows, of every arm

EXPERIMENT = dict(
    claim="At equal rows seen, larger batches of negatives give better retrieval.",
    source="Radford et al. 2021, section 2.5 (32,768 pairs, no ablation)",
    config="configs/clip.py:shapes",
    arms={
        f"batch{batch}": dict(overrides={"batch_size": batch, "steps": _SEEN // batch})
        for batch in (32, 128, 512)
    },
    metrics=("val/top1", "unseen/top1"),
    checks=(
        dict(
            says="R@1 of 512 is at or above 128, and that at or above 32",
            kind="order",
            arms=("batch512", "batch128", "batch32"),
            metric="retrieval/i2t_r1",
        ),
    ),
    scales=dict(
        tiny=dict(overrides=_TINY, seeds=2, minutes=3),
        small=dict(seeds=3, minutes=30),
    ),
)
