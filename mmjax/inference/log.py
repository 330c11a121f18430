"""What a run's folder says of it, without its weights: config and metrics."""

import dataclasses
import functools
import os
import pathlib
from typing import Any

from mmjax import tree
from mmjax.errors import UserError
from mmjax.inference import given
from mmjax.train import config as config_lib
from mmjax.train import metric_writer, run_file


@dataclasses.dataclass(frozen=True, eq=False)
class Log:
    """The config and the logged numbers of a run.

    workdir: the run's folder.
    """

    workdir: pathlib.Path

    @functools.cached_property
    def config(self) -> Any:
        """The ConfigDict it was trained with."""
        return config_lib.from_json(run_file.read(self.workdir)["config"])

    def metrics(self) -> list[dict[str, Any]]:
        """Logged rows, each with its `step`."""
        return metric_writer.read(self.workdir)

    def last_metrics(self, until: float = float("inf")) -> dict[str, Any]:
        """The newest value of every metric logged up to a step, the last by default."""
        newest: dict[str, Any] = {}
        for row in self.metrics():
            if row["step"] <= until:
                newest |= row
        return newest


def read_logs(folder: str | os.PathLike) -> list[Log]:
    """The logs of a run, or of all runs right below a folder, by name.

    Raises:
      UserError: there is no run.
    """
    root = given.one_path(folder, "read_logs")
    runs = [root, *sorted(root.glob("*/"))] if root.is_dir() else []
    logs = [Log(place) for place in runs if run_file.exists(place)]
    if not logs:
        raise UserError(f"{folder} is no run and no folder of runs: give one of these")
    return logs


def differing(logs: list[Log]) -> dict[str, list[Any]]:
    """Config keys that runs differ in: a value a run by '/'-joined path, None for none.

    Where a run writes has no part in it.

    Raises:
      UserError: these are no logs.
    """
    if not all(isinstance(log, Log) for log in logs):
        raise UserError(f"differing takes logs, and was given {logs!r:.60}: read_logs")
    flats = [tree.flatten(log.config.to_dict()) for log in logs]
    keys = dict.fromkeys(key for flat in flats for key in flat)
    columns = {key: [flat.get(key) for flat in flats] for key in keys}
    return {k: v for k, v in columns.items() if any(x != v[0] for x in v)}
