"""Seconds per dVAE training step: mmjax beside the same network in torch, in one run.

    python benchmarks/tokenizer_step.py --rounds 15

A step is forward, backward and AdamW in float32 on CPU, Gumbel noise included:
`mmjax.step.train_step` compiled with donated state, and `openai_dvae.DVae` with torch's
eager AdamW, in both of torch's memory formats. All live in processes of their own and
take turns, so a busy machine slows all alike. Prints medians and ratios and writes
JSON. Where other work shares the machine, take `--cores 1` and the ratio of CPU times:
torch's threads wait for each other in busy loops, and with more of them the wait counts
as work.

`tests/models/dvae_torch_test.py` holds the two to the same loss and gradients. Needs
torch (extra `parity`), here or for `--peer-python`.
"""

import argparse
import functools
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "tokenizer_step.json"
SIDES = ("mmjax", "torch", "torch_channels_last")
LR, B1, B2, EPS, DECAY = 1e-4, 0.9, 0.999, 1e-8, 1e-4
TEMPERATURE, KL_WEIGHT = 0.5, 6.6


def make_images(args: argparse.Namespace) -> np.ndarray:
    """uint8 (batch, size, size, 3)."""
    shape = (args.batch, args.size, args.size, 3)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def ours(args: argparse.Namespace) -> tuple:
    """(step function returning the loss, facts)."""
    sys.path.insert(0, str(ROOT))
    from mmjax import runtime

    runtime.configure()
    import jax
    import jax.numpy as jnp

    from mmjax import optim
    from mmjax.state import TrainState
    from mmjax.step import train_step
    from mmjax.tasks.dvae import Task

    spec = {"kind": "dvae", "image_size": args.size, "vocab_size": args.codes}
    spec |= {"hidden": args.hidden, "groups": args.groups}
    task = Task(
        spec,
        kl_weight=KL_WEIGHT,
        kl_steps=0,
        temperature=TEMPERATURE,
        temperature_steps=0,
    )
    batch = {"image": make_images(args)}
    variables = jax.jit(task.init)(jax.random.key(0), batch)
    config = {"lr": LR, "schedule": "constant", "warmup": 0, "weight_decay": DECAY}
    config |= {"b1": B1, "b2": B2, "eps": EPS}
    tx, *_ = optim.make(config, 1000, variables.params, couples_rows=False)
    slots = jax.jit(tx.init)(variables.params)
    zero = jnp.zeros((), jnp.int32)
    state = TrainState(zero, variables, slots, None, jax.random.key(1))
    start = time.perf_counter()
    run = jax.jit(functools.partial(train_step, task, tx), donate_argnums=0)
    run = run.lower(state, batch).compile()
    facts = {"jax": jax.__version__, "compile_s": time.perf_counter() - start}
    facts["parameters"] = sum(x.size for x in jax.tree.leaves(variables.params))
    held = [state]

    def step() -> float:
        held[0], metrics = run(held[0], batch)
        return float(metrics["loss"])

    return step, facts


def theirs(args: argparse.Namespace, *, channels_last: bool) -> tuple:
    """The same in torch, in one of its two memory formats."""
    import openai_dvae
    import torch

    torch.manual_seed(0)
    model = openai_dvae.DVae(args.codes, args.hidden, args.groups).train()
    x = torch.from_numpy(make_images(args)).permute(0, 3, 1, 2).float() / 255
    x = x.contiguous()
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
        x = x.to(memory_format=torch.channels_last)
    plain = [p for p in model.parameters() if p.ndim < 2]
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    groups = [
        {"params": plain, "weight_decay": 0.0},
        {"params": decayed, "weight_decay": DECAY},
    ]
    adamw = torch.optim.AdamW(groups, lr=LR, betas=(B1, B2), eps=EPS)

    def step() -> float:
        adamw.zero_grad()
        loss, _ = model.loss(x, TEMPERATURE, KL_WEIGHT)
        loss.backward()
        adamw.step()
        return loss.item()

    facts = {"torch": torch.__version__, "threads": torch.get_num_threads()}
    facts["parameters"] = sum(p.numel() for p in model.parameters())
    return step, facts


def worker(side: str, args: argparse.Namespace) -> None:
    """Answers each line on stdin with one round's numbers on stdout, as JSON."""
    if args.cores:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.cores])
        os.environ["OMP_NUM_THREADS"] = str(args.cores)
    if side == "mmjax":
        step, facts = ours(args)
    else:
        step, facts = theirs(args, channels_last=side == "torch_channels_last")
    losses = [step() for _ in range(3)]
    print(json.dumps(facts | {"losses": losses}), flush=True)
    for _ in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(args.steps):
            step()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        took = {"s": wall / args.steps, "cpu_s": cpu / args.steps}
        print(json.dumps(took), flush=True)


def measure(args: argparse.Namespace) -> dict:
    """Interleaved rounds of both sides."""
    children, facts, rounds = {}, {}, {side: [] for side in SIDES}
    for side in SIDES:
        python = sys.executable if side == "mmjax" else args.peer_python
        command = [python, __file__, "--worker", side, *sys.argv[1:]]
        children[side] = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
    try:
        for side, child in children.items():
            line = child.stdout.readline()
            if not line:
                sys.exit(f"{side} did not start: see its message above")
            facts[side] = json.loads(line)
        for number in range(args.rounds):
            for side in SIDES if number % 2 else SIDES[::-1]:
                print("go", file=children[side].stdin, flush=True)
                rounds[side].append(json.loads(children[side].stdout.readline()))
    finally:
        for child in children.values():
            child.stdin.close()
            child.wait()
    return summarize(facts, rounds)


def summarize(facts: dict, rounds: dict) -> dict:
    """Medians, and the medians of the rounds' ratios to ours."""
    out = {"facts": facts}
    for side in SIDES:
        out[side] = {
            key: statistics.median(r[key] for r in rounds[side])
            for key in ("s", "cpu_s")
        }
    for side in SIDES[1:]:
        pairs = list(zip(rounds[side], rounds["mmjax"], strict=True))
        for key, name in (("s", "ratio"), ("cpu_s", "ratio_cpu")):
            out[side][name] = statistics.median(t[key] / o[key] for t, o in pairs)
    out["rounds"] = rounds
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=64, help="pixels a side")
    parser.add_argument("--codes", type=int, default=1024)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--groups", type=int, default=4)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=3, help="steps a round")
    parser.add_argument("--cores", type=int, default=0, help="0 is all there are")
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--out", type=pathlib.Path, default=RESULT)
    parser.add_argument("--worker", choices=SIDES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        worker(args.worker, args)
        return
    result = measure(args)
    for side in SIDES:
        took = result[side]
        line = f"{side}: {took['s']:.3f} s a step ({took['cpu_s']:.3f} s of CPU)"
        if "ratio" in took:
            ratios = (took["ratio"], took["ratio_cpu"])
            line += ", {:.2f} of mmjax's (CPU time {:.2f})".format(*ratios)
        print(line)
    sizes = ("size", "codes", "hidden", "groups", "batch", "cores")
    about = {key: getattr(args, key) for key in sizes} | {"dtype": "float32"}
    about["machine"] = {
        "processor": platform.processor(),
        "python": platform.python_version(),
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(about | result, indent=1) + "\n")


if __name__ == "__main__":
    main()
