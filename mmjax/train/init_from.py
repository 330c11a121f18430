"""A fresh run that starts from what other runs learned: `config.graft`."""

import dataclasses
import functools
import json
import logging
import math
import pathlib
import re
import zlib
from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mmjax import parallel as parallel_lib
from mmjax import schema, tree
from mmjax.data import fields as fields_lib
from mmjax.data import token_cache
from mmjax.errors import UserError
from mmjax.state import TrainState
from mmjax.train.restore import restore
from mmjax.train.setup import Parts

log = logging.getLogger(__name__)
PyTree = Any
_TABLE = re.compile("/(token|text)_embedding/?$")  # of tokens, by id
# Fields of modules that say how they compute or begin, not what their weights mean.
_FREE = ("parent", "name", "dtype", "scan", "remat", "attention", "ema")
_FREE += ("init_scale", "init_bias", "init_style", "max_scale")


def init_from(parts: Parts, state: TrainState) -> TrainState:
    """A fresh state with the weights of other runs in it, as `config.graft` asks.

    `config.graft.PLACE = "RUN"` or `"RUN#PART"`, where RUN is a workdir:

    PLACE is a path in this model's variables: `params` or a part of it
      (`params/image`, or `image` for short), or the name of extra or frozen variables.
    PART is a path in what RUN learned: its parameters, averaged where it keeps an
      average, and its extra variables; or in what it holds frozen. Without it, frozen
      variables take what RUN holds frozen under their name, or else everything that it
      learned, and any other place takes the same path of RUN.

    Names and shapes of both must agree. So must all that changes what the same weights
    compute, and that no shape shows:

    - the fields of their modules, such as `act` and `heads`, but for `_FREE`;
    - the tokenizer, context included, where the part holds a table of tokens, frozen
      or not;
    - `mean` and `std` of config.task, and size, method and mode of the images, unless
      the part belongs to the text or is put into frozen variables. A frozen image
      tokenizer reads pixels as they are, so its own fields are all that matters;
    - the class names, where the part holds a classifier's head;
    - what both runs hold frozen, such as the image tokenizer whose codes a prior
      learned, unless the part belongs to the text or is frozen itself.

    Variables that only training needs (`training_only` of a task), such as those of a
    discriminator, are left out where this run has none of the name, and stay as they
    are where RUN has none.

    Images may be of another size where the part has the positions of their patches:
    these are resized, and the log says so.

    Raises UserError where no run is named, a path does not exist, or one of these
    differs, with both values.
    """
    variables = state.vars
    whole = {"params": variables.params, **variables.extra, **variables.frozen}
    load, taken = functools.cache(restore), []
    for place in sorted(parts.cfg.graft):  # a part after the whole that holds it
        where = f"config.graft.{place.replace('/', '.')}"
        run, _, part = parts.cfg.graft[place].partition("#")
        if not run:
            raise UserError(f"{where} is empty: name a trained run, --{where}=DIR")
        path = _path(whole, place, where)
        theirs, trained = load(pathlib.Path(run))
        learned = trained.eval_vars()
        name, _, inside = path.partition("/")
        frozen = name in variables.frozen
        source = {"params": learned.params, **learned.extra}
        if not part:  # the same, but all of a run that holds no such frozen variables
            part = inside if frozen and name not in learned.frozen else path
        if part:
            source |= learned.frozen
            part = _path(source, part, f"{where}={run}#{part}")
        old, new = _at(whole, path), _at(source, part)
        new = _without_spare(new, old, (theirs.task, part), (parts.task, path))
        new, resized = resize_positions(new, old, path)
        _check_shapes(old, new, where, run)
        leaves = [f"{part}/{leaf}" for leaf in tree.flatten(new)]
        # what is frozen reads pixels as they are, but texts as this run's tokens
        leaves = [leaf for leaf in leaves if not frozen or _TABLE.search(leaf)]
        before = _fields(theirs.task, part) | _inputs(theirs, leaves)
        now = _fields(parts.task, path) | _inputs(parts, leaves)
        for fact in before | now:
            if not (resized and fact.endswith(("image_size", "image's size"))):
                _agree(before.get(fact), now.get(fact), fact, where, run)
        for line in resized:
            log.warning("%s: %s", where, line)
        whole = _put(whole, path, jax.tree.map(_placed, old, new))
        taken.append((where, path, run, learned))
    variables = variables._replace(
        params=whole["params"],
        extra={name: whole[name] for name in variables.extra},
        frozen={name: whole[name] for name in variables.frozen},
    )
    for where, path, run, learned in taken:
        if path.startswith("params") and not path.startswith("params/text"):
            _check_frozen(learned.frozen, variables.frozen, where, run, parts.layout)
    ema = None if state.ema is None else jax.tree.map(jnp.copy, variables.params)
    return state.replace(vars=variables, ema=ema)


