"""Fusion blocks: one joint for whatever brings several modalities together.

    block = fusion.find("tensor", "block")(width=16)
    fused = block.apply(variables, parts, masks, fusion.Wanted(outputs=2))

`parts` holds a modality's columns by name, float32 (b, t, d), and `masks` bool (b, t):
False where a series has ended, and everywhere where a row lacks the modality. A static
vector is a series of one step. Rows of parts where the mask is False are zeros.

A block is a module of this package with a class `Block`; its fields are what a config
may set. A new one is a new file.

Legend, of all blocks: b rows, t steps, d columns of a part, w width, k outputs.
"""

import importlib
import pkgutil

from mmjax import schema
from mmjax.errors import UserError
from mmjax.nn.fusion.base import Base, Fused, Wanted

__all__ = ["Base", "Fused", "Wanted", "find", "kinds"]


def kinds() -> list[str]:
    """The names of all blocks."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name != "base")


def find(kind: str, where: str) -> type[Base]:
    """The class of a block; UserError with the nearest name where there is none."""
    if kind not in kinds():
        raise UserError(f"{where}.kind is {kind!r}{schema.suggest(kind, kinds())}")
    return importlib.import_module(f"{__name__}.{kind}").Block
