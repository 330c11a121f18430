"""Linear probes of a run's features beside scikit-learn's optimum.

    python benchmarks/probe_check.py experiments/clip_probes/probes.py runs/flickr8k

Prints, for every data set of a suite that has a protocol of type linear_probe, a value
of l2 a line: both objectives and how far the weights are apart. scikit-learn runs in
float64: L-BFGS at its defaults for the objective, Newton-CG, the more exact of its
solvers, for the weights.
"""

import argparse
import pathlib
from collections.abc import Sequence

import numpy as np

from mmjax.errors import UserError


def l2_values(text: str | None) -> list[float]:
    """The numbers of --l2; without it seven, from 1e-6 to 1e6."""
    if text is None:
        return (10.0 ** np.arange(-6, 7, 2)).tolist()
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if not values or min(values) <= 0:
        raise UserError(f"--l2 {text}: give positive numbers, such as 1,1e2,1e4")
    return values


def objective(
    wide_nd: np.ndarray,
    labels_n: np.ndarray,
    l2: float,
    weights_dc: np.ndarray,
    bias_c: np.ndarray,
) -> float:
    """The objective over the number of rows, in float64, of three classes or more."""
    logits_nc = wide_nd @ weights_dc.astype(np.float64) + bias_c
    _, own_n = np.unique(labels_n, return_inverse=True)
    logits_nc -= logits_nc[np.arange(len(own_n)), own_n][:, None]
    penalty = l2 / 2 / len(own_n) * np.square(weights_dc, dtype=np.float64).sum()
    return float(np.logaddexp.reduce(logits_nc, 1).mean() + penalty)


def compare(
    features_nd: np.ndarray, labels_n: np.ndarray, values: Sequence[float]
) -> list[str]:
    """A line for every l2."""
    from sklearn.linear_model import LogisticRegression

    from mmjax.evaluators.probe import logistic

    wide_nd, lines = features_nd.astype(np.float64), []
    for probe in logistic.Problem(features_nd, labels_n).path(values):
        exact = LogisticRegression(
            C=1 / probe.l2, tol=1e-12, solver="newton-cg", max_iter=300
        ).fit(wide_nd, labels_n)
        usual = LogisticRegression(C=1 / probe.l2, max_iter=1000).fit(wide_nd, labels_n)
        ours = probe.weights_dc - probe.weights_dc.mean(1, keepdims=True)
        apart = np.abs(ours - exact.coef_.T).max() / np.abs(exact.coef_).max()
        fitted = [(probe.weights_dc, probe.bias_c)]
        fitted += [(m.coef_.T, m.intercept_) for m in (exact, usual)]
        f = [objective(wide_nd, labels_n, probe.l2, *each) for each in fitted]
        lines.append(
            f"l2 {probe.l2:.0e}: ours {f[0] / f[1] - 1:+.1e} f, {apart:.1e} w from "
            f"newton-cg's; lbfgs {f[2] / f[1] - 1:+.1e} f"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("suite")
    parser.add_argument("workdir", type=pathlib.Path)
    parser.add_argument("--l2", metavar="A,B", help="default: seven, from 1e-6 to 1e6")
    args = parser.parse_args()
    values = l2_values(args.l2)
    from mmjax import evaluators
    from mmjax.inference import load
    from mmjax.parallel import runtime
    from mmjax.suite import cells
    from mmjax.train import config, evaluate

    runtime.configure()
    run = load.load_run(args.workdir)
    env = evaluate.env(run.parts)
    print(f"{run.workdir.name}: mean objective f, largest weight w; share of each")
    for cell in cells.cells(config.load(args.suite)):
        if cell.type == "linear_probe":
            evaluator = evaluators.build(cell.name, cell.cfg, env, cell.where)
            train = evaluator.splits(run.state.eval_vars())["train"]
            for line in compare(train.features_nd, train.label_n, values):
                print(f"  {cell.dataset} {line}", flush=True)


if __name__ == "__main__":
    main()
