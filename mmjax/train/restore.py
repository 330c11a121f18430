"""Weights of earlier runs: resume, load, initialise from."""

import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmjax import parallel as parallel_lib
from mmjax import schema, tree
from mmjax.data import token_cache
from mmjax.errors import UserError
from mmjax.state import TrainState, Vars
from mmjax.train import checkpoint as checkpoint_lib
from mmjax.train import config as config_lib
from mmjax.train import setup
from mmjax.train.setup import Parts

PyTree = Any


def check_resume(parts: Parts, old: Mapping) -> None:
    """Refuses to go on under another model, tokenizer, data or optimizer."""
    new = setup.about(parts)
    if old["tokenizer"] != new["tokenizer"]:
        raise UserError(
            "the tokenizer differs from the one this run was started with "
            f"({parts.tokenizer.vocab_size if parts.tokenizer else 0} ids now): use "
            "the old one, or another workdir"
        )
    keys = ("task", "data", "optim", "seed", "batch_size")
    before = tree.flatten({k: old["config"][k] for k in keys})
    after = tree.flatten({k: new["config"][k] for k in keys})
    free = ("data/threads", "data/workers", "data/prefetch", "data/max_broken")
    free += ("task/loss_impl", "task/loss_block")  # forms of the same loss
    for path in sorted(before.keys() | after.keys()):
        # How a task samples has no part in how it is trained.
        if path in free or path.startswith("task/sampling"):
            continue
        if before.get(path) != after.get(path):
            raise UserError(
                f"config.{path.replace('/', '.')} was {before.get(path)} when this run "
                f"was started and is {after.get(path)} now: resume with the old value, "
                "or use another workdir"
            )


def restore(workdir: pathlib.Path, step: int | None = None) -> tuple[Parts, TrainState]:
    """A run's parts and one of its checkpoints, the newest by default."""
    saved_run = checkpoint_lib.read_run(workdir)
    config = config_lib.from_json(saved_run["config"])
    config.parallel = {}  # whatever devices are here
    parts = setup.build(config, tokenizer=setup.saved_tokenizer(saved_run))
    _, tx, _, optim_cfg = setup.optimizer(parts)
    saved = checkpoint_lib.Checkpointer(workdir, parts.cfg.checkpoint, read_only=True)
    try:
        if saved.latest() is None:
            raise UserError(f"{workdir} holds no checkpoint yet: train it first")
        state, _ = saved.restore(
            setup.abstract(parts, setup.fresh(parts.task, tx, optim_cfg.ema > 0)), step
        )
    finally:
        saved.close()
    return parts, state


def graft(parts: Parts, state: TrainState) -> TrainState:
    """A fresh state with the weights of other runs in it, as `config.graft` asks.

    `config.graft.NAME = WORKDIR` puts all that a run learned (parameters, averaged
    where it keeps an average, and its extra variables) into the frozen variables of
    that name; `config.graft.params = WORKDIR` starts from its parameters.

    Raises:
      UserError: no run is named, the place does not exist, or names or shapes differ.
    """
    for name in parts.cfg.graft:
        workdir, place = parts.cfg.graft[name], f"config.graft.{name}"
        if name != "params" and name not in state.vars.frozen:
            legal = ["params", *state.vars.frozen]
            raise UserError(f"{place}: no such place{schema.suggest(name, legal)}")
        if not workdir:
            raise UserError(
                f"{place} is empty: give the workdir of a trained run, --{place}=DIR"
            )
        got = restore(pathlib.Path(workdir))[1].eval_vars()
        if name == "params":
            params = _placed(state.vars.params, got.params, place, workdir)
            ema = None if state.ema is None else jax.tree.map(jnp.copy, params)
            state = state.replace(vars=state.vars._replace(params=params), ema=ema)
            continue
        new = {"params": got.params, **got.extra}
        new = _placed(state.vars.frozen[name], new, place, workdir)
        frozen = {**state.vars.frozen, name: new}
        state = state.replace(vars=state.vars._replace(frozen=frozen))
    return state


def _placed(old: PyTree, new: PyTree, place: str, workdir: str) -> PyTree:
    """`new` where `old` lies; UserError unless all names and shapes are the same."""
    have, want = tree.flatten(new), tree.flatten(old)
    for path in sorted(have.keys() | want.keys()):
        shapes = [tuple(t[path].shape) if path in t else "absent" for t in (have, want)]
        if shapes[0] != shapes[1]:
            raise UserError(
                f"{place}: {path} is {shapes[0]} in {workdir} and {shapes[1]} in this "
                "model: give config.task the numbers that run was trained with, or "
                "name another run"
            )
    return jax.tree.map(
        lambda o, n: parallel_lib.spread(np.asarray(n, o.dtype), o.sharding), old, new
    )


def check_cache(parts: Parts, state: TrainState) -> None:
    """Raises UserError where the data are tokens that other weights than these made."""
    made = getattr(parts.source, "stage1", None)
    if made is None:
        return
    found = {
        name: token_cache.fingerprint(parts.layout.fetch(weights))
        for name, weights in state.vars.frozen.items()
    }
    if made["fingerprint"] not in found.values():
        raise UserError(
            f"{parts.source.name} was written by an image tokenizer with fingerprint "
            f"{made['fingerprint']}, and this model holds {found or 'none'}: set "
            "config.graft to the run that wrote it, or run `mmjax data tokenize` again"
        )


def fingerprint(parts: Parts, variables: Vars) -> str:
    """16 hex digits of all that a run learned; of the averaged weights, if given.

    A model that holds this one frozen says the same of it. Every process calls this.
    """
    held = {"params": variables.params, **variables.extra}
    return token_cache.fingerprint(parts.layout.fetch(held))
