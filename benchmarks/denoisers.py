"""The denoisers of diffusion_step.py and diffusion_sample.py: mmjax's and diffusers'.

unet: Stable Diffusion 1's layout with fewer channels, and 77 text states of width 128
that it attends to. Both compute the same function, as
`tests/convert/stable_diffusion_parity_test.py` shows. diffusers is given the states;
ours also runs a frozen text tower of one layer, 0.2 % of a training step's products.

dit: DiT with adaLN-zero of class labels, `DiTTransformer2DModel`. Ours embeds time and
label once, by three linear maps and a table of width 256. diffusers has a table and two
maps of its own in every block, and runs the first block's again at the end: 19 % more
parameters by the defaults, on one vector a row and not a patch, so few products.
"""

import argparse
import statistics
import sys

import numpy as np
import turns

TARGET = 1.0
NETS = ("unet", "dit")
# Stable Diffusion's
SCHEDULE = dict(kind="scaled_linear", start=0.00085, end=0.012)
CHANNELS, STATE_WIDTH, CONTEXT, WORDS = 4, 128, 77, 520
LEVELS, HEADS, GROUPS, CLASSES = 4, 8, 32, 1000


def add_shape(parser: argparse.ArgumentParser) -> None:
    """The options that say how large the models are."""
    parser.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS))
    numbers = dict(grid=32, unet_width=64, unet_depth=2)
    numbers |= dict(dit_width=384, dit_depth=6, dit_heads=6, patch=2)
    for name, value in numbers.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value)
    parser.add_argument("--cores", type=int, default=0, help="0 is all there are")
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--net", choices=NETS, help=argparse.SUPPRESS)


def about(args: argparse.Namespace) -> dict:
    """What a result was measured on."""
    names = ("grid", "unet_width", "unet_depth", "dit_width", "dit_depth", "dit_heads")
    facts = {name: getattr(args, name) for name in (*names, "patch", "batch", "cores")}
    return facts | {"dtype": "float32", "machine": turns.machine()}


def unet_widths(args: argparse.Namespace) -> list[int]:
    """Channels of the levels: one width, and twice that."""
    return [args.unet_width] + [2 * args.unet_width] * (LEVELS - 1)


