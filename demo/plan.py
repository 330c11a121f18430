"""How long each stage of the demo trains, on what."""

import dataclasses
from collections.abc import Mapping

NAMES = ("clip", "tokenizer", "tokens", "prior", "samples", "judge")


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a demo trains and how much it draws.

    clip, tokenizer, prior: configs. changes: "KEY=VALUE" of these, by stage.
    train: sources that the prior is trained on.
    prompts: of each split; k: candidates of a prompt; batch: candidates in a call.
    context: text tokens of the prior; 0 is its config's.
    """

    clip: str
    tokenizer: str
    prior: str
    train: tuple[str, ...]
    size: int
    prompts: int
    k: int
    batch: int = 256
    context: int = 0
    seed: int = 0
    changes: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)

    @property
    def pools(self) -> tuple[int, ...]:
        """The pool sizes of best-of-K."""
        return tuple(pool for pool in (1, 8, 64, 512) if pool <= self.k)

    def source(self, split: str) -> str:
        """The scenes whose captions are the prompts of `val` or `unseen`."""
        return f"shapes:{split}?size={self.size}&count={self.prompts}"


_FULL = Plan(
    clip="configs/clip.py:shapes",
    tokenizer="configs/vqvae.py:shapes",
    prior="configs/prior.py:shapes",
    # One object is learned soon; telling two apart is what takes the time.
    train=(
        "shapes:train?size=32&count=15000&seed=2&words=full&objects=1",
        "shapes:train?size=32&count=60000&seed=3&words=full&objects=2",
    ),
    size=32,
    prompts=200,
    k=64,
)
PLANS = {
    # How it was chosen, and what is open, is in docs/design/0004.
    "quick": dataclasses.replace(
        _FULL,
        k=8,
        changes={
            "tokenizer": ("steps=3000", "evals.val_elbo.every=0"),
            "prior": ("steps=1400", "batch_size=32"),
        },
    ),
    "full": _FULL,
    "tiny": Plan(
        clip="configs/clip.py:tiny",
        tokenizer="configs/vqvae.py:tiny",
        prior="configs/prior.py:tiny",
        train=("shapes:train?size=16&count=64",),
        size=16,
        prompts=6,
        k=8,
        context=96,  # with few captions to learn words from, they are spelled out
    ),
}


TITLES = {
    "clip": "CLIP: which caption belongs to which image?",
    "tokenizer": "Image tokenizer: images to a grid of codes and back",
    "tokens": "Tokens: every training image encoded once",
    "prior": "Prior: text and image tokens, one after the other",
    "samples": "Samples for prompts that nobody rendered",
    "judge": "Re-ranking, the oracle's verdict, report",
}
