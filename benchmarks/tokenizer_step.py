"""Seconds per dVAE training step: mmjax beside the same network in torch, in one run.

    python benchmarks/tokenizer_step.py --rounds 15

A step is forward, backward and AdamW in float32 on CPU, Gumbel noise included:
`mmjax.train.step.train_step` compiled with donated state, and `openai_dvae.DVae` with
torch's eager AdamW, in both of torch's memory formats. All live in processes of their
own and
take turns, so a busy machine slows all alike. Prints medians and ratios and writes
JSON. Where other work shares the machine, take `--cores 1` and the ratio of CPU times:
torch's threads wait for each other in busy loops, and with more of them the wait counts
as work.

`tests/models/dvae_torch_test.py` holds the two to the same loss and gradients. Needs
torch (extra `parity`), here or for `--peer-python`.
"""

import argparse
import pathlib
import sys

import numpy as np
import sides
import turns

RESULT = sides.RESULTS / "tokenizer_step.json"
SIDES = ("mmjax", "torch", "torch_channels_last")
ADAMW = dict(lr=1e-4, b1=0.9, b2=0.999, eps=1e-8, weight_decay=1e-4)
TEMPERATURE, KL_WEIGHT = 0.5, 6.6


def make_images(args: argparse.Namespace) -> np.ndarray:
    """uint8 (batch, size, size, 3)."""
    shape = (args.batch, args.size, args.size, 3)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def ours(args: argparse.Namespace) -> tuple:
    """(step function returning the loss, facts)."""
    sides.start_mmjax()
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
    return sides.mmjax_step(task, batch, ADAMW)


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
    adamw = sides.torch_adamw(model, **ADAMW)

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
    """The child of one side."""
    turns.pin(args.cores)
    if side == "mmjax":
        step, facts = ours(args)
    else:
        step, facts = theirs(args, channels_last=side == "torch_channels_last")
    facts["losses"] = [step() for _ in range(3)]
    turns.serve(facts, lambda: turns.timed(step, args.steps))


def measure(args: argparse.Namespace) -> dict:
    """Interleaved rounds of both sides."""
    commands = turns.commands(__file__, SIDES, args.peer_python)
    return summarize(*turns.take(commands, args.rounds))


def summarize(facts: dict, rounds: dict) -> dict:
    """Medians, and the medians of the rounds' ratios to ours."""
    out = {"facts": facts}
    for side in SIDES:
        out[side] = {key: turns.median(rounds[side], key) for key in ("s", "cpu_s")}
    for side in SIDES[1:]:
        for key, name in (("s", "ratio"), ("cpu_s", "ratio_cpu")):
            out[side][name] = turns.ratio(rounds[side], rounds["mmjax"], key)
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
    turns.save(args.out, about | {"machine": turns.machine()} | result)


if __name__ == "__main__":
    main()
