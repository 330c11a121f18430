"""Where numbers go: JSON lines, TensorBoard, and a progress bar with an ETA."""

import contextlib
import json
import logging
import math
import pathlib
import sys
import time
from collections.abc import Mapping
from typing import Any

from tqdm import tqdm

from mmjax import errors

FILE = "metrics.jsonl"
_FLUSH_SECONDS = 10.0  # between writes to TensorBoard's file
_log = logging.getLogger(__name__)
_SLOW = 0.1  # the share of the time at which waiting for input is worth showing


class Writer:
    """Appends metrics of a run to `metrics.jsonl` and to TensorBoard's event file.

    Steps written before and beyond `resumed_at` (a run killed after its last
    checkpoint) are cut from the JSON lines, so that a resumed run's file is that of
    a run that never stopped.

    Events are written in the thread that calls. tensorboardX' own SummaryWriter hands
    them to a thread through a queue of ten: a full disk ends that thread, and the
    eleventh event then waits for ever.
    """

    def __init__(self, workdir: pathlib.Path, *, resumed_at: int = 0, active=True):
        self._active = active
        if not active:
            return
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        path, board = workdir / FILE, workdir / "tensorboard"
        if path.exists():
            kept = [r for r in read(workdir) if r["step"] <= resumed_at]
            with errors.writing(path) as part:  # a kill must not leave half of it
                part.write_text("".join(json.dumps(r) + "\n" for r in kept))
        self._file = path.open("a", buffering=1)
        board.mkdir(exist_ok=True)
        self._board = EventsWriter(str(board / "events"))
        # TensorBoard hides what an earlier file holds of this step and later ones.
        start = SessionLog(status=SessionLog.START)
        self._board.write_event(Event(step=resumed_at + 1, session_log=start))
        self._flushed = time.perf_counter()

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Writes one row; values are scalars or texts."""
        if not self._active:
            return
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.summary import scalar

        row: dict[str, Any] = {"step": step}
        for name, value in values.items():
            number = value if isinstance(value, (str, int)) else float(value)
            row[name] = number
            if isinstance(number, float) and not math.isfinite(number):
                row[name] = str(number)  # JSON has no NaN
            if not isinstance(number, str):
                summary = scalar(name, float(number))
                event = Event(step=step, summary=summary, wall_time=time.time())
                self._board.write_event(event)
        self._file.write(json.dumps(row) + "\n")
        if time.perf_counter() - self._flushed > _FLUSH_SECONDS:
            self._board.flush()
            self._flushed = time.perf_counter()

    def close(self) -> None:
        if self._active:
            self._file.close()
            self._board.close()


def read(workdir: pathlib.Path) -> list[dict]:
    """Rows of a run's metrics.jsonl; what is no row is left out, and said so.

    A last line without its end was cut by a kill, and is nobody's fault.
    """
    path, rows, bad = pathlib.Path(workdir) / FILE, [], []
    if path.exists() and not path.is_file():  # a pipe or a device may never end
        raise errors.UserError(f"{path} is no plain file: move it elsewhere")
    text = path.read_bytes().decode(errors="replace") if path.exists() else ""
    for number, line in enumerate(text.split("\n"), 1):
        row = None
        with contextlib.suppress(ValueError, RecursionError):
            row = json.loads(line)
        if isinstance(row, dict) and type(row.get("step")) is int:
            rows.append(row)
        elif number <= text.count("\n"):
            bad.append(str(number))
    if bad:
        _log.warning("%s: left out, not rows of metrics: line %s", path, ", ".join(bad))
    return rows


def evaluations(workdir: pathlib.Path, *, until: float = math.inf) -> dict[str, float]:
    """Every evaluator's last numbers up to a step, as "<evaluator>/<value>"."""
    values: dict[str, float] = {}
    for row in read(workdir):
        names = [k for k in row if "/" in k and not k.startswith("time/")]
        for name in names if row["step"] <= until else ():
            with contextlib.suppress(TypeError, ValueError):  # a text, and no number
                values[name] = float(row[name])
    return values


def shown(logged: Mapping[str, float]) -> dict[str, float]:
    """The few of a step's numbers that a person watches, and a wait that is long."""
    share = logged["time/input_wait"] / max(logged["time/total"], 1e-9)
    watched = {k: logged[k] for k in ("loss", "lr", "rows_per_second")}
    return watched | ({"input_wait_share": share} if share > _SLOW else {})


class Progress:
    """A bar with step, ETA and images/s; plain lines where there is no terminal.

    The ETA is that of the steps after the first, which waits for the compiler.
    """

    def __init__(
        self, total: int, start: int, batch_size: int, *, label: str = "", active=True
    ):
        self._active = active  # only one process of several speaks
        self._bar = tqdm(
            total=total,
            initial=start,
            desc=label or None,
            unit="step",
            dynamic_ncols=True,
            disable=not (active and sys.stderr.isatty()),
        )
        self.close = self._bar.close
        self._batch, self._head = batch_size, f"{label} " if label else ""
        self._lap = time.perf_counter(), start
        self._first, self._start = start + 1, 0.0  # when the first step was done

    def update(self) -> None:
        """A step is done. The first one is mostly compilation: the ETA begins here."""
        if not self._start:
            self._start = time.perf_counter()
            self._bar.unpause()
        self._bar.update()

    def lap(self, step: int) -> dict[str, float]:
        """Throughput since the last lap: images/s and seconds a step."""
        (begin, first), self._lap = self._lap, (time.perf_counter(), step)
        seconds, steps = self._lap[0] - begin, max(step - first, 1)
        return {
            "rows_per_second": steps * self._batch / max(seconds, 1e-9),
            "step_seconds": seconds / steps,
        }

    def say(self, step: int, values: Mapping[str, float]) -> None:
        """Shows a few numbers: on the bar, or as a line."""
        text = " ".join(
            f"{k} {v:.4g}" for k, v in values.items() if isinstance(v, (int, float))
        )
        if not self._bar.disable:
            self._bar.set_postfix_str(text)
            return
        total, eta = self._bar.total, ""
        if step > self._first:
            rate = (time.perf_counter() - self._start) / (step - self._first)
            minutes, seconds = divmod(int(rate * (total - step)), 60)
            eta = f" eta {minutes}m{seconds:02d}s"
        self.note(f"{self._head}step {step}/{total} {text}{eta}")

    def note(self, text: str) -> None:
        """A line that stays above the bar."""
        if self._active:
            self._bar.write(text, file=sys.stderr)
