"""Co-training of two views. Its bands were written before its runs."""

EXPERIMENT = dict(
    claim="Two views that each suffice teach each other from rows without labels: with "
    "few labels the pair ends above the better single view.",
    source="Blum and Mitchell 1998",
    config="configs/cca.py:mfeat",
    arms=dict(mfeat=dict(suite="suite.py")),
    checks=(
        dict(
            says="with 50 labels the gain over the better view is 2 to 15 points",
            kind="mean",
            arms=("mfeat",),
            metric="mfeat.labels_50/gain",
            band=(0.02, 0.15),
        ),
        dict(
            says="the gain is smaller with 100 labels than with 20",
            kind="difference",
            arms=("mfeat",),
            metric=("mfeat.labels_20/gain", "mfeat.labels_100/gain"),
        ),
        dict(
            says="with 50 labels there is a gain over both views together",
            kind="mean",
            arms=("mfeat",),
            metric="mfeat.labels_50/co_gain",
        ),
    ),
    scales=dict(small=dict(seeds=3, minutes=5)),
)
