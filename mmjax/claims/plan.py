"""From an experiment to its runs: each a workdir and the commands that fill it.

DIR/plan.json      the runs' commands, with which a later call must agree
DIR/runs/ARM-SEED  workdirs of `mmjax train`, evals/ of the suite among them
DIR/logs/ARM-SEED.txt
"""

import dataclasses
import os
import pathlib
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmjax import schema
from mmjax.claims.spec import Arm
from mmjax.errors import UserError
from mmjax.suite import runner
from mmjax.train import checkpoint, run_file
from mmjax.train import config as config_lib

PLAN = "plan.json"
RUNS = "runs"


@dataclasses.dataclass(frozen=True)
class Run:
    """One training.

    commands: words after `mmjax`, to be run in this order.
    needs: names of the runs that must be finished before.
    config: of the training, as it is read.
    """

    arm: str
    seed: int
    workdir: pathlib.Path
    commands: tuple[tuple[str, ...], ...]
    needs: tuple[str, ...]
    config: Any

    @property
    def name(self) -> str:
        return f"{self.arm}-{self.seed}"

    @property
    def suite(self) -> pathlib.Path | None:
        """The summary of its suite, None where it has none."""
        if len(self.commands) == 1:
            return None
        spec = self.commands[1][1]
        name = spec.partition(":")[2] or pathlib.Path(spec).stem
        return self.workdir / "evals" / name / "summary.json"

    def missing(self) -> list[tuple[str, ...]]:
        """Its commands that have not been run to their end."""
        cfg = schema.from_mapping(config_lib.RunConfig, self.config, "config")
        home = checkpoint.home_of(self.workdir, cfg.checkpoint)
        if cfg.steps not in checkpoint.saved_steps(home):
            return list(self.commands)
        judged = self.suite is None or self.suite.is_file()
        return [] if judged else list(self.commands[1:])


def runs(
    points: Mapping[str, Arm], seeds: int, folder: pathlib.Path, *, root: str = ""
) -> list[Run]:
    """Every arm with every seed, what others start from before them.

    Args:
      points: the arms (mmjax.claims.spec.Experiment.points).
      root: what suites without another folder lie in.

    Raises:
      UserError: a config or an override is wrong; two arms need each other.
    """
    made = []
    for name in _ordered(points):
        for seed in range(seeds):
            made.append(_run(name, points, seed, folder, root))
    titles = [run.workdir.name for run in made]
    for run in made:
        if titles.count(run.workdir.name) > 1:
            raise UserError(f"two arms have the folder {run.workdir.name}: rename one")
    return made


def _run(
    name: str, points: Mapping[str, Arm], seed: int, folder: pathlib.Path, root: str
) -> Run:
    arm, needs = points[name], []

    def place(arm: str) -> pathlib.Path:
        return folder / RUNS / f"{re.sub(r'[^A-Za-z0-9_.,=+-]+', '_', arm)}-{seed}"

    def fill(text: str) -> str:
        for other in _named(text, points):
            needs.append(f"{other}-{seed}")
            text = text.replace(f"{{{other}}}", str(place(other)))
        return os.path.expandvars(text)

    given = [f"--config.{key}={fill(text)}" for key, text in flat(arm.overrides)]
    given.append(f"--config.seed={seed}")
    config = config_lib.load(arm.config, given)
    workdir = place(name)
    train = ("train", "--config", arm.config, "--workdir", str(workdir), *given)
    commands = [train]
    if arm.suite:
        suite = arm.suite
        own = os.path.join(root, suite)
        suite = own if os.path.isfile(own.partition(":")[0]) else suite
        commands.append(("eval", suite, str(workdir)))
    return Run(name, seed, workdir, tuple(commands), tuple(needs), config)


def flat(overrides: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """(key, text) of each override as the command line takes it."""
    for key, value in overrides.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value if isinstance(value, str) else repr(value)


def _named(text: str, points: Mapping[str, Arm]) -> list[str]:
    return [name for name in re.findall(r"\{([^{}]+)\}", text) if name in points]


def _ordered(points: Mapping[str, Arm]) -> list[str]:
    """The names, those that others start from before them."""
    ahead = {
        name: {n for _, text in flat(arm.overrides) for n in _named(text, points)}
        for name, arm in points.items()
    }
    done: list[str] = []
    while left := [name for name in points if name not in done]:
        free = [name for name in left if ahead[name] <= set(done)]
        if not free:
            raise UserError(f"these arms start from each other: {', '.join(left)}")
        done += free
    return done


# -- the folder ------------------------------------------------------------------
def keep(folder: pathlib.Path, planned: Sequence[Run]) -> None:
    """Writes plan.json; arms and seeds may be added to what is there.

    Raises:
      UserError: the folder holds a run of that name with other commands or another
        config, of which the first difference is named. Nothing is changed.
    """
    path = folder / PLAN
    known = schema.read_json(path)["runs"] if path.is_file() else {}
    for run in planned:
        new, old = list(run.commands[0][1:]), known.get(run.name)
        if old is not None and old != new:
            was = " ".join(word for word in old if word not in new) or "fewer overrides"
            now = " ".join(word for word in new if word not in old) or "none of them"
            raise UserError(
                f"{folder} holds the run {run.name} of other overrides: it has {was}, "
                f"and {now} is asked for; give --workdir another folder"
            )
        if run_file.exists(run.workdir):
            _same(run)
    listed = known | {run.name: list(run.commands[0][1:]) for run in planned}
    runner.write(path, {"runs": listed})


def _same(run: Run) -> None:
    """UserError where a workdir was trained by another config."""
    saved = run_file.read(run.workdir)["config"]
    asked = schema.lists(run.config.to_dict())
    for key, text in differences(saved, asked).items():
        raise UserError(
            f"{run.workdir} was trained with config.{key}={text[0]}, and {text[1]} is "
            "asked for: give --workdir another folder, or delete that run"
        )


def differences(*configs: Mapping[str, Any]) -> dict[str, list[str]]:
    """Keys whose values are not the same in all configs; "" where one lacks a key."""
    listed = [dict(flat(schema.lists(config))) for config in configs]
    keys = dict.fromkeys(key for texts in listed for key in texts)
    rows = {key: [texts.get(key, "") for texts in listed] for key in keys}
    return {key: texts for key, texts in rows.items() if len(set(texts)) > 1}


def shell(run: Run, command: str) -> str:
    """One line that trains and evaluates a run, for an array of jobs."""
    return " && ".join(f"{command} {shlex.join(words)}" for words in run.commands)


# -- grids of the command line -----------------------------------------------------
def grid(texts: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """{key: values} of texts KEY=VALUE,VALUE.

    Commas inside brackets and quotes belong to a value.

    Raises:
      UserError: no key or no value; a key that comes twice, or a value.
    """
    made: dict[str, tuple[str, ...]] = {}
    for text in texts:
        key, _, listed = text.partition("=")
        key = key.removeprefix("config.")
        values = _values(listed)
        if not key or not all(values):
            raise UserError(f"--grid {text}: give KEY=VALUE,VALUE")
        if key in made or len(set(values)) < len(values):
            raise UserError(f"--grid {text}: a key or a value comes twice")
        made[key] = values
    return made


def _values(text: str) -> tuple[str, ...]:
    values, depth, quote = [""], 0, ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        depth += (letter in "([{") - (letter in ")]}") if not quote else 0
        if letter == "," and not depth and not quote:
            values.append("")
        else:
            values[-1] += letter
    return tuple(value.strip() for value in values)
