"""Zero-shot, linear probe and few shots of trained runs on labelled data sets.

The data sets are a JSON file, {name: {"train": SPEC, "test": SPEC, "templates": NAME}},
with "val" (a SPEC or a share of train, else 0.2) and "shots" if they are
to differ. Writes results.json (values and cards), and per run WORKDIR_bars.png and
WORKDIR_few_shot.png, into --out.
"""

import argparse
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from mmjax import schema
from mmjax.errors import UserError
from mmjax.parallel import runtime

EXAMPLE = """examples:
  mmjax probe runs/flickr8k runs/emoji --sets experiments/clip_probes/sets.json \\
      --out runs/probes
"""
KEYS = ("train", "test", "templates")
MORE = {"val": 0.2, "shots": (1, 2, 4, 8, 16)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("workdirs", nargs="+", type=pathlib.Path, metavar="WORKDIR")
    parser.add_argument("--sets", type=pathlib.Path, required=True, metavar="JSON")
    parser.add_argument("--out", type=pathlib.Path, required=True, metavar="DIR")
    parser.add_argument("--only", metavar="A,B", help="some of the data sets")
    parser.add_argument(
        "--features",
        default="features",
        help="features (before the projection) or projected (after it)",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="only compare the fits on train with scikit-learn's",
    )
    parser.add_argument(
        "--strengths",
        metavar="A,B",
        help="of --check (default: seven, from 1e-6 to 1e6)",
    )
    parser.add_argument("--repeats", type=int, default=5, help="draws of few shots")


def run(args: argparse.Namespace) -> int:
    sets = read_sets(args.sets, args.only)
    runtime.configure()
    from mmjax.cli.eval import lines

    if args.strengths and not args.check:
        raise UserError("--strengths is for --check: a probe chooses its own")
    if args.check:
        strengths = _strengths(args.strengths)
        for workdir in args.workdirs:
            _check(workdir, sets, args.features, strengths)
        return 0
    results: dict[str, Any] = {}
    args.out.mkdir(parents=True, exist_ok=True)
    for workdir in args.workdirs:
        name = workdir.resolve().name
        if name in results:
            raise UserError(f"two workdirs are called {name!r}: rename one")
        results[name] = {}
        measured = _measure(workdir, sets, args.features, args.repeats)
        for data, protocol, result in measured:
            results[name].setdefault(data, {})[protocol] = result
            shown = lines(result["values"])
            print("\n".join([f"{name}, {data}: {protocol}", *shown]), flush=True)
            # after each: a later set that fails costs nothing of these
            text = json.dumps(results, indent=1) + "\n"
            (args.out / "results.json").write_text(text)
    for name, by_data in results.items():
        _draw(args.out, name, by_data)
    print(f"\nwritten: {args.out}")
    return 0


def read_sets(path: pathlib.Path, only: str | None) -> dict[str, dict[str, Any]]:
    """{name: specs}; `$MMJAX_DATA` in a spec is that variable, or ../shared/data.

    Raises:
      UserError: the file is missing or no such JSON, a key is unknown or missing, or
        `only` names a set that is not there.
    """
    import os

    try:
        text = path.read_text(encoding="utf-8")
    except OSError as e:
        raise UserError(f"cannot read {path}: {e.strerror}") from e
    root = os.environ.get("MMJAX_DATA", "../shared/data")
    try:
        found = json.loads(text.replace("$MMJAX_DATA", root))
    except json.JSONDecodeError as e:
        raise UserError(f"{path}: not JSON ({e})") from e
    for name, specs in found.items():
        for key in specs:
            if key not in (*KEYS, *MORE):
                hint = schema.suggest(key, (*KEYS, *MORE))
                raise UserError(f"{path}: {name} has {key!r}{hint}")
        for key in KEYS:
            if key not in specs:
                raise UserError(f"{path}: {name} has no {key!r}")
    chosen = only.split(",") if only else list(found)
    for name in chosen:
        if name not in found:
            raise UserError(f"no data set {name!r}{schema.suggest(name, found)}")
    return {name: MORE | found[name] for name in chosen}


def _strengths(text: str | None) -> list[float]:
    """The numbers of --strengths; the coarse grid's without it."""
    from mmjax.evaluators.probe import search

    if text is None:
        return search.grid()[:: search.COARSE].tolist()
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or min(found) <= 0:
        raise UserError(f"--strengths {text}: give positive numbers, such as 1,1e2,1e4")
    return found


def _check(
    workdir: pathlib.Path,
    sets: Mapping[str, Mapping],
    features: str,
    strengths: list[float],
) -> None:
    """Prints, a strength a line, both objectives and how far the weights are apart.

    scikit-learn runs in float64: L-BFGS at its defaults for the objective, Newton-CG,
    the more exact of its solvers, for the weights.
    """
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError as e:
        raise UserError("--check needs scikit-learn: pip install scikit-learn") from e
    import numpy as np

    from mmjax.evaluators.probe import logistic
    from mmjax.inference import load
    from mmjax.train import evaluate

    seen = load.load_run(workdir)
    print(f"{workdir.name}, mean objective f, largest weight w; share of each")
    for name, specs in sets.items():
        parts = _with_evals(seen.parts, {"probe": _probe(specs, features)})
        evaluator = evaluate.make_evaluators(parts)["probe"][1]
        train = evaluator.splits(seen.state.eval_vars())["train"]
        wide_nd = train.features_nd.astype(np.float64)
        problem = logistic.Problem(train.features_nd, train.label_n)
        for probe in problem.path(strengths):
            exact = LogisticRegression(
                C=1 / probe.strength, tol=1e-12, solver="newton-cg", max_iter=300
            ).fit(wide_nd, train.label_n)
            usual = LogisticRegression(C=1 / probe.strength, max_iter=1000).fit(
                wide_nd, train.label_n
            )
            ours = probe.weights_dc - probe.weights_dc.mean(1, keepdims=True)
            apart = np.abs(ours - exact.coef_.T).max() / np.abs(exact.coef_).max()
            fitted = [(probe.weights_dc, probe.bias_c)]
            fitted += [(m.coef_.T, m.intercept_) for m in (exact, usual)]
            f = [_objective(wide_nd, train.label_n, probe.strength, *w) for w in fitted]
            print(
                f"  {name} lambda {probe.strength:.0e}: ours {f[0] / f[1] - 1:+.1e} f, "
                f"{apart:.1e} w from newton-cg's; lbfgs {f[2] / f[1] - 1:+.1e} f",
                flush=True,
            )


def _objective(
    wide_nd: Any, labels_n: Any, strength: float, weights_dc: Any, bias_c: Any
) -> float:
    """The objective over the number of rows, in float64, of three classes or more."""
    import numpy as np

    logits_nc = wide_nd @ weights_dc.astype(np.float64) + bias_c
    _, own_n = np.unique(labels_n, return_inverse=True)
    logits_nc -= logits_nc[np.arange(len(own_n)), own_n][:, None]
    penalty = strength / 2 / len(own_n) * np.square(weights_dc, dtype=np.float64).sum()
    return float(np.logaddexp.reduce(logits_nc, 1).mean() + penalty)


def _probe(specs: Mapping[str, Any], features: str) -> dict[str, Any]:
    splits = {"source": specs["test"], "train": specs["train"], "val": specs["val"]}
    return {"type": "linear_probe", "features": features} | splits


def _with_evals(parts: Any, evals: Mapping[str, Any]) -> Any:
    import dataclasses

    cfg = dataclasses.replace(parts.cfg, evals=evals)
    return dataclasses.replace(parts, cfg=cfg)


def _measure(
    workdir: pathlib.Path, sets: Mapping[str, Mapping], features: str, repeats: int
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(data set, protocol, values and card) of the run's newest checkpoint."""
    from mmjax.inference import load
    from mmjax.train import evaluate

    seen = load.load_run(workdir)
    for name, specs in sets.items():
        probe = _probe(specs, features)
        words = {"templates": specs["templates"]}
        few = {"repeats": repeats, "shots": specs["shots"]}
        zero = {"type": "zero_shot", "source": specs["test"]} | words
        evals = {"zero_shot": zero, "linear_probe": probe}
        evals["few_shot"] = probe | {"type": "few_shot"} | few | words
        parts = _with_evals(seen.parts, evals)
        made = evaluate.make_evaluators(parts)
        for protocol in evals:
            result = made[protocol][1].run(seen.state.eval_vars())
            values = dict(result.values)
            if protocol == "few_shot":
                values["shots_full"] = float(result.arrays["shots"][-1])
            if protocol == "zero_shot":
                values["chance"] = 1 / result.card["class_names"]["count"]
            shown = {"step": seen.step, "values": values, "card": result.card}
            yield name, protocol, shown


def _draw(out: pathlib.Path, name: str, by_data: Mapping[str, Mapping]) -> None:
    from mmjax.report import plots

    both = {
        data: {
            title: by[key]["values"]
            for key, title in (
                ("zero_shot", "zero-shot"),
                ("linear_probe", "linear probe"),
            )
        }
        for data, by in by_data.items()
    }
    chance = {d: by["zero_shot"]["values"]["chance"] for d, by in by_data.items()}
    title = f"{name}: 95 % intervals, dotted is chance"
    figure = plots.bars(both, chance=chance, title=title)
    figure.savefig(out / f"{name}_bars.png", dpi=plots.DPI)
    curves = {data: by["few_shot"]["values"] for data, by in by_data.items()}
    plots.few_shot(curves, title=name).savefig(
        out / f"{name}_few_shot.png", dpi=plots.DPI
    )
