"""Seconds per CLIP training step: mmjax beside open_clip_torch, in one run.

    python benchmarks/clip_step.py --models ViT-B/32 RN50 --rounds 7

A step is forward, backward and AdamW with weight decay on kernels, float32, on CPU:
`mmjax.step.train_step` compiled with donated state, and open_clip's model, loss and
torch's eager AdamW. Both live in processes of their own and take turns, so a busy
machine slows both alike; each also times a large matrix product every round, which is
the machine's rate that the shares refer to. Prints medians and ratios and writes JSON.

`--trim` reports, apart from the headline, our step on token columns cut after the last
end token of the batch (exact, since the text tower is causal) beside open_clip's whole
one, which takes no fewer columns.

Needs torch and open_clip_torch (extra `bench`), for both or for `--peer-python`.
"""

import argparse
import functools
import json
import math
import pathlib
import platform
import statistics
import subprocess
import sys
import time

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "clip_step.json"
SIDES = ("mmjax", "open_clip")
CONTEXT, VOCAB = 77, 49408
LR, B1, B2, EPS, DECAY = 5e-4, 0.9, 0.98, 1e-6, 0.2


def make_batch(rows: int, size: int, *, trim: bool) -> tuple[np.ndarray, np.ndarray]:
    """uint8 images (rows, size, size, 3) and tokens (rows, 77) of 8 to 24 ids."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (rows, size, size, 3), np.uint8)
    tokens = np.zeros((rows, CONTEXT), np.int32)
    lengths = rng.integers(8, 25, rows)
    for row, length in zip(tokens, lengths, strict=True):
        row[:length] = rng.integers(1, VOCAB - 2, length)
        row[0], row[length - 1] = VOCAB - 2, VOCAB - 1
    return images, tokens[:, : lengths.max()] if trim else tokens


def ours(model: str, rows: int, trim: bool) -> tuple:
    """(step function returning the loss, matmul function, facts)."""
    sys.path.insert(0, str(ROOT))
    from mmjax import runtime

    runtime.configure()
    import jax
    import jax.numpy as jnp

    from mmjax import optim
    from mmjax.state import TrainState
    from mmjax.step import train_step
    from mmjax.tasks.clip import Task

    task = Task(preset=model, act="gelu")
    images, tokens = make_batch(rows, task.model.image.image_size, trim=trim)
    batch = {"image": images, "tokens": tokens, "token_mask": tokens > 0}
    variables = jax.jit(task.init)(jax.random.key(0), batch)
    config = {
        "lr": LR,
        "schedule": "constant",
        "warmup": 0,
        "b1": B1,
        "b2": B2,
        "eps": EPS,
        "weight_decay": DECAY,
    }
    tx, *_ = optim.make(config, 1000, variables.params, couples_rows=True)
    zero = jnp.zeros((), jnp.int32)
    slots = jax.jit(tx.init)(variables.params)
    state = TrainState(zero, variables, slots, None, jax.random.key(1))
    start = time.perf_counter()
    run = jax.jit(functools.partial(train_step, task, tx), donate_argnums=0)
    run = run.lower(state, batch).compile()
    compile_s = time.perf_counter() - start
    held = [state]

    def step() -> float:
        held[0], metrics = run(held[0], batch)
        return float(metrics["loss"])

    a, b = (jax.random.normal(jax.random.key(i), (2048, 2048)) for i in (0, 1))
    product = jax.jit(jnp.matmul)
    flops = run.cost_analysis().get("flops", 0.0)
    facts = {"jax": jax.__version__, "compile_s": compile_s, "executed_flops": flops}
    return step, lambda: jax.block_until_ready(product(a, b)), facts


def theirs(model: str, rows: int) -> tuple:
    """The same of open_clip."""
    import open_clip
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    clip = open_clip.create_model(model.replace("/", "-")).train()
    size = clip.visual.image_size  # a number for ResNets, a pair for ViTs
    size = size if isinstance(size, int) else size[0]
    images, tokens = make_batch(rows, size, trim=False)  # it takes 77 columns alone
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    x = ((x / 255 - 0.45) / 0.27).contiguous()
    ids = torch.from_numpy(tokens).long()
    plain = [p for p in clip.parameters() if p.ndim < 2]
    decayed = [p for p in clip.parameters() if p.ndim >= 2]
    groups = [
        {"params": plain, "weight_decay": 0.0},
        {"params": decayed, "weight_decay": DECAY},
    ]
    adamw = torch.optim.AdamW(groups, lr=LR, betas=(B1, B2), eps=EPS)
    contrastive = open_clip.ClipLoss()

    def step() -> float:
        adamw.zero_grad()
        loss = contrastive(*clip(x, ids)[:3])
        loss.backward()
        adamw.step()
        with torch.no_grad():
            clip.logit_scale.clamp_(0, math.log(100))
        return loss.item()

    counter = FlopCounterMode(display=False)
    with counter:
        step()
    a, b = torch.randn(2048, 2048), torch.randn(2048, 2048)
    facts = {
        "torch": torch.__version__,
        "open_clip": open_clip.__version__,
        "threads": torch.get_num_threads(),
        "model_flops": counter.get_total_flops(),
    }
    return step, lambda: a @ b, facts


def worker(side: str, model: str, rows: int, trim: bool) -> None:
    """Answers each line on stdin with one round's numbers on stdout, as JSON."""
    if side == "mmjax":
        step, product, facts = ours(model, rows, trim)
    else:
        step, product, facts = theirs(model, rows)
    losses = [step() for _ in range(2)]
    product()
    print(json.dumps(facts | {"losses": losses}), flush=True)
    for _ in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        step()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        products = []
        for _ in range(5):
            begin = time.perf_counter()
            product()
            products.append(2 * 2048**3 / (time.perf_counter() - begin))
        print(
            json.dumps({"s": wall, "cpu_s": cpu, "rate": statistics.median(products)}),
            flush=True,
        )


