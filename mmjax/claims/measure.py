"""Numbers of runs, their intervals over seeds and examples, and what these decide.

A number of one run has an interval over its examples, its evaluator's bootstrap. The
mean over n seeds varies by both, and seeds share their test examples, whose noise does
not average out over seeds. So the half-width of its 95 % interval is

    h^2 = (t_{n-1} s / sqrt(n))^2 + mean_s(h_s^2)

with s the standard deviation over seeds, t Student's quantile and h_s the half-width
over the examples of one run. What varies by seed and example both is counted in each,
and differences on the same examples count both sides' examples as independent, so that
intervals are rather too wide than too narrow.
"""

import dataclasses
import math
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from mmjax import schema
from mmjax.claims.spec import Check
from mmjax.train import metric_writer

AGREES, DISAGREES, UNDECIDED = "AGREES", "DISAGREES", "UNDECIDED"
_WIDTH = 2 * stats.norm.ppf(0.975)  # of a 95 % interval, in standard deviations


@dataclasses.dataclass(frozen=True)
class Number:
    """A value of one run.

    error: its standard deviation over examples, 0 where it is not known.
    bound: the run ended before the value was reached, which is at least this much.
    """

    value: float
    error: float = 0.0
    bound: bool = False


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its 95 % interval; NaN ends where one seed is given."""

    value: float
    low: float
    high: float
    seeds: int

    def __str__(self) -> str:
        if math.isnan(self.low):
            return spell(self.value)
        return f"{spell(self.value)} ({spell(self.low)} to {spell(self.high)})"


def spell(value: float) -> str:
    """Three digits behind the point, or four in all of large numbers."""
    return f"{value:.3f}" if abs(value) < 100 else f"{value:.4g}"


# -- reading -----------------------------------------------------------------------
def numbers(workdir: pathlib.Path, suite: pathlib.Path | None) -> dict[str, Number]:
    """All last numbers of a run's evaluators and of its suite, by their names."""
    named = {"": metric_writer.evaluations(workdir)}
    if suite is not None and suite.is_file():
        for cell in schema.read_json(suite)["cells"]:
            named[f"{cell['dataset']}.{cell['protocol']}/"] = cell["values"]
    found = {}
    for place, values in named.items():
        for name, value in values.items():
            base = name.removesuffix("_lo").removesuffix("_hi")
            if value is None or (base != name and base in values):
                continue
            low, high = (values.get(f"{name}_{end}") for end in ("lo", "hi"))
            known = low is not None and high is not None
            error = (high - low) / _WIDTH if known else 0.0
            found[place + name] = Number(float(value), error)
    return found


def reached(workdir: pathlib.Path, metric: str, level: float, rows: int) -> Number:
    """The rows of training after which a metric of a run first was at a level.

    Linear between evaluations, and from 0 to the first. rows: a step's.
    """
    before, last = (0, 0.0), 0
    for row in metric_writer.read(workdir):
        last = row["step"]
        if metric not in row:
            continue
        value = float(row[metric])
        if value >= level:
            share = (level - before[1]) / max(value - before[1], 1e-12)
            step = before[0] + min(max(share, 0.0), 1.0) * (row["step"] - before[0])
            return Number(step * rows)
        before = row["step"], value
    return Number(float(last * rows), bound=True)


# -- estimates ---------------------------------------------------------------------
def mean(values: Sequence[float], errors: Sequence[float] = ()) -> Estimate:
    """The mean over seeds; errors: the standard deviation over examples of each."""
    values_n = np.asarray(values, np.float64)
    count, middle = len(values_n), float(values_n.mean())
    if count < 2:
        return Estimate(middle, math.nan, math.nan, count)
    seeds = stats.t.ppf(0.975, count - 1) * stats.sem(values_n)
    examples = math.sqrt(np.mean(np.square(errors))) if len(errors) else 0.0
    reach = float(np.hypot(seeds, _WIDTH / 2 * examples))
    return Estimate(middle, middle - reach, middle + reach, count)


def of_arm(by_seed: Mapping[int, Number]) -> Estimate:
    """The mean of one arm's number."""
    held = list(by_seed.values())
    return mean([n.value for n in held], [n.error for n in held])


