"""Captions on frozen features. Its bands were written before its runs."""

_NAMES = ("lstm", "soft", "hard", "transformer")

EXPERIMENT = dict(
    claim="Decoders on features of a small frozen network caption Flickr8k about as "
    "well as published reruns do on larger ones.",
    source="Xu et al. 2015, table 1",
    arms={name: dict(config=f"configs/caption.py:flickr8k_{name}") for name in _NAMES},
    metrics=("dev/bleu4", "dev/bleu4_no_penalty"),
    checks=(
        dict(
            says="soft attention has a BLEU-4 without brevity penalty of 16 or more",
            kind="mean",
            arms=("soft",),
            metric="dev/bleu4_no_penalty",
            band=(16.0, None),
        ),
        dict(
            says="attention is at or above Show and Tell",
            kind="difference",
            arms=("soft", "lstm"),
            metric="dev/bleu4_no_penalty",
        ),
        dict(
            says="hard attention is within 2 points of soft",
            kind="difference",
            arms=("hard", "soft"),
            metric="dev/bleu4_no_penalty",
            band=(-2.0, 2.0),
        ),
    ),
    scales=dict(small=dict(seeds=3, minutes=110)),
    before=("the features of docs/caption.md",),
)
