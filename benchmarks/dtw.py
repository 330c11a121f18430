"""DTW, and soft-DTW with its gradient: mmjax beside tslearn and dtaidistance.

    python benchmarks/dtw.py --rounds 5 --cores 1

Value of DTW, and value and gradient (in the first sequence) of soft-DTW of squared
distances, of 256 pairs of length 200 with 16 columns, float32 in mmjax and float64 in
the others, which take one pair after the other. Each side lives in a process of its own
with the same pairs, and they take turns. Values and gradients are compared with
tslearn's. Prints medians and ratios of time (above 1: mmjax is faster), by the clock
and of CPU time, and writes JSON.

Needs tslearn and dtaidistance, here or for `--peer-python`.
"""

import argparse
import pathlib
import sys
from collections.abc import Callable

import numpy as np
import sides
import turns

RESULT = sides.RESULTS / "dtw.json"
SIDES = ("mmjax", "tslearn", "dtaidistance")
Run = Callable[[], np.ndarray]


def problem(args: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """Random walks (pairs, length, columns), the same in every process."""
    rng = np.random.default_rng(args.seed)
    shape = 2, args.pairs, args.length, args.columns
    return tuple(0.1 * rng.normal(size=shape).cumsum(2))


def mmjax_runs(x_bnd: np.ndarray, y_bnd: np.ndarray, gamma: float) -> dict[str, Run]:
    sides.start_mmjax()
    import jax

    from mmjax import alignment

    x, y = (jax.device_put(a.astype(np.float32)) for a in (x_bnd, y_bnd))

    @jax.jit
    def soft(x: jax.Array, y: jax.Array) -> jax.Array:
        return jax.value_and_grad(
            lambda x: alignment.soft_dtw(x, y, gamma=gamma).sum()
        )(x)

    return {
        "dtw": lambda: np.asarray(alignment.dtw_cost(x, y)),
        "soft": lambda: np.asarray(jax.block_until_ready(soft(x, y))[1]),
    }


def tslearn_runs(x_bnd: np.ndarray, y_bnd: np.ndarray, gamma: float) -> dict[str, Run]:
    from tslearn import metrics

    def soft() -> np.ndarray:
        slopes = []
        for x_nd, y_nd in zip(x_bnd, y_bnd, strict=True):
            distances = metrics.SquaredEuclidean(x_nd, y_nd)
            pair = metrics.SoftDTW(distances, gamma=gamma)
            pair.compute()
            slopes.append(distances.jacobian_product(pair.grad()))
        return np.stack(slopes)

    def dtw() -> np.ndarray:
        values = [metrics.dtw(a, b) for a, b in zip(x_bnd, y_bnd, strict=True)]
        return np.square(values)

    return {"dtw": dtw, "soft": soft}


def dtaidistance_runs(
    x_bnd: np.ndarray, y_bnd: np.ndarray, gamma: float
) -> dict[str, Run]:
    from dtaidistance import dtw_ndim

    def dtw() -> np.ndarray:
        pairs = zip(x_bnd, y_bnd, strict=True)
        return np.square([dtw_ndim.distance_fast(a, b) for a, b in pairs])

    return {"dtw": dtw}


def work(side: str, args: argparse.Namespace) -> None:
    made = {
        "mmjax": mmjax_runs,
        "tslearn": tslearn_runs,
        "dtaidistance": dtaidistance_runs,
    }
    runs = made[side](*problem(args), args.gamma)
    facts = {name: run().ravel()[:: args.pairs].tolist() for name, run in runs.items()}

    def once() -> turns.Numbers:
        numbers = {}
        for name, run in runs.items():
            each = turns.timed(run, args.calls)
            numbers |= {f"{name}_{key}": value for key, value in each.items()}
        return numbers

    turns.serve(facts, once)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in dict(pairs=256, length=200, columns=16).items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--gamma", type=float, default=1.0)
    parser.add_argument("--calls", type=int, default=3, help="of each a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cores", type=int, default=0, help="0 is all there are")
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--worker", choices=SIDES, help="measures a side: for own use")
    parser.add_argument("--out", type=pathlib.Path, default=RESULT)
    args = parser.parse_args()
    turns.pin(args.cores)
    if args.worker:
        work(args.worker, args)
        return
    commands = turns.commands(__file__, SIDES, args.peer_python)
    facts, found = turns.take(commands, args.rounds)
    result = {"options": {k: v for k, v in vars(args).items() if k != "worker"}}
    result |= {"machine": turns.machine(), "rounds": found, "sides": {}}
    result["options"]["out"] = args.out.name
    result["options"].pop("peer_python")
    print(f"{args.pairs} pairs of {args.length} x {args.columns}; medians")
    for side in SIDES:
        row = {}
        for name in facts[side]:
            key, cpu = f"{name}_s", f"{name}_cpu_s"
            truth = np.array(facts["tslearn"][name])
            row[name] = {
                "ms": 1000 * turns.median(found[side], key),
                "ratio": turns.ratio(found[side], found["mmjax"], key),
                "cpu_ratio": turns.ratio(found[side], found["mmjax"], cpu),
                "off": float(
                    np.abs(facts[side][name] - truth).max() / np.abs(truth).max()
                ),
            }
            each = row[name]
            print(
                f"{side:>13} {name:>5}: {each['ms']:8.1f} ms, {each['ratio']:.2f} x "
                f"mmjax's ({each['cpu_ratio']:.2f} x of CPU time); off by "
                f"{each['off']:.1e} of the largest"
            )
        result["sides"][side] = row
    turns.save(args.out, result)


if __name__ == "__main__":
    main()
