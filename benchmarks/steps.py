"""The program of a benchmark of training steps: ours beside one peer's, by turns."""

import argparse
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence

import turns

Side = Callable[[argparse.Namespace], tuple]  # (step function, facts)
KEYS = ("s", "cpu_s")


def main(
    script: str,
    parser: argparse.ArgumentParser,
    sides: Mapping[str, Side],
    sizes: Sequence[str],
    *,
    result: pathlib.Path,
    rounds: int,
    steps: int,
) -> None:
    """Prints seconds of a step and their ratio, and saves them.

    Args:
      script: `__file__` of the benchmark, whose children measure a side each.
      sides: by name, ours first; a step returns its loss.
      sizes: options of `parser` that say what was measured.
      result: where it is saved, unless `--out` says otherwise.
      rounds, steps: of a round, unless options say otherwise.
    """
    add = parser.add_argument
    add("--rounds", type=int, default=rounds)
    add("--steps", type=int, default=steps, help="steps a round")
    add("--cores", type=int, default=0, help="0 is all there are")
    add("--peer-python", default=sys.executable)
    add("--out", type=pathlib.Path, default=result)
    add("--worker", choices=tuple(sides), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        turns.pin(args.cores)
        step, facts = sides[args.worker](args)
        facts["losses"] = [step() for _ in range(3)]
        turns.serve(facts, lambda: turns.timed(step, args.steps))
        return
    ours, peer = sides
    commands = turns.commands(script, tuple(sides), args.peer_python, ours=(ours,))
    facts, found = turns.take(commands, args.rounds)
    took = {side: {k: turns.median(found[side], k) for k in KEYS} for side in sides}
    ratio = {key: turns.ratio(found[peer], found[ours], key) for key in KEYS}
    for side in sides:
        print(f"{side}: {1e3 * took[side]['s']:.2f} ms a step")
    print(f"{peer} takes {ratio['s']:.2f} of ours (CPU time {ratio['cpu_s']:.2f})")
    about = {key: getattr(args, key) for key in (*sizes, "cores")}
    about |= {"dtype": "float32", "machine": turns.machine(), "facts": facts}
    turns.save(args.out, about | {"took": took, "ratio": ratio, "rounds": found})
