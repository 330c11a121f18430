"""What an experiment's runs gave: results.json, a table, a figure, a page, a README."""

import importlib.metadata
import math
import pathlib
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

import mmjax
from mmjax import schema
from mmjax.claims import measure
from mmjax.claims.measure import Number
from mmjax.claims.plan import Run
from mmjax.claims.spec import Check, Experiment
from mmjax.report import figures
from mmjax.report import page as pages
from mmjax.suite import report as tables
from mmjax.suite import runner

FILE = "results.json"
BEGIN = "<!-- written by `mmjax reproduce` from results.json: do not edit -->"
END = "<!-- end of what is written -->"
_SHOWN = 6  # columns of a table, where nobody has chosen them

Numbers = dict[str, dict[int, dict[str, Number]]]  # arm -> seed -> metric


def collect(planned: Sequence[Run]) -> Numbers:
    """All numbers of the runs that are finished."""
    found: Numbers = {}
    for run in planned:
        by_seed = found.setdefault(run.arm, {})
        if not run.missing():
            by_seed[run.seed] = measure.numbers(run.workdir, run.suite)
    return found


def column(found: Numbers, arm: str, metric: str) -> dict[int, Number]:
    """A metric of an arm by its seeds."""
    held = found.get(arm, {})
    return {seed: row[metric] for seed, row in held.items() if metric in row}


def summarise(
    experiment: Experiment, planned: Sequence[Run], found: Numbers, scale: str = ""
) -> dict[str, Any]:
    """What results.json holds of one scale: plain values, the same for equal runs."""
    metrics = experiment.columns() or _columns(found)
    rows: dict[str, Any] = {}
    for arm in found:
        rows[arm] = {}
        for metric in metrics:
            by_seed = column(found, arm, metric)
            if by_seed:
                rows[arm][metric] = {
                    **_entry(measure.of_arm(by_seed)),
                    "by_seed": {str(s): n.value for s, n in by_seed.items()},
                }
    checks = [_check(check, planned, found) for check in experiment.checks]
    return {
        "claim": experiment.claim,
        "source": experiment.source,
        "scale": scale,
        "verdict": measure.together([check["verdict"] for check in checks]),
        "checks": checks,
        "metrics": list(metrics),
        "arms": rows,
        "finished": [sum(map(len, found.values())), len(planned)],
        "made_by": {
            "mmjax": mmjax.__version__,
            "jax": importlib.metadata.version("jax"),
            "commit": commit(),
        },
    }


def _columns(found: Numbers) -> list[str]:
    """The first numbers of every evaluator, where nobody has chosen any."""
    names = dict.fromkeys(
        name for held in found.values() for row in held.values() for name in row
    )
    first = {name.partition("/")[0]: name for name in reversed(list(names))}
    return [name for name in names if name in first.values()][:_SHOWN]


def _check(check: Check, planned: Sequence[Run], found: Numbers) -> dict[str, Any]:
    table = {}
    for arm, metric in check.terms():
        table[arm, metric] = column(found, arm, metric)
        if check.reach is not None:
            table[arm, metric] = {
                run.seed: measure.reached(
                    run.workdir, metric, check.reach, run.config.batch_size
                )
                for run in planned
                if run.arm == arm and run.seed in found[arm]
            }
    estimates, verdict = measure.judge(check, table)
    return {
        "says": check.says,
        "kind": check.kind,
        "compared": [f"{arm}: {metric}" for arm, metric in check.terms()],
        "reach": check.reach,
        "band": list(check.band),
        "found": [_entry(estimate) for estimate in estimates],
        "verdict": verdict,
    }


def _entry(estimate: measure.Estimate) -> dict[str, Any]:
    ends = {"value": estimate.value, "low": estimate.low, "high": estimate.high}
    return {**runner.plain(ends), "seeds": estimate.seeds}


