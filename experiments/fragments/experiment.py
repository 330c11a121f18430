"""Fragments of images and sentences. Its bands were written before its runs."""

_SMALL = ("cosine", "cosine_whole", "kilogram", "kilogram_supervised")
_FLICKR8K, _KILOGRAM = "configs/fragments.py:flickr8k", "configs/fragments.py:kilogram"

EXPERIMENT = dict(
    claim="Parts of an image matched with parts of a sentence find captions and images "
    "better than the whole image does.",
    source="Karpathy et al. 2014",
    arms=dict(
        regions=dict(config=_FLICKR8K),
        whole=dict(config=f"{_FLICKR8K}_whole"),
        max=dict(config=f"{_FLICKR8K}_max"),
        cosine=dict(config=f"{_FLICKR8K}_cosine"),
        cosine_whole=dict(config=f"{_FLICKR8K}_cosine_whole"),
        attention=dict(config=f"{_FLICKR8K}_attention"),
        kilogram=dict(config=_KILOGRAM),
        kilogram_supervised=dict(config=f"{_KILOGRAM}_supervised"),
    ),
    metrics=("dev/i2t_r10", "dev/t2i_r10", "held_out/accuracy"),
    checks=(
        dict(
            says="21 regions find captions better than whole images, by R@10",
            kind="difference",
            arms=("regions", "whole"),
            metric="dev/i2t_r10",
        ),
        dict(
            says="they find images better, by R@10",
            kind="difference",
            arms=("regions", "whole"),
            metric="dev/t2i_r10",
        ),
        dict(
            says="21 regions in one cosine are 1 point above the floor of linear CCA, "
            "47.8, by R@10 of captions",
            kind="mean",
            arms=("cosine",),
            metric="dev/i2t_r10",
            band=(0.488, None),
        ),
        dict(
            says="and 1 point above its 45.3 by R@10 of images",
            kind="mean",
            arms=("cosine",),
            metric="dev/t2i_r10",
            band=(0.463, None),
        ),
        dict(
            says="they find captions better than whole images in one cosine, by R@10",
            kind="difference",
            arms=("cosine", "cosine_whole"),
            metric="dev/i2t_r10",
        ),
        dict(
            says="they find images better, by R@10",
            kind="difference",
            arms=("cosine", "cosine_whole"),
            metric="dev/t2i_r10",
        ),
        dict(
            says="pieces of unseen tangrams are found in 25 % or more, told nothing",
            kind="mean",
            arms=("kilogram",),
            metric="held_out/accuracy",
            band=(0.25, None),
        ),
        dict(
            says="35 % or more, told the gold pieces",
            kind="mean",
            arms=("kilogram_supervised",),
            metric="held_out/accuracy",
            band=(0.35, None),
        ),
    ),
    scales=dict(
        small=dict(seeds=3, minutes=30, only=_SMALL),
        paper=dict(seeds=3, minutes=400),
    ),
    before=("the features of docs/fragments.md",),
)
