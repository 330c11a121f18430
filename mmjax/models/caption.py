"""Captioners: a decoder of words over the cells of an image, and the image's tower.

Legend: b rows, m words, l tokens, n cells, d columns of a cell, v ids.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax import schema
from mmjax.errors import UserError
from mmjax.models import presets
from mmjax.models.caption_recurrent import Look, Recurrent
from mmjax.models.caption_transformer import CaptionTransformer

# kind: its class, and the field that the kind fixes
KINDS = {
    "lstm": (Recurrent, {"attention": "none"}),
    "soft": (Recurrent, {"attention": "soft"}),
    "hard": (Recurrent, {"attention": "hard"}),
    "transformer": (CaptionTransformer, {}),
}


class Captioner(nn.Module):
    """Parameters are `decoder/...` and `image/...`, those of CLIP's image tower.

    image: a tower whose `sequence` gives the cells; None where inputs are cells.
    """

    decoder: nn.Module
    image: nn.Module | None = None

    def cells(self, x: jax.Array) -> jax.Array:
        """(b, n, d) of images (b, h, w, 3), or of features (b, ..., d) as they are."""
        if self.image is not None:
            return self.image.sequence(x).astype(jnp.float32)
        return x.reshape(len(x), -1, x.shape[-1])

    def __call__(
        self, x: jax.Array, ids_bm: jax.Array, keys_b: jax.Array | None = None
    ) -> tuple[jax.Array, Look | None]:
        """Logits (b, m, v) of the word after each; looks (b, m, ...) of an LSTM's.

        keys_b: in training, one key a row: for dropout and the cells that are drawn.
        """
        return self.decoder(self.cells(x), ids_bm, keys_b)

    def begin(self, x: jax.Array, rows: int = 1) -> tuple[Any, Any]:
        """What `step` reads of images, and the state of `rows` rows of each."""
        return self.decoder.begin(self.cells(x), rows)

    def step(
        self, memory: Any, state: Any, ids_b: jax.Array, index: jax.Array
    ) -> tuple[jax.Array, Any, jax.Array | None]:
        """Logits (b, v) of the word after number `index`, int32 (), the state, and the
        cells that were looked at (b, n)."""
        return self.decoder.step(memory, state, ids_b, index)


def build(
    decoder: Mapping[str, Any],
    *,
    image: Mapping[str, Any],
    image_size: int,
    act: str = "gelu",
    **words: int,
) -> Captioner:
    """A captioner from mappings of a `kind` and the kind's own fields.

    Args:
      decoder: `kind` lstm, soft or hard with fields of `Recurrent`, or transformer with
        those of `CaptionTransformer`.
      image: a tower of `kind` vit, or empty for features.
      words: vocab_size and context.

    Raises:
      UserError: an unknown kind or field, or a tower without cells.
    """
    numbers = dict(decoder)
    kind = numbers.pop("kind", "")
    if kind not in KINDS:
        raise UserError(f"decoder.kind is {kind!r}{schema.suggest(kind, KINDS)}")
    shared = {"act": act, "image_size": image_size}
    tower = presets.image_tower(image, **shared) if image else None
    if tower is not None and not hasattr(tower, "sequence"):
        raise UserError(
            f"the image tower is of kind {image['kind']!r}, which gives no cells: use "
            "kind vit"
        )
    cls, fixed = KINDS[kind]
    known = [
        name for name in cls.__dataclass_fields__ if name not in (*fixed, "parent")
    ]
    for key in numbers:
        presets.check_known(f"decoder {kind!r}", key, known)
    own = {key: value for key, value in (words | shared).items() if key in known}
    return Captioner(cls(**own | fixed | numbers), image=tower)