def task_fields(args: argparse.Namespace) -> dict:
    """`config.task` of ours, with an autoencoder that costs next to nothing."""
    stage1 = dict(kind="conv", widths=(8,), stem=1, depth=0, decoder_depth=0)
    fields = {
        "name": "diffusion",
        "stage1": {"image_size": args.grid, "code_dim": CHANNELS, "net": stage1},
        "prediction": "eps",
        "schedule": SCHEDULE,
    }
    if args.net == "dit":
        net = {"kind": "dit", "patch": args.patch, "width": args.dit_width}
        net |= {"depth": args.dit_depth, "heads": args.dit_heads}
        return fields | {"net": net, "classes": CLASSES}
    widths = unet_widths(args)
    net = {"kind": "unet", "width": args.unet_width, "depth": args.unet_depth}
    net |= {"mult": tuple(width // args.unet_width for width in widths)}
    net |= {"attention": tuple(range(LEVELS - 1)), "heads": HEADS, "groups": GROUPS}
    tower = {"kind": "transformer", "vocab_size": WORDS, "context": CONTEXT}
    tower |= {"width": STATE_WIDTH, "depth": 1, "heads": 4}
    return fields | {"net": net, "tower": tower, "read_padding": True}


def peer_net(args: argparse.Namespace) -> object:
    """diffusers' network of the same numbers, untrained."""
    import diffusers

    if args.net == "dit":
        return diffusers.DiTTransformer2DModel(
            num_attention_heads=args.dit_heads,
            attention_head_dim=args.dit_width // args.dit_heads,
            in_channels=CHANNELS,
            num_layers=args.dit_depth,
            sample_size=args.grid,
            patch_size=args.patch,
            num_embeds_ada_norm=CLASSES,
        )
    return diffusers.UNet2DConditionModel(
        sample_size=args.grid,
        block_out_channels=unet_widths(args),
        layers_per_block=args.unet_depth,
        cross_attention_dim=STATE_WIDTH,
        attention_head_dim=HEADS,  # which in version 1 is their number
        norm_num_groups=GROUPS,
    )


def peer_schedule() -> dict:
    """`SCHEDULE`, as diffusers' schedulers take it."""
    names = dict(beta_schedule="kind", beta_start="start", beta_end="end")
    return {name: SCHEDULE[own] for name, own in names.items()}


def make_batch(args: argparse.Namespace, rows: int) -> dict[str, np.ndarray]:
    """Latents (b, g, g, 4), and tokens (b, 77) or labels (b,)."""
    rng = np.random.default_rng(0)
    shape = rows, args.grid, args.grid, CHANNELS
    batch = {"latent": rng.normal(size=shape).astype(np.float32)}
    if args.net == "dit":
        return batch | {"label": rng.integers(0, CLASSES, rows, np.int32)}
    tokens = rng.integers(0, WORDS, (rows, CONTEXT), np.int32)
    return batch | {"tokens": tokens, "tokens_mask": np.ones_like(tokens, bool)}


def condition(args: argparse.Namespace, rows: int) -> dict:
    """What diffusers' network is called with, beside rows and times."""
    import torch

    if args.net == "dit":
        label = make_batch(args, rows)["label"]
        return {"class_labels": torch.from_numpy(label).long()}
    return {"encoder_hidden_states": torch.randn(rows, CONTEXT, STATE_WIDTH)}


def measure(file: str, args: argparse.Namespace, *, rows: int = 0) -> dict:
    """Interleaved rounds of all sides, for every network, with lines for people.

    rows: drawn at a time, where a rate is wanted.
    """
    result = {}
    for net in args.nets:
        sides = "mmjax", *args.peers
        commands = turns.commands(file, sides, args.peer_python, "--net", net)
        taken = turns.take(commands, args.rounds, on=net)
        result[net] = _summarize(*taken)
        _report(net, result[net], rows)
    return result


def _summarize(facts: dict, rounds: dict) -> dict:
    """Medians, and of the rounds' ratios to ours the median, lowest and highest."""
    out = {"facts": facts}
    for side, found in rounds.items():
        out[side] = {key: turns.median(found, key) for key in ("s", "cpu_s")}
        if side != "mmjax":
            ratios = turns.ratios(found, rounds["mmjax"], "s")
            out[side]["ratio"] = statistics.median(ratios)
            out[side]["ratio_range"] = ratios[0], ratios[-1]
            out[side]["ratio_cpu"] = turns.ratio(found, rounds["mmjax"], "cpu_s")
    best = min((side for side in rounds if side != "mmjax"), key=lambda x: out[x]["s"])
    out["headline"] = {"peer": best, "ratio": out[best]["ratio"], "target": TARGET}
    return out | {"rounds": rounds}


def _report(net: str, result: dict, rows: int) -> None:
    """Lines for people."""
    for side in result["rounds"]:
        took, facts = result[side], result["facts"][side]
        line = f"{net}, {side}: {took['s']:.3f} s ({took['cpu_s']:.3f} s of CPU), "
        if rows:
            line += f"{rows / took['s']:.3g} latents/s, "
        if "executed_flops" in facts:
            line += f"{facts['executed_flops'] / 1e9:.1f} GFLOP, "
        line += f"{facts['parameters'] / 1e6:.2f} M parameters"
        if "ratio" in took:
            ratios = (took["ratio"], *took["ratio_range"], took["ratio_cpu"])
            line += "; {:.2f} of mmjax's time ({:.2f} to {:.2f}; CPU {:.2f})".format(
                *ratios
            )
        print(line)
    line = net + ": {peer} takes {ratio:.2f} of mmjax's time, target {target}"
    print(line.format(**result["headline"]), flush=True)
