"""Seconds per captioning step: mmjax beside torch, in one run.

    python benchmarks/caption_step.py --rounds 9

A step is forward, backward and AdamW in float32 on CPU, of the same decoder at the
same batch: an LSTM with soft attention (Xu et al. 2015), or with `--kind lstm` Show and
Tell. In torch its steps are a loop over `LSTMCell`. The target is a ratio of 1.0 or
more. Both live in processes of their own and take turns. Needs torch, here or for
`--peer-python`.
"""

import argparse
from typing import Any

import numpy as np
import sides
import steps

RESULT = sides.RESULTS / "caption_step.json"
ADAMW = dict(lr=1e-3, b1=0.9, b2=0.999, eps=1e-8, weight_decay=1e-4)


def rows(args: argparse.Namespace) -> dict[str, np.ndarray]:
    """Features float32 (batch, cells, columns) and captions of all lengths."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(args.batch, args.cells, args.columns))
    tokens = rng.integers(2, args.vocab, (args.batch, args.context))
    words = rng.integers(args.context // 2, args.context + 1, (args.batch, 1))
    mask = np.arange(args.context) < words
    return {
        "features": features.astype(np.float32),
        "tokens": np.where(mask, tokens, 0).astype(np.int32),
        "tokens_mask": mask,
    }


def ours(args: argparse.Namespace) -> tuple:
    """(step function returning the loss, facts)."""
    sides.start_mmjax()
    from mmjax.tasks.caption import Task

    decoder = {"kind": args.kind, "width": args.width}
    task = Task(decoder=decoder, vocab_size=args.vocab, context=args.context)
    return sides.mmjax_step(task, rows(args), ADAMW)


def theirs(args: argparse.Namespace) -> tuple:
    """The same decoder in torch."""
    import torch

    torch.manual_seed(0)
    model = _decoder(args)
    features, tokens, mask = map(torch.from_numpy, rows(args).values())
    tokens, counted = tokens.long(), mask[:, 1:].float()
    adamw = sides.torch_adamw(model, **ADAMW)

    def step() -> float:
        adamw.zero_grad()
        logits = model(features, tokens[:, :-1])
        nats = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none"
        )
        loss = (nats.view_as(counted) * counted).sum(1).mean()
        loss.backward()
        adamw.step()
        return loss.item()

    facts = {"torch": torch.__version__, "threads": torch.get_num_threads()}
    facts["parameters"] = sum(p.numel() for p in model.parameters())
    return step, facts


def _decoder(args: argparse.Namespace) -> Any:
    """`mmjax.models.caption_recurrent.Recurrent` as a torch module."""
    import torch
    from torch import nn

    w, soft = args.width, args.kind == "soft"

    class Decoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.table = (
                nn.LayerNorm(args.columns),
                nn.Embedding(args.vocab, w),
            )
            self.lstm = nn.LSTMCell(2 * w if soft else w, w)
            self.head = nn.Linear(w, args.vocab)
            if not soft:
                self.image = nn.Linear(args.columns, w)
                return
            self.cells, self.start = (
                nn.Linear(args.columns, w),
                nn.Linear(args.columns, 2 * w),
            )
            self.key, self.query = nn.Linear(w, w), nn.Linear(w, w, bias=False)
            self.score, self.gate = nn.Linear(w, 1), nn.Linear(w, 1)
            self.from_state, self.from_glimpse = (
                nn.Linear(w, w),
                nn.Linear(w, w, bias=False),
            )

        def forward(self, features, ids):
            features, words = self.norm(features), self.table(ids)
            mean = features.mean(1)
            if not soft:
                state = self.lstm(self.image(mean))
            else:
                cells = self.cells(features)
                keys = self.key(cells)
                state = torch.tanh(self.start(mean)).chunk(2, -1)
            states, glimpses = [], []
            for m in range(ids.shape[1]):
                x = words[:, m]
                if soft:
                    h = state[0]
                    mixed = torch.tanh(keys + self.query(h)[:, None])
                    weight = torch.softmax(self.score(mixed)[..., 0], -1)
                    z = torch.bmm(weight[:, None], cells)[:, 0]
                    z = torch.sigmoid(self.gate(h)) * z
                    glimpses.append(z)
                    x = torch.cat([x, z], -1)
                state = self.lstm(x, state)
                states.append(state[0])
            h = torch.stack(states, 1)
            if soft:
                z = torch.stack(glimpses, 1)
                h = torch.tanh(words + self.from_state(h) + self.from_glimpse(z))
            return self.head(h)

    return Decoder()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kind", choices=("soft", "lstm"), default="soft")
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--vocab", type=int, default=2600)
    parser.add_argument("--context", type=int, default=20)
    parser.add_argument("--cells", type=int, default=16)
    parser.add_argument("--columns", type=int, default=1280, help="of a cell")
    parser.add_argument("--batch", type=int, default=64)
    pair = {"mmjax": ours, "torch": theirs}
    sizes = ("kind", "width", "vocab", "context", "cells", "columns", "batch")
    how = dict(result=RESULT, rounds=9, steps=3)
    steps.main(__file__, parser, pair, sizes, **how)


if __name__ == "__main__":
    main()
