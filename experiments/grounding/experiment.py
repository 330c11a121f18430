"""Words that have seen images. Its bands were written before its runs."""

_FEATURES = (
    "mmjax convert efficientnet_lite0.pth runs/lite0",
    'mmjax embed runs/lite0 --records "webdataset:$MMJAX_DATA/emoji/noto128-shared.tar'
    '?text=caption" --out runs/features/emoji.npz',
)

EXPERIMENT = dict(
    claim="A word space that is learned with images orders concepts more like their "
    "images do, also concepts whose images it has not seen.",
    source="Lazaridou et al. 2015",
    config="configs/coordinated.py:grounding",
    arms=dict(ground=dict()),
    metrics=("unseen/grounded",),
    checks=(
        dict(
            says="words alone correlate by 0.02 to 0.15",
            kind="mean",
            arms=("ground",),
            metric="unseen/words",
            band=(0.02, 0.15),
        ),
        dict(
            says="CCA with the right images is above CCA with permuted ones",
            kind="mean",
            arms=("ground",),
            metric="unseen/cca_over_unpaired",
        ),
        dict(
            says="the trained space gains 0 to 0.15",
            kind="mean",
            arms=("ground",),
            metric="unseen/gain",
            band=(0.0, 0.15),
        ),
    ),
    scales=dict(small=dict(seeds=3, minutes=3)),
    before=_FEATURES,
)
