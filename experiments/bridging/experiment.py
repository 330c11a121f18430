"""German and photos by way of English. Its bands were written before its runs."""

_BEFORE = (
    "python experiments/bridging/prepare.py --data $MMJAX_DATA --out runs/bridging",
    "mmjax convert efficientnet_lite0.pth runs/lite0",
    "for split in train dev; do mmjax embed runs/lite0 --records "
    '"webdataset:$MMJAX_DATA/flickr8k/flickr8k-$split-128-*.tar?text=captions" '
    "--out runs/features/flickr8k-$split.npz; done",
)

EXPERIMENT = dict(
    claim="One shared view bridges two that were never paired: German and French find "
    "photos at ten times chance.",
    source="Rajendran et al. 2016",
    config="configs/coordinated.py:bridging",
    arms=dict(bridge=dict()),
    metrics=("test/english_to_photo_r10",),
    checks=(
        dict(
            says="German finds its photo among 10 of 867 in 11.5 to 30 %",
            kind="mean",
            arms=("bridge",),
            metric="test/german_to_photo_r10",
            band=(0.115, 0.30),
        ),
        dict(
            says="French finds its photo among 10 of 867 in 11.5 to 30 %",
            kind="mean",
            arms=("bridge",),
            metric="test/french_to_photo_r10",
            band=(0.115, 0.30),
        ),
        dict(
            says="English captions, paired in training, find more than French",
            kind="difference",
            arms=("bridge",),
            metric=("test/english_to_photo_r10", "test/french_to_photo_r10"),
        ),
    ),
    scales=dict(small=dict(seeds=3, minutes=10)),
    before=_BEFORE,
)
