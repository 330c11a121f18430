"""Seconds per deep CCA step: mmjax beside cca_zoo's loss on torch, in one run.

    python benchmarks/cca_step.py --rounds 15

A step is forward, backward and AdamW in float32 on CPU, of two perceptrons of the same
widths at the same batch. The losses differ as published: ours is minus the trace norm
of T, cca_zoo's minus its squared Frobenius norm. Both live in processes of their own
and take turns. Needs cca-zoo and torch, here or for `--peer-python`.
"""

import argparse
import pathlib
import sys

import numpy as np
import sides
import turns

RESULT = sides.RESULTS / "cca_step.json"
SIDES = ("mmjax", "cca_zoo")
ADAMW = dict(lr=1e-3, b1=0.9, b2=0.999, eps=1e-8, weight_decay=1e-4)
REG = 1e-4


def views(args: argparse.Namespace) -> dict[str, np.ndarray]:
    """Two views of a common cause, float32 (batch, inputs)."""
    rng = np.random.default_rng(0)
    cause = rng.normal(size=(args.batch, args.width))
    mix = rng.normal(size=(2, args.width, args.inputs)) / args.width**0.5
    noise = 0.5 * rng.normal(size=(2, args.batch, args.inputs))
    pair = np.tanh(cause @ mix) + noise
    return dict(zip(("view_a", "view_b"), pair.astype(np.float32), strict=True))


def ours(args: argparse.Namespace) -> tuple:
    """(step function returning the loss, facts)."""
    sides.start_mmjax()
    from mmjax.tasks.cca import Task

    encoder = {"kind": "mlp", "hidden": tuple(args.hidden), "act": "sigmoid"}
    task = Task(args.width, encoder=encoder, reg=REG)
    return sides.mmjax_step(task, views(args), ADAMW)


def theirs(args: argparse.Namespace) -> tuple:
    """The same networks in torch, with cca_zoo's loss."""
    import torch
    from cca_zoo.deep.objectives import CCALoss
    from torch import nn

    torch.manual_seed(0)

    def encoder() -> nn.Module:
        layers, before = [], args.inputs
        for width in args.hidden:
            layers += [nn.Linear(before, width), nn.Sigmoid()]
            before = width
        return nn.Sequential(*layers, nn.Linear(before, args.width))

    model = nn.ModuleList([encoder(), encoder()])
    pair = [torch.from_numpy(x) for x in views(args).values()]
    adamw, objective = sides.torch_adamw(model, **ADAMW), CCALoss(REG)

    def step() -> float:
        adamw.zero_grad()
        loss = objective([net(x) for net, x in zip(model, pair, strict=True)])
        loss.backward()
        adamw.step()
        return loss.item()

    facts = {"torch": torch.__version__, "threads": torch.get_num_threads()}
    facts["parameters"] = sum(p.numel() for p in model.parameters())
    return step, facts


def worker(side: str, args: argparse.Namespace) -> None:
    """The child of one side."""
    turns.pin(args.cores)
    step, facts = ours(args) if side == "mmjax" else theirs(args)
    facts["losses"] = [step() for _ in range(3)]
    turns.serve(facts, lambda: turns.timed(step, args.steps))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=784, help="columns of a view")
    parser.add_argument("--hidden", type=int, nargs="*", default=[1024, 1024, 1024])
    parser.add_argument("--width", type=int, default=10, help="columns of a code")
    parser.add_argument("--batch", type=int, default=800)
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
    commands = turns.commands(__file__, SIDES, args.peer_python)
    facts, rounds = turns.take(commands, args.rounds)
    took = {
        side: {key: turns.median(rounds[side], key) for key in ("s", "cpu_s")}
        for side in SIDES
    }
    ratio = {
        key: turns.ratio(rounds["cca_zoo"], rounds["mmjax"], key)
        for key in ("s", "cpu_s")
    }
    for side in SIDES:
        print(f"{side}: {1e3 * took[side]['s']:.1f} ms a step")
    print(f"cca_zoo takes {ratio['s']:.2f} of ours (CPU time {ratio['cpu_s']:.2f})")
    sizes = ("inputs", "hidden", "width", "batch", "cores")
    about = {key: getattr(args, key) for key in sizes} | {"dtype": "float32"}
    result = {"facts": facts, "took": took, "ratio": ratio, "rounds": rounds}
    turns.save(args.out, about | {"machine": turns.machine()} | result)


if __name__ == "__main__":
    main()
