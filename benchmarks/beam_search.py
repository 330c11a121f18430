"""Captions a second by beam search: mmjax beside Hugging Face's `generate`.

    python benchmarks/beam_search.py --rounds 5 --check

64 images, 5 beams, 32 words, float32 on CPU: predict "caption" of the task's
transformer, compiled, and `generate` of a `GPT2LMHeadModel` with cross-attention and
its own cache, which is the same decoder: blocks of the same order and sizes, the same
weights. Neither ever says the end, so that both do all 32 words. The target is a ratio
of 1.5 or more. Both live in processes of their own and take turns.

`--check` asks whether both find the same captions, with the end allowed. `--rounds 0`
leaves the speed out. Needs torch and transformers (extra `bench`), here or for
`--peer-python`.
"""

import argparse
import json
import pathlib
import subprocess
import sys

import numpy as np
import sides
import turns

RESULT = sides.RESULTS / "beam_search.json"
SIDES = ("mmjax", "gpt2")
SEED, TOLERANCE = 0, 1e-3


def weights(args: argparse.Namespace) -> dict:
    """Random parameters of the decoder, as mmjax nests them, from numpy alone."""
    rng, w = np.random.default_rng(SEED), args.width

    def dense(rows: int, columns: int) -> dict:
        kernel = rng.normal(size=(rows, columns)) * rows**-0.5
        return {"kernel": kernel, "bias": 0.1 * rng.normal(size=columns)}

    def norm(width: int) -> dict:
        return {"scale": np.ones(width), "bias": np.zeros(width)}

    tables = {"token_embedding": args.vocab, "position_embedding": args.words + 1}
    params = {k: 0.3 * rng.normal(size=(rows, w)) for k, rows in tables.items()}
    params |= {"cells": dense(w, w), "norm_cells": norm(w), "norm": norm(w)}
    for i in range(args.depth):
        params[f"block_{i}"] = {
            "norm_1": norm(w),
            "norm_cross": norm(w),
            "norm_2": norm(w),
            "attn": {"qkv": dense(w, 3 * w), "out": dense(w, w)},
            "cross": {"q": dense(w, w), "kv": dense(w, 2 * w), "out": dense(w, w)},
            "mlp": {"fc": dense(w, 4 * w), "proj": dense(4 * w, w)},
        }
    return params


def cells(args: argparse.Namespace) -> np.ndarray:
    """float32 (images, cells, width)."""
    shape = args.images, args.cells, args.width
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def ours(args: argparse.Namespace) -> tuple:
    """(function giving ids (p, words) and scores (p,), facts)."""
    sides.start_mmjax()
    import jax
    import jax.numpy as jnp

    from mmjax.state import Ctx, Vars
    from mmjax.tasks.caption import Decoding, Task

    end = args.vocab - 1
    decoder = dict(kind="transformer", width=args.width, depth=args.depth)
    decoder |= dict(heads=args.heads, act="gelu_tanh")
    forbid = () if args.end else (end,)
    task = Task(
        decoder=decoder,
        vocab_size=args.vocab,
        context=args.words + 1,
        sampling=Decoding(k=args.beams, forbid=forbid),
    )
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), weights(args))
    variables = Vars(params={"decoder": params})
    tokens = np.full((args.images, args.words + 1), 0, np.int32)
    tokens[:, 0], tokens[:, 1] = end - 1, end
    batch = {"features": cells(args), "tokens": tokens}
    ctx = Ctx(rng=jax.random.key(0), step=jnp.int32(0))
    say = jax.jit(lambda v, x: task.predict()["caption"](v, x, ctx))
    say = say.lower(variables, batch).compile()

    def captions() -> tuple[np.ndarray, np.ndarray]:
        out = jax.device_get(say(variables, batch))
        return out["caption"][:, 0], out["score"][:, 0]

    return captions, {"jax": jax.__version__}