def measure(args: argparse.Namespace, model: str, *, trim: bool) -> dict:
    """Interleaved rounds of both sides on one model."""
    children, facts, rounds = {}, {}, {side: [] for side in SIDES}
    for side in SIDES:
        python = args.peer_python if side == "open_clip" else sys.executable
        command = [python, __file__, "--worker", side, "--models", model]
        command += ["--batch", str(args.batch)] + ["--trim"] * trim
        children[side] = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
    try:
        for side, child in children.items():
            line = child.stdout.readline()
            if not line:
                sys.exit(f"{side} did not start on {model}: see its message above")
            facts[side] = json.loads(line)
        for number in range(args.rounds):
            for side in SIDES if number % 2 else SIDES[::-1]:
                print("go", file=children[side].stdin, flush=True)
                rounds[side].append(json.loads(children[side].stdout.readline()))
    finally:
        for child in children.values():
            child.stdin.close()
            child.wait()
    return summarize(model, facts, rounds, trim=trim)


def summarize(model: str, facts: dict, rounds: dict, *, trim: bool) -> dict:
    """Medians, the median of the rounds' ratios, and shares of the matmul rate."""

    def median(side: str, key: str) -> float:
        return statistics.median(r[key] for r in rounds[side])

    # The faster of the two libraries' products is what the machine can do.
    rate = max(median(side, "rate") for side in SIDES)
    flops = facts["open_clip"]["model_flops"]
    pairs = zip(rounds["open_clip"], rounds["mmjax"], strict=True)
    out = {"model": model, "trim": trim, "gflops_rate": rate / 1e9, "facts": facts}
    for side in SIDES:
        seconds = median(side, "s")
        out[side] = {
            "s": seconds,
            "cpu_s": median(side, "cpu_s"),
            "share_of_matmul_rate": flops / seconds / rate,
            "own_gflops_rate": median(side, "rate") / 1e9,
        }
    out["ratio"] = statistics.median(t["s"] / o["s"] for t, o in pairs)
    out["ratio_cpu"] = out["open_clip"]["cpu_s"] / out["mmjax"]["cpu_s"]
    out["rounds"] = rounds
    return out


def report(result: dict) -> str:
    """One line for people."""
    parts = [f"{result['model']}{' (trimmed tokens)' if result['trim'] else ''}:"]
    for side in SIDES:
        r = result[side]
        share = f"{100 * r['share_of_matmul_rate']:.0f} % of the matmul rate"
        parts.append(f"{side} {r['s']:.2f} s ({share}),")
    parts.append(f"open_clip / mmjax {result['ratio']:.2f}")
    parts.append(f"(CPU time {result['ratio_cpu']:.2f})")
    return " ".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["ViT-B/32", "RN50"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--trim", action="store_true", help="also with cut columns")
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--out", type=pathlib.Path, default=RESULT)
    parser.add_argument("--worker", choices=SIDES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        worker(args.worker, args.models[0], args.batch, args.trim)
        return
    results = []
    for model in args.models:
        for trim in (False, True)[: 1 + args.trim]:
            results.append(measure(args, model, trim=trim))
            print(report(results[-1]), flush=True)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    machine = {"processor": platform.processor(), "python": platform.python_version()}
    facts = {"batch": args.batch, "dtype": "float32", "machine": machine}
    args.out.write_text(json.dumps(facts | {"results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
