"""Seconds per CLIP training step: mmjax beside open_clip_torch, in one run.

    python benchmarks/clip_step.py --models ViT-B/32 RN50 --rounds 7

A step is forward, backward and AdamW with weight decay on kernels, float32, on CPU:
`mmjax.train.step.train_step` compiled with donated state, and open_clip's model, loss
and torch's eager AdamW. Both live in processes of their own and take turns, so a busy
machine slows both alike; each also times a large matrix product every round, which is
the machine's rate that the shares refer to. Prints medians and ratios and writes JSON.

`--trim` reports, apart from the headline, our step on token columns cut after the last
end token of the batch (exact, since the text tower is causal) beside open_clip's whole
one, which takes no fewer columns.

Needs torch and open_clip_torch (extra `bench`), for both or for `--peer-python`.
"""

import argparse
import math
import pathlib
import sys

import numpy as np
import sides
import turns

RESULT = sides.RESULTS / "clip_step.json"
SIDES = ("mmjax", "open_clip")
CONTEXT, VOCAB = 77, 49408
ADAMW = dict(lr=5e-4, b1=0.9, b2=0.98, eps=1e-6, weight_decay=0.2)


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
    sides.start_mmjax()
    from mmjax.tasks.clip import Task

    task = Task(preset=model, act="gelu")
    images, tokens = make_batch(rows, task.model.image.image_size, trim=trim)
    batch = {"image": images, "tokens": tokens, "tokens_mask": tokens > 0}
    step, facts = sides.mmjax_step(task, batch, ADAMW)
    return step, sides.jax_product(), facts


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
    adamw = sides.torch_adamw(clip, **ADAMW)
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
    facts = {
        "torch": torch.__version__,
        "open_clip": open_clip.__version__,
        "threads": torch.get_num_threads(),
        "model_flops": counter.get_total_flops(),
    }
    return step, sides.torch_product(), facts


def worker(side: str, model: str, rows: int, trim: bool) -> None:
    """The child of one side."""
    if side == "mmjax":
        step, product, facts = ours(model, rows, trim)
    else:
        step, product, facts = theirs(model, rows)
    facts["losses"] = [step() for _ in range(2)]
    turns.serve(
        facts, lambda: turns.timed(step) | {"rate": turns.product_rate(product)}
    )


def measure(args: argparse.Namespace, model: str, *, trim: bool) -> dict:
    """Interleaved rounds of both sides on one model."""
    commands = {}
    for side in SIDES:
        python = args.peer_python if side == "open_clip" else sys.executable
        commands[side] = [python, __file__, "--worker", side, "--models", model]
        commands[side] += ["--batch", str(args.batch)] + ["--trim"] * trim
    facts, rounds = turns.take(commands, args.rounds, on=model)
    return summarize(model, facts, rounds, trim=trim)


def summarize(model: str, facts: dict, rounds: dict, *, trim: bool) -> dict:
    """Medians, the median of the rounds' ratios, and shares of the matmul rate."""
    # The faster of the two libraries' products is what the machine can do.
    rate = max(turns.median(rounds[side], "rate") for side in SIDES)
    flops = facts["open_clip"]["model_flops"]
    out = {"model": model, "trim": trim, "gflops_rate": rate / 1e9, "facts": facts}
    for side in SIDES:
        seconds = turns.median(rounds[side], "s")
        out[side] = {
            "s": seconds,
            "cpu_s": turns.median(rounds[side], "cpu_s"),
            "share_of_matmul_rate": flops / seconds / rate,
            "own_gflops_rate": turns.median(rounds[side], "rate") / 1e9,
        }
    out["ratio"] = turns.ratio(rounds["open_clip"], rounds["mmjax"], "s")
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
    about = {"batch": args.batch, "dtype": "float32", "machine": turns.machine()}
    turns.save(args.out, about | {"results": results})


if __name__ == "__main__":
    main()
