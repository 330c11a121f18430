"""Programs measured in turns, each in a process of its own.

A round runs every side once, in an order that reverses from round to round, so a busy
machine slows all alike. Ratios are medians of the rounds' own ratios.

The benchmark calls `take`; its children, which it starts with `--worker SIDE`, `serve`.
"""

import argparse
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence

Numbers = dict[str, float]  # of one side in one round
PRODUCT = 2048  # side of the matrices whose product is the machine's rate


def serve(facts: Mapping, once: Callable[[], Numbers]) -> None:
    """The child's part: facts at once, then a round's numbers for each line read."""
    print(json.dumps(facts), flush=True)
    for _ in sys.stdin:
        print(json.dumps(once()), flush=True)


def commands(
    script: str,
    sides: Sequence[str],
    peer_python: str,
    *more: str,
    ours: Sequence[str] = ("mmjax",),
) -> dict[str, list[str]]:
    """Of every side's child: `--worker SIDE`, this program's own options, and more.

    ours: sides that run with this Python, the others with the peers'.
    """
    return {
        side: [
            *(sys.executable if side in ours else peer_python, script),
            *("--worker", side, *sys.argv[1:], *more),
        ]
        for side in sides
    }


def take(
    commands: Mapping[str, Sequence[str]], rounds: int, *, on: str = ""
) -> tuple[dict[str, dict], dict[str, list[Numbers]]]:
    """Facts of every side, and its numbers in every round.

    Args:
      commands: of every side's child; a side that does not start ends the program.
      on: what is measured, for that message.
    """
    children, facts, found = {}, {}, {side: [] for side in commands}
    for side, command in commands.items():
        children[side] = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
    try:
        for side, child in children.items():
            line = child.stdout.readline()
            if not line:
                place = f" on {on}" if on else ""
                sys.exit(f"{side} did not start{place}: see its message above")
            facts[side] = json.loads(line)
        for number in range(rounds):
            for side in list(commands)[:: 1 if number % 2 else -1]:
                print("go", file=children[side].stdin, flush=True)
                found[side].append(json.loads(children[side].stdout.readline()))
    finally:
        for child in children.values():
            child.stdin.close()
            child.wait()
    return facts, found


def timed(step: Callable[[], object], steps: int = 1) -> Numbers:
    """Seconds a step, by the clock and of CPU time."""
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(steps):
        step()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"s": wall / steps, "cpu_s": cpu / steps}


def rate(work: Callable[[], object], amount: float) -> float:
    """`amount` of work a second, the median of five."""
    found = []
    for _ in range(5):
        begin = time.perf_counter()
        work()
        found.append(amount / (time.perf_counter() - begin))
    return statistics.median(found)


def product_rate(product: Callable[[], object]) -> float:
    """Operations a second of a square matrix product of side `PRODUCT`."""
    return rate(product, 2 * PRODUCT**3)


def median(found: Sequence[Numbers], key: str) -> float:
    """Over rounds."""
    return statistics.median(numbers[key] for numbers in found)


def ratios(found: Sequence[Numbers], ours: Sequence[Numbers], key: str) -> list[float]:
    """Of another side's number to ours, round by round, the lowest first."""
    pairs = zip(found, ours, strict=True)
    return sorted(other[key] / own[key] for other, own in pairs)


def ratio(found: Sequence[Numbers], ours: Sequence[Numbers], key: str) -> float:
    """The median over rounds of another side's number to ours."""
    return statistics.median(ratios(found, ours, key))


def print_peak(sample: Callable[[], object]) -> None:
    """The part of a child of `peaks`: it draws once."""
    took = timed(sample)
    # Not getrusage, whose peak may be that of the program that started this one.
    status = pathlib.Path("/proc/self/status").read_text()
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    print(json.dumps({"peak_mb": int(peak.split()[1]) / 1024} | took))


def peaks(file: str, args: argparse.Namespace) -> dict[str, Numbers]:
    """Peaks of drawing few and many candidates, one process after the other.

    Args:
      file: whose child `--worker memory` draws `--candidates`.
      args: of which `memory` lists numbers of candidates, `chunk` in a call.
    """
    # Without the compilation cache: both compile, so both hold what that takes.
    env = os.environ | {"JAX_COMPILATION_CACHE_DIR": ""}
    found = {}
    for k in args.memory:
        command = [sys.executable, file, "--worker", "memory", *sys.argv[1:]]
        command += ["--candidates", str(k)]
        done = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            sys.exit(f"drawing {k} candidates failed: see the message above")
        found[str(k)] = json.loads(done.stdout)
        peak, seconds = found[str(k)]["peak_mb"], found[str(k)]["s"]
        print(
            f"K = {k}, {args.chunk} in a call: peak {peak:.0f} MB, {seconds:.1f} s "
            "with compilation",
            flush=True,
        )
    return found


def pin(cores: int) -> None:
    """Holds this process to that many cores, before it starts threads; 0: all."""
    if cores:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
        os.environ["OMP_NUM_THREADS"] = str(cores)


def save(path: pathlib.Path, result: Mapping) -> None:
    """Writes JSON, and makes its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")


def machine() -> dict[str, str]:
    """What results name the machine by."""
    return {"processor": processor(), "python": platform.python_version()}


def processor() -> str:
    """Model and count of cores, which `platform.processor` does not know on Linux."""
    info = pathlib.Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    model = {line.partition(":")[2].strip() for line in lines if "model name" in line}
    name = ", ".join(sorted(model)) or platform.processor() or platform.machine()
    wide = ", AVX-512" * any("avx512f" in line for line in lines)
    return f"{name}, {len(os.sched_getaffinity(0))} cores{wide}"
