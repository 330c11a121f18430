"""What predict functions read and give: keys of a batch, valid rows, shapes.

Legend: b batch, l text context, n all rows.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from mmjax import schema
from mmjax.errors import UserError
from mmjax.evaluators.common.env import Batch, Env, PyTree

IMAGE = ("image",)  # keys of a batch that predict functions read
TEXT = ("tokens", "tokens_mask")
IMAGES = ("image|image_tokens", "label?")  # fields of a batch without captions
Calls = Mapping[str, tuple[str, ...] | None]  # predict function -> see `inputs`
Keep = Callable[[dict[str, PyTree], Batch, np.ndarray], Mapping[str, np.ndarray]]


class Collected(NamedTuple):
    """The valid rows of a source.

    arrays: `index` (n,), the record's place in the source; `label` (n,) where records
      have one; and all that was kept.
    counts: examples (n) and broken, for the card. batches: how many were looked at.
    """

    arrays: dict[str, np.ndarray]
    counts: dict[str, int]
    batches: int


def inputs(
    batch: Mapping[str, Any], name: str, keys: tuple[str, ...] | None, where: str
) -> dict[str, Any]:
    """The keys of a batch that a function is given; None is all but private ones.

    Raises:
      UserError: the records have no image.
    """
    if keys is None:
        return {k: v for k, v in batch.items() if k[0] != "_" or k == "_mask"}
    for key in keys:
        if key not in batch and key not in TEXT:
            raise UserError(
                f"{where}: the records are tokens, not {key}s, which {name!r} reads: "
                "give the source that the tokens were made of"
            )
    return {key: batch[key] for key in keys if key in batch}


def of_fields(given: Mapping[str, Any], fields: Collection[str]) -> dict[str, Any]:
    """The arrays of a batch that belong to these fields: NAME, NAME_mask, ..."""
    keys = {f"{name}{end}" for name in fields for end in ("", "_mask", "_present")}
    return {k: v for k, v in given.items() if k in keys}


def valid_rows(batch: Batch) -> np.ndarray:
    """bool (b,): rows that are neither padding nor stand-ins for a broken record."""
    return (np.asarray(batch["_mask"]) > 0) & (np.asarray(batch.get("_broken", 0)) == 0)


def require_tokenizer(env: Env, where: str) -> None:
    """Raises UserError where the run has no tokenizer."""
    if env.tokenizer is None:
        raise UserError(f"{where}: reads texts, but this run has no tokenizer")


def abstract(batch: Batch) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes and types of a batch."""
    return {k: jax.ShapeDtypeStruct(v.shape, v.dtype) for k, v in batch.items()}


def text_abstract(env: Env, size: int) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes and types of a batch of texts."""
    shape = (size, env.tokenizer.context)
    return {
        "tokens": jax.ShapeDtypeStruct(shape, np.int32),
        "tokens_mask": jax.ShapeDtypeStruct(shape, np.bool_),
    }


def output_shape(
    env: Env, name: str, vars_abstract: PyTree, batch: PyTree, where: str
) -> PyTree:
    """Shapes that predict function `name` gives, by tracing it; nothing is computed.

    Raises:
      UserError: the task offers no such function, or it refuses such a batch.
    """
    if name not in env.raw or name not in env.predict:
        hint = schema.suggest(name, env.raw)
        raise UserError(f"{where}: this task has no predict function {name!r}{hint}")
    try:
        return jax.eval_shape(env.raw[name], vars_abstract, batch)
    except (TypeError, ValueError, KeyError) as error:
        shapes = {k: tuple(v.shape) for k, v in batch.items()}
        reason = f"{type(error).__name__}: {error}"
        message = f"{where}: {name!r} cannot take a batch {shapes}: {reason}"
        raise UserError(message) from error
