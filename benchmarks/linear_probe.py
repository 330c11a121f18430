"""Seconds for a linear probe's whole path of 97 L2 weights: mmjax and scikit-learn.

    python benchmarks/linear_probe.py --rounds 3

The L2 weights are those of CLIP's linear probes (Radford et al. 2021, A.3).
scikit-learn's LogisticRegression (lbfgs, at most 1,000 iterations, its own tolerance
and threads) is fitted for each from nothing, as CLIP's code does. Where the penalty is
weak its tolerance stops it far from the optimum, so there is also `sklearn_tight`, with
`--tight` for a tolerance and every fit from its neighbour's solution, strongest first.
All read the same float32 features. The sides live in processes of their own and take
turns; mmjax's time has the centring and turning of features in it, and no compilation
(`first_s` has).

How good the solutions are is told too: each side's objective in float64 over the best
of all, the worst of the path and at how many of them it is within 1e-4. Where other
work shares the machine, take `--cores 1` and the ratio of CPU times. Needs scikit-learn
(extra `bench`), here or for `--peer-python`.
"""

import argparse
import pathlib
import sys
import time
import warnings

import numpy as np
import sides
import turns

RESULT = sides.RESULTS / "linear_probe.json"
SIDES = ("mmjax", "sklearn", "sklearn_tight")


def make_data(args: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """Float32 features (n, d) whose variances fall as a power law; noisy labels (n,).

    As the features of networks do: 95 % of the variance lies in a fraction of the axes,
    and classes overlap.
    """
    rng = np.random.default_rng(0)
    n, d, c = args.rows, args.features, args.classes
    latent_nd = rng.normal(size=(n, d)) * np.arange(1, d + 1) ** -0.5
    mixed_nd = latent_nd @ np.linalg.qr(rng.normal(size=(d, d)))[0]
    logits_nc = latent_nd @ rng.normal(size=(d, c)) * 0.5
    labels_n = (logits_nc + rng.gumbel(size=(n, c))).argmax(1)
    return np.maximum(mixed_nd + 0.1, 0).astype(np.float32), labels_n


def l2_values(args: argparse.Namespace) -> np.ndarray:
    """(97,), or every so many of them, rising."""
    return 10.0 ** (-6 + np.arange(0, 97, args.every) / 8)


def objectives(
    features_nd: np.ndarray, labels_n: np.ndarray, solutions: list
) -> list[float]:
    """The shared objective over n in float64 of (l2, weights_dc, bias_c)."""
    found, rows = [], np.arange(len(labels_n))
    wide_nd = features_nd.astype(np.float64)
    for l2, weights_dc, bias_c in solutions:
        logits_nc = wide_nd @ weights_dc.astype(np.float64) + bias_c
        others_nc = logits_nc - logits_nc[rows, labels_n][:, None]
        loss = np.logaddexp.reduce(others_nc, 1).mean()
        penalty = l2 / 2 / len(labels_n) * np.square(weights_dc, dtype=float).sum()
        found.append(float(loss + penalty))
    return found


def ours(args: argparse.Namespace, features_nd: np.ndarray, labels_n: np.ndarray):
    """(function that solves the path, facts)."""
    sides.start_mmjax()
    import jax

    from mmjax.evaluators.probe import logistic

    def solve() -> list:
        problem = logistic.Problem(features_nd, labels_n)
        made = problem.path(l2_values(args), iterations=args.iterations)
        solve.iterations = [p.iterations for p in made]
        return [(p.l2, p.weights_dc, p.bias_c) for p in made]

    start = time.perf_counter()
    solve()
    facts = {"jax": jax.__version__, "first_s": time.perf_counter() - start}
    return solve, facts


def theirs(
    args: argparse.Namespace,
    features_nd: np.ndarray,
    labels_n: np.ndarray,
    *,
    tight: bool,
):
    """The same by scikit-learn."""
    import sklearn
    from sklearn.linear_model import LogisticRegression

    warnings.filterwarnings("ignore")  # of those that stop at the most iterations

    def solve() -> list:
        how = {"tol": args.tight, "warm_start": True} if tight else {}
        model = LogisticRegression(max_iter=args.iterations, **how)
        found, solve.iterations = [], []
        for l2 in l2_values(args)[::-1]:
            model.set_params(C=1 / l2).fit(features_nd, labels_n)
            found.append((l2, model.coef_.T.copy(), model.intercept_.copy()))
            solve.iterations.append(int(model.n_iter_[0]))
        solve.iterations.reverse()
        return found[::-1]

    return solve, {"sklearn": sklearn.__version__}


def worker(side: str, args: argparse.Namespace) -> None:
    """The child of one side."""
    turns.pin(args.cores)
    data = make_data(args)
    if side == "mmjax":
        solve, facts = ours(args, *data)
    else:
        solve, facts = theirs(args, *data, tight=side == "sklearn_tight")
    held: dict[str, list] = {}

    def once() -> turns.Numbers:
        took = turns.timed(lambda: held.update(path=solve()))
        values = objectives(*data, held["path"])
        return took | {"objectives": values, "iterations": solve.iterations}

    turns.serve(facts, once)


def summarize(facts: dict, rounds: dict) -> dict:
    """Medians, ratios to ours, and how far each path is from the best of all."""
    best = np.min([rounds[side][0]["objectives"] for side in rounds], 0)
    out: dict = {"facts": facts}
    for side, found in rounds.items():
        out[side] = {key: turns.median(found, key) for key in ("s", "cpu_s")}
        excess = np.asarray(found[0]["objectives"]) / best - 1
        out[side]["worst_excess"] = float(excess.max())
        out[side]["within_1e-4"] = int((excess <= 1e-4).sum())
        out[side]["iterations"] = int(np.sum(found[0]["iterations"]))
        if side != "mmjax":
            for key, name in (("s", "ratio"), ("cpu_s", "ratio_cpu")):
                out[side][name] = turns.ratio(found, rounds["mmjax"], key)
    out["rounds"] = {
        side: [{key: n[key] for key in ("s", "cpu_s")} for n in found]
        for side, found in rounds.items()
    }
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=6000)
    parser.add_argument("--features", type=int, default=512)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--every", type=int, default=1, help="1 is the whole path")
    parser.add_argument("--iterations", type=int, default=1000)
    parser.add_argument("--tight", type=float, default=1e-8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sides", default=",".join(SIDES), help="mmjax among them")
    parser.add_argument("--cores", type=int, default=0, help="0 is all there are")
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--out", type=pathlib.Path, default=RESULT)
    parser.add_argument("--worker", choices=SIDES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        worker(args.worker, args)
        return
    chosen = args.sides.split(",")
    commands = turns.commands(__file__, chosen, args.peer_python)
    result = summarize(*turns.take(commands, args.rounds))
    for side in chosen:
        took = result[side]
        line = f"{side}: {took['s']:.1f} s a path ({took['cpu_s']:.1f} s of CPU), "
        line += f"worst objective {took['worst_excess']:.1e} over the best, "
        line += f"{took['within_1e-4']} of {len(l2_values(args))} within 1e-4"
        if "ratio" in took:
            line += f"; {took['ratio']:.1f} times mmjax's time (CPU time "
            line += f"{took['ratio_cpu']:.1f})"
        print(line)
    sizes = ("rows", "features", "classes", "every", "iterations", "tight", "cores")
    about = {key: getattr(args, key) for key in sizes} | {"dtype": "float32"}
    turns.save(args.out, about | {"machine": turns.machine()} | result)


if __name__ == "__main__":
    main()
