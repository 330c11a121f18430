"""Queries a second of Hamming search: mmjax beside FAISS's binary index.

    python benchmarks/hamming_search.py --rounds 7

Both find the 10 nearest of a million 64-bit codes, for one query at a time and for a
batch: `mmjax.retrieval.binary.nearest` and `IndexBinaryFlat`. Each lives in a process
of its own with the same codes, and they take turns, so a busy machine slows both alike.
Distances are compared, not positions: FAISS has ties in no order. Prints medians and
ratios (above 1: mmjax is faster) and writes JSON.

Needs FAISS (extra `faiss`), here or for `--peer-python`.
"""

import argparse
import pathlib
import sys
from collections.abc import Callable

import numpy as np
import sides
import turns

RESULT = sides.RESULTS / "hamming_search.json"
SIDES = ("mmjax", "faiss_binary")


def problem(args: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """Codes (n, bits / 8) and queries, uint8, the same in every process.

    A query is a code with an eighth of its bits turned, as near neighbours are.
    """
    rng = np.random.default_rng(args.seed)
    codes = rng.integers(256, size=(args.rows, args.bits // 8), dtype=np.uint8)
    asked = np.unpackbits(codes[rng.choice(args.rows, args.queries)], axis=1)
    turned = asked ^ (rng.random(asked.shape) < 1 / 8)
    return codes, np.packbits(turned, axis=1)


def mmjax_search(codes_nb: np.ndarray) -> Callable:
    sides.start_mmjax()
    from mmjax.retrieval import binary

    words_wn = binary.words(codes_nb)  # once, as an opened index keeps them
    return lambda queries_qb, k: binary.nearest(binary.words(queries_qb), words_wn, k)[
        0
    ]


def faiss_search(codes_nb: np.ndarray) -> Callable:
    import faiss

    index = faiss.IndexBinaryFlat(8 * codes_nb.shape[1])
    index.add(codes_nb)
    return lambda queries_qb, k: index.search(queries_qb, k)[0]


def work(side: str, args: argparse.Namespace) -> None:
    codes_nb, queries_qb = problem(args)
    made = {"mmjax": mmjax_search, "faiss_binary": faiss_search}
    search = made[side](codes_nb)
    facts = {"distances": search(queries_qb, args.k).tolist()}

    def once() -> turns.Numbers:
        one = turns.timed(lambda: search(queries_qb[:1], args.k), args.singles)
        many = turns.timed(lambda: search(queries_qb, args.k))
        return {"one_s": one["s"], "batch_s": many["s"], "batch_cpu_s": many["cpu_s"]}

    turns.serve(facts, once)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in dict(rows=1_000_000, bits=64, queries=256, k=10).items():
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
    commands = turns.commands(__file__, SIDES, args.peer_python)
    facts, found = turns.take(commands, args.rounds, on=f"{args.rows} codes")
    same = facts["mmjax"]["distances"] == facts["faiss_binary"]["distances"]
    result = {"options": {k: v for k, v in vars(args).items() if k != "worker"}}
    result |= {"machine": turns.machine(), "rounds": found, "same_distances": same}
    result["options"]["out"] = str(args.out.name)
    result["options"].pop("peer_python")
    result["sides"] = {}
    print(f"{args.rows} codes of {args.bits} bits, top {args.k}; {args.rounds} rounds")
    for side in SIDES:
        row = {
            "one_ms": 1000 * turns.median(found[side], "one_s"),
            "batch_ms": 1000 * turns.median(found[side], "batch_s"),
            "one_ratio": turns.ratio(found[side], found["mmjax"], "one_s"),
            "batch_ratio": turns.ratio(found[side], found["mmjax"], "batch_s"),
        }
        result["sides"][side] = row
        print(
            f"{side:>12}: one query {row['one_ms']:7.2f} ms ({row['one_ratio']:.2f} x "
            f"mmjax's), {args.queries} queries {row['batch_ms']:7.1f} ms "
            f"({row['batch_ratio']:.2f} x)"
        )
    print(f"the same distances: {same}")
    turns.save(args.out, result)


if __name__ == "__main__":
    main()
