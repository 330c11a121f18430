"""NLVR. Its bands were written before its runs."""

EXPERIMENT = dict(
    claim="A network of sentence and pixels does better than the commonest answer on "
    "NLVR, and what it learned is in both.",
    source="Suhr et al. 2017",
    config="configs/vqa.py:nlvr",
    arms=dict(nlvr=dict()),
    metrics=("test/majority", "test/without_tokens"),
    checks=(
        dict(
            says="52 to 60 % of test-P in the mean of the seeds",
            kind="mean",
            arms=("nlvr",),
            metric="test/accuracy",
            band=(0.52, 0.60),
        ),
        dict(
            says="above the commonest answer",
            kind="difference",
            arms=("nlvr",),
            metric=("test/accuracy", "test/majority"),
        ),
        dict(
            says="blank images cost 1 to 5 points",
            kind="mean",
            arms=("nlvr",),
            metric="test/gain_image",
            band=(0.01, 0.05),
        ),
    ),
    scales=dict(small=dict(seeds=5, minutes=5)),
)
