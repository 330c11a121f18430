"""Saving and restoring runs.

A checkpoint holds the train state, the data iterator's state, and what the run was:
its resolved config and its tokenizer. Frozen weights never change, so they are stored
once, beside the steps. Sums of all arrays lie in it as well, since the file format
notices damage to its own structures and not to the numbers in them: a checkpoint that
does not read back as it was written is passed over for the one before it.
"""

import dataclasses
import itertools
import json
import logging
import os
import pathlib
import zlib
from collections.abc import Mapping
from typing import Any, NoReturn

import jax
from etils import epath

from mmjax import errors, schema, tree
from mmjax.errors import UserError
from mmjax.parallel import processes
from mmjax.state import TrainState
from mmjax.train import array_store, checksum

PyTree = Any
FOLDER = "checkpoints"
DAMAGED = "damaged"  # where checkpoints that cannot be read are moved
_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """`config.checkpoint`."""

    every: int = 1000  # steps between saves; 0: the last step alone
    keep: int = 2  # newest ones kept
    folder: str = ""  # where checkpoints go, such as gs://bucket/run; "": the workdir

    def __post_init__(self) -> None:
        schema.at_least(0, self, "every")
        schema.at_least(1, self, "keep")


def failure(
    error: BaseException,
    place: epath.PathLike,
    *,
    home: epath.PathLike | None = None,
) -> UserError:
    """What to tell the user of a write below `place` that failed.

    home: where the checkpoints are, unless they are there too.
    """
    steps = saved_steps(home or place)
    cause, fix = f"{type(error).__name__}: {error}", "put that right"
    if errors.no_room(error):
        cause, fix = "the disk is full", "make room"
    last = f"step {steps[-1]} is intact" if steps else "no checkpoint was saved yet"
    return UserError(
        f"writing to {place} failed: {cause}. {last}; {fix} and run the same command "
        "to go on from there"
    )


def home_of(workdir: pathlib.Path, config: CheckpointConfig) -> epath.Path:
    """Where a run's checkpoints are: Orbax' own path, of a bucket or a folder."""
    home = epath.Path(config.folder or workdir)
    return home if "://" in config.folder else home.absolute()


def saved_steps(home: epath.PathLike) -> list[int]:
    """Steps that are whole on disk, rising: only those have a plain number."""
    names = [path.name for path in (epath.Path(home) / FOLDER).glob("[0-9]*")]
    return sorted(int(name) for name in names if name.isdigit())


# What differs, by the beginning of an array's path, and the keys that decide it.
_KINDS = {
    "vars/params": ("model", "config"),
    "vars/extra": ("model (its extra variables)", "config.task"),
    "opt_state": ("optimizer", "config.optim"),
    "ema": ("parameter average", "config.optim.ema"),
    "": ("layout", "version of mmjax"),
}


def _slim(state: TrainState) -> TrainState:
    return state.replace(vars=state.vars._replace(frozen={}))


