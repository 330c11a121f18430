"""Seconds per training step of the prior: mmjax beside Hugging Face's GPT-2.

    python benchmarks/prior_step.py --rounds 7

A step is forward, backward and AdamW with weight decay on kernels, float32, on CPU, on
64 text and 256 image tokens: `mmjax.train.step.train_step` compiled with donated state,
and `GPT2LMHeadModel` of the same depth, width and heads with its own loss and torch's
eager
AdamW, no dropout. All live in processes of their own and take turns, so a busy machine
slows all alike; each also times a large matrix product every round, which is the
machine's rate that the shares refer to. Prints medians and ratios and writes JSON.

With `--masks full`, the default, both attend to all that came before, and both have the
tanh form of GELU. GPT-2 runs as `gpt2`: as its config says (attention by torch's sdpa);
`gpt2_eager`: the same with attention in plain operations; `gpt2_tuned`: sdpa, GELU in
one kernel (the default is eight operations), AdamW in one kernel (`fused=True`). The
target, 1.2, is for the faster of the first two.

The vocabularies: ours has one for text (320) and one for images (1024), each with a
head for its own positions. GPT-2 has both in one (1344), and its head, tied to the
embedding, is applied everywhere. A small text vocabulary keeps that difference under
1 % of a step; FLOPs of both models are printed, and the ratio at equal FLOPs. They are
those of the kernels and of the pairs of tokens that the masks show, three times for
forward and backward; with `--masks paper` the prior has fewer pairs than GPT-2.

Needs torch and transformers (extra `bench`), here or for `--peer-python`.
"""

import argparse
import pathlib
import sys

import numpy as np
import sides
import turns

RESULT = sides.RESULTS / "prior_step.json"
ADAMW = dict(lr=3e-4, b1=0.9, b2=0.96, eps=1e-8, weight_decay=0.045)
TARGET = 1.2
SDPA = dict(attention="sdpa", activation="gelu_new", fused=False)  # GPT-2's defaults
PEERS = {
    "gpt2": SDPA,
    "gpt2_eager": SDPA | dict(attention="eager"),
    "gpt2_tuned": SDPA | dict(activation="gelu_pytorch_tanh", fused=True),
}
SIDES = ("mmjax", *PEERS)


def add_shape(parser: argparse.ArgumentParser) -> None:
    """The options that say how large the models are."""
    numbers = dict(depth=12, width=512, heads=8, context=64, grid=16)
    numbers |= dict(text_vocab=320, image_vocab=1024, batch=8)
    for name, value in numbers.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value)
    parser.add_argument("--masks", default="full", help="of ours; paper: DALL-E's")
    parser.add_argument("--cores", type=int, default=0, help="0 is all there are")
    parser.add_argument("--peer-python", default=sys.executable)


def about(args: argparse.Namespace) -> dict:
    """What a result was measured on."""
    names = ("depth", "width", "heads", "context", "grid", "text_vocab", "image_vocab")
    names += ("batch", "masks", "cores")
    facts = {name: getattr(args, name) for name in names}
    return facts | {"dtype": "float32", "machine": turns.machine()}


def prior_fields(args: argparse.Namespace) -> dict:
    """Of `mmjax.tasks.prior.Task`, over a stage 1 that costs next to nothing."""
    net = {"kind": "conv", "widths": (8,), "stem": 4, "depth": 1, "decoder_depth": 1}
    stage1 = {"kind": "vqvae", "image_size": 4 * args.grid, "net": net}
    return {
        "stage1": stage1 | {"vocab_size": args.image_vocab},
        "width": args.width,
        "depth": args.depth,
        "heads": args.heads,
        "vocab_size": args.text_vocab,
        "context": args.context,
        "masks": args.masks,
        "act": "gelu_tanh",
    }


def gpt2(args: argparse.Namespace, *, attention: str, activation: str) -> object:
    """Hugging Face's GPT-2 over the text's ids and then the image's, none of them the
    end of a sequence."""
    import transformers

    config = transformers.GPT2Config(
        vocab_size=args.text_vocab + args.image_vocab,
        n_positions=args.context + args.grid**2,
        n_embd=args.width,
        n_layer=args.depth,
        n_head=args.heads,
        activation_function=activation,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=None,
        eos_token_id=None,
    )
    return transformers.AutoModelForCausalLM.from_config(
        config, attn_implementation=attention
    )


