"""Image tokens a second, sampled with a cache: mmjax beside Hugging Face's GPT-2.

    python benchmarks/prior_sample.py --rounds 5 --check --memory

256 image tokens after 64 of text, 8 rows, float32, on CPU, temperature 1, no guidance,
random weights: predict "sample" of the prior's task, compiled, its decoding to pixels
(by a stage 1 that costs next to nothing) included; and `generate` of `GPT2LMHeadModel`
with its own cache, under `torch.inference_mode`. Shapes, vocabularies and peers are
those of prior_step.py. Ours runs twice: `mmjax`: 8 candidates of one prompt, whose text
is read once, and `mmjax_prompts`: one candidate for each of 8 prompts, which is what
GPT-2 is given. Tokens a second are rows x 256 / seconds of the whole sampling, prefill
included, compilation not. The target, 1.5, is for both of ours against the faster of
`gpt2` and `gpt2_eager`. All live in processes of their own and take turns.

A step of decoding reads each weight once for a few rows, so memory sets a bound: the
bytes of all kernels and of the head, plus keys and values of what the masks show, once
a token (of text once a prompt, of image tokens once a row, the mean over the image),
over the rate at which this machine reads that many bytes again and again, caches and
all. Each side measures that rate every round, jax by a sum and torch by a product with
a vector, and the fastest side's median counts. Shares of that bound are printed.

`--check` decodes a small model, teacher-forced, and compares its logits with those of
whole sequences, for all kinds of masks: the largest difference may be 1e-4.
`--memory` draws K = 64 and K = 512 candidates of one prompt by
`mmjax.inference.generate`, 64 in a call, in processes of their own, and reports the
peak of memory that each held.
`--rounds 0` leaves the speed out.

Needs torch and transformers (extra `bench`), here or for `--peer-python`.
"""

import argparse
import functools
import pathlib
import sys
import time
from collections.abc import Callable

import numpy as np
import prior_step
import sides
import turns

RESULT = sides.RESULTS / "prior_sample.json"
OURS = ("mmjax", "mmjax_prompts")
PEERS = {
    name: {key: peer[key] for key in ("attention", "activation")}
    for name, peer in prior_step.PEERS.items()
}
TARGET, TOLERANCE = 1.5, 1e-4


def bytes_a_token(
    args: argparse.Namespace, ids: int, prompts: int, seen: float
) -> float:
    """Read in a step of decoding, at the least.

    Args:
      ids: that the head gives logits of.
      prompts: whose text is kept apart.
      seen: image tokens that a row reads, the mean over steps and layers.
    """
    w = args.width
    weights = args.depth * 12 * w**2 + ids * w
    tokens = prompts * args.context + args.batch * seen
    return 4 * (weights + args.depth * 2 * w * tokens)


