"""Seconds per deep CCA step: mmjax beside cca_zoo's loss on torch, in one run.

    python benchmarks/cca_step.py --rounds 15

A step is forward, backward and AdamW in float32 on CPU, of two perceptrons of the same
widths at the same batch. The losses differ as published: ours is minus the trace norm
of T, cca_zoo's minus its squared Frobenius norm. Both live in processes of their own
and take turns. Needs cca-zoo and torch, here or for `--peer-python`.
"""

import argparse

import numpy as np
import sides
import steps

RESULT = sides.RESULTS / "cca_step.json"
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=784, help="columns of a view")
    parser.add_argument("--hidden", type=int, nargs="*", default=[1024, 1024, 1024])
    parser.add_argument("--width", type=int, default=10, help="columns of a code")
    parser.add_argument("--batch", type=int, default=800)
    pair = {"mmjax": ours, "cca_zoo": theirs}
    sizes = ("inputs", "hidden", "width", "batch")
    how = dict(result=RESULT, rounds=15, steps=3)
    steps.main(__file__, parser, pair, sizes, **how)


if __name__ == "__main__":
    main()
