"""Seconds per fusion step: mmjax beside the same network on torch, in one run.

    python benchmarks/fusion_step.py --block tensor --rounds 15

A step is forward, backward and AdamW in float32 on CPU: three modalities of as many
steps, an encoder each, the block, cross-entropy. Blocks are early, tensor (TFN),
low_rank (LMF) and cross_modal (MulT). Sides live in processes of their own and take
turns. Needs torch, here or for `--peer-python`.
"""

import argparse
import itertools
from typing import Any

import numpy as np
import sides
import steps

RESULT = sides.RESULTS / "fusion_step.json"
ADAMW = dict(lr=1e-3, b1=0.9, b2=0.999, eps=1e-8, weight_decay=1e-4)
NAMES = ("a", "b", "c")
BLOCKS = ("early", "tensor", "low_rank", "cross_modal")
RANK, HEADS = 4, 2


def batch_of(args: argparse.Namespace) -> dict[str, np.ndarray]:
    """Series (batch, steps, inputs) and classes."""
    rng = np.random.default_rng(0)
    shape = args.batch, args.steps_of, args.inputs
    made = {name: np.float32(rng.normal(size=shape)) for name in NAMES}
    made |= {f"{name}_mask": np.ones(shape[:2], bool) for name in NAMES}
    return made | {"label": rng.integers(2, size=args.batch).astype(np.int32)}


def ours(args: argparse.Namespace) -> tuple:
    """(step function returning the loss, facts)."""
    sides.start_mmjax()
    from mmjax.tasks.fusion import Task

    more = {
        "early": {"hidden": (args.width,)},
        "tensor": {"width": args.width},
        "low_rank": {"width": args.width, "rank": RANK},
        "cross_modal": {"width": args.width, "heads": HEADS},
    }
    block = {"kind": args.block, **more[args.block]}
    task = Task(NAMES, 2, block=block, columns=args.columns)
    return sides.mmjax_step(task, batch_of(args), ADAMW)


def _network(args: argparse.Namespace) -> Any:
    """The same network as a torch module, from series to logits."""
    import torch
    from torch import nn

    def with_one(x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, torch.ones_like(x[..., :1])], -1)

    class Cross(nn.Module):
        def __init__(self, width: int):
            super().__init__()
            self.norm, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
            self.attn = nn.MultiheadAttention(width, HEADS, batch_first=True)
            wide = 4 * width
            layers = nn.Linear(width, wide), nn.ReLU(), nn.Linear(wide, width)
            self.mlp = nn.Sequential(*layers)

        def forward(self, x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
            y = self.norm(other)
            x = x + self.attn(self.norm(x), y, y, need_weights=False)[0]
            return x + self.mlp(self.norm_mlp(x))

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            d, w = args.columns, args.width
            self.encode = nn.ModuleList([nn.Linear(args.inputs, d) for _ in NAMES])
            if args.block == "early":
                self.fuse = nn.Linear(d * len(NAMES), w)
            elif args.block == "tensor":
                self.fuse = nn.Linear((d + 1) ** len(NAMES), w)
            elif args.block == "low_rank":
                factors = [torch.randn(RANK, d + 1, w) * d**-0.5 for _ in NAMES]
                self.factors = nn.ParameterList([nn.Parameter(f) for f in factors])
                self.weight = nn.Parameter(torch.randn(RANK) * RANK**-0.5)
                self.bias = nn.Parameter(torch.zeros(w))
            else:
                self.embed = nn.ModuleList([nn.Linear(d, w, False) for _ in NAMES])
                pairs = list(itertools.permutations(range(len(NAMES)), 2))
                self.cross = nn.ModuleDict({f"{i}{j}": Cross(w) for i, j in pairs})
                w = 2 * w
                self.alone = nn.ModuleList([Cross(w) for _ in NAMES])
                w = w * len(NAMES)
                self.norm = nn.LayerNorm(w)
            self.head = nn.Linear(w, 2)

        def forward(self, series: list[torch.Tensor]) -> torch.Tensor:
            coded = [torch.relu(f(x)) for f, x in zip(self.encode, series, strict=True)]
            if args.block == "cross_modal":
                coded = [f(x) for f, x in zip(self.embed, coded, strict=True)]
                tops = []
                for i, x in enumerate(coded):
                    asked = [
                        self.cross[f"{i}{j}"](x, y)
                        for j, y in enumerate(coded)
                        if j != i
                    ]
                    whole = torch.cat(asked, -1)
                    tops.append(self.alone[i](whole, whole).mean(1))
                return self.head(self.norm(torch.cat(tops, -1)))
            points = [x.mean(1) for x in coded]
            if args.block == "early":
                fused = self.fuse(torch.cat(points, -1))
            elif args.block == "tensor":
                product = with_one(points[0])
                for x in points[1:]:
                    product = (product[:, :, None] * with_one(x)[:, None]).flatten(1)
                fused = self.fuse(product)
            else:
                fused = 1.0
                for x, factor in zip(points, self.factors, strict=True):
                    fused = fused * torch.einsum("bd,rdw->brw", with_one(x), factor)
                fused = torch.einsum("brw,r->bw", fused, self.weight) + self.bias
            return self.head(torch.relu(fused))

    return Network()


def theirs(args: argparse.Namespace) -> tuple:
    """The same in torch."""
    import torch

    torch.manual_seed(0)
    model, batch = _network(args), batch_of(args)
    series = [torch.from_numpy(batch[name]) for name in NAMES]
    label = torch.from_numpy(batch["label"]).long()
    adamw = sides.torch_adamw(model, **ADAMW)

    def step() -> float:
        adamw.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(series), label)
        loss.backward()
        adamw.step()
        return loss.item()

    facts = {"torch": torch.__version__, "threads": torch.get_num_threads()}
    facts["parameters"] = sum(p.numel() for p in model.parameters())
    return step, facts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--block", choices=BLOCKS, default="tensor")
    parser.add_argument("--inputs", type=int, default=50, help="columns of a modality")
    parser.add_argument("--steps-of", type=int, default=20, help="steps of a series")
    parser.add_argument("--columns", type=int, default=32, help="of an encoder")
    parser.add_argument("--width", type=int, default=32, help="of the block")
    parser.add_argument("--batch", type=int, default=128)
    pair = {"mmjax": ours, "torch": theirs}
    sizes = ("block", "inputs", "steps_of", "columns", "width", "batch")
    how = dict(result=RESULT, rounds=15, steps=10)
    steps.main(__file__, parser, pair, sizes, **how)


if __name__ == "__main__":
    main()
