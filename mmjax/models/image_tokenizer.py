"""The door to image tokenizers: a spec to a module, whatever its kind.

    spec = {"kind": "vqvae", "image_size": 32, "vocab_size": 256}
    module = image_tokenizer.build(spec)
    ids_bn = module.apply(variables, x_bhw3, method="encode_tokens")
    x_bhw3 = module.apply(variables, ids_bn, method="decode_tokens")

A tokenizer has `image_size` (pixels a side), `grid` (tokens a side) and `vocab_size`;
images are float32 in [0, 1], tokens int32 (b, grid * grid), row-major. A kind is a
module of this package with `build(fields, where)`.
"""

import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from mmjax import models, schema
from mmjax.errors import UserError

METHODS = ("encode_tokens", "decode_tokens")


def build(spec: Mapping[str, Any], where: str = "config.task.tokenizer") -> nn.Module:
    """The tokenizer of a spec: `kind`, and the keys that this kind knows."""
    fields = {key: spec[key] for key in spec if key != "kind"}
    kind = spec["kind"] if "kind" in spec else ""
    module = _find(kind) if isinstance(kind, str) and kind.isidentifier() else None
    if module is None:
        hint = schema.suggest(kind, kinds())
        raise UserError(f"{where}.kind is {kind!r}, no kind of image tokenizer{hint}")
    return module.build(fields, where)


def kinds() -> list[str]:
    """The kinds there are."""
    names = [module.name for module in pkgutil.iter_modules(models.__path__)]
    return [name for name in names if _find(name) is not None]


def _find(kind: str) -> Any:
    place = f"{models.__name__}.{kind}"
    try:
        module = importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name != place:
            raise
        return None
    own = [v for v in vars(module).values() if getattr(v, "__module__", "") == place]
    tokenizes = any(all(hasattr(v, name) for name in METHODS) for v in own)
    return module if tokenizes and hasattr(module, "build") else None
