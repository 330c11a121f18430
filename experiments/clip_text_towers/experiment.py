"""Bag of words beside a transformer. Its bands were written before its runs."""

EXPERIMENT = dict(
    claim="A bag-of-words text tower is enough for zero-shot classification and falls "
    "behind in retrieval where word order carries the meaning.",
    source="Radford et al. 2021, section 2.3 and figure 2, in kind",
    arms=dict(
        shapes_cbow=dict(config="configs/clip.py:shapes"),
        shapes_transformer=dict(config="configs/clip.py:shapes_transformer"),
        flickr8k_cbow=dict(config="configs/clip.py:flickr8k_cbow"),
        flickr8k_transformer=dict(config="configs/clip.py:flickr8k"),
    ),
    metrics=("val/top1", "unseen/top1", "retrieval/i2t_r1", "dev/i2t_r1"),
    checks=(
        dict(
            says="the bag of words names 99 % of seen pairs",
            kind="mean",
            arms=("shapes_cbow",),
            metric="val/top1",
            band=(0.99, None),
        ),
        dict(
            says="so does the transformer",
            kind="mean",
            arms=("shapes_transformer",),
            metric="val/top1",
            band=(0.99, None),
        ),
        dict(
            says="the transformer's R@1 of two-object scenes is 10 points higher",
            kind="difference",
            arms=("shapes_transformer", "shapes_cbow"),
            metric="retrieval/i2t_r1",
            band=(0.10, None),
        ),
    ),
    scales=dict(
        tiny=dict(
            overrides={
                "steps": 4,
                "batch_size": 16,
                "evals.val.limit": 32,
                "evals.unseen.limit": 32,
                "evals.retrieval.limit": 32,
            },
            only=("shapes_cbow", "shapes_transformer"),
            seeds=2,
            minutes=2,
        ),
        small=dict(seeds=3, minutes=90, only=("shapes_cbow", "shapes_transformer")),
        paper=dict(seeds=3, minutes=600),
    ),
)
