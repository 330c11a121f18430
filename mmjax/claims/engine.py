"""Plans, runs and summarises an experiment in a folder."""

import pathlib
from typing import Any

from mmjax.claims import plan, results, work
from mmjax.claims.spec import Experiment, Scale
from mmjax.parallel import runtime


def lines(planned: list[plan.Run]) -> list[str]:
    """A shell line a run, those that others start from first, for arrays of jobs.

    A comment stands where the lines above must have ended before those below begin.
    """
    shown: list[str] = []
    ahead: set[str] = set()
    for run in planned:
        if ahead & set(run.needs):
            shown.append("# the lines above first")
            ahead = set()
        ahead.add(run.name)
        shown.append(plan.shell(run, runtime.command()))
    return shown


def run(
    experiment: Experiment,
    scale: Scale,
    folder: pathlib.Path,
    *,
    root: str = "",
    title: str,
    by: str,
    name: str = "",
    jobs: int = 1,
    only_print: bool = False,
) -> dict[str, Any]:
    """Trains what is missing in a folder and writes its results there.

    Args:
      root: the folder of the experiment's own suites.
      title, by: of the page, and the command that wrote it.
      name: of the scale.
      only_print: print the commands, and run none.

    Returns what results.json holds; {} where commands are printed.

    Raises:
      UserError: see mmjax.claims.plan and mmjax.claims.work; nothing is lost, and the
        results of what is finished are written before.
    """
    points = experiment.points(scale)
    planned = plan.runs(points, scale.seeds, folder, root=root)
    plan.keep(folder, planned)
    if only_print:
        print("\n".join(lines(planned)))
        return {}
    try:
        work.work(planned, folder, jobs=jobs, say=work.note)
    finally:
        found = results.collect(planned)
        result = results.summarise(experiment, planned, found, name)
        if any(found.values()):
            results.save(result, folder, title=title, by=by)
    return result