def make_tokens(args: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """Text (batch, context) and image tokens (batch, grid^2), all of them real."""
    rng = np.random.default_rng(0)
    text = rng.integers(0, args.text_vocab, (args.batch, args.context), np.int32)
    shape = args.batch, args.grid**2
    return text, rng.integers(0, args.image_vocab, shape, np.int32)


def step_flops(args: argparse.Namespace, pairs: int, head: int) -> int:
    """Of a training step, where a row has `pairs` of tokens that see each other, of all
    layers together, and its heads give `head` logits."""
    t, w = args.context + args.grid**2, args.width
    kernels = args.depth * 12 * w**2 * t + head * w
    return 3 * 2 * args.batch * (kernels + 2 * w * pairs)


def ours(args: argparse.Namespace) -> tuple:
    """(step function returning the loss, matmul function, facts)."""
    sides.start_mmjax()
    from mmjax.nn import grid_masks
    from mmjax.tasks.prior import Task

    text, image = make_tokens(args)
    batch = {"tokens": text, "tokens_mask": np.ones_like(text, bool)}
    batch["image_tokens"] = image
    task = Task(**prior_fields(args))
    step, facts = sides.mmjax_step(task, batch, ADAMW)
    kinds = grid_masks.layer_kinds(args.masks, args.depth)
    sizes = args.context, args.grid
    pairs = sum(int(grid_masks.sequence_mask(kind, *sizes).sum()) for kind in kinds)
    head = (args.context - 1) * args.text_vocab + args.grid**2 * args.image_vocab
    facts["model_flops"] = step_flops(args, pairs, head)
    return step, sides.jax_product(), facts


def theirs(
    args: argparse.Namespace, *, attention: str, activation: str, fused: bool
) -> tuple:
    """The same of GPT-2."""
    import torch
    import transformers

    torch.manual_seed(0)
    model = gpt2(args, attention=attention, activation=activation).train()
    text, image = make_tokens(args)
    ids = np.concatenate([text, args.text_vocab + image], axis=1)
    ids = torch.from_numpy(ids).long()
    options = {"fused": True} if fused else {}
    adamw = sides.torch_adamw(model, **ADAMW, **options)

    def step() -> float:
        adamw.zero_grad()
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        adamw.step()
        return loss.item()

    t = ids.shape[1]
    facts = {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "threads": torch.get_num_threads(),
        "attention": model.config._attn_implementation,
        "activation": activation,
        "fused_adamw": fused,
        "parameters": sum(p.numel() for p in model.parameters()),
        "model_flops": step_flops(
            args, args.depth * t * (t + 1) // 2, t * model.config.vocab_size
        ),
    }
    return step, sides.torch_product(), facts


def worker(side: str, args: argparse.Namespace) -> None:
    """The child of one side."""
    turns.pin(args.cores)
    made = ours(args) if side == "mmjax" else theirs(args, **PEERS[side])
    step, product, facts = made
    facts["losses"] = [step() for _ in range(3)]

    def once() -> turns.Numbers:
        return turns.timed(step, args.steps) | {"rate": turns.product_rate(product)}

    turns.serve(facts, once)


def summarize(facts: dict, rounds: dict) -> dict:
    """Medians, the medians of the rounds' ratios to ours, shares of the rate."""
    # The fastest of the libraries' products is what the machine can do.
    rate = max(turns.median(found, "rate") for found in rounds.values())
    out = {"gflops_rate": rate / 1e9, "facts": facts}
    for side, found in rounds.items():
        seconds, flops = turns.median(found, "s"), facts[side]["model_flops"]
        out[side] = {
            "s": seconds,
            "cpu_s": turns.median(found, "cpu_s"),
            "share_of_matmul_rate": flops / seconds / rate,
            "own_gflops_rate": turns.median(found, "rate") / 1e9,
        }
        if side != "mmjax":
            ratio = turns.ratio(found, rounds["mmjax"], "s")
            out[side]["ratio"] = ratio
            out[side]["ratio_cpu"] = turns.ratio(found, rounds["mmjax"], "cpu_s")
            equal = facts["mmjax"]["model_flops"] / flops
            out[side]["ratio_at_equal_flops"] = ratio * equal
    untuned = [side for side in ("gpt2", "gpt2_eager") if side in rounds]
    if untuned:
        best = min(untuned, key=lambda side: out[side]["s"])
        out["headline"] = {"peer": best, "ratio": out[best]["ratio"], "target": TARGET}
    return out | {"rounds": rounds}


def report(result: dict) -> None:
    """Lines for people."""
    for side in result["rounds"]:
        took, flops = result[side], result["facts"][side]["model_flops"]
        share = f"{100 * took['share_of_matmul_rate']:.0f} % of the matmul rate"
        line = f"{side}: {took['s']:.3f} s a step of {flops / 1e9:.1f} GFLOP, {share}"
        if "ratio" in took:
            line += f"; {took['ratio']:.2f} of mmjax's time ("
            line += f"{took['ratio_at_equal_flops']:.2f} at equal FLOPs, "
            line += f"CPU time {took['ratio_cpu']:.2f})"
        print(line)
    if "headline" in result:
        line = "{peer} takes {ratio:.2f} of mmjax's time, target {target}"
        print(line.format(**result["headline"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_shape(parser)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=1, help="steps a round")
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--out", type=pathlib.Path, default=RESULT)
    parser.add_argument("--worker", choices=SIDES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        worker(args.worker, args)
        return
    commands = turns.commands(__file__, ("mmjax", *args.peers), args.peer_python)
    result = summarize(*turns.take(commands, args.rounds))
    report(result)
    turns.save(args.out, about(args) | result)


if __name__ == "__main__":
    main()
