"""Queries a second of exact search: mmjax beside FAISS's flat index and plain numpy.

    python benchmarks/index_search.py --rounds 7

All find the 10 best of float32 unit rows by inner product, for one query at a time and
for a batch: `mmjax.retrieval.exact.Exact` with its rows on the device, `IndexFlatIP`,
and
a numpy product with `argpartition`. Each lives in a process of its own with the same
rows, and they take turns, so a busy machine slows all alike. The positions that each
finds are compared with numpy's. Prints medians and ratios (above 1: mmjax is faster)
and writes JSON.

Needs FAISS (extra `faiss`), here or for `--peer-python`.
"""

import argparse
import pathlib
import sys
from collections.abc import Callable

import numpy as np
import sides
import turns

RESULT = sides.RESULTS / "index_search.json"
SIDES = ("mmjax", "faiss_flat", "numpy")


def problem(args: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """Rows (n, d) and queries (q, d) of length one, the same in every process."""
    rng = np.random.default_rng(args.seed)
    both = rng.standard_normal((args.rows + args.queries, args.width), np.float32)
    both /= np.linalg.norm(both, axis=1, keepdims=True)
    return both[: args.rows], both[args.rows :]


def mmjax_search(rows_nd: np.ndarray) -> Callable:
    sides.start_mmjax()
    from mmjax import parallel
    from mmjax.retrieval import exact

    placed = parallel.Layout().batch_sharding
    # the rows stay on the device, as FAISS's stay in memory
    found = exact.Exact([rows_nd], placed, resident=rows_nd.nbytes)
    return lambda queries_qd, k: found.search(queries_qd, k)[1]


def faiss_search(rows_nd: np.ndarray) -> Callable:
    import faiss

    index = faiss.IndexFlatIP(rows_nd.shape[1])
    index.add(rows_nd)
    return lambda queries_qd, k: index.search(queries_qd, k)[1]


def numpy_search(rows_nd: np.ndarray) -> Callable:
    def search(queries_qd: np.ndarray, k: int) -> np.ndarray:
        found = []
        for start in range(0, len(queries_qd), 16):  # scores in flat memory
            scores = queries_qd[start : start + 16] @ rows_nd.T
            some = np.argpartition(-scores, k, axis=1)[:, :k]
            best = np.take_along_axis(scores, some, 1)
            found.append(np.take_along_axis(some, np.argsort(-best, 1), 1))
        return np.concatenate(found)

    return search


def work(side: str, args: argparse.Namespace) -> None:
    rows_nd, queries_qd = problem(args)
    made = {"mmjax": mmjax_search, "faiss_flat": faiss_search, "numpy": numpy_search}
    search = made[side](rows_nd)
    found = search(queries_qd, args.k)
    search(queries_qd[:1], args.k)
    facts = {"found": found[:, : args.k].tolist()}

    def once() -> turns.Numbers:
        one = turns.timed(lambda: search(queries_qd[:1], args.k), args.singles)
        many = turns.timed(lambda: search(queries_qd, args.k))
        return {"one_s": one["s"], "batch_s": many["s"], "batch_cpu_s": many["cpu_s"]}

    turns.serve(facts, once)


def agreement(found: list, truth: list) -> float:
    """Share of positions that are numpy's; sums differ in their last digit."""
    hits = [len(set(a) & set(b)) for a, b in zip(found, truth, strict=True)]
    return sum(hits) / sum(map(len, truth))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in dict(rows=200_000, width=256, queries=256, k=10).items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--singles", type=int, default=5, help="single queries a round")
    parser.add_argument("--rounds", type=int, default=7)
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
    ours = [side for side in SIDES if side != "faiss_flat"]
    commands = turns.commands(__file__, SIDES, args.peer_python, ours=ours)
    facts, found = turns.take(commands, args.rounds, on=f"{args.rows} rows")
    result = {"options": {k: v for k, v in vars(args).items() if k != "worker"}}
    result |= {"machine": turns.machine(), "rounds": found, "sides": {}}
    result["options"]["out"] = str(args.out.name)
    result["options"].pop("peer_python")
    print(f"{args.rows} rows of {args.width}, top {args.k}; medians of {args.rounds}")
    for side in SIDES:
        row = {
            "one_ms": 1000 * turns.median(found[side], "one_s"),
            "batch_ms": 1000 * turns.median(found[side], "batch_s"),
            "one_ratio": turns.ratio(found[side], found["mmjax"], "one_s"),
            "batch_ratio": turns.ratio(found[side], found["mmjax"], "batch_s"),
            "same": agreement(facts[side]["found"], facts["numpy"]["found"]),
        }
        result["sides"][side] = row
        print(
            f"{side:>10}: one query {row['one_ms']:8.1f} ms ({row['one_ratio']:.2f} x "
            f"mmjax's), {args.queries} queries {row['batch_ms']:8.1f} ms "
            f"({row['batch_ratio']:.2f} x); {row['same']:.4f} of numpy's positions"
        )
    turns.save(args.out, result)


if __name__ == "__main__":
    main()
