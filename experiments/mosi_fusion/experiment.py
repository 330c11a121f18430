"""Sentiment by every fusion. Its bands were written before its runs."""

_BLOCKS = ("early", "late_mean", "late_product", "late_learned", "hybrid", "gated")
_BLOCKS += ("tensor", "low_rank", "cross_modal", "memory", "words", "video")

EXPERIMENT = dict(
    claim="Words, voice and face together tell a positive from a negative utterance "
    "better than any of them; here every block is within 2 points of the others.",
    source="Poria et al. 2017; Zadeh et al. 2017; Mai et al. 2019",
    arms={name: dict(config=f"configs/fusion.py:mosi-{name}") for name in _BLOCKS},
    metrics=("fusion/all", "fusion/missing_0.5"),
    checks=(
        *(
            dict(
                says=f"{block} tells 97 to 99.5 %",
                kind="mean",
                arms=(block,),
                metric="fusion/all",
                band=(0.97, 0.995),
            )
            for block in _BLOCKS[:-2]
        ),
        dict(
            says="words alone tell 96 to 99 %",
            kind="mean",
            arms=("words",),
            metric="fusion/all",
            band=(0.96, 0.99),
        ),
        dict(
            says="the face alone tells 75 to 93 %",
            kind="mean",
            arms=("video",),
            metric="fusion/all",
            band=(0.75, 0.93),
        ),
    ),
    scales=dict(small=dict(seeds=3, minutes=20)),
)
