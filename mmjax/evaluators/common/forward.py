"""Calls to a run's predict functions: shape checks before, batches of one size during.

Here alone evaluators touch the run's tokenizer, image config and pipeline.
Legend: b batch, l text context, d embedding, n all rows or texts.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from mmjax import schema
from mmjax.errors import UserError
from mmjax.evaluators.common.env import Batch, Env, PyTree
from mmjax.metrics import embeddings

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


def collect(
    env: Env,
    variables: PyTree,
    source: Any,
    calls: Calls,
    *,
    size: int,
    where: str,
    keep: Keep | None = None,
    names: Sequence[str] = IMAGES,
    classes: int = 0,
    full: bool = False,
) -> Collected:
    """Calls predict functions on a source, batch by batch, and keeps the valid rows.

    Rows are left out that pad the last batch or stand in for a broken record.

    Args:
      calls: the functions, and the keys of the batch that each is given.
      size: rows of a batch.
      keep: (outputs by function, batch, valid (b,)) -> arrays of the valid rows, for
        outputs that are too large to hold; without it every function's rows are kept
        as float32, under the function's name.
      names: the fields of a batch, as `Task.reads` names them.
      classes: how many labels are legal; 0 checks none.
      full: leave out a batch with fewer than `size` good records.

    Raises:
      UserError: no row is left, a row that is kept without `keep` is not finite, or a
        label has no class name.
    """
    parts: dict[str, list[np.ndarray]] = defaultdict(list)
    batches = broken = 0
    for batch in open_batches(env, source, size=size, names=names):
        valid_b = valid_rows(batch)
        broken += int((np.asarray(batch.get("_broken", 0)) > 0).sum())
        if full and (np.asarray(batch["_mask"]) > 0).sum() < size:
            continue
        batches += 1
        rows = {"index": np.asarray(batch["_index"])[valid_b]}
        if "label" in batch:
            rows["label"] = np.asarray(batch["label"])[valid_b]
        if classes:
            _check_labels(rows["label"], rows["index"], source, classes, where)
        outputs = {
            name: env.predict[name](variables, inputs(batch, name, keys, where))
            for name, keys in calls.items()
        }
        if keep is None:
            rows |= {k: np.asarray(v, np.float32)[valid_b] for k, v in outputs.items()}
        else:
            rows |= keep(outputs, batch, valid_b)
        for name, array in rows.items():
            parts[name].append(array)
    arrays = {name: np.concatenate(listed) for name, listed in parts.items()}
    count = len(arrays["index"]) if arrays else 0
    if not count:
        raise UserError(
            f"{where}: {broken} records, all of them broken, in {source.name!r}"
        )
    for name in calls if keep is None else ():
        embeddings.check_finite(arrays[name], f"{where}: {name}")
    return Collected(arrays, {"examples": count, "broken": broken}, batches)


def open_batches(
    env: Env, source: Any, *, size: int, names: Sequence[str] = IMAGES
) -> Iterator[Batch]:
    """A source's batches, in order, the last one padded; see pipeline.eval_batches."""
    return env.eval_batches(source, names, batch_size=size)


def peek(
    env: Env, source: Any, *, size: int, where: str, names: Sequence[str] = IMAGES
) -> Batch:
    """The first batch of a source.

    Raises:
      UserError: the source is empty.
    """
    if not len(source):
        raise UserError(f"{where}: source {source.name!r} holds no examples")
    return next(iter(open_batches(env, source, size=size, names=names)))


def inputs(
    batch: Mapping[str, Any], name: str, keys: tuple[str, ...] | None, where: str
) -> dict[str, Any]:
    """The part of a batch that a function is given: those keys; None is all.

    Of all, the host's notes are left out; texts, where a run has no tokenizer.

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


def valid_rows(batch: Batch) -> np.ndarray:
    """bool (b,): rows that are neither padding nor stand-ins for a broken record."""
    valid_b = np.asarray(batch["_mask"]) > 0
    if "_broken" in batch:
        valid_b &= np.asarray(batch["_broken"]) == 0
    return valid_b


def _check_labels(
    label_n: np.ndarray, index_n: np.ndarray, source: Any, count: int, where: str
) -> None:
    """Raises UserError where a label has no class name."""
    wrong = np.flatnonzero((label_n < 0) | (label_n >= count))
    if wrong.size:
        label, index = int(label_n[wrong[0]]), int(index_n[wrong[0]])
        raise UserError(
            f"{where}: record {index} of {source.name!r} has label {label}, but there "
            f"are {count} class names (0 to {count - 1}); -1 means a record without a "
            "class: choose a source of labelled ones"
        )


# -- texts ---------------------------------------------------------------------
def require_tokenizer(env: Env, where: str) -> None:
    """Raises UserError where the run has no tokenizer."""
    if env.tokenizer is None:
        raise UserError(f"{where}: reads texts, but this run has no tokenizer")


def encode(env: Env, texts: Sequence[str], where: str) -> dict[str, np.ndarray]:
    """`tokens` int32 (n, l) and `tokens_mask` bool (n, l) of all texts.

    Raises:
      UserError: the run has no tokenizer.
    """
    require_tokenizer(env, where)
    tokens_nl, mask_nl = env.tokenizer.encode(texts)
    return {"tokens": tokens_nl, "tokens_mask": mask_nl}


def embed_texts(
    env: Env, variables: PyTree, encoded: Batch, *, size: int, where: str
) -> Iterator[np.ndarray]:
    """Unit rows (<= size, d) of "embed_text", one chunk of texts at a time, in order.

    Every call has `size` rows, so that it compiles once: the last chunk is filled up
    with its first text, which the caller never sees.
    """
    count = len(encoded["tokens"])
    for start in range(0, count, size):
        take = np.arange(start, start + size)
        take[take >= count] = start
        batch = {name: array[take] for name, array in encoded.items()}
        rows_bd = np.asarray(env.predict["embed_text"](variables, batch))
        yield embeddings.unit(rows_bd[: count - start], f"{where}: embed_text")


# -- shapes --------------------------------------------------------------------
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


def image_shape(env: Env, size: int) -> tuple[int, ...]:
    """The shape of a batch of images."""
    side = env.image_cfg.size
    return size, side, side, 3


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
