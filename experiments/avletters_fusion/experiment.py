"""Letters by lips and sound. Its bands were written before its runs."""

_BLOCKS = ("early", "late_mean", "late_product", "late_learned", "hybrid", "gated")
_BLOCKS += ("tensor", "low_rank", "cross_modal", "memory", "sound", "lips")
_BLOCKS += ("cross_modal-sound", "cross_modal-lips")
_DROP = {"optional": True, "drop": 0.3}

EXPERIMENT = dict(
    claim="Lips and sound together tell letters better than either, by 10 points.",
    source="Ngiam et al. 2011; Nefian et al. 2002",
    arms={
        **{
            name.replace("-", "_"): dict(config=f"configs/fusion.py:avletters-{name}")
            for name in _BLOCKS
        },
        "dropout": dict(
            config="configs/fusion.py:avletters-early",
            overrides={"data.fields.sound": _DROP, "data.fields.lips": _DROP},
        ),
    },
    metrics=("fusion/all", "fusion/missing_0.5", "fusion/members_sd"),
    checks=(
        dict(
            says="early fusion is 10 points or more above sound, the better modality",
            kind="difference",
            arms=("early", "sound"),
            metric="fusion/all",
            band=(0.10, None),
        ),
        dict(
            says="sound alone tells 48 to 65 %",
            kind="mean",
            arms=("sound",),
            metric="fusion/all",
            band=(0.48, 0.65),
        ),
        dict(
            says="lips alone tell 38 to 55 %",
            kind="mean",
            arms=("lips",),
            metric="fusion/all",
            band=(0.38, 0.55),
        ),
        dict(
            says="blocks over series are the worst: early is above cross_modal",
            kind="difference",
            arms=("early", "cross_modal"),
            metric="fusion/all",
        ),
    ),
    scales=dict(small=dict(seeds=3, minutes=35)),
)