def commit() -> str:
    """The commit that this checkout of mmjax is at, "" without one."""
    home = pathlib.Path(mmjax.__file__).resolve().parents[1]
    command = ["git", "-C", str(home), "rev-parse", "--short=10", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:  # no git here
        return ""
    return done.stdout.strip()


# -- for people --------------------------------------------------------------------
def spell(entry: Mapping[str, Any]) -> str:
    """A number of results.json with its interval."""
    if entry["value"] is None:
        return "not a number"
    text = measure.spell(entry["value"])
    low, high = entry["low"], entry["high"]
    if low is None and high is None:
        return text
    ends = "0" if low is None else measure.spell(low), high
    above = "any number" if ends[1] is None else measure.spell(ends[1])
    return f"{text} ({ends[0]} to {above})"


def spell_band(band: Sequence[float | None]) -> str:
    """A band in words."""
    low, high = band
    if high is None:
        return f"{low:g} or more"
    return f"{high:g} or less" if low is None else f"{low:g} to {high:g}"


def arms(result: Mapping[str, Any]) -> tables.Table:
    """A row an arm, a column a metric."""
    rows = [["arm", "seeds", *result["metrics"]]]
    for arm, row in result["arms"].items():
        seeds = max((entry["seeds"] for entry in row.values()), default=0)
        cells = (spell(row[m]) if m in row else "" for m in result["metrics"])
        rows.append([arm, str(seeds), *cells])
    return rows


def checks(result: Mapping[str, Any]) -> tables.Table:
    """A row a check: what is expected, what was found, what that decides."""
    rows = [["expected", "band", "measured", "verdict"]]
    for check in result["checks"]:
        found = "; ".join(map(spell, check["found"])) or "missing"
        band = spell_band(check["band"])
        rows.append([check["says"], band, found, check["verdict"]])
    return rows


def figure(result: Mapping[str, Any]) -> Any:
    """A panel a metric: every arm's mean with its interval, and its seeds as points."""
    metrics = result["metrics"][:_SHOWN]
    names = list(result["arms"])
    size = {"width": 3.8, "height": 1.2 + 0.26 * len(names)}
    drawn, panels = figures.grid(max(len(metrics), 1), **size)
    for axes, metric in zip(panels, metrics, strict=False):
        for place, arm in enumerate(names):
            entry = result["arms"][arm].get(metric)
            if entry is None or entry["value"] is None:
                continue
            seeds = list(entry["by_seed"].values())
            axes.plot(seeds, [place] * len(seeds), "o", ms=3, mfc="none", alpha=0.6)
            ends = entry["value"], entry["low"], entry["high"]
            middle, low, high = (math.nan if end is None else end for end in ends)
            axes.plot([low, high], [place, place], "-", color=figures.INK, lw=1)
            axes.plot([middle], [place], "|", color=figures.INK, ms=9)
        axes.set_yticks(range(len(names)), names, fontsize=7)
        axes.invert_yaxis()
        axes.tick_params(axis="x", labelsize=7)
        axes.set_title(metric, fontsize=8)
    return drawn


def block(result: Mapping[str, Any], command: str, image: str) -> str:
    """Markdown of a result, for a README."""
    by = result["made_by"]
    made = f"mmjax {by['mmjax']}, jax {by['jax']}"
    made += f", commit {by['commit']}" if by["commit"] else ""
    finished, planned = result["finished"]
    lines = [
        f"**{result['verdict']}** at scale `{result['scale']}`: {finished} of "
        f"{planned} runs ({made}), by",
        "",
        f"    {command}",
        "",
        *(tables.table(checks(result)) if result["checks"] else ()),
        "",
        "Means over seeds; in brackets 95 % intervals over seeds and examples.",
        "",
        *tables.table(arms(result)),
        "",
        f"![Mean and 95 % interval of every arm; circles are seeds]({image})",
    ]
    return "\n".join(lines)


def readme(old: str, title: str, results: Mapping[str, str]) -> str:
    """A README with what is written by hand kept and the block of results new.

    Args:
      old: its text, "" for none. results: scale -> block.
    """
    body = "\n\n".join(results.values())
    made = f"{BEGIN}\n\n## Results\n\n{body}\n\n{END}"
    if BEGIN in old and END in old:
        head, _, rest = old.partition(BEGIN)
        return head + made + rest.partition(END)[2]
    return (old.rstrip() or f"# {title}") + f"\n\n{made}\n"


def page(result: Mapping[str, Any], title: str, image: pathlib.Path, by: str) -> str:
    """The result as HTML in the look of all reports."""
    alt = "For each metric the mean of every arm with its interval, seeds as circles."
    sections = [("figure", "Figure", pages.image(image, alt=alt, text=alt))]
    if result["checks"]:
        body = pages.table("What was expected", checks(result))
        sections.insert(0, ("verdict", f"Verdict: {result['verdict']}", body))
    sections.append(("arms", "All arms", pages.table("Arms", arms(result))))
    head = pages.paragraph(result["claim"], "lead") if result["claim"] else ""
    head += pages.paragraph(
        "Means over seeds; in brackets 95 % intervals over seeds and examples.", "soft"
    )
    return pages.document(title, head, sections, by=by)


def save(
    result: Mapping[str, Any], folder: pathlib.Path, *, title: str, by: str
) -> None:
    """results.json, results.png and index.html of one result in a folder."""
    path = folder / FILE
    held = schema.read_json(path) if path.is_file() else {}
    runner.write(path, {**held, result["scale"] or "sweep": result})
    image = figures.save(figure(result), folder / "results.png")
    runner.write(folder / "index.html", page(result, title, image, by))


def publish(result: Mapping[str, Any], out: pathlib.Path, command: str) -> None:
    """results.json, the figure and the README of a claim's folder.

    What other scales gave before stays in all three.
    """
    scale, path, text = result["scale"], out / FILE, out / "README.md"
    held = schema.read_json(path) if path.is_file() else {}
    held = {**held, scale: {**result, "command": command}}
    runner.write(path, held)
    figures.save(figure(result), out / f"results_{scale}.png")
    blocks = {
        name: block(each, each["command"], f"results_{name}.png")
        for name, each in held.items()
    }
    old = text.read_text(encoding="utf-8") if text.is_file() else ""
    runner.write(text, readme(old, result["claim"], blocks))


def claims(root: pathlib.Path, experiments: Mapping[str, Experiment]) -> tables.Table:
    """A row a claim: its sentence, what each scale found, and by which commit."""
    rows = [["claim", "in a sentence", "source", "verdict", "runs", "commit"]]
    for name, experiment in experiments.items():
        path = root / name / FILE
        held = schema.read_json(path) if path.is_file() else {}
        for scale, result in (held or {"": {}}).items():
            verdict = f"{result['verdict']} ({scale})" if result else "not run"
            counts = "{} of {}".format(*result["finished"]) if result else ""
            commit = result["made_by"]["commit"] if result else ""
            about = [name, experiment.claim, experiment.source]
            rows.append([*about, verdict, counts, commit])
    return rows
