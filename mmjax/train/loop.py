"""The training loop. It knows no task by name.

A run is a workdir: `run.json` (config, tokenizer, versions), `checkpoints/`,
`metrics.jsonl`, `tensorboard/`, `cards/`. Running it again goes on from the newest
checkpoint with the same numbers as if it had never stopped.
"""

import contextlib
import json
import os
import pathlib
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from mmjax import errors, tree
from mmjax.data import streams
from mmjax.data.prefetch import Prefetch
from mmjax.errors import UserError
from mmjax.parallel import processes
from mmjax.state import TrainState
from mmjax.train import (
    announce,
    checkpoint,
    lock,
    metric_writer,
    run_file,
    setup,
    timing,
)
from mmjax.train import evaluate as evaluate_lib
from mmjax.train import restore as restore_lib
from mmjax.train import step as step_lib
from mmjax.train.init_from import init_from
from mmjax.train.setup import Parts

PyTree = Any


class Interrupted(Exception):
    """The run was asked to stop and has saved; `code` is the exit status."""

    def __init__(self, signum: int, step: int, *, at_once: bool = False):
        where = f", saved step {step}" if step else " before the first step"
        super().__init__(f"stopped by {signal.Signals(signum).name}{where}")
        self.code, self.at_once = 128 + signum, at_once

    def status(self) -> int:
        """The exit status; `at_once`, the process ends here, with that status.

        Python would wait for its threads, and one whose read hangs never ends.
        """
        if self.at_once:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(self.code)
        return self.code


class Diverged(UserError):
    """Loss or gradients stopped being finite."""


def due(done: int, every: int, total: int) -> bool:
    """Whether what happens every `every` steps happens after `done` of `total`."""
    return every > 0 and (done % every == 0 or done == total)


class _Window:
    """Step metrics since the last log, fetched from the device all at once."""

    def __init__(self, names: list[str]):
        self._names = names
        self._steps: list[int] = []
        self._held: list[dict] = []

    def add(self, step: int, values: dict) -> None:
        self._steps.append(step)
        self._held.append(values)

    def __len__(self) -> int:
        return len(self._held)

    def flush(self) -> dict[str, float]:
        """Means over the window. Raises Diverged at its first non-finite step."""
        rows = jax.device_get(self._held)
        steps, self._steps, self._held = self._steps, [], []
        for step, row in zip(steps, rows, strict=True):
            grads = row.pop(step_lib.GRAD_SQ)
            bad = np.flatnonzero(~np.isfinite(grads))
            if np.isfinite(row["loss"]) and not bad.size:
                continue
            first = bad.size and (
                f"; first bad tensor: the gradient of {self._names[bad[0]]} "
                f"({bad.size} of {len(self._names)} were not finite)"
            )
            raise Diverged(
                f"training diverged at step {step} (steps {steps[0]} to {steps[-1]} "
                f"looked at): the loss was {row['loss']}{first or ''}. The last good "
                "checkpoint is kept; lower config.optim.lr or set "
                "config.optim.clip_norm"
            )
        names = rows[0] if rows else ()
        return {k: float(np.mean([r[k] for r in rows])) for k in names}


def _finite_k(params: PyTree) -> jax.Array:
    return jnp.array([jnp.isfinite(x).all() for x in jax.tree.leaves(params)], bool)


