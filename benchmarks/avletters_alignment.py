"""What aligns sound with lips without a network; see experiments/avletters_alignment.

    python benchmarks/avletters_alignment.py

DTW of canonical variates: linear CCA of frames that were recorded together, on the
training part of `configs/alignment.py:avletters`, then DTW with open ends in the common
space; and CTW of each pair alone. Prints errors on the held-out part with 95 %
intervals over pairs, beside those of the diagonal.
"""

import argparse
import json

import numpy as np
import sides

RESULT = sides.RESULTS / "avletters_alignment.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--principal", type=int, default=40, help="components of lips")
    parser.add_argument("--components", type=int, default=8)
    parser.add_argument("--ridge", type=float, default=0.01)
    parser.add_argument("--context", type=int, default=2, help="frames on either side")
    args = parser.parse_args()
    sides.start_mmjax()
    from mmjax import alignment
    from mmjax.alignment import canonical
    from mmjax.data.sources import open_source
    from mmjax.evaluators import alignment as evaluator
    from mmjax.train import config as config_lib

    config = config_lib.load("configs/alignment.py:avletters", [])
    sets = [open_source(config.data.train), open_source(config.evals.held_out.source)]
    train, held_out = ([s[i] for i in range(len(s))] for s in sets)
    lips = np.concatenate([record["second"] for record in train])
    mean, axes = (
        lips.mean(0),
        np.linalg.svd(lips - lips.mean(0), full_matrices=False)[2],
    )

    def frames(record: dict) -> tuple[np.ndarray, np.ndarray]:
        principal = (record["second"] - mean) @ axes[: args.principal].T
        return around(record["first"], args.context), around(principal, 1)

    pairs = [frames(record) for record in train]
    at = [record["truth"][:, 0].round().astype(int) for record in train]
    together = [
        np.concatenate(part)
        for part in zip(
            *((x, y[j]) for (x, y), j in zip(pairs, at, strict=True)), strict=True
        )
    ]
    (to_x, to_y), correlations = canonical.fit(
        together, ridge=args.ridge, components=args.components, energy=1.0
    )
    print(f"correlations on train: {np.round(correlations, 3)}")
    rows, alone = [], []
    for record in held_out:
        x, y = frames(record)
        truth = record["truth"][:, 0]
        rows.append((to_x(x), to_y(y), truth))
        found = alignment.ctw(
            record["first"],
            (record["second"] - mean) @ axes[:8].T,
            ridge=args.ridge,
            components=3,
        )
        alone.append(evaluator.metrics.frame_error(found.path, truth))
    values = evaluator.errors(rows, open_ends=True)
    table = {"dtw of cca": values[:, 0], "nearest of cca": values[:, 1]}
    table |= {"diagonal": values[:, 2], "ctw alone": np.array(alone)}
    closed = evaluator.errors(rows, open_ends=False)
    table["dtw of cca, closed ends"] = closed[:, 0]
    rng, result = np.random.default_rng(0), {}
    draws = rng.integers(len(rows), size=(2000, len(rows)))
    for name, errors in table.items():
        low, high = np.percentile(errors[draws].mean(1), [2.5, 97.5])
        result[name] = [float(errors.mean()), float(low), float(high)]
        print(f"{name:24} {errors.mean():.2f} frames ({low:.2f} to {high:.2f})")
    RESULT.write_text(json.dumps(result, indent=1) + "\n")


def around(x_np: np.ndarray, reach: int) -> np.ndarray:
    """Each frame with its neighbours, (n, (2 reach + 1) p); ends are repeated."""
    wide = np.pad(x_np, ((reach, reach), (0, 0)), "edge")
    return np.concatenate([wide[i : i + len(x_np)] for i in range(2 * reach + 1)], 1)


if __name__ == "__main__":
    main()
