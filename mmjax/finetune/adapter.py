"""Adapters on their own, and runs with an adapter or a mixture of weights merged in."""

import json
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from ml_collections import ConfigDict

from mmjax import errors, schema, tree
from mmjax.data import fields as fields_lib
from mmjax.errors import UserError
from mmjax.inference import load
from mmjax.state import Vars
from mmjax.tasks import base
from mmjax.train import run_file, setup

FILE = "adapter.safetensors"
_KEY = "mmjax"  # of the file's metadata


def save(run: load.Run, source: load.Run) -> pathlib.Path:
    """Writes the trained part of an adapter's run, in the run's folder.

    run: the adapter's. source: the run whose weights it changes.
    """
    task = run.config.task.to_dict()
    own = {key: value for key, value in task.items() if key != "base"}
    about = {"base": source.fingerprint, "step": run.step, "task": own}
    arrays = {path: np.array(value) for path, value in run.params.items()}
    metadata = {_KEY: json.dumps(about), "format": "np"}
    with errors.writing(run.workdir / FILE) as part:
        safetensors.numpy.save_file(arrays, part, metadata=metadata)
    return run.workdir / FILE


def apply(run: load.Run, file: pathlib.Path) -> Vars:
    """The variables of a run with the adapter of a file merged in.

    Raises:
      UserError: the file is no adapter, or one of other weights than the run's.
    """
    if not file.is_file():
        raise UserError(f"--adapter {file}: no such file")
    try:
        with safetensors.safe_open(file, "np") as held:
            about = schema.parse_json((held.metadata() or {})[_KEY])
            arrays = {key: held.get_tensor(key) for key in held.keys()}  # noqa: SIM118
        theirs, fields = about["base"], dict(about["task"])
    except (OSError, ValueError, LookupError, TypeError, safetensors.SafetensorError):
        raise UserError(
            f"--adapter {file} is no adapter that mmjax finetune wrote: give the "
            f"{FILE} of a run"
        ) from None
    if theirs != run.fingerprint:
        raise UserError(
            f"--adapter {file} changes weights with fingerprint {theirs}, and "
            f"{run.workdir} has {run.fingerprint}: name the run it was trained from"
        )
    task = base.build({**fields, "base": run.config.task.to_dict()})
    own = run.state.eval_vars()
    frozen = {"base": own.params, **own.frozen}
    return task.merged(Vars(tree.unflatten(arrays), own.extra, frozen))


def write_run(
    config: ConfigDict,
    saved: Mapping[str, Any],
    variables: Vars,
    folder: pathlib.Path,
    *,
    start: pathlib.Path,
) -> pathlib.Path:
    """Makes a workdir of variables, in place of one that an earlier call made.

    Args:
      config: of the task that the variables are of. saved: what its fields keep.
      start: the run that was fine-tuned: what it was imported as, it is written as.
    """
    from mmjax.convert import import_export

    config = config.copy_and_resolve_references().unlock()
    config.optim = {"name": "sgd", "momentum": 0.0, "schedule": "constant"}
    config.steps, config.graft = 1, {}
    parts = setup.build(config.lock(), saved=saved)
    if run_file.exists(folder):
        shutil.rmtree(folder)
    arrays = {"params": variables.params, **variables.extra}
    import_export.save(parts, arrays | {"frozen": variables.frozen}, folder)
    note = start / import_export.NOTE
    if note.is_file():
        family = schema.read_json(note)["family"]
        with errors.writing(folder / import_export.NOTE) as part:
            part.write_text(json.dumps({"family": family, "kept": {}}))
    return folder


def saved_fields(parts: setup.Parts) -> dict[str, Any]:
    """What the fields of a run keep, for `write_run`."""
    return fields_lib.save(parts.fields)


def opened(workdir: pathlib.Path, place: str) -> load.Run:
    """The run at a place; public weights become one, in the folder `from`.

    Raises:
      UserError: the place is neither a run nor weights that can be read.
    """
    from mmjax.convert import import_export

    if run_file.exists(place):
        return load.load_run(place)
    if inside := run_file.inside(place):
        raise UserError(f"{place} is not a run of mmjax{inside}")
    folder = workdir / "from"
    if not run_file.exists(folder):
        import_export.bring_in(place, folder)
    return load.load_run(folder)