class _Run:
    """One call of `run`: what the loop holds between steps."""

    def __init__(
        self,
        parts: Parts,
        workdir: pathlib.Path,
        label: str,
        profile: tuple[int, int] | None,
        saved: Callable[[Parts, TrainState], Any],
    ):
        self.parts, self.workdir, self.label = parts, workdir, label
        self.then = saved
        cfg = parts.cfg
        self.last: dict[str, float] = {}  # of every evaluator
        update = parts.update
        parts.layout.check_batch(cfg.batch_size, accum=update.cfg.accum)
        self.names = list(tree.flatten(update.shapes.params))
        self.evals = evaluate_lib.make_evaluators(parts)
        for _, evaluator in self.evals.values():
            evaluator.check(update.shapes)
        where = workdir.absolute(), checkpoint.home_of(workdir, cfg.checkpoint)
        run = processes.of_writer_or_error(lambda: run_file.identity(*where))
        self.saved = checkpoint.Checkpointer(workdir, cfg.checkpoint, run=run)
        about = {**setup.about(parts), "data": restore_lib.data_of(parts)}
        about |= {"run": run, "workdir": str(where[0])}
        same = {key: about[key] for key in ("config", "fields", "data")}
        same["the version of jax"] = jax.__version__
        processes.require_same({**same, "the newest checkpoint": self.saved.latest()})
        processes.require_shared(self.saved.home)
        share = parts.layout.row_share()
        self.data = streams.iterator(
            parts.source,
            parts.batch_fields,
            batch_size=cfg.batch_size,
            seed=cfg.seed,
            process_index=share[0],
            process_count=share[1],
            threads=cfg.data.threads,
            workers=cfg.data.workers,
            max_broken=cfg.data.max_broken,
        )
        if self.saved.latest() is not None:
            restore_lib.check_resume(parts, run_file.read(self.saved.home))
            self.state, position = self.saved.restore(update.abstract(parts.example()))
            self.data.set_state(position)
            known = metric_writer.evaluations(workdir, until=int(self.state.step))
            self.last = processes.of_writer(known)  # whose workdir it is
        else:
            key = jax.random.key(cfg.seed)
            self.state = parts.layout.init(update.init, key, parts.sample())
            self.state = init_from(parts, self.state)
        if int(self.state.step) > cfg.steps:
            raise UserError(
                f"config.steps is {cfg.steps}, and {workdir} is at step "
                f"{int(self.state.step)} already: give it {int(self.state.step)} or "
                "more, or use another workdir"
            )
        restore_lib.check_cache(parts, self.state)
        self.clock = timing.Clock()
        self.speed = timing.Speed(parts.layout.devices, peak=cfg.peak_tflops)
        self.trace = timing.Trace(
            profile, workdir, start=int(self.state.step), total=cfg.steps
        )
        if processes.writer():
            for place in set(map(epath.Path, where)):
                run_file.write(place, about)
        self.finite_k = parts.layout.replicate(_finite_k)
        self.step_fn = parts.layout.compile_step(update.step, self.state)

    def step(self, number: int) -> dict[str, jax.Array]:
        """One update; the metrics of that step, still on the device."""
        with self.trace.step(number, lambda: self.state):
            with self.clock.of("input_wait"):
                batch = next(self.data)
            with self.clock.of("step"):
                self.speed.count(self.step_fn, self.state, batch)
                self.state, values = self.step_fn(self.state, batch)
        return values

    def save(self) -> None:
        """Saves, unless a parameter is not finite."""
        good_k = np.asarray(self.finite_k(self.state.vars.params))
        if not good_k.all():
            name = self.names[int(np.argmin(good_k))]
            raise Diverged(
                f"training diverged at step {int(self.state.step)}: {name} is not "
                "finite. The last good checkpoint is kept; lower config.optim.lr"
            )
        position = self.data.get_state()
        if "shares" in position:  # of a stream, each process has its own
            each = range(jax.process_count())
            every = [processes.of_writer(position, writer=k) for k in each]
            position = streams.joined(every)
        self.saved.save(self.state, position)

    def evaluate(
        self, done: int, progress: metric_writer.Progress, asked: processes.Stop
    ) -> dict[str, float]:
        values: dict[str, float] = {}
        for name, (every, evaluator) in self.evals.items():
            if not due(done, every, self.parts.cfg.steps):
                continue
            begin = time.perf_counter()
            try:
                with asked.within(processes.GRACE):
                    result = evaluator.run(self.state.eval_vars())
            except processes.Stopped:
                progress.note(
                    f"  step {done} {name}: not finished, the run was stopped"
                )
                break
            values |= {f"{name}/{k}": v for k, v in result.values.items()}
            if processes.writer():
                card = {"step": done, "values": result.values, **result.card}
                with errors.writing(self.workdir / "cards" / f"{name}.json") as part:
                    part.write_text(json.dumps(card, indent=1))
            first = " ".join(f"{k} {v:.4g}" for k, v in list(result.values.items())[:4])
            seconds = time.perf_counter() - begin
            progress.note(f"  step {done} {name}: {first} ({seconds:.1f}s)")
        return values

    def loop(self, asked: processes.Stop) -> dict[str, float]:
        cfg, start = self.parts.cfg, int(self.state.step)
        window = _Window(self.names)
        active = processes.writer()
        writer = metric_writer.Writer(self.workdir, resumed_at=start, active=active)
        progress = metric_writer.Progress(
            cfg.steps, start, cfg.batch_size, label=self.label, active=active
        )
        if start == cfg.steps:
            progress.note(f"{self.workdir}: step {start} of {start} is done already")
        for line in announce.opening(self.parts, start) if start < cfg.steps else ():
            progress.note(line)
        load = self.parts.layout.load
        self.data = Prefetch(self.data, cfg.data.prefetch, load, asked.look)
        try:
            for done in range(start + 1, cfg.steps + 1):
                try:
                    window.add(done, self.step(done))
                except processes.Stopped as e:  # while it waited for the batch
                    stopping, done = e.signum, done - 1
                else:
                    progress.update()
                    # Read once: a signal from here on waits for the next step.
                    stopping = asked()
                saving = due(done, cfg.checkpoint.every, cfg.steps)
                saving = saving or bool(stopping) or done == cfg.steps
                if window and (due(done, cfg.log_every, cfg.steps) or saving):
                    with self.clock.of("step"):  # it ends when the device does
                        logged = window.flush()
                    rates = self.parts.update.rates
                    logged |= {
                        k: float(f(jnp.asarray(done - 1))) for k, f in rates.items()
                    }
                    logged |= progress.lap(done) | self.clock.lap()
                    logged |= self.speed.rates(logged["step_seconds"])
                    with self.clock.of("log"):
                        progress.say(done, metric_writer.shown(logged))
                        writer.write(done, logged)
                with self.clock.of("evaluation"):
                    evaluated = {}
                    if not stopping:
                        evaluated = self.evaluate(done, progress, asked)
                if evaluated:
                    self.last = self.last | evaluated
                    writer.write(done, evaluated)
                    progress.lap(done)
                if saving and done:
                    with self.clock.of("checkpoint"):
                        self.save()
                    if not stopping:
                        with self.clock.of("evaluation"):
                            self.then(self.parts, self.state)
                        progress.lap(done)
                if stopping:
                    self.saved.wait()
                    alone = jax.process_count() == 1
                    raise Interrupted(stopping, done, at_once=alone)
            self.saved.wait()
        finally:
            self.trace.close()
            self.data.close()
            progress.close()
            writer.close()
        return self.last