def resize_positions(
    new: PyTree, old: PyTree, path: str = ""
) -> tuple[PyTree, list[str]]:
    """`new` with the positions of image patches resized to the shapes of `old`.

    Bicubic over the square of patches, with antialiasing where it shrinks; the row of
    a class token before them stays. So open_clip does it for models of another
    resolution. All else comes back as it is.

    Args:
      new, old: arrays, or what has a shape, by the same names.
      path: where they lie: the positions of texts are not touched.

    Returns:
      (the arrays, one line for each that was resized).
    """
    arrays, shapes, lines = tree.flatten(new), tree.flatten(old), []
    for leaf in arrays.keys() & shapes.keys():
        full = f"{path}/{leaf}".strip("/")
        (have, *width), (want, *other) = (
            (*t[leaf].shape, 0)[:2] for t in (arrays, shapes)
        )
        sides = math.isqrt(have), math.isqrt(want)
        first = have - sides[0] ** 2
        if (
            not re.search("(^|/)position_embedding$", full)
            or re.search("(^|/)text/", full)
            or have == want
            or width != other
            or first not in (0, 1)
            or first != want - sides[1] ** 2
        ):
            continue
        table = np.asarray(arrays[leaf])
        grid = table[first:].reshape(sides[0], sides[0], *width)
        grid = jax.image.resize(grid, (sides[1], sides[1], *width), "bicubic")
        grid = np.asarray(grid).reshape(-1, *width)
        arrays[leaf] = np.concatenate([table[:first], grid])
        lines.append(
            f"{full} resized from {sides[0]} x {sides[0]} to {sides[1]} x {sides[1]} "
            "patches (bicubic)"
        )
    return tree.unflatten(arrays) if lines else new, lines


def _agree(theirs: Any, ours: Any, fact: str, where: str, run: str) -> None:
    if theirs != ours:
        raise UserError(
            f"{where}: {fact} is {theirs!r} in {run} and {ours!r} in this run: give "
            "the config the value that run was trained with, or name another run"
        )


def _path(variables: PyTree, path: str, where: str) -> str:
    """`path` in full, `params/` before it where it was left out."""
    for full in (path, f"params/{path}"):
        if _at(variables, full) is not None:
            return full
    legal = [*variables, *(f"params/{key}" for key in variables["params"])]
    raise UserError(f"{where}: no {path!r} there{schema.suggest(path, legal)}")


def _at(variables: PyTree, path: str) -> PyTree:
    """The variables at a path, all of them at '', or None."""
    for key in filter(None, path.split("/")):
        if not isinstance(variables, dict) or key not in variables:
            return None
        variables = variables[key]
    return variables


def _placed(old: jax.Array, new: Any) -> jax.Array:
    """`new` with the type and the sharding of `old`."""
    if new is old:
        return old
    return parallel_lib.spread(np.asarray(new, old.dtype), old.sharding)


def _put(variables: PyTree, path: str, new: PyTree) -> PyTree:
    key, _, rest = path.partition("/")
    return {**variables, key: _put(variables[key], rest, new) if rest else new}


def _check_shapes(old: PyTree, new: PyTree, where: str, run: str) -> None:
    """UserError unless all names and shapes are the same."""
    have, want = tree.flatten(new), tree.flatten(old)
    for path in sorted(have.keys() | want.keys()):
        shapes = [tuple(t[path].shape) if path in t else "absent" for t in (have, want)]
        if shapes[0] != shapes[1]:
            raise UserError(
                f"{where}: {path or 'it'} is {shapes[0]} in {run} and {shapes[1]} in "
                "this model: give config.task the numbers that run was trained with, "
                "or name another run"
            )


