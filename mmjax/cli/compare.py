"""Compares runs: how their configs differ, numbers with intervals, tests over seeds.

Runs that differ in the seed alone are one column; folders of runs, such as a sweep's,
stand for all in them. The page has the curves as well.
"""

import argparse
import pathlib

from mmjax.parallel import runtime

EXAMPLE = """examples:
  mmjax compare runs/rates
  mmjax compare runs/rates runs/demo/clip --metric val/top1 --out compared.html
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("runs", nargs="+", type=pathlib.Path, metavar="RUN", help="workdirs or folders")
    text = "EVALUATOR/NUMBER or loss (default: all that the runs share); repeatable"
    add("--metric", action="append", default=[], metavar="NAME", help=text)
    text = "the page (default: compare.html in this folder)"
    out = pathlib.Path("compare.html")
    add("--out", type=pathlib.Path, default=out, metavar="FILE.html", help=text)


def run(args: argparse.Namespace) -> int:
    runtime.configure()
    from mmjax.claims import compare
    from mmjax.suite import report, runner

    groups = compare.groups(args.runs)
    found = compare.numbers(groups)
    shown = compare.metrics(found, args.metric)
    tables = [compare.table(found, shown)]
    if len(groups) > 1:
        tables = [compare.configs(groups), *tables, compare.tests(found, shown)]
    runner.write(args.out, compare.page(groups, found, shown))
    print("\n\n".join("\n".join(report.table(rows)) for rows in tables))
    print(f"\npage: {args.out}")
    return 0
