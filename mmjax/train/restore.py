"""Weights of earlier runs: resume and load."""

import pathlib
from collections.abc import Mapping

from mmjax import schema, tree
from mmjax.data import fields as fields_lib
from mmjax.data import records, token_cache
from mmjax.errors import UserError
from mmjax.state import TrainState, Vars
from mmjax.train import checkpoint as checkpoint_lib
from mmjax.train import config as config_lib
from mmjax.train import run_file, setup
from mmjax.train.setup import Parts

DTYPES = ("float32", "bfloat16", "float16")


def check_resume(parts: Parts, old: Mapping) -> None:
    """Refuses to go on under another model, tokenizer, data or optimizer."""
    new = setup.about(parts)
    for name in sorted(old["fields"].keys() & new["fields"].keys()):
        if old["fields"][name] != new["fields"][name]:
            raise UserError(
                f"config.data.fields.{name} took something else from the data when "
                "this run was started (the tokenizer, the class names): use the old "
                "data and tokenizer, or another workdir"
            )
    same = _same_data(parts, old.get("data"))
    keys = ("task", "data", "optim", "seed", "batch_size")
    before = tree.flatten({k: old["config"][k] for k in keys})
    after = tree.flatten({k: new["config"][k] for k in keys})
    free = ("data/threads", "data/workers", "data/prefetch", "data/max_broken")
    free += ("data/changed",)
    free += ("task/loss_impl", "task/loss_block")  # forms of the same loss
    free += ("task/attention",)  # and of the same attention
    read = fields_lib.choose(parts.fields, None, parts.task.reads)
    for path in sorted(before.keys() | after.keys()):
        # How a task samples has no part in how it is trained, nor a field that it does
        # not read.
        unread = path.startswith("data/fields/") and path.split("/")[2] not in read
        if same and path.split("/")[:2] == ["data", "train"]:
            continue
        if path in free or path.startswith("task/sampling") or unread:
            continue
        if before.get(path) != after.get(path):
            raise UserError(
                f"config.{path.replace('/', '.')} was {before.get(path)} when this run "
                f"was started and is {after.get(path)} now: resume with the old value, "
                "or use another workdir"
            )


def data_of(parts: Parts) -> dict[str, str | int]:
    """What run.json keeps of the training data: its fingerprint and records."""
    source, head = parts.source, records.head(parts.source)
    return {"fingerprint": source.fingerprint(), "records": len(head)}


def _same_data(parts: Parts, old: Mapping | None) -> bool:
    """Whether the records are known to be those of the start, wherever they lie now.

    UserError where they are others, and `config.data.changed` does not allow it.
    """
    if old is None:
        return False  # a run of before this was kept
    new = data_of(parts)
    if old["fingerprint"] == new["fingerprint"] or parts.cfg.data.changed:
        return True
    raise UserError(
        f"config.data.train ({parts.source.name}) holds other records than when this "
        f"run was started: {new['records']} (fingerprint {new['fingerprint']}), and "
        f"then {old['records']} ({old['fingerprint']}). Put the old data back, use "
        "another workdir, or go on with these by --config.data.changed=True"
    )


def restore(
    workdir: pathlib.Path,
    step: int | None = None,
    *,
    optimizer: bool = False,
    dtype: str = "",
) -> tuple[Parts, TrainState]:
    """A run's parts and one of its checkpoints, the newest by default.

    Without `optimizer`, as all who do not train want it, the optimizer's slots (twice
    the parameters, for Adam) are neither read nor allocated: `opt_state` is None.

    dtype: of all weights, in place of float32, and of `config.task.dtype` where the
    task has one: what it computes in. One of DTYPES.
    """
    if dtype not in ("", *DTYPES):
        raise UserError(f"--dtype {dtype}{schema.suggest(dtype, DTYPES)}")
    saved_run = run_file.read(workdir)
    config = config_lib.from_json(saved_run["config"])
    config.parallel = {}  # whatever devices are here
    if dtype and "dtype" in config.task:
        config.task.dtype = dtype
    parts = setup.build(config, saved=saved_run["fields"])
    saved = checkpoint_lib.Checkpointer(
        workdir, parts.cfg.checkpoint, read_only=True, run=saved_run.get("run", "")
    )
    try:
        if saved.latest() is None:
            raise UserError(f"{workdir} holds no checkpoint yet: train it first")
        abstract = parts.update.abstract(parts.example(), optimizer=optimizer)
        state, _ = saved.restore(abstract, step, dtype=dtype)
    finally:
        saved.close()
    return parts, state


def check_cache(parts: Parts, state: TrainState) -> None:
    """Raises UserError where the data are tokens that other weights than these made."""
    stage1 = getattr(parts.source, "stage1", None)
    if stage1 is None:
        return
    held = {
        name: token_cache.fingerprint(parts.layout.fetch(weights))
        for name, weights in state.vars.frozen.items()
    }
    if stage1["fingerprint"] not in held.values():
        raise UserError(
            f"{parts.source.name} was written by an image tokenizer with fingerprint "
            f"{stage1['fingerprint']}, and this model holds {held or 'none'}: set "
            "config.graft to the run that wrote it, or run `mmjax data encode` again"
        )


def fingerprint(parts: Parts, variables: Vars) -> str:
    """16 hex digits of all that a run learned; of the averaged weights, if given.

    A model that holds this one frozen says the same of it: what the task lists as
    `training_only` has no part in it. Every process calls this.
    """
    held = {"params": variables.params, **variables.extra}
    spare = getattr(parts.task, "training_only", ())
    if spare:
        leaves = tree.flatten(held)
        kept = {k: v for k, v in leaves.items() if not tree.under(k, spare)}
        held = tree.unflatten(kept)
    return token_cache.fingerprint(parts.layout.fetch(held))