def _without_spare(
    new: PyTree, old: PyTree, theirs: tuple[Any, str], ours: tuple[Any, str]
) -> PyTree:
    """`new` less what only their training needs, and `old`'s for what only ours does.

    That is what a task lists as `training_only` and the other run does not have.

    theirs, ours: the tasks, and the paths that `new` and `old` lie at.
    """
    arrays, want = tree.flatten(new), tree.flatten(old)

    def spare(leaf: str, task: Any, path: str) -> bool:
        full = f"{path}/{leaf}".strip("/")
        return tree.under(full, getattr(task, "training_only", ()))

    extra = {leaf for leaf in arrays.keys() - want.keys() if spare(leaf, *theirs)}
    own = {leaf for leaf in want.keys() - arrays.keys() if spare(leaf, *ours)}
    if not extra and not own:
        return new
    kept = {leaf: value for leaf, value in arrays.items() if leaf not in extra}
    return tree.unflatten(kept | {leaf: want[leaf] for leaf in own})


def _check_frozen(
    theirs: PyTree, ours: PyTree, where: str, run: str, layout: parallel_lib.Layout
) -> None:
    """UserError where both hold something frozen of one name that differs."""
    for name in theirs.keys() & ours.keys():
        weights = layout.fetch(theirs[name]), layout.fetch(ours[name])
        prints = map(token_cache.fingerprint, weights)
        _agree(*prints, f"the fingerprint of the frozen {name}", where, run)


def _fields(task: Any, path: str) -> dict[str, Any]:
    """The fields of the module that holds a path, by name."""
    name, _, inside = path.partition("/")
    frozen = name != "model" and isinstance(getattr(task, name, None), nn.Module)
    module, deep = getattr(task, name if frozen else "model"), True
    for key in (inside if frozen else path).split("/")[1:]:
        deep = isinstance(getattr(module, key, None), nn.Module)
        if not deep:  # an array or an unnamed layer: only the module's own numbers
            break
        module = getattr(module, key)
    return dict(sorted(_flat(module, deep=deep)))


def _inputs(run: Parts, leaves: list[str]) -> dict[str, Any]:
    """What the weights of a run at these paths read."""
    facts = {}
    if not leaves:
        return facts
    if any(map(_TABLE.search, leaves)):
        words, facts["the tokenizer"] = run.tokenizer, "none"
        if words is not None:
            digest = zlib.crc32(words.to_json().encode())
            facts["the tokenizer"] = (
                f"{words.vocab_size} ids, context {words.context}, "
                f"fingerprint {digest:08x}"
            )
    labels = fields_lib.only(run.fields, "label")
    if labels and any(path.startswith("params/head/") for path in leaves):
        names = labels.class_names
        digest = zlib.crc32(json.dumps(names).encode())
        facts["the class names"] = f"{len(names)} names, fingerprint {digest:08x}"
    for name, field in run.fields.items():
        read = any(name in path.split("/") for path in leaves)
        if read and getattr(field, "mean", None) is not None:
            digest = zlib.crc32(json.dumps(field.saved()).encode())
            facts[f"the statistics of data.fields.{name}"] = f"fingerprint {digest:08x}"
    if not re.match("(params/)?text", leaves[0]):
        for key in ("mean", "std"):
            facts[f"task.{key}"] = getattr(run.task, key, None)
        for key in ("size", "method", "mode"):
            facts[f"the image's {key}"] = getattr(run.image_cfg, key, None)
    return facts


def _flat(module: Any, *, deep: bool) -> Iterator[tuple[str, Any]]:
    """Fields by dotted name, those of the dataclasses inside among them."""
    yield "kind", type(module).__name__
    if not dataclasses.is_dataclass(module):  # a spec
        yield "spec", module
        return
    for field in dataclasses.fields(module):
        value = getattr(module, field.name)
        if field.name in _FREE:
            continue
        if field.name == "heads" and not value:  # heads of 64, as 0 stands for
            value = max(1, module.features // 64)
        if not dataclasses.is_dataclass(value):
            yield field.name, value
        elif deep or not isinstance(value, nn.Module):
            for name, inner in _flat(value, deep=deep):
                yield f"{field.name}.{name}", inner
