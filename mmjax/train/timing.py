"""Where the time of a run goes: seconds by kind, traces, and the share of the peak.

The clock read here never jumps: the time of day may be set while a run goes on.
"""

import contextlib
import pathlib
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax

from mmjax.errors import UserError
from mmjax.train import flops

PyTree = Any
FOLDER = "profile"
KINDS = ("input_wait", "step", "log", "checkpoint", "evaluation")

# TFLOP/s of one device in dense bfloat16 products, from the makers' data sheets, by the
# beginning or a part of jax' `device_kind`. First match wins.
PEAK_TFLOPS: tuple[tuple[str, float], ...] = (
    (r"H200|H100 80GB HBM3|GH200", 989.0),
    (r"H100 PCIe", 756.0),
    (r"H100 NVL", 835.0),
    (r"A100", 312.0),
    (r"L40S", 362.0),
    (r"L4$", 121.0),
    (r"V100", 125.0),  # float16: it has no bfloat16
    (r"TPU v6", 918.0),
    (r"TPU v5 ?(lite|e)", 197.0),
    (r"TPU v5", 459.0),
    (r"TPU v4", 275.0),
)


class Clock:
    """Seconds since the last lap, by KINDS.

    `step` is what the host spends on handing steps to the device and on waiting for
    their results; where the device is slower than the host, that is the device's time.
    """

    def __init__(self):
        self._spent, self._begin = dict.fromkeys(KINDS, 0.0), time.perf_counter()

    @contextlib.contextmanager
    def of(self, kind: str) -> Iterator[None]:
        """Counts the time inside as spent on `kind`; not to be nested."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self._spent[kind] += time.perf_counter() - begin

    def lap(self) -> dict[str, float]:
        """`time/<kind>` for all KINDS, and `time/total` of the wall clock."""
        spent = {f"time/{kind}": seconds for kind, seconds in self._spent.items()}
        spent["time/total"] = time.perf_counter() - self._begin
        self._spent, self._begin = dict.fromkeys(KINDS, 0.0), time.perf_counter()
        return spent


class Trace:
    """A trace of the steps `first` to `last`, both included, or of none.

    It is written below WORKDIR/profile, by every process, as TensorBoard's profile
    plugin and Perfetto (the `.trace.json.gz`) read it.

    Raises UserError unless a run that has done `start` of `total` steps gets to them.
    """

    def __init__(
        self,
        steps: tuple[int, int] | None,
        workdir: pathlib.Path,
        *,
        start: int,
        total: int,
    ):
        self.first, self.last = steps or (0, 0)
        self.folder, self.running = workdir / FOLDER, False
        asked = f"--profile {self.first}:{self.last}"
        if steps and not 1 <= self.first <= self.last <= total:
            raise UserError(
                f"{asked}: give the first and the last step to trace, from 1 to "
                f"{total} (config.steps)"
            )
        if steps and start == total:
            raise UserError(
                f"{asked}: this run has done all its {total} steps; trace another"
            )
        if steps and self.first <= start:
            raise UserError(
                f"{asked}: this run goes on at step {start + 1}; trace from there on, "
                f"such as {start + 1}:{min(start + 3, total)}"
            )

    @contextlib.contextmanager
    def step(self, number: int, state: Callable[[], PyTree]) -> Iterator[None]:
        """Goes around a step; `state()` is what the device is to be done with."""
        if number == self.first:
            jax.block_until_ready(state())  # or it begins with the steps before
            jax.profiler.start_trace(str(self.folder))
            self.running = True
        with jax.profiler.StepTraceAnnotation("train", step_num=number):
            yield
        if self.running and number == self.last:
            jax.block_until_ready(state())
            self.close()

    def close(self) -> None:
        """Writes what was traced, if a trace is running."""
        if self.running:
            self.running = False
            jax.profiler.stop_trace()


def peak_tflops(kind: str) -> float:
    """PEAK_TFLOPS of a `device_kind`, 0.0 where it is not known."""
    return next((peak for name, peak in PEAK_TFLOPS if re.search(name, kind)), 0.0)


class Speed:
    """Operations a second of a training step, and what share of the peak they are.

    Operations are those of the model's products (mmjax.train.flops): what
    rematerialisation repeats does not count, so the share is the MFU of Chowdhery et
    al. 2022, B.
    """

    def __init__(self, devices: list, *, peak: float):
        """peak: TFLOP/s of one device; 0 is that of its make, if it is known."""
        self._devices = len(devices)
        self._peak = peak or peak_tflops(devices[0].device_kind)
        self._flops: float | None = None

    def count(self, step: Callable, *args: PyTree) -> None:
        """Counts the operations of `step(*args)`, the first time that it is called."""
        if self._flops is None:
            self._flops = flops.step_flops(step, *args)

    def rates(self, seconds: float) -> dict[str, float]:
        """`tflops` a second and device, and `mfu`, of a step that took `seconds`."""
        if not self._flops:
            return {}
        tflops = self._flops / seconds / self._devices / 1e12
        return {"tflops": tflops} | ({"mfu": tflops / self._peak} if self._peak else {})
