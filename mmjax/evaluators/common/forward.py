"""Calls to the predict functions: shape checks before, fixed batches during.

Legend: b batch, l text context, d embedding, n all texts.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from mmjax import schema
from mmjax.errors import UserError
from mmjax.evaluators.base import Batch, Env

PyTree = Any


def image_batch(batch: Batch) -> dict[str, np.ndarray]:
    """What `embed_image` is called with."""
    return {"image": batch["image"]}


def valid_rows(batch: Batch) -> np.ndarray:
    """bool (B,): rows that are neither padding nor stand-ins for a broken record."""
    valid_b = np.asarray(batch["_mask"]) > 0
    if "_broken" in batch:
        valid_b &= np.asarray(batch["_broken"]) == 0
    return valid_b


def broken_rows(batch: Batch) -> int:
    """How many rows of the batch, padding aside, stand in for a broken record."""
    if "_broken" not in batch:
        return 0
    real_b = np.asarray(batch["_mask"]) > 0
    return int((real_b & (np.asarray(batch["_broken"]) > 0)).sum())


def require_tokenizer(env: Env, where: str) -> None:
    """Raises UserError where the run has no tokenizer."""
    if env.tokenizer is None:
        raise UserError(f"{where}: reads texts, but this run has no tokenizer")


def encode(env: Env, texts: Sequence[str], where: str) -> dict[str, np.ndarray]:
    """Tokens int32 (n, l) and mask bool (n, l) of all texts.

    Raises:
      UserError: the run has no tokenizer.
    """
    require_tokenizer(env, where)
    tokens_nl, mask_nl = env.tokenizer.encode(texts)
    return {"tokens": tokens_nl, "tokens_mask": mask_nl}


def embed_texts(
    env: Env, variables: PyTree, encoded: dict[str, np.ndarray], size: int, where: str
) -> Iterator[np.ndarray]:
    """Unit rows (<= size, d), one chunk of texts at a time, in order.

    Every call has `size` rows, so that it compiles once: the last chunk is filled up
    with its first text, which the caller never sees.
    """
    count = len(encoded["tokens"])
    for start in range(0, count, size):
        take = np.arange(start, start + size)
        take[take >= count] = start
        batch = {name: array[take] for name, array in encoded.items()}
        rows_bd = np.asarray(env.predict["embed_text"](variables, batch))
        yield unit(rows_bd[: count - start], "embed_text", where)


def unit(rows_bd: np.ndarray, name: str, where: str) -> np.ndarray:
    """Rows scaled to length one, float32.

    Raises:
      UserError: a row is not finite. NaN compares false with everything, and a rank
        that counts better scores would call it perfect.
    """
    rows_bd = np.asarray(rows_bd, np.float32)
    bad = int((~np.isfinite(rows_bd)).any(1).sum())
    if bad:
        raise UserError(
            f"{where}: {name} gave NaN or Inf in {bad} of {len(rows_bd)} rows; the "
            "weights are broken: go back to an earlier checkpoint"
        )
    lengths_b1 = np.linalg.norm(rows_bd, axis=1, keepdims=True)
    return rows_bd / np.maximum(lengths_b1, 1e-12)


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


def check_pair(
    env: Env, vars_abstract: PyTree, batch: Batch, size: int, where: str
) -> None:
    """Raises UserError unless images and texts embed as rows of the same width."""
    images = abstract(image_batch(batch))
    texts = text_abstract(env, size)
    asked = {"embed_image": images, "embed_text": texts}
    widths = {}
    for name, rows in asked.items():
        got = output_shape(env, name, vars_abstract, rows, where)
        shape = getattr(got, "shape", None)
        if shape is None or len(shape) != 2 or shape[0] != size:
            raise UserError(f"{where}: {name!r} must give ({size}, d), gives {shape}")
        widths[name] = shape[1]
    if widths["embed_image"] != widths["embed_text"]:
        image_d, text_d = widths["embed_image"], widths["embed_text"]
        raise UserError(
            f"{where}: images embed in {image_d} dimensions and texts in {text_d}: "
            "give both towers the same embed_dim"
        )


def peek(env: Env, source: Any, tokenizer: Any, size: int, where: str) -> Batch:
    """The first batch of a source.

    Raises:
      UserError: the source is empty.
    """
    if not len(source):
        raise UserError(f"{where}: source {source.name!r} holds no examples")
    return next(
        iter(env.eval_batches(source, tokenizer, env.image_cfg, batch_size=size))
    )
