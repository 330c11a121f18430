"""Names that were never trained on. Its bands were written before its runs."""

_FEATURES = (
    "mmjax convert efficientnet_lite0.pth runs/lite0",
    'mmjax embed runs/lite0 --records "webdataset:$MMJAX_DATA/emoji/noto128-shared.tar'
    '?text=caption" --out runs/features/emoji.npz',
)

EXPERIMENT = dict(
    claim="An image encoder trained towards word vectors names images of labels it has "
    "never seen, and a classifier of seen classes does as well by their vectors.",
    source="Frome et al. 2013; Norouzi et al. 2014",
    config="configs/coordinated.py:devise",
    arms=dict(devise=dict()),
    overrides={"evals.conse.every": 600, "evals.ridge.every": 600},
    metrics=("unseen/photo_to_words_r1",),
    checks=(
        dict(
            says="the right name is among 10 in 10 to 30 % of the images",
            kind="mean",
            arms=("devise",),
            metric="unseen/photo_to_words_r10",
            band=(0.10, 0.30),
        ),
        dict(
            says="ConSE is within 5 points",
            kind="difference",
            arms=("devise",),
            metric=("unseen/photo_to_words_r10", "conse/photo_to_words_r10"),
            band=(-0.05, 0.05),
        ),
        dict(
            says="least squares is below",
            kind="difference",
            arms=("devise",),
            metric=("unseen/photo_to_words_r10", "ridge/photo_to_words_r10"),
        ),
    ),
    scales=dict(small=dict(seeds=3, minutes=5)),
    before=_FEATURES,
)
