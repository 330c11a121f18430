"""Prompts and their ensembles on sets never trained on.

The bands were written before any of these runs.
"""

_SETS = dict(
    cifar10=("cifar10/cifar10-test-2k.npz", "cifar10"),
    clothing=("clothing/clothing10-validation-128.npz", "photo"),
    tiny_imagenet=("tiny_imagenet/tin100-val-2k.npz", "clip80"),
)


def _evals(limit: int | None) -> dict:
    """Every set by bare names, by one prompt and by all of its prompts."""
    made = {}
    for name, (file, templates) in _SETS.items():
        kinds = dict(bare="plain", photo="photo", ensemble=templates)
        for kind, given in kinds.items():
            made[f"evals.{name}_{kind}"] = dict(
                type="zero_shot",
                every=10**9,  # at the end
                source=f"npz:$MMJAX_DATA/{file}",
                templates=given,
                limit=limit,
            )
    return made


EXPERIMENT = dict(
    claim="Prompts and their ensembles raise zero-shot accuracy by about 5 points over "
    "bare class names.",
    source="Radford et al. 2021, figure 4",
    config="configs/clip.py:flickr8k_cbow",
    arms=dict(tower=dict()),
    metrics=tuple(f"{name}_photo/top1" for name in _SETS),
    checks=tuple(
        dict(
            says=f"{name}: the ensemble is 1 to 10 points above bare names",
            kind="difference",
            arms=("tower",),
            metric=(f"{name}_ensemble/top1", f"{name}_bare/top1"),
            band=(0.01, 0.10),
        )
        for name in _SETS
    ),
    scales=dict(
        tiny=dict(
            overrides={"steps": 2, "batch_size": 8, "evals.dev.limit": 16} | _evals(16),
            seeds=2,
            minutes=2,
        ),
        small=dict(overrides={"steps": 1000} | _evals(None), seeds=3, minutes=30),
    ),
)
