"""Saving and restoring runs, through Orbax.

A checkpoint holds the train state, the data iterator's state, and what the run was:
its resolved config and its tokenizer. Frozen weights never change, so they are stored
once, beside the steps.
"""

import contextlib
import dataclasses
import errno
import fcntl
import json
import os
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from mmjax import hosts, tree
from mmjax.errors import UserError
from mmjax.state import TrainState

PyTree = Any
FOLDER = "checkpoints"
RUN = "run.json"


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """`config.checkpoint`."""

    every: int = 1000  # steps between saves
    keep: int = 2  # newest ones kept
    best: str = ""  # a metric whose best checkpoint is kept as well
    best_mode: str = "max"  # max | min
    folder: str = ""  # where checkpoints go, such as gs://bucket/run; "": the workdir


@contextlib.contextmanager
def lock(workdir: pathlib.Path) -> Iterator[None]:
    """Holds a workdir for one process; the kernel lets go of it when that one dies.

    Raises UserError where another process holds it, or it cannot be written.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        handle = (workdir / ".lock").open("a+")
    except OSError as e:
        raise UserError(f"cannot write to workdir {workdir}: {e.strerror}") from e
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            handle.seek(0)
            raise UserError(
                f"workdir {workdir} is in use by process {handle.read().strip()}: "
                "wait for it, or give --workdir another folder"
            ) from e
        handle.truncate(0)
        handle.write(str(os.getpid()))
        handle.flush()
        yield


def _space(error: BaseException, workdir: pathlib.Path, kept: int | None) -> UserError:
    """A full disk, said so; Orbax wraps it, so causes and messages are searched."""
    seen: BaseException | None = error
    while seen is not None:
        full = isinstance(seen, OSError) and seen.errno in (
            errno.ENOSPC,
            errno.EDQUOT,
            errno.EFBIG,
        )
        if full or re.search(r"ENOSPC|EFBIG|No space left|File too large", str(seen)):
            break
        seen = seen.__cause__ or seen.__context__
    why = "the disk is full" if seen is not None else f"{type(error).__name__}: {error}"
    last = "no checkpoint was saved yet" if kept is None else f"step {kept} is intact"
    return UserError(
        f"saving a checkpoint in {workdir} failed: {why}. {last}; make room and run "
        "the same command to go on from there"
    )


def _split(state: TrainState) -> tuple[TrainState, PyTree]:
    return state.replace(vars=state.vars._replace(frozen={})), state.vars.frozen


class Checkpointer:
    """The checkpoints of one workdir. Saves are asynchronous and atomic."""

    def __init__(self, workdir: pathlib.Path, config: CheckpointConfig):
        self.workdir = workdir.absolute()
        # Orbax' own paths: a bucket, or a folder that all processes see.
        self.home = epath.Path(config.folder or self.workdir)
        if "://" not in config.folder:
            self.home = self.home.absolute()
        keep = ocp.checkpoint_managers
        policies: list[Any] = [keep.LatestN(max(config.keep, 1))]
        best: dict[str, Any] = {}
        if config.best:

            def metric(values: Mapping[str, float]) -> float:
                worst = -np.inf if config.best_mode == "max" else np.inf
                return float(values.get(config.best, worst))

            policies.append(
                keep.BestN(get_metric_fn=metric, reverse=config.best_mode == "min", n=1)
            )
            best = {"best_fn": metric, "best_mode": config.best_mode}
        hosts.wait_for_all("checkpoints")
        options = ocp.CheckpointManagerOptions(
            preservation_policy=keep.AnyPreservationPolicy(policies),
            cleanup_tmp_directories=True,
            **best,
        )
        self._manager = ocp.CheckpointManager(
            self.home / FOLDER,
            options=options,
            item_handlers={
                "state": ocp.StandardCheckpointHandler(),
                "data": ocp.JsonCheckpointHandler(),
            },
        )

        # Looked up here, before any process can have begun to write them.
        self._frozen = (self.home / "frozen").exists()

    def latest(self) -> int | None:
        return self._manager.latest_step()

    def best(self) -> int | None:
        """The step of the best checkpoint, where `config.best` names a metric."""
        return self._manager.best_step()

    def save(
        self, state: TrainState, data: Mapping, metrics: Mapping[str, float]
    ) -> None:
        """Begins saving; a later call or `wait` reports a failure as UserError."""
        step = int(state.step)
        if step == self.latest():
            return
        slim, frozen = _split(state)
        try:
            if jax.tree.leaves(frozen) and not self._frozen:
                with ocp.StandardCheckpointer() as once:
                    once.save(self.home / "frozen", frozen)
                self._frozen = True
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(slim), data=ocp.args.JsonSave(data)
                ),
                metrics={k: float(v) for k, v in metrics.items()},
            )
        except Exception as e:
            raise _space(e, self.workdir, self._finished()) from e

    def wait(self) -> None:
        """Returns when the last save is on disk, by all processes.

        Raises UserError if it failed.
        """
        try:
            self._manager.wait_until_finished()
            hosts.wait_for_all("saved")  # who exits first may take the others along
        except Exception as e:
            raise _space(e, self.workdir, self._finished()) from e

    def _finished(self) -> int | None:
        """The newest step that is whole on disk: only those have a plain number."""
        steps = [
            int(p.name) for p in (self.home / FOLDER).glob("[0-9]*") if p.name.isdigit()
        ]
        return max(steps, default=None)

    def restore(self, abstract: TrainState, step: int | None = None) -> tuple:
        """(state, data state) of a step, the newest by default.

        `abstract` holds shapes with shardings: arrays are read straight onto them,
        whatever mesh wrote them. Raises UserError where names or shapes differ.
        """
        step = self.latest() if step is None else step
        if step not in self._manager.all_steps():
            raise UserError(
                f"{self.workdir} has no checkpoint of step {step}; it has "
                f"{', '.join(map(str, self._manager.all_steps())) or 'none'}"
            )
        slim, frozen = _split(abstract)
        self._check_shapes(step, slim)
        loaded = self._manager.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(slim), data=ocp.args.JsonRestore()
            ),
        )
        state = loaded["state"]
        if jax.tree.leaves(frozen):
            with ocp.StandardCheckpointer() as once:
                frozen = once.restore(self.home / "frozen", frozen)
        return state.replace(vars=state.vars._replace(frozen=frozen)), loaded["data"]

    def _check_shapes(self, step: int, wanted: TrainState) -> None:
        """Compares parameter names and shapes before anything is read."""
        meta = self._manager.item_metadata(step)["state"]
        meta = getattr(meta, "tree", meta)
        have = {p: tuple(x.shape) for p, x in _params(meta).items()}
        want = {p: tuple(x.shape) for p, x in tree.flatten(wanted.vars.params).items()}
        for path in sorted(have.keys() | want.keys()):
            if have.get(path) != want.get(path):
                raise UserError(
                    f"checkpoint {self.workdir} (step {step}) is of another model: "
                    f"{path} is {have.get(path, 'absent')} there and "
                    f"{want.get(path, 'absent')} in this config; use the config it was "
                    "trained with, or another workdir"
                )

    def close(self) -> None:
        self._manager.close()


def _params(meta: PyTree) -> dict[str, Any]:
    """Parameter leaves of Orbax' metadata tree: NamedTuples come back as dicts."""
    variables = meta["vars"] if isinstance(meta, Mapping) else meta.vars
    params = variables["params"] if isinstance(variables, Mapping) else variables.params
    return tree.flatten(params)


def write_run(workdir: epath.PathLike, about: Mapping) -> None:
    """Writes run.json (config, tokenizer, preprocessing), atomically."""
    text = json.dumps(about, indent=1, sort_keys=True)
    part = epath.Path(workdir) / (RUN + ".part")
    part.write_text(text)
    part.replace(epath.Path(workdir) / RUN)


def read_run(workdir: epath.PathLike) -> dict:
    """What `write_run` wrote. Raises UserError where the folder is not a run."""
    path = epath.Path(workdir) / RUN
    if not path.exists():
        raise UserError(f"{workdir} is not a run of mmjax: it has no {RUN}")
    return json.loads(path.read_text())
