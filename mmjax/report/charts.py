"""Line and step charts as inline SVG: text, without scripts, fonts or a renderer.

Colours are classes (`s0`, `s1`, ...) that the page's style sheet fills in, so that one
chart serves a light and a dark page.
"""

import dataclasses
import html
import math
from collections.abc import Sequence

WIDTH, HEIGHT = 380, 236  # of the view box; about the pixels of a telephone's column
_LEFT, _RIGHT, _TOP, _BOTTOM = 54.0, 14.0, 12.0, 42.0
_POINTS = 400  # drawn of one line; more than there are pixels would only be bytes
_LOG_FROM = 20.0  # a ratio of largest to smallest from which a log axis tells more


@dataclasses.dataclass(frozen=True)
class Series:
    """Points of one name, and where given the interval's ends of each.

    Points that are not finite are left out: a diverged run still has a curve.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None


@dataclasses.dataclass(frozen=True)
class Axis:
    """From `low` to `high` in numbers is from `start` to `end` in the view box."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        """Where a number lies; numbers beyond the ends lie on them."""
        low, high, value = (self._flat(v) for v in (self.low, self.high, value))
        share = min(max((value - low) / (high - low), 0.0), 1.0)
        return self.start + share * (self.end - self.start)

    def ticks(self, count: int = 4) -> list[float]:
        """Round numbers within the axis, about `count` of them."""
        if self.log:
            powers = range(
                math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1
            )
            few = len(powers) <= 3
            found = [m * 10.0**p for p in powers for m in ((1, 2, 5) if few else (1,))]
            found = [v for v in found if self.low <= v <= self.high]
            return found[:: max(1, len(found) // 6)]
        rough = (self.high - self.low) / count
        unit = 10.0 ** math.floor(math.log10(rough))
        step = next(m * unit for m in (1, 2, 2.5, 5, 10) if m * unit >= 0.999 * rough)
        first, last = math.ceil(self.low / step), math.floor(self.high / step + 1e-9)
        return [n * step for n in range(first, last + 1)]

    def _flat(self, value: float) -> float:
        return math.log(max(value, self.low)) if self.log else value


def lines(
    series: Sequence[Series],
    *,
    alt: str,
    x_label: str,
    y_label: str,
    x_ticks: Sequence[float] = (),
    share: bool = False,
    from_zero: bool = False,
) -> str:
    """A chart of lines with interval bands; '' where no point is finite.

    Args:
      alt: what the chart shows, for those who do not see it.
      x_ticks: pool sizes and the like, spaced by their logarithm, with a mark on each
        point; none: round numbers of a linear axis from 0.
      share: y is from 0 to 1 and is written in per cent. from_zero: y starts at 0.
        Otherwise it spans the points, on a log axis where they span a wide range.
    """
    kept = {n: s for n, s in enumerate(map(_finite, series)) if s.x}
    if not kept:
        return ""
    xs = [x for s in kept.values() for x in s.x]
    ys = [y for s in kept.values() for y in (*s.y, *(s.low or ()), *(s.high or ()))]
    left, right, top, bottom = _LEFT, WIDTH - _RIGHT, _TOP, HEIGHT - _BOTTOM
    if x_ticks:
        across = _spread(min(xs), max(xs), left + 8, right - 8, log=min(xs) > 0)
    else:
        across = _spread(0, max(xs), left, right)
    if share:
        up = Axis(0, 1, bottom, top)
    elif from_zero:
        up = _spread(0, 1.05 * max(ys), bottom, top)
    else:
        log = min(ys) > 0 and max(ys) > _LOG_FROM * min(ys)
        up = _spread(min(ys), max(ys), bottom, top, log=log)
    body = _frame(across, up, x_label, y_label, x_ticks, share)
    for n, line in kept.items():
        body += _line(line, _tone(n), across, up, marks=bool(x_ticks), share=share)
    return _svg(body, alt)


def steps(
    edges: Sequence[float],
    series: Sequence[Series],
    *,
    alt: str,
    x_label: str,
    y_label: str,
    log_y: bool = False,
) -> str:
    """Counts between edges as filled outlines; '' where all of them are 0.

    The y of each series has one number fewer than `edges`; its x is not read. On a
    log axis counts of 0 lie on the ground.
    """
    most = max((y for s in series for y in s.y), default=0)
    if most <= 0 or len(edges) < 2:
        return ""
    bottom = HEIGHT - _BOTTOM
    across = _spread(edges[0], edges[-1], _LEFT, WIDTH - _RIGHT)
    up = _spread(0.5 if log_y else 0, 1.08 * most, bottom, _TOP, log=log_y)
    body = _frame(across, up, x_label, y_label, (), False)
    for n, outline in enumerate(series):
        corners = [(across.at(edges[0]), bottom)]
        for a, b, y in zip(edges[:-1], edges[1:], outline.y, strict=True):
            corners += [(across.at(a), up.at(y)), (across.at(b), up.at(y))]
        corners.append((across.at(edges[-1]), bottom))
        body += f'<path class="area {_tone(n)}" d="{_path(corners)}Z"/>'
    return _svg(body, alt)


def legend(labels: Sequence[str]) -> str:
    """HTML that names the series of a chart, in their order."""
    keys = (
        f'<li><i class="key {_tone(n)}"></i>{html.escape(label)}</li>'
        for n, label in enumerate(labels)
    )
    return f'<ul class="legend">{"".join(keys)}</ul>'


def short(value: float) -> str:
    """A number of few letters, for an axis: 12k, 0.05."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if letter == 'k' else size):.3g}{letter}"
    if value and abs(value) < 1e-4:
        return f"{value:.0e}"
    return f"{value:.4g}"


