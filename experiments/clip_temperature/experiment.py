"""A learned temperature beside fixed ones.

The bands were written before any of these runs.
"""

_TINY = {
    "steps": 4,
    "batch_size": 16,
    "evals.val.limit": 32,
    "evals.unseen.limit": 32,
    "evals.retrieval.limit": 32,
}

_FIXED = {"optim.freeze": ("logit_scale",), "optim.lr_mult": ()}

EXPERIMENT = dict(
    claim="A temperature that is learned is as good as one that is fixed, and needs no "
    "tuning.",
    source="Radford et al. 2021, section 2.5",
    config="configs/clip.py:shapes",
    arms=dict(learned=dict(), fixed=dict(overrides=_FIXED)),
    metrics=("val/top1", "unseen/top1", "retrieval/i2t_r1"),
    checks=(
        dict(
            says="learned is above fixed at 0.07 by 2 points of R@1 or more",
            kind="difference",
            arms=("learned", "fixed"),
            metric="retrieval/i2t_r1",
            band=(0.02, None),
        ),
    ),
    scales=dict(
        tiny=dict(overrides=_TINY, seeds=2, minutes=2),
        small=dict(overrides={"steps": 500}, seeds=3, minutes=24),
    ),
)
