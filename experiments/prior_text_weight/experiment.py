"""What the text weighs in the prior's loss.

The bands were written before any of these runs.
"""

_GRAFT = {"graft.tokenizer": "{vqvae}"}
_PRIOR = "configs/prior.py:shapes"


def _prior(weight: float) -> dict:
    return dict(config=_PRIOR, overrides={**_GRAFT, "task.text_weight": weight})


def _at(steps: int, batch: int) -> dict:
    own = {"steps": steps, "batch_size": batch}
    return {name: _with(arm, own) for name, arm in _ARMS.items()}


def _with(arm: dict, own: dict) -> dict:
    return arm | dict(overrides={**arm["overrides"], **own})


_ARMS = dict(eighth=_prior(1 / 8), half=_prior(1 / 2))
_VQVAE = dict(config="configs/vqvae.py:shapes")

EXPERIMENT = dict(
    claim="A text weight of 1/8 leaves the prior better at images than an equal one.",
    source="Ramesh et al. 2021, section 2.2",
    arms=dict(vqvae=_VQVAE, **_ARMS),
    metrics=("val/text_nats",),
    checks=(
        dict(
            says="nats of an image token are 0.01 or more lower with 1/8 than with 1/2",
            kind="difference",
            arms=("half", "eighth"),
            metric="val/image_nats",
            band=(0.01, None),
        ),
    ),
    scales=dict(
        tiny=dict(
            arms=_at(4, 8) | dict(vqvae=_VQVAE | dict(overrides={"steps": 4})),
            overrides={"evals.val.limit": 16},
            seeds=2,
            minutes=3,
        ),
        small=dict(
            arms=_at(500, 64) | dict(vqvae=_VQVAE | dict(overrides={"steps": 2000})),
            seeds=3,
            minutes=40,
        ),
    ),
)
