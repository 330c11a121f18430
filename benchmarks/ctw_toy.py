"""Errors of warps on the toy of canonical time warping; see experiments/ctw_toy.

    python benchmarks/ctw_toy.py --seeds 50

Prints each method's median and mean error in frames with 95 % intervals over seeds, and
writes JSON.
"""

import argparse
import json
import time

import numpy as np
import sides

RESULT = sides.RESULTS / "ctw_toy.json"


def spiral(frames: int) -> np.ndarray:
    """(t, 2), two turns whose radius grows with the angle."""
    angle = 4 * np.pi * np.sqrt(np.linspace(0, 1, frames))
    return np.stack([angle * np.cos(angle), angle * np.sin(angle)], 1)


def drawn(seed: int, frames: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Two sequences (n, 3), and the frames of the spiral that they show."""
    rng, latent = np.random.default_rng(seed), spiral(frames)
    views, places = [], []
    for number in range(2):
        pieces = [
            np.linspace(part[0], part[-1], round(len(part) * rng.uniform(0.3, 0.9)))
            for part in np.array_split(np.arange(frames), 5)
        ]
        at = np.concatenate(pieces).round().astype(int)
        x_n2 = latent[at]
        if number == 0:
            angle, stretch = rng.uniform(0, 2 * np.pi), rng.uniform(0.5, 2, 2)
            turn = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
            x_n2 = (x_n2 + rng.uniform(-12, 12, 2)) @ (np.array(turn) * stretch)
        views.append(np.c_[x_n2, 2 * rng.normal(size=len(at))])
        places.append(at)
    return views, places


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--frames", type=int, default=300)
    args = parser.parse_args()
    sides.start_mmjax()
    from mmjax import alignment
    from mmjax.alignment import canonical
    from mmjax.metrics import alignment as metrics

    methods = {
        "uniform": lambda x, y: canonical.uniform((len(x), len(y))),
        "dtw": lambda x, y: alignment.dtw(x, y).path,
        "ddtw": lambda x, y: alignment.ddtw(x, y).path,
        "ctw": lambda x, y: alignment.ctw(x, y).path,
    }
    began, errors = time.perf_counter(), {name: [] for name in methods}
    for seed in range(args.seeds):
        views, places = drawn(seed, args.frames)
        truth = alignment.dtw(*places).path  # both warps of one clock are known
        for name, method in methods.items():
            errors[name].append(metrics.path_error(method(*views), truth))
    rng, table = np.random.default_rng(0), {}
    draws = rng.integers(args.seeds, size=(2000, args.seeds))
    for name, values in errors.items():
        values = np.array(values)
        row = {}
        for term, of in (("median", np.median), ("mean", np.mean)):
            low, high = np.percentile(of(values[draws], axis=1), [2.5, 97.5])
            row[term] = [float(of(values)), float(low), float(high)]
        table[name] = row
        told = "  ".join(
            f"{t} {v:.2f} ({lo:.2f} to {hi:.2f})" for t, (v, lo, hi) in row.items()
        )
        print(f"{name:8} {told}")
    best = np.minimum(errors["dtw"], errors["ddtw"])
    share = float((np.array(errors["ctw"]) < best).mean())
    seconds = time.perf_counter() - began
    print(f"ctw is better than both in {share:.0%} of {args.seeds}; {seconds:.0f} s")
    RESULT.parent.mkdir(exist_ok=True)
    facts = {"seeds": args.seeds, "frames": args.frames, "better": share}
    RESULT.write_text(json.dumps(facts | table | {"errors": errors}, indent=1))


if __name__ == "__main__":
    main()
