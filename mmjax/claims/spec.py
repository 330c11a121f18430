"""`experiments/CLAIM/experiment.py`: a claim as data, with its band before any run.

The file imports no jax and defines EXPERIMENT, a dict of the fields of `Experiment`.
"""

import dataclasses
import itertools
import pathlib
import runpy
from collections.abc import Mapping
from typing import Any, Literal

from mmjax import schema
from mmjax.errors import UserError

SCALES = ("tiny", "small", "paper")
FILE = "experiment.py"
FOLDER = "experiments"


@dataclasses.dataclass(frozen=True)
class Arm:
    """One configuration of an experiment, trained with every seed.

    config: as `mmjax train` takes it; "" is the experiment's or the scale's.
    overrides: config keys and their values; a mapping stands for the keys below it.
      `{NAME}` in a text is the workdir of the arm NAME with the same seed, which is
      trained before.
    suite: a suite of evaluations that runs after training, as `mmjax eval` takes it.
    """

    config: str = ""
    overrides: dict[str, Any] = dataclasses.field(default_factory=dict)
    suite: str = ""


@dataclasses.dataclass(frozen=True)
class Scale:
    """What one `--scale` changes.

    config: the base of arms that name none, in place of the experiment's.
    overrides: keys that win over the arms' own.
    arms: arms that replace those of the same name.
    only: names of the arms that run; none is all.
    seeds: how many, from 0.
    minutes: the budget of all runs together, on two cores where the scale is small.
    """

    config: str = ""
    overrides: dict[str, Any] = dataclasses.field(default_factory=dict)
    arms: dict[str, Arm] = dataclasses.field(default_factory=dict)
    only: tuple[str, ...] = ()
    seeds: int = 3
    minutes: float = 0.0

    def __post_init__(self) -> None:
        schema.at_least(1, self, "seeds")


