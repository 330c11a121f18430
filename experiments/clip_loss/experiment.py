"""InfoNCE beside the sigmoid loss at two batch sizes.

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


def _arm(loss: str, batch: int) -> dict:
    keys = {"batch_size": batch, "steps": _SEEN // batch, "task.loss_name": loss}
    return dict(overrides={**keys, "optim.lr_mult": ()})


EXPERIMENT = dict(
    claim="The sigmoid loss is better than the softmax loss at small batches, and the "
    "gap closes as batches grow.",
    source="Zhai et al. 2023, figure 2, in kind",
    config="configs/clip.py:shapes",
    arms={
        f"{loss}_{batch}": _arm(loss, batch)
        for loss in ("info_nce", "sigmoid")
        for batch in (64, 256)
    },
    metrics=("val/top1", "retrieval/i2t_r1"),
    checks=(
        dict(
            says="at 64 rows the sigmoid loss is above InfoNCE, R@1",
            kind="difference",
            arms=("sigmoid_64", "info_nce_64"),
            metric="retrieval/i2t_r1",
        ),
        dict(
            says="at 256 rows they are within 5 points",
            kind="difference",
            arms=("sigmoid_256", "info_nce_256"),
            metric="retrieval/i2t_r1",
            band=(-0.05, 0.05),
        ),
    ),
    scales=dict(
        tiny=dict(overrides=_TINY, seeds=2, minutes=3),
        small=dict(seeds=3, minutes=40),
    ),
)
