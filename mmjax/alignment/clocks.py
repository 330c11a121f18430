"""Several recordings of one event, put on one clock.

Legend: t ticks of the clock, p columns of a source, s sources.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from mmjax.alignment import canonical, pairs
from mmjax.errors import UserError


class Merged(NamedTuple):
    """Sources on one clock.

    time: (t,) seconds; 0 is where the first source begins.
    values: of every source, float (t, p); NaN where it has nothing.
    present: bool (t, s), whether a source has a value at this tick.
    shifts: (s,) seconds after the first source at which each begins.
    scores: (s,) canonical correlation with the first source at that shift.
    """

    time: np.ndarray
    values: list[np.ndarray]
    present: np.ndarray
    shifts: np.ndarray
    scores: np.ndarray


def merge(
    sources: Sequence[Any],
    *,
    rates: Sequence[float] | None = None,
    times: Sequence[Any] | None = None,
    rate: float = 0.0,
    max_shift: float = 0.0,
    ridge: float = 0.01,
) -> Merged:
    """Puts sources of one event, sampled unlike and begun apart, on one clock.

    Values between samples are interpolated linearly. Where `max_shift` is given, each
    source's begin is looked for: the shift, in ticks, at which its first canonical
    correlation with the first source is largest.

    Args:
      sources: (n,) or (n, p) each; of any columns.
      rates: samples a second of every source, or
      times: of every source the seconds (n,) of its samples, rising.
      rate: ticks a second of the clock; 0 takes the highest of the sources.
      max_shift: seconds, forwards and backwards; 0 leaves the sources where they are.
      ridge: of the covariances, see `ctw`.

    Raises:
      UserError: rates missing or not positive, times that do not rise, NaN, sources
        that overlap in too few ticks.
    """
    arrays = [pairs.sequence(x, f"source {s}", least=2) for s, x in enumerate(sources)]
    clocks = _clocks(arrays, rates, times)
    rate = rate or max((len(c) - 1) / (c[-1] - c[0]) for c in clocks)
    shifts, scores = np.zeros(len(arrays)), np.ones(len(arrays))
    for s in range(1, len(arrays)):
        begins = np.arange(-np.floor(max_shift * rate), max_shift * rate + 1) / rate
        found = [
            _agreement(arrays[0], clocks[0], arrays[s], clocks[s] + b, rate, ridge)
            for b in begins
        ]
        if max(found) < 0:
            raise UserError(
                f"source {s} overlaps the first in too few ticks at every shift of up "
                f"to {max_shift:g} s: give longer sources, or another max_shift"
            )
        best = max(range(len(begins)), key=lambda i: (found[i], -abs(begins[i])))
        shifts[s], scores[s] = begins[best], found[best]
    moved = [clock + shift for clock, shift in zip(clocks, shifts, strict=True)]
    first, last = (
        end(c[at] for c in moved) - clocks[0][0] for end, at in ((min, 0), (max, -1))
    )
    # a tick falls on the first source's begin, and rounding makes no tick
    tick = np.arange(np.ceil(first * rate - 1e-6), np.floor(last * rate + 1e-6) + 1)
    time_t = tick / rate
    values = [
        _at(time_t + clocks[0][0], clock, x)
        for clock, x in zip(moved, arrays, strict=True)
    ]
    present = np.stack([np.isfinite(v[:, 0]) for v in values], 1)
    return Merged(time_t, values, present, shifts, scores)


def _clocks(arrays: Sequence, rates: Any, times: Any) -> list[np.ndarray]:
    """Seconds of every sample of every source."""
    given = rates if times is None else times
    if given is None:
        raise UserError(
            f"{len(arrays)} sources and no sampling rates: give rates, in samples a "
            "second, or times, the seconds of their samples"
        )
    if len(given) != len(arrays):
        term = "rates" if times is None else "times"
        raise UserError(f"{len(arrays)} sources and {len(given)} {term}: give each one")
    clocks = []
    for s, (x, own) in enumerate(zip(arrays, given, strict=True)):
        if times is None:
            if not (np.isfinite(own) and own > 0):
                raise UserError(f"source {s} has a rate of {own}: use more than 0 Hz")
            own = np.arange(len(x)) / own
        clock = np.asarray(own, float)
        if clock.shape != (len(x),):
            raise UserError(f"source {s} has {len(x)} samples and {clock.size} times")
        late = np.flatnonzero(~(np.diff(clock) > 0))
        if late.size:
            raise UserError(
                f"the times of source {s} do not rise after sample {late[0]}: sort the "
                "samples, and leave out those of equal time"
            )
        clocks.append(clock)
    return clocks


def _at(time_t: np.ndarray, clock_n: np.ndarray, x_np: np.ndarray) -> np.ndarray:
    """(t, p) by linear interpolation; NaN outside its samples."""
    nan, slack = np.nan, 1e-9
    inside = np.clip(time_t, clock_n[0], clock_n[-1])
    far_t = np.abs(inside - time_t) > slack
    columns = [np.interp(inside, clock_n, column) for column in x_np.T]
    return np.where(far_t[:, None], nan, np.stack(columns, 1))


def _agreement(
    x_np: np.ndarray,
    x_clock: np.ndarray,
    y_mq: np.ndarray,
    y_clock: np.ndarray,
    rate: float,
    ridge: float,
) -> float:
    """The first canonical correlation where both are; -1 where that is too short."""
    start, stop = max(x_clock[0], y_clock[0]), min(x_clock[-1], y_clock[-1])
    time_t = np.arange(start, stop + 1e-9, 1 / rate)
    if len(time_t) < 2 + x_np.shape[1] + y_mq.shape[1]:
        return -1.0
    sides = _at(time_t, x_clock, x_np), _at(time_t, y_clock, y_mq)
    return canonical.correlation(*sides, ridge=ridge)
