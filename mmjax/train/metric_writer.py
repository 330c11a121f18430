"""Where numbers go: JSON lines, TensorBoard, and a progress bar with an ETA."""

import json
import math
import pathlib
import sys
import time
from collections.abc import Mapping
from typing import Any

from tqdm import tqdm

FILE = "metrics.jsonl"
_FLUSH_SECONDS = 10.0  # between writes to TensorBoard's file
_SLOW = 0.1  # the share of the time at which waiting for input is worth showing


def _plain(value: Any) -> float | int | str | None:
    """JSON has no NaN: non-finite numbers are written as strings."""
    if isinstance(value, (str, int)):
        return value
    number = float(value)
    return number if math.isfinite(number) else str(number)


class _Board:
    """TensorBoard's event file, written in the thread that calls.

    tensorboardX' own SummaryWriter hands events to a thread through a queue of ten: a
    full disk ends that thread, and the eleventh event then waits for ever.
    """

    def __init__(self, folder: pathlib.Path, *, resumed_at: int):
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.summary import scalar

        folder.mkdir(exist_ok=True)
        self._event, self._scalar = Event, scalar
        self._file = EventsWriter(str(folder / "events"))
        # TensorBoard hides what an earlier file holds of this step and later ones.
        start = SessionLog(status=SessionLog.START)
        self._file.write_event(Event(step=resumed_at + 1, session_log=start))
        self._flushed = time.perf_counter()

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            if not isinstance(value, str):
                summary = self._scalar(name, float(value))
                now = time.time()  # for people: nothing depends on it
                self._file.write_event(
                    self._event(step=step, summary=summary, wall_time=now)
                )
        if time.perf_counter() - self._flushed > _FLUSH_SECONDS:
            self._file.flush()
            self._flushed = time.perf_counter()

    def close(self) -> None:
        self._file.close()


class Writer:
    """Appends metrics of a run to `metrics.jsonl` and to TensorBoard's event file.

    Steps written before and beyond `resumed_at` (a run killed after its last
    checkpoint) are cut from the JSON lines, so that a resumed run's file is that of
    a run that never stopped.
    """

    def __init__(self, workdir: pathlib.Path, *, resumed_at: int = 0, active=True):
        self._active = active
        if not active:
            return
        path = workdir / FILE
        if path.exists():
            kept = [r for r in read(workdir) if r["step"] <= resumed_at]
            part = path.with_name(FILE + ".part")  # a kill must not leave half of it
            part.write_text("".join(json.dumps(r) + "\n" for r in kept))
            part.replace(path)
        self._file = path.open("a", buffering=1)
        self._board = _Board(workdir / "tensorboard", resumed_at=resumed_at)

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Writes one row; values are scalars."""
        if not self._active:
            return
        row = {"step": step, **{k: _plain(v) for k, v in values.items()}}
        self._file.write(json.dumps(row) + "\n")
        self._board.write(step, values)

    def close(self) -> None:
        if self._active:
            self._file.close()
            self._board.close()


def read(workdir: pathlib.Path) -> list[dict]:
    """Rows of a run's metrics.jsonl, a line cut by a kill left out."""
    path = pathlib.Path(workdir) / FILE
    rows = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue  # the last line of a killed run
    return rows


def evaluations(workdir: pathlib.Path, *, until: float = math.inf) -> dict[str, float]:
    """Every evaluator's last numbers up to a step, as "<evaluator>/<value>"."""
    values: dict[str, float] = {}
    for row in read(workdir):
        names = [k for k in row if "/" in k and not k.startswith("time/")]
        if row["step"] <= until:
            values |= {k: float(row[k]) for k in names}
    return values


def shown(logged: Mapping[str, float]) -> dict[str, float]:
    """The few of a step's numbers that a person watches, and a wait that is long."""
    found = {k: logged[k] for k in ("loss", "lr", "images_per_second")}
    share = logged["time/input_wait"] / max(logged["time/total"], 1e-9)
    return found | ({"input_wait_share": share} if share > _SLOW else {})


class Progress:
    """A bar with step, ETA and images/s; plain lines where there is no terminal."""

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
        self._total, self._batch, self._label = total, batch_size, label
        self._lap_time, self._lap_step = time.perf_counter(), start
        self._begin, self._first = time.perf_counter(), start

    def update(self) -> None:
        self._bar.update()

    def lap(self, step: int) -> dict[str, float]:
        """Throughput since the last lap: images/s and seconds a step."""
        now = time.perf_counter()
        seconds = now - self._lap_time
        steps = max(step - self._lap_step, 1)
        self._lap_time, self._lap_step = now, step
        return {
            "images_per_second": steps * self._batch / max(seconds, 1e-9),
            "step_seconds": seconds / steps,
        }

    def say(self, step: int, values: Mapping[str, float]) -> None:
        """Shows a few numbers: on the bar, or as a line."""
        shown = {k: v for k, v in values.items() if isinstance(v, (int, float))}
        text = " ".join(f"{k} {v:.4g}" for k, v in shown.items())
        if not self._active:
            return
        if not self._bar.disable:
            self._bar.set_postfix_str(text)
            return
        rate = (time.perf_counter() - self._begin) / max(step - self._first, 1)
        eta = int(rate * (self._total - step))
        head = f"{self._label} " if self._label else ""
        print(
            f"{head}step {step}/{self._total} {text} eta {eta // 60}m{eta % 60:02d}s",
            file=sys.stderr,
            flush=True,
        )

    def note(self, text: str) -> None:
        """A line that stays above the bar."""
        if not self._active:
            return
        if self._bar.disable:
            print(text, file=sys.stderr, flush=True)
        else:
            self._bar.write(text, file=sys.stderr)

    def close(self) -> None:
        self._bar.close()