def ours(args: argparse.Namespace, prompts: int) -> tuple:
    """(function that samples, bytes a token, reader of memory, facts)."""
    sides.start_mmjax()
    import jax
    import jax.numpy as jnp

    from mmjax.nn import grid_masks
    from mmjax.state import Ctx
    from mmjax.tasks.prior import Task

    task = Task(**prior_step.prior_fields(args))
    text = prior_step.make_tokens(args)[0][:prompts]
    batch = {"tokens": text, "tokens_mask": np.ones_like(text, bool)}
    variables = jax.jit(task.init)(jax.random.key(0), batch)
    candidates = np.arange(args.batch // prompts, dtype=np.int32)
    batch["seed"] = np.arange(prompts, dtype=np.uint32)
    batch["candidate"] = np.tile(candidates, (prompts, 1))
    ctx = Ctx(rng=jax.random.key(0), step=jnp.int32(0))
    start = time.perf_counter()
    run = jax.jit(
        lambda variables, batch: task.predict()["sample"](variables, batch, ctx)
    )
    run = run.lower(variables, batch).compile()
    facts = {"jax": jax.__version__, "compile_s": time.perf_counter() - start}
    facts["parameters"] = sum(x.size for x in jax.tree.leaves(variables.params))

    def sample() -> np.ndarray:
        ids_pkn = jax.device_get(run(variables, batch))["image_tokens"]
        return ids_pkn.reshape(args.batch, -1)

    kinds = grid_masks.layer_kinds(args.masks, args.depth)
    masks = [grid_masks.image_mask(kind, args.grid) for kind in kinds]
    seen = float(np.mean([mask_nn.sum(1).mean() for mask_nn in masks]))
    amount = bytes_a_token(args, args.image_vocab, prompts, seen)
    block, total = jnp.ones(int(amount) // 4), jax.jit(jnp.sum)
    return sample, amount, lambda: jax.block_until_ready(total(block)), facts


def theirs(args: argparse.Namespace, *, attention: str, activation: str) -> tuple:
    """The same of GPT-2."""
    import torch
    import transformers

    torch.manual_seed(0)
    model = prior_step.gpt2(args, attention=attention, activation=activation).eval()
    prompt = torch.from_numpy(prior_step.make_tokens(args)[0]).long()
    n = args.grid**2

    def sample() -> np.ndarray:
        with torch.inference_mode():
            ids = model.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                do_sample=True,
                temperature=1.0,
                top_k=0,
                top_p=1.0,
                max_new_tokens=n,
                min_new_tokens=n,
            )
        return ids[:, args.context :].numpy()

    facts = {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "threads": torch.get_num_threads(),
        "attention": model.config._attn_implementation,
        "activation": activation,
        "parameters": sum(p.numel() for p in model.parameters()),
    }
    amount = bytes_a_token(args, model.config.vocab_size, args.batch, (n + 1) / 2)
    block = torch.ones(max(1, int(amount) // 4 // args.width), args.width)
    vector = torch.ones(args.width)

    def read() -> torch.Tensor:
        with torch.inference_mode():
            return block @ vector

    return sample, amount, read, facts


def worker(side: str, args: argparse.Namespace) -> None:
    """The child of one side."""
    turns.pin(args.cores)
    if side in OURS:
        made = ours(args, 1 if side == "mmjax" else args.batch)
    else:
        made = theirs(args, **PEERS[side])
    sample, amount, read, facts = made
    ids_bn = sample()
    assert ids_bn.shape == (args.batch, args.grid**2), ids_bn.shape
    facts |= {"bytes_a_token": amount, "different_ids": len(np.unique(ids_bn))}
    read()
    turns.serve(
        facts, lambda: turns.timed(sample) | {"read_rate": turns.rate(read, amount)}
    )


def measure(args: argparse.Namespace) -> dict:
    """Interleaved rounds of all sides."""
    every = *OURS, *args.peers
    commands = turns.commands(__file__, every, args.peer_python, ours=OURS)
    facts, rounds = turns.take(commands, args.rounds)
    # The fastest of the libraries' reading is what the machine can do.
    rate = max(turns.median(found, "read_rate") for found in rounds.values())
    out = {"gbytes_rate": rate / 1e9, "facts": facts}
    for side, found in rounds.items():
        seconds, n = turns.median(found, "s"), args.grid**2
        out[side] = {
            "s": seconds,
            "cpu_s": turns.median(found, "cpu_s"),
            "tokens_a_second": args.batch * n / seconds,
            "share_of_bound": facts[side]["bytes_a_token"] * n / rate / seconds,
            "own_gbytes_rate": turns.median(found, "read_rate") / 1e9,
        }
    for own in OURS:
        out[own]["speed_over"] = {
            peer: turns.ratio(rounds[peer], rounds[own], "s") for peer in args.peers
        }
    untuned = [peer for peer in ("gpt2", "gpt2_eager") if peer in rounds]
    if untuned:
        best = min(untuned, key=lambda side: out[side]["s"])
        ratios = {own: out[own]["speed_over"][best] for own in OURS}
        out["headline"] = {"peer": best, "target": TARGET} | ratios
    return out | {"rounds": rounds}


def report(result: dict) -> None:
    """Lines for people."""
    print(f"memory is read at {result['gbytes_rate']:.1f} GB/s")
    for side in result["rounds"]:
        took, amount = result[side], result["facts"][side]["bytes_a_token"]
        line = f"{side}: {took['tokens_a_second']:.0f} tokens/s ({took['s']:.2f} s), "
        line += f"{100 * took['share_of_bound']:.0f} % of the bound set by reading "
        line += f"{amount / 1e6:.0f} MB a step"
        for peer, ratio in took.get("speed_over", {}).items():
            line += f"; {ratio:.2f} x {peer}"
        print(line)
    if "headline" in result:
        line = "mmjax {mmjax:.2f} and mmjax_prompts {mmjax_prompts:.2f} x {peer}, "
        print((line + "target {target}").format(**result["headline"]))


def check() -> dict[str, float]:
    """Largest difference of cached and whole logits, by kind of mask."""
    sides.start_mmjax()
    import jax
    import jax.numpy as jnp

    from mmjax.models import prior
    from mmjax.nn import grid_masks

    p, k, context, grid, words, codes = 2, 2, 6, 6, 40, 50
    rng = np.random.default_rng(0)
    text_pl = rng.integers(0, words, (p, context), np.int32)
    mask_pl = np.arange(context) < np.asarray([[context], [4]])
    image_bn = rng.integers(0, codes, (p * k, grid**2), np.int32)
    text_bl, mask_bl = (np.repeat(x_pl, k, axis=0) for x_pl in (text_pl, mask_pl))
    found = {}
    for masks in (*grid_masks.KINDS, "paper"):
        model = prior.Prior(
            width=64,
            depth=4,  # of which "paper" makes row, column, row, conv
            heads=4,
            vocab_size=words,
            context=context,
            image_vocab=codes,
            grid=grid,
            masks=masks,
            conv_kernel=5,
        )
        made = jax.jit(model.init)(jax.random.key(0), text_bl, mask_bl, image_bn)
        # Larger than at the start of training, so that a wrong token would show.
        params = jax.tree.map(lambda x: x + 0.1 * rng.normal(size=x.shape), made)
        params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params["params"])
        run = jax.jit(model.apply)
        _, want_bnv = run({"params": params}, text_bl, mask_bl, image_bn)
        given = text_pl, mask_pl, image_bn[:p, :0], k
        first_pv, cache = model.apply({"params": params}, *given, method="prefill")
        got = [jnp.repeat(first_pv, k, axis=0)]
        weights = prior.decoder(model, params)
        step = jax.jit(functools.partial(prior.step, model))
        for i in range(grid**2 - 1):
            logits_bv, cache = step(weights, image_bn[:, i], jnp.int32(i), cache)
            got.append(logits_bv)
        found[masks] = float(np.abs(jnp.stack(got, axis=1) - want_bnv).max())
    return found


def sampler(args: argparse.Namespace) -> Callable[[int], np.ndarray]:
    """Candidates of a run of this shape that was never trained: k to tokens."""
    sides.start_mmjax()
    import jax
    import jax.numpy as jnp
    from ml_collections import ConfigDict

    from mmjax.data import tokenizers
    from mmjax.inference.generate import Generator
    from mmjax.inference.load import Run
    from mmjax.state import TrainState
    from mmjax.train import setup
    from mmjax_configs import prior as configs

    config = configs.get_config("tiny")
    config.task = ConfigDict({"name": "prior", **prior_step.prior_fields(args)})
    config.data.fields.tokens = dict(kind="text", context=args.context)
    config.data.fields.image.size = 4 * args.grid
    tokenizer = tokenizers.build({"kind": "bytes", "context": args.context})
    parts = setup.build(config, saved={"tokens": tokenizer.to_json()})
    made = jax.jit(parts.task.init)(jax.random.key(0), parts.example())
    state = TrainState(jnp.zeros((), jnp.int32), made, (), None, jax.random.key(1))
    run = Run(pathlib.Path("untrained"), parts, state)
    generator = Generator(run, batch=args.chunk)
    return lambda k: generator.sample(["a star"], k=k).arrays["image_tokens"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    prior_step.add_shape(parser)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--memory", nargs="*", type=int, metavar="K", help="64 512")
    parser.add_argument("--chunk", type=int, default=64, help="candidates in a call")
    parser.add_argument("--out", type=pathlib.Path, default=RESULT)
    parser.add_argument("--candidates", type=int, help=argparse.SUPPRESS)
    kinds = (*OURS, *PEERS, "memory")
    parser.add_argument("--worker", choices=kinds, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker == "memory":
        turns.pin(args.cores)
        sample = sampler(args)
        turns.print_peak(lambda: sample(args.candidates))
        return
    if args.worker:
        worker(args.worker, args)
        return
    result, wrong = prior_step.about(args), []
    if args.rounds:
        result |= measure(args)
        report(result)
    if args.memory is not None:
        args.memory = args.memory or [64, 512]
        result |= {"chunk": args.chunk, "memory": turns.peaks(__file__, args)}
    if args.check:
        result["check"] = check()
        for masks, most in result["check"].items():
            print(f"cached and whole logits, masks {masks}: at most {most:.1e} apart")
        wrong = [m for m, most in result["check"].items() if not most <= TOLERANCE]
    turns.save(args.out, result)
    if wrong:
        sys.exit(f"logits differ by more than {TOLERANCE} with masks {wrong}")


if __name__ == "__main__":
    main()