class Checkpointer:
    """The checkpoints of one workdir. Saves are asynchronous and atomic.

    With `read_only` nothing below the workdir is touched, so that a run can be looked
    at while it is training, or where it cannot be written to.
    """

    def __init__(
        self,
        workdir: pathlib.Path,
        config: CheckpointConfig,
        *,
        read_only: bool = False,
        run: str = "",
    ):
        """Args:
        workdir: of the run.
        config: says whether the checkpoints lie elsewhere.
        read_only: see above.
        run: its id, which is saved along: other runs' checkpoints are not taken.
        """
        self.workdir, self.read_only = workdir.absolute(), read_only
        self.home, self.run = home_of(workdir, config), run

        processes.wait_for_all("checkpoints")
        _check_plain(self.home)
        try:
            self._store = array_store.ArrayStore(
                self.home / FOLDER, keep=config.keep, read_only=read_only
            )
        except ValueError as error:  # it reads when each step was saved
            raise UserError(
                f"{self.home / FOLDER} is damaged ({_first_line(error)}): move the "
                "newest step elsewhere, or put back a copy"
            ) from error
        # Looked up here, before any process can have begun to write them.
        self._frozen = (self.home / "frozen").exists()

    def latest(self) -> int | None:
        """The newest saved step, or None."""
        return self._store.latest()

    def save(self, state: TrainState, data: Mapping) -> None:
        """Begins saving; a later call or `wait` reports a failure as UserError."""
        step = int(state.step)
        if step == self.latest():
            return
        frozen = state.vars.frozen
        try:
            # Those of a run that was killed before its first save may be others.
            if jax.tree.leaves(frozen) and (self.latest() is None or not self._frozen):
                array_store.save_once(self.home / "frozen", frozen)
                self._frozen = True
            sums = checksum.sums(state) | _sum_of(data)
            taken = self._store.save(step, _slim(state), [data, sums, self.run])
        except Exception as e:
            raise failure(e, self.home) from e
        if not taken:  # Orbax would say nothing
            raise UserError(
                f"{self.home} did not take the checkpoint of step {step}, it holds "
                f"step {self.latest()}: another run writes there; give this one a "
                "folder of its own"
            )

    def wait(self) -> None:
        """Returns when the last save is on disk, by all; UserError if it failed."""
        try:
            self._store.wait()
            processes.wait_for_all("saved")  # who exits first may take the others along
        except Exception as e:
            raise failure(e, self.home) from e

    def restore(
        self, abstract: TrainState, step: int | None = None, *, dtype: str = ""
    ) -> tuple:
        """(state, data state) of a step; by default of the newest that can be read.

        `abstract` holds shapes with shardings: arrays are read straight onto them,
        whatever mesh wrote them. Where its `opt_state` is None, the optimizer's slots
        are neither read nor checked, and weights are cast to `dtype`, if given: a part
        of them after the other, once it is known to be sound. Newer checkpoints that
        are damaged are named in a warning and, unless `read_only`, moved to DAMAGED.

        Raises:
          UserError: names or shapes differ, or nothing can be read.
        """
        steps = sorted(self._store.steps())
        if step is not None and step not in steps:
            raise UserError(
                f"{self.workdir} has no checkpoint of step {step}; it has "
                f"{', '.join(map(str, steps)) or 'none'}"
            )
        failed: dict[int, Exception] = {}
        for number in reversed(steps) if step is None else [step]:
            try:
                restored = self._read(number, abstract, dtype)
            except Exception as e:  # a damaged file can raise anything
                failed[number] = e
            else:
                if failed:
                    self._pass_over(failed, number)
                return restored
        self._give_up(failed, steps)

    def _read(self, step: int, abstract: TrainState, dtype: str) -> tuple:
        """What `restore` returns, of one step; raises whatever damage raises.

        With several processes it raises in all: each reads its own shards, and the
        damage may be in those of one.
        """
        failed = None
        try:
            state, data, sums = self._load(step, abstract, dtype)
        except Exception as e:
            failed = e
        if failed := processes.failure_anywhere(failed, _first_line):
            raise failed
        if int(state.step) != step:
            raise ValueError(f"it holds step {int(state.step)}")
        if isinstance(data, Mapping):  # written before there were sums
            return state, data
        data, before, *run = data
        if self.run and any(run) and run[0] != self.run:
            raise ValueError("it is of another run")
        sums |= _sum_of(data)
        changed = checksum.changed(_asked(before, abstract), sums)
        if changed:
            more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
            raise ValueError(f"{changed[0]}{more} changed since it was saved")
        return state, data

    def _load(self, step: int, abstract: TrainState, dtype: str) -> tuple:
        """(state, what was saved beside it, sums of the arrays as they were saved) of a
        step, this process' shards of it."""
        slim, frozen = _slim(abstract), abstract.vars.frozen
        self._check_shapes(step, slim)
        if abstract.opt_state is None:
            fields = {f: getattr(slim, f) for f in ("step", "vars", "ema", "rng")}
            fields = {name: part for name, part in fields.items() if part is not None}
            read, sums = self._store.some(step, fields, dtype)
            state = slim.replace(**read)
        else:
            state = self._store.arrays(step, slim)
            sums = checksum.sums(state)
        data = self._store.notes(step)
        if jax.tree.leaves(frozen):
            home = self.home / "frozen"
            frozen, more = array_store.read_once(home, frozen, dtype)
            sums |= {f"vars/frozen/{path}": value for path, value in more.items()}
        return state.replace(vars=state.vars._replace(frozen=frozen)), data, sums

    def _pass_over(self, failed: Mapping[int, Exception], step: int) -> None:
        """Says which checkpoints were damaged, and gets them out of the way.

        They are moved, not deleted: the disk, and not the file, may be what failed.
        """
        aside = self.home / DAMAGED
        if not self.read_only:
            if processes.writer():
                aside.mkdir(exist_ok=True)
                for number in failed:
                    target, copies = aside / str(number), itertools.count(1)
                    while target.exists():
                        target = aside / f"{number}.{next(copies)}"
                    (self.home / FOLDER / str(number)).rename(target)
            processes.wait_for_all("damaged checkpoints moved")
            self._store.reload()
        moved = "" if self.read_only else f" (moved to {aside})"
        for number, error in failed.items():
            _log.warning(
                "checkpoint of step %d in %s is damaged%s: %s; going on from step %d",
                *(number, self.home, moved, _first_line(error), step),
            )

    def _give_up(self, failed: Mapping[int, Exception], steps: list[int]) -> NoReturn:
        """Raises the UserError that fits what was tried and failed."""
        error = next(iter(failed.values()))
        if isinstance(error, UserError):  # another model, and nothing damaged
            raise error
        others = [str(n) for n in steps if n not in failed]
        causes = "; ".join(f"step {n}: {_first_line(e)}" for n, e in failed.items())
        fix = f"put back a copy of {self.home / FOLDER}, or use another workdir"
        if others:
            fix = f"use one of step {', '.join(others)}"
        raise UserError(
            f"no checkpoint of {self.workdir} that was tried can be read, they are "
            f"damaged ({causes}): {fix}"
        ) from error

    def _check_shapes(self, step: int, wanted: TrainState) -> None:
        """Compares names and shapes of all arrays before any is read."""
        have = _asked(self._store.shapes(step), wanted)
        want = {path: tuple(x.shape) for path, x in tree.flatten(wanted).items()}
        # Parameters first: where they differ, optimizer slots do too. Keys are stored
        # as the words they are made of.
        paths = (have.keys() | want.keys()) - {"rng"}
        for path in sorted(paths, key=lambda p: (not p.startswith("vars/params"), p)):
            if have.get(path) == want.get(path):
                continue
            kind, key = next(v for k, v in _KINDS.items() if path.startswith(k))
            raise UserError(
                f"checkpoint {self.workdir} (step {step}) is of another {kind}: "
                f"{path.removeprefix('vars/params/')} is "
                f"{have.get(path, 'absent')} there and {want.get(path, 'absent')} in "
                f"this config; use the {key} it was trained with, or another workdir"
            )

    def close(self) -> None:
        self._store.close()


