"""What CLIP's choice among K candidates is worth, by two judges.

The bands were written before any of these runs.
"""

_POOLS = (1, 4, 16, 64)
_SOURCE = "shapes:val?size=32"


def _arms(steps: dict, count: int, pools: tuple[int, ...]) -> dict:
    """Stage 1, the CLIP that chooses, another that judges, and the prior."""
    shared = dict(type="generation", every=10**9, source=f"{_SOURCE}&count={count}")
    shared |= dict(candidates=max(pools), best_of=pools, clip="{chooser}")
    clip = dict(config="configs/clip.py:shapes", overrides={"steps": steps["clip"]})
    prior = {
        "steps": steps["prior"],
        "graft.tokenizer": "{vqvae}",
        "evals.drawn": dict(shared, judges=("oracle", "clip"), batch_size=256),
    }
    return dict(
        vqvae=dict(
            config="configs/vqvae.py:shapes", overrides={"steps": steps["vqvae"]}
        ),
        chooser=clip,
        prior=dict(config="configs/prior.py:shapes", overrides=prior),
    )


_SMALL = _arms(dict(vqvae=2000, clip=500, prior=400), 100, _POOLS)

EXPERIMENT = dict(
    claim="Choosing among more candidates by CLIP draws more of what captions say, "
    "with falling returns beyond 32; CLIP's own score rises on.",
    source="Ramesh et al. 2021, figure 6 and figure 9c",
    arms=_SMALL,
    checks=(
        dict(
            says="by an oracle the best of 64 is 10 points or more above the first",
            kind="difference",
            arms=("prior",),
            metric=("drawn/oracle_all_best64", "drawn/oracle_all_best1"),
            band=(0.10, None),
        ),
        dict(
            says="returns fall: from 16 to 64 it gains 0 to 10 points",
            kind="difference",
            arms=("prior",),
            metric=("drawn/oracle_all_best64", "drawn/oracle_all_best16"),
            band=(0.0, 0.10),
        ),
        dict(
            says="CLIP's own score rises at every step",
            kind="order",
            arms=("prior",),
            metric=tuple(f"drawn/clip_score_best{k}" for k in reversed(_POOLS)),
        ),
    ),
    scales=dict(
        tiny=dict(
            arms=_arms(dict(vqvae=4, clip=4, prior=4), 2, _POOLS), seeds=2, minutes=4
        ),
        small=dict(seeds=3, minutes=40),
    ),
)