def _tone(n: int) -> str:
    return f"s{n % 6}"  # as many as the style sheet knows


def _finite(series: Series) -> Series:
    low = series.low if series.low is not None else series.y
    high = series.high if series.high is not None else series.y
    rows = [
        row
        for row in zip(series.x, series.y, low, high, strict=True)
        if all(isinstance(v, (int, float)) and math.isfinite(v) for v in row)
    ]
    stride = max(1, math.ceil(len(rows) / _POINTS))
    # the last point stays: it is what the text beside the chart quotes
    rows = rows[::stride] + (rows[-1:] if (len(rows) - 1) % stride else [])
    x, y, low, high = ([row[n] for row in rows] for n in range(4))
    banded = series.low is not None and series.high is not None
    return Series(series.label, x, y, *((low, high) if banded else (None, None)))


def _spread(
    low: float, high: float, start: float, end: float, *, log: bool = False
) -> Axis:
    """An axis that is not empty, whatever the numbers."""
    if not high > low:
        low, high = (low / 2, high * 2) if log else (low - 0.5, high + 0.5)
    return Axis(low, high, start, end, log)


def _frame(
    across: Axis,
    up: Axis,
    x_label: str,
    y_label: str,
    x_ticks: Sequence[float],
    share: bool,
) -> str:
    left, right, top, bottom = _LEFT, WIDTH - _RIGHT, _TOP, HEIGHT - _BOTTOM
    marks = []
    for value in up.ticks():
        y, name = up.at(value), f"{100 * value:.0f} %" if share else short(value)
        marks.append(
            f'<path class="rule" d="M{left:.0f},{y:.1f}H{right:.0f}"/>'
            f'<text x="{left - 6:.0f}" y="{y + 3.5:.1f}" class="end">{name}</text>'
        )
    for value in x_ticks or across.ticks():
        x = across.at(value)
        marks.append(
            f'<path class="axis" d="M{x:.1f},{bottom:.0f}v4"/>'
            f'<text x="{x:.1f}" y="{bottom + 16:.0f}" class="mid">{short(value)}</text>'
        )
    marks.append(
        f'<path class="axis" d="M{left:.0f},{bottom:.0f}H{right:.0f}"/>'
        f'<text x="{(left + right) / 2:.0f}" y="{HEIGHT - 8}" class="mid name">'
        f"{html.escape(x_label)}</text>"
        f'<text transform="translate(10 {(top + bottom) / 2:.0f}) rotate(-90)" '
        f'class="mid name">{html.escape(y_label)}</text>'
    )
    return "".join(marks)


def _line(
    series: Series, tone: str, across: Axis, up: Axis, *, marks: bool, share: bool
) -> str:
    x = [across.at(v) for v in series.x]
    drawn = ""
    if series.low is not None and series.high is not None:
        over = [(a, up.at(v)) for a, v in zip(x, series.high, strict=True)]
        under = [(a, up.at(v)) for a, v in zip(x, series.low, strict=True)]
        drawn += f'<path class="band {tone}" d="{_path(over + under[::-1])}Z"/>'
    points = [(a, up.at(v)) for a, v in zip(x, series.y, strict=True)]
    drawn += f'<path class="line {tone}" d="{_path(points)}"/>'
    if marks or len(points) == 1:
        for (a, b), at, value in zip(points, series.x, series.y, strict=True):
            said = f"{100 * value:.1f} %" if share else short(value)
            hint = html.escape(f"{series.label}, {short(at)}: {said}")
            drawn += f'<circle class="dot {tone}" cx="{a:.1f}" cy="{b:.1f}" r="3.5">'
            drawn += f"<title>{hint}</title></circle>"
    return drawn


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _svg(body: str, alt: str) -> str:
    box = f'viewBox="0 0 {WIDTH} {HEIGHT}"'
    label = html.escape(alt, quote=True)
    return f'<svg class="chart" {box} role="img" aria-label="{label}">{body}</svg>'
