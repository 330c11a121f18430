"""The width of the text tower.

The bands were written before any of these runs.
"""

_TINY = {
    "steps": 4,
    "batch_size": 16,
    "evals.val.limit": 32,
    "evals.unseen.limit": 32,
    "evals.retrieval.limit": 32,
}

EXPERIMENT = dict(
    claim="CLIP is less sensitive to the width of its text tower than to that of its "
    "image tower.",
    source="Radford et al. 2021, section 2.4",
    config="configs/clip.py:shapes",
    arms=dict(
        base=dict(),
        text_quarter=dict(overrides={"task.text.width": 64}),
        image_quarter=dict(overrides={"task.image.width": 8}),
    ),
    metrics=("val/top1", "unseen/top1", "retrieval/i2t_r1"),
    checks=(
        dict(
            says="a quarter of the text tower's width costs 5 points of R@1 at most",
            kind="difference",
            arms=("base", "text_quarter"),
            metric="retrieval/i2t_r1",
            band=(None, 0.05),
        ),
        dict(
            says="a quarter of the image tower's width costs more",
            kind="difference",
            arms=("text_quarter", "image_quarter"),
            metric="retrieval/i2t_r1",
        ),
    ),
    scales=dict(
        tiny=dict(overrides=_TINY, seeds=2, minutes=3),
        small=dict(overrides={"steps": 500}, seeds=3, minutes=30),
    ),
)