def difference(first: Mapping[int, Number], second: Mapping[int, Number]) -> Estimate:
    """First less second, paired by their seeds."""
    pairs = [(first[s], second[s]) for s in first if s in second]
    values = [a.value - b.value for a, b in pairs]
    return mean(values, [math.hypot(a.error, b.error) for a, b in pairs])


def ratio(first: Mapping[int, Number], second: Mapping[int, Number]) -> Estimate:
    """First over second, the geometric mean over seeds; of positive numbers.

    Where a number is a bound, so is the ratio: that end of its interval is open.
    """
    pairs = [(first[s], second[s]) for s in first if s in second]
    if any(min(a.value, b.value) <= 0 for a, b in pairs):
        return Estimate(math.nan, math.nan, math.nan, len(pairs))
    logs = [math.log(a.value / b.value) for a, b in pairs]
    errors = [math.hypot(a.error / a.value, b.error / b.value) for a, b in pairs]
    got = mean(logs, errors)
    low, high = math.exp(got.low), math.exp(got.high)
    high = math.inf if any(a.bound for a, _ in pairs) else high
    low = 0.0 if any(b.bound for _, b in pairs) else low
    return Estimate(math.exp(got.value), low, high, got.seeds)


def power_law(
    x: Sequence[float], arms: Sequence[Mapping[int, Number]], *, error: bool = False
) -> Estimate:
    """The exponent b of number = a x^b, by least squares of logarithms, a fit a seed.

    error: of 1 less the number.
    """
    x_k = np.log(np.asarray(x, np.float64))
    x_k = x_k - x_k.mean()
    weight_k = x_k / (x_k @ x_k)
    slopes, errors = [], []
    for seed in sorted(set.intersection(*(set(arm) for arm in arms))):
        held = [arm[seed] for arm in arms]
        y_k = np.array([1 - n.value if error else n.value for n in held])
        if (y_k <= 0).any():
            return Estimate(math.nan, math.nan, math.nan, 0)
        slopes.append(float(weight_k @ np.log(y_k)))
        error_k = np.array([n.error for n in held]) / y_k
        errors.append(float(np.sqrt(np.square(weight_k * error_k).sum())))
    if not slopes:
        return Estimate(math.nan, math.nan, math.nan, 0)
    return mean(slopes, errors)


# -- verdicts ----------------------------------------------------------------------
def judge(
    check: Check, table: Mapping[tuple[str, str], Mapping[int, Number]]
) -> tuple[list[Estimate], str]:
    """(what was estimated, verdict) of a check.

    Args:
      table: (arm, metric) -> seed -> number; of a check with `reach`, the rows.

    AGREES where every interval lies in the band, DISAGREES where one lies outside of
    it, and else UNDECIDED, as where a number is missing.
    """
    held = [table.get(term, {}) for term in check.terms()]
    if not all(held):
        return [], UNDECIDED
    if check.kind == "mean":
        estimates = [of_arm(held[0])]
    elif check.kind == "ratio":
        estimates = [ratio(*held)]
    elif check.kind == "power_law":
        estimates = [power_law(check.x, held, error=check.error)]
    elif all(set(a) & set(b) for a, b in zip(held, held[1:], strict=False)):
        pairs = zip(held, held[1:], strict=False)
        estimates = [difference(a, b) for a, b in pairs]
    else:
        return [], UNDECIDED
    return estimates, together([place(e, check.band) for e in estimates])


def place(estimate: Estimate, band: tuple[float | None, float | None]) -> str:
    """The verdict of one interval on a band."""
    low = -math.inf if band[0] is None else band[0]
    high = math.inf if band[1] is None else band[1]
    if estimate.low >= low and estimate.high <= high:
        return AGREES
    if estimate.high < low or estimate.low > high:
        return DISAGREES
    return UNDECIDED  # NaN ends, too


def together(verdicts: Sequence[str]) -> str:
    """One verdict of several: the first that is not AGREES, the worst first."""
    for verdict in (DISAGREES, UNDECIDED):
        if verdict in verdicts:
            return verdict
    return AGREES if verdicts else UNDECIDED