@dataclasses.dataclass(frozen=True)
class Check:
    """One comparison and the band that the claim expects it in.

    says: the expectation in a sentence.
    kind: `mean` of one arm; `difference` first less second; `ratio` first over second;
      `order` all consecutive differences, each in the band; `power_law` the slope of
      log number over log `x`, one arm a point.
    arms: names of arms. metric: of each arm, EVALUATOR/NUMBER of the config's
      evaluators or DATASET.PROTOCOL/NUMBER of the suite; one serves all.
    band: its ends; None is open.
    reach: compare the rows of training after which the metric first reached it.
    error: a power law of 1 less the metric.
    """

    says: str
    kind: Literal["mean", "difference", "ratio", "order", "power_law"]
    arms: tuple[str, ...]
    metric: str | tuple[str, ...]
    band: tuple[float | None, float | None] = (0.0, None)
    reach: float | None = None
    x: tuple[float, ...] = ()
    error: bool = False

    def __post_init__(self) -> None:
        least = {"mean": 1, "power_law": 3}
        exact = {"mean": 1, "difference": 2, "ratio": 2}
        count, need = len(self.terms()), least.get(self.kind, 2)
        if count < need or count > exact.get(self.kind, count):
            raise ValueError(f"{self.kind} compares {need} arms, and {count} are given")
        if self.kind == "power_law" and len(self.x) != count:
            raise ValueError(f"x has {len(self.x)} numbers for {count} arms")
        low, high = self.band
        if low is None and high is None or (None not in self.band and low >= high):
            raise ValueError(f"band {self.band}: give its low end, then its high end")

    def terms(self) -> list[tuple[str, str]]:
        """(arm, metric) of each thing compared."""
        metrics = (self.metric,) if isinstance(self.metric, str) else self.metric
        count = max(len(self.arms), len(metrics))
        if {len(self.arms), len(metrics)} - {1, count}:
            raise ValueError(f"{len(self.arms)} arms and {len(metrics)} metrics")
        arms = self.arms * (count // len(self.arms))
        return list(zip(arms, metrics * (count // len(metrics)), strict=True))


@dataclasses.dataclass(frozen=True)
class Experiment:
    """The fields of EXPERIMENT.

    claim: in a sentence. source: the paper and its figure or table.
    arms: by name; with a grid, each of them at every point of it.
    grid: config key: its values.
    metrics: columns of the table, besides those that checks compare.
    checks: what decides; none is a sweep, which decides nothing.
    before: commands to run by hand first, such as the extraction of features.
    """

    claim: str
    source: str
    config: str = ""
    arms: dict[str, Arm] = dataclasses.field(default_factory=lambda: {"": Arm()})
    grid: dict[str, tuple] = dataclasses.field(default_factory=dict)
    overrides: dict[str, Any] = dataclasses.field(default_factory=dict)
    metrics: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    scales: dict[str, Scale] = dataclasses.field(default_factory=dict)
    before: tuple[str, ...] = ()

    def columns(self) -> list[str]:
        """All metrics that its tables show."""
        compared = (metric for check in self.checks for _, metric in check.terms())
        return list(dict.fromkeys((*self.metrics, *compared)))

    def at(self, name: str) -> Scale:
        """The scale of a name.

        Raises:
          UserError: there is none; its checks ask for intervals over one seed.
        """
        if name not in self.scales:
            hint = schema.suggest(name, self.scales)
            raise UserError(f"this experiment has no --scale {name}{hint}")
        scale = self.scales[name]
        if self.checks and scale.seeds < 2:
            raise UserError(
                f"scales.{name}.seeds is 1, and a check asks for an interval over "
                "seeds: give it 2 or more"
            )
        return scale

    def points(self, scale: Scale) -> dict[str, Arm]:
        """Every arm at every point of the grid, its config and overrides whole."""
        made = {}
        for name, arm in (self.arms | scale.arms).items():
            if scale.only and name not in scale.only:
                continue
            config = arm.config or scale.config or self.config
            for point in _product(self.grid):
                text = ",".join(f"{_short(k, self.grid)}={_say(v)}" for k, v in point)
                given = self.overrides | dict(point) | arm.overrides | scale.overrides
                title = ",".join(part for part in (name, text) if part) or "base"
                made[title] = Arm(config, given, arm.suite)
        return made


def _product(grid: Mapping[str, tuple]) -> list[tuple[tuple[str, Any], ...]]:
    axes = [[(key, value) for value in values] for key, values in grid.items()]
    return list(itertools.product(*axes))


def _short(key: str, grid: Mapping[str, tuple]) -> str:
    """The last part of a key, where no other key of the grid ends so."""
    last = key.rpartition(".")[2]
    return last if sum(k.rpartition(".")[2] == last for k in grid) == 1 else key


def _say(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)


# -- finding and reading ---------------------------------------------------------
def folder(home: pathlib.Path) -> pathlib.Path:
    """`experiments/` of the working directory, or else of the checkout at `home`."""
    here = pathlib.Path(FOLDER)
    return here if here.is_dir() else home / FOLDER


def names(root: pathlib.Path) -> list[str]:
    """The claims of a folder of experiments."""
    return sorted(path.parent.name for path in root.glob(f"*/{FILE}"))


def find(claim: str, root: pathlib.Path) -> pathlib.Path:
    """The file of a claim: a name below `root`, a folder, or the file itself.

    Raises:
      UserError: there is none; names the nearest one.
    """
    given = pathlib.Path(claim)
    for path in (root / claim / FILE, given / FILE, given):
        if path.is_file() and path.suffix == ".py":
            return path
    known = names(root)
    if not known:
        raise UserError(
            f"no claim {claim!r}: {root} holds no experiments; run this in a checkout "
            f"of mmjax, or give the path of an {FILE}"
        )
    raise UserError(f"no claim {claim!r}{schema.suggest(claim, known)}")


def read(path: pathlib.Path) -> Experiment:
    """The experiment of a file, which is run.

    Raises:
      UserError: the file fails, or defines no EXPERIMENT; an unknown key; an arm or a
        number of arms that a check cannot compare.
    """
    try:
        found = runpy.run_path(str(path)).get("EXPERIMENT")
    except Exception as error:  # the file may do anything
        raise UserError(f"{path}: {type(error).__name__}: {error}") from error
    if not isinstance(found, Mapping):
        raise UserError(f"{path} defines no dict EXPERIMENT")
    experiment = schema.from_mapping(Experiment, found, f"{path}")
    for name in experiment.scales:
        if name not in SCALES:
            raise UserError(f"{path}: no scale {name!r}{schema.suggest(name, SCALES)}")
    for name, scale in experiment.scales.items():
        points = experiment.points(scale)
        for check in () if scale.only else experiment.checks:
            for arm, _ in check.terms():
                if arm not in points:
                    hint = schema.suggest(arm, points)
                    raise UserError(f"{path}, scale {name}: no arm {arm!r}{hint}")
    return experiment