def theirs(args: argparse.Namespace) -> tuple:
    """The same of GPT-2 with cross-attention."""
    import torch
    import transformers

    params, end = weights(args), args.vocab - 1
    config = transformers.GPT2Config(
        vocab_size=args.vocab,
        n_positions=args.words + 1,
        n_embd=args.width,
        n_layer=args.depth,
        n_head=args.heads,
        add_cross_attention=True,
        activation_function="gelu_new",
        bos_token_id=end - 1,
        eos_token_id=end,
        pad_token_id=end,
    )
    model = transformers.GPT2LMHeadModel(config).eval()
    names = {"ln_1": "norm_1", "ln_cross_attn": "norm_cross", "ln_2": "norm_2"}
    names |= {"attn.c_attn": "attn.qkv", "attn.c_proj": "attn.out"}
    names |= {"crossattention.q_attn": "cross.q", "crossattention.c_attn": "cross.kv"}
    names |= {"crossattention.c_proj": "cross.out"}
    names |= {"mlp.c_fc": "mlp.fc", "mlp.c_proj": "mlp.proj"}
    own = {
        "wte.weight": params["token_embedding"],
        "wpe.weight": params["position_embedding"],
        "ln_f.weight": params["norm"]["scale"],
        "ln_f.bias": params["norm"]["bias"],
    }
    for i in range(args.depth):
        for name, place in names.items():
            part = params[f"block_{i}"]
            for key in place.split("."):
                part = part[key]
            kernel = part["kernel"] if "kernel" in part else part["scale"]
            own[f"h.{i}.{name}.weight"], own[f"h.{i}.{name}.bias"] = (
                kernel,
                part["bias"],
            )
    tensors = {k: torch.from_numpy(np.float32(x)) for k, x in own.items()}
    missing = model.transformer.load_state_dict(tensors, strict=False)
    assert not missing.unexpected_keys, missing
    assert all("bias" in k for k in missing.missing_keys), missing
    x = torch.from_numpy(cells(args))
    x = torch.nn.functional.layer_norm(x, x.shape[-1:])
    kernel, bias = (np.float32(params["cells"][k]) for k in ("kernel", "bias"))
    states = x @ torch.from_numpy(kernel) + torch.from_numpy(bias)
    start = torch.full((args.images, 1), end - 1)

    def captions() -> tuple[np.ndarray, np.ndarray]:
        with torch.inference_mode():
            out = model.generate(
                start,
                attention_mask=torch.ones_like(start),
                encoder_hidden_states=states,
                num_beams=args.beams,
                do_sample=False,
                max_new_tokens=args.words,
                length_penalty=0.0,
                suppress_tokens=None if args.end else [end],
                return_dict_in_generate=True,
                output_scores=True,
            )
        ids = np.full((args.images, args.words), end)
        said = out.sequences[:, 1:].numpy()
        ids[:, : said.shape[1]] = said
        return ids, out.sequences_scores.numpy()

    facts = {"torch": torch.__version__, "transformers": transformers.__version__}
    return captions, facts | {"threads": torch.get_num_threads()}


def worker(side: str, args: argparse.Namespace) -> None:
    """The child of one side; with `--end` it says its captions and is done."""
    turns.pin(args.cores)
    captions, facts = ours(args) if side == "mmjax" else theirs(args)
    ids, scores = captions()
    if args.end:
        print(json.dumps([ids.tolist(), scores.tolist()]))
        return
    turns.serve(facts, lambda: turns.timed(captions))


def check(args: argparse.Namespace) -> dict[str, float]:
    """Share of images with the same caption, and the largest difference of scores."""
    commands = turns.commands(__file__, SIDES, args.peer_python, "--end")
    said = {}
    for side, command in commands.items():
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        said[side] = [np.array(x) for x in json.loads(done.stdout.splitlines()[-1])]
    (ids, scores), (other_ids, other_scores) = said.values()
    same = float((ids == other_ids).all(1).mean())
    return {"same": same, "apart": float(np.abs(scores - other_scores).max())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--beams", type=int, default=5)
    parser.add_argument("--words", type=int, default=32)
    parser.add_argument("--vocab", type=int, default=2600)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--depth", type=int, default=3)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--cells", type=int, default=49)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cores", type=int, default=0, help="0 is all there are")
    parser.add_argument("--check", action="store_true", help="compare captions")
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--out", type=pathlib.Path, default=RESULT)
    parser.add_argument("--end", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--worker", choices=SIDES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        worker(args.worker, args)
        return
    sizes = "images beams words vocab width depth heads cells cores".split()
    result = {key: getattr(args, key) for key in sizes} | {"dtype": "float32"}
    if args.check:
        result["check"] = agreed = check(args)
        print(f"{agreed['same']:.0%} the same, scores {agreed['apart']:.1e} apart")
        assert agreed["apart"] < TOLERANCE, agreed
    if args.rounds:
        commands = turns.commands(__file__, SIDES, args.peer_python)
        facts, rounds = turns.take(commands, args.rounds)
        ratio = {
            k: turns.ratio(rounds["gpt2"], rounds["mmjax"], k) for k in ("s", "cpu_s")
        }
        result |= {"facts": facts, "rounds": rounds, "ratio": ratio}
        for side in SIDES:
            rate = args.images / turns.median(rounds[side], "s")
            print(f"{side}: {rate:.1f} images a second")
        print(f"gpt2 takes {ratio['s']:.2f} of ours (CPU time {ratio['cpu_s']:.2f})")
    turns.save(args.out, result | {"machine": turns.machine()})


if __name__ == "__main__":
    main()
