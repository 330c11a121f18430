"""How the error of retrieval falls with data, as a power law.

The bands were written before any of these runs.
"""

_TINY = {
    "steps": 4,
    "batch_size": 16,
    "evals.val.limit": 32,
    "evals.unseen.limit": 32,
    "evals.retrieval.limit": 32,
}

_SIZES = (250, 1000, 4000, 16000)
_SCENES = "shapes:train?size=32&keep=true&objects=2&words=full"

EXPERIMENT = dict(
    claim="The error of a contrastive model falls as a power of the number of training "
    "pairs, at equal compute.",
    source="Cherti et al. 2023, figure 1, in kind",
    config="configs/clip.py:shapes",
    arms={
        f"pairs{size}": dict(
            overrides={"data.train": f"{_SCENES}&count={size}", "steps": 400}
        )
        for size in _SIZES
    },
    metrics=("retrieval/i2t_r1",),
    checks=(
        dict(
            says="1 - R@1 falls with an exponent of -0.7 to -0.1",
            kind="power_law",
            arms=tuple(f"pairs{size}" for size in _SIZES),
            metric="retrieval/i2t_r1",
            x=_SIZES,
            error=True,
            band=(-0.7, -0.1),
        ),
    ),
    scales=dict(
        tiny=dict(overrides=_TINY, seeds=2, minutes=3),
        small=dict(seeds=3, minutes=36),
    ),
)