def _own_folder(
    workdir: pathlib.Path, cfg: checkpoint.CheckpointConfig
) -> contextlib.AbstractContextManager:
    """Holds `config.checkpoint.folder`, too, for one process; buckets have no locks."""
    home = checkpoint.home_of(workdir, cfg)
    if (
        not processes.writer()
        or "://" in cfg.folder
        or str(home) == str(workdir.absolute())
    ):
        return contextlib.nullcontext()
    key = "config.checkpoint.folder"
    return lock.lock(pathlib.Path(home), kind=key, key=key)


def run(
    config: ConfigDict,
    workdir: pathlib.Path,
    *,
    label: str = "",
    profile: tuple[int, int] | None = None,
    saved: Callable[[Parts, TrainState], Any] = lambda parts, state: None,
) -> dict[str, float]:
    """Trains to `config.steps`, from the newest checkpoint if there is one.

    Args:
      label: what the progress line begins with.
      profile: first and last step of a trace below WORKDIR/profile.
      saved: called with the state after each checkpoint, to look at it.

    Returns every evaluator's last numbers as "<evaluator>/<value>".

    Raises:
      UserError: bad input, a workdir with other things in it; nothing that was written
        is lost.
      Diverged: loss or gradients are not finite.
      Interrupted: SIGINT, SIGTERM or SIGHUP came; the state is saved.
    """
    workdir = pathlib.Path(workdir).expanduser()
    run_file.require_own(workdir)
    guard = lock.lock(workdir) if processes.writer() else contextlib.nullcontext()
    with guard, processes.stop_signals() as asked:
        try:
            with asked.within(0):
                parts = setup.reopen(config, workdir)
            with _own_folder(workdir, parts.cfg.checkpoint):
                with asked.within(0):
                    this = _Run(parts, workdir, label, profile, saved)
                with contextlib.closing(this.saved):
                    return this.loop(asked)
        except processes.Stopped as e:
            raise Interrupted(e.signum, 0, at_once=True) from None
        except UserError:
            raise
        except Exception as e:
            # Metrics, cards, run.json, TensorBoard's file: whatever hit the full disk
            # first, closing the others fails after it, each with errors of its own.
            if not errors.no_room(e):
                raise
            home = parts.cfg.checkpoint.folder or workdir
            raise checkpoint.failure(e, workdir, home=home) from e