def _asked(of_path: dict[str, Any], abstract: TrainState) -> dict[str, Any]:
    """What belongs to the arrays that are read: all, or all but the optimizer's."""
    if abstract.opt_state is not None:
        return of_path
    return {p: x for p, x in of_path.items() if not p.startswith("opt_state/")}


def _sum_of(data: Any) -> dict[str, int]:
    """Of the data iterator's state, as it stands beside those of the arrays."""
    return {"data": zlib.crc32(json.dumps(data, sort_keys=True).encode())}


def _check_plain(home: epath.Path) -> None:
    """UserError at a pipe or a device: Orbax would wait for it, and not end."""
    local = "://" not in str(home)
    parts = [home / FOLDER, home / "frozen"] if local else []
    for folder, _, names in itertools.chain.from_iterable(map(os.walk, parts)):
        for path in (os.path.join(folder, name) for name in names):
            if os.path.exists(path) and not os.path.isfile(path):
                raise UserError(f"{path} is no plain file: put back a copy of {home}")


def _first_line(error: Exception) -> str:
    """What went wrong, without TensorStore's account of all its settings."""
    lines = str(error).partition(". See full TensorStore")[0].strip().splitlines()
    text = lines[0][:200] if lines else ""
    return text if isinstance(error, ValueError) else f"{type(error).__name__}: {text}"
