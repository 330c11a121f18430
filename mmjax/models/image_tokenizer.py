"""The door to image tokenizers: a spec to a module, whatever its kind.

    spec = {"kind": "vqvae", "image_size": 32, "vocab_size": 256}
    module = image_tokenizer.build(spec)
    ids_bn = module.apply(variables, x_bhw3, method="encode_tokens")
    x_bhw3 = module.apply(variables, ids_bn, method="decode_tokens")

A tokenizer has `image_size` (pixels a side), `grid` (tokens a side) and `vocab_size`;
images are float32 in [0, 1], tokens int32 (b, grid * grid), row-major. A kind is a
module of this package with `build(fields, where)`.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from mmjax.models import door

METHODS = ("encode_tokens", "decode_tokens")


def build(spec: Mapping[str, Any], where: str = "config.task.tokenizer") -> nn.Module:
    """The tokenizer of a spec: `kind`, and the keys that this kind knows."""
    fields = {key: spec[key] for key in spec if key != "kind"}
    kind = spec["kind"] if "kind" in spec else ""
    return door.find(kind, METHODS, where, "image tokenizer").build(fields, where)


def kinds() -> list[str]:
    """The kinds there are."""
    return door.kinds(METHODS)
