"""Seconds per training step of a denoiser: mmjax beside diffusers on torch.

    python benchmarks/diffusion_step.py --rounds 7

A step is the forward pass, the square error of the noise (eps), the backward pass and
AdamW with weight decay on kernels, float32, on CPU, on latents of 32 x 32 x 4; noise,
time steps and noised latents are drawn and made inside it, by Stable Diffusion's
schedule. Ours is `mmjax.train.step.train_step` of the task `diffusion`, compiled with
donated state. diffusers runs as `diffusers`: eager, as its config says (attention by
torch's sdpa); `diffusers_channels_last`: the same in that memory format;
`diffusers_compiled`: the first under `torch.compile`. All live in processes of their
own and take turns, so a busy machine slows all alike. The target, 1.0, is for the
fastest of them.

Two networks (`--nets`):

unet: Stable Diffusion 1's layout with fewer channels, and 77 text states of width 128
that it attends to. Both compute the same function, as
`tests/convert/stable_diffusion_parity_test.py` shows. diffusers is given the states;
ours also runs a frozen text tower of one layer, 0.2 % of its step's products, and
drops a tenth of the captions.

dit: DiT with adaLN-zero of class labels, `DiTTransformer2DModel`. Ours embeds time and
label once, by three linear maps from a table of width 256; diffusers has a table and
two maps of its own in every block and runs the first block's again at the end. They see
a row once and not a patch, so they are a fifth of its parameters and little of its
products; diffusers' also drops a tenth of the labels.

Parameters are printed, and the operations of a step's products and convolutions: XLA's
count of ours as executed, elementwise operations included, and torch's own count.

Needs torch and diffusers (extra `parity`), here or for `--peer-python`.
"""

import argparse
import pathlib
import statistics
import sys

import numpy as np
import sides
import turns

RESULT = sides.RESULTS / "diffusion_step.json"
ADAMW = dict(lr=1e-4, b1=0.9, b2=0.999, eps=1e-8, weight_decay=1e-2)
TARGET = 1.0
PLAIN = dict(channels_last=False, compiled=False)  # diffusers' defaults
PEERS = {
    "diffusers": PLAIN,
    "diffusers_channels_last": PLAIN | dict(channels_last=True),
    "diffusers_compiled": PLAIN | dict(compiled=True),
}
SIDES = ("mmjax", *PEERS)
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
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--net", choices=NETS, help=argparse.SUPPRESS)


def about(args: argparse.Namespace) -> dict:
    """What a result was measured on."""
    names = ("grid", "unet_width", "unet_depth", "dit_width", "dit_depth", "dit_heads")
    facts = {name: getattr(args, name) for name in (*names, "patch", "cores")}
    return facts | {"dtype": "float32", "machine": turns.machine()}


def unet_widths(args: argparse.Namespace) -> list[int]:
    """Channels of the levels: one width, and twice that."""
    return [args.unet_width] + [2 * args.unet_width] * (LEVELS - 1)


def task_fields(args: argparse.Namespace) -> dict:
    """Of `mmjax.tasks.diffusion.Task`, with an autoencoder that costs next to nothing."""
    stage1 = dict(kind="conv", widths=(8,), stem=1, depth=0, decoder_depth=0)
    fields = {
        "stage1": {"image_size": 2 * args.grid, "code_dim": CHANNELS, "net": stage1},
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


def ours(args: argparse.Namespace) -> tuple:
    """(step function returning the loss, facts)."""
    sides.start_mmjax()
    from mmjax import schema
    from mmjax.sampling.noise import Schedule
    from mmjax.tasks.diffusion import Task

    fields = task_fields(args)
    fields["schedule"] = schema.from_mapping(Schedule, SCHEDULE, "schedule")
    return sides.mmjax_step(Task(**fields), make_batch(args, args.batch), ADAMW)


def theirs(args: argparse.Namespace, *, channels_last: bool, compiled: bool) -> tuple:
    """The same of diffusers, as its training scripts do it."""
    import diffusers
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.nn.functional import mse_loss
    from torch.utils.flop_counter import FlopCounterMode

    torch.manual_seed(0)
    net = peer_net(args).train()
    layout = torch.channels_last if channels_last else torch.contiguous_format
    net = net.to(memory_format=layout)
    latent = torch.from_numpy(make_batch(args, args.batch)["latent"])
    latent = latent.permute(0, 3, 1, 2).contiguous(memory_format=layout)
    given = condition(args, args.batch)
    schedule = diffusers.DDPMScheduler(
        beta_start=SCHEDULE["start"],
        beta_end=SCHEDULE["end"],
        beta_schedule=SCHEDULE["kind"],
    )
    adamw = sides.torch_adamw(net, **ADAMW)
    run = torch.compile(net) if compiled else net

    def step(run: torch.nn.Module = run) -> float:
        adamw.zero_grad()
        eps = torch.randn_like(latent)
        time = torch.randint(0, schedule.config.num_train_timesteps, (len(latent),))
        noised = schedule.add_noise(latent, eps, time)
        loss = mse_loss(run(noised, time, **given).sample, eps)
        loss.backward()
        adamw.step()
        return loss.item()

    # In plain operations: the counter does not know the fused attention of CPUs.
    with FlopCounterMode(display=False) as count, sdpa_kernel(SDPBackend.MATH):
        step(net)
    facts = {
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "threads": torch.get_num_threads(),
        "executed_flops": count.get_total_flops(),
        "parameters": sum(p.numel() for p in net.parameters()),
    }
    return step, facts


def worker(side: str, args: argparse.Namespace) -> None:
    """The child of one side."""
    turns.pin(args.cores)
    step, facts = ours(args) if side == "mmjax" else theirs(args, **PEERS[side])
    facts["losses"] = [step() for _ in range(3)]
    turns.serve(facts, lambda: turns.timed(step, args.steps))


def commands(file: str, args: argparse.Namespace, net: str) -> dict[str, list[str]]:
    """Of every side's child, for a network."""
    found = {}
    for side in ("mmjax", *args.peers):
        python = sys.executable if side == "mmjax" else args.peer_python
        found[side] = [python, file, "--worker", side, *sys.argv[1:], "--net", net]
    return found


def summarize(facts: dict, rounds: dict) -> dict:
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


def report(net: str, result: dict) -> None:
    """Lines for people."""
    for side in result["rounds"]:
        took, facts = result[side], result["facts"][side]
        line = f"{net}, {side}: {took['s']:.3f} s ({took['cpu_s']:.3f} s of CPU), "
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_shape(parser)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=1, help="steps a round")
    parser.add_argument("--out", type=pathlib.Path, default=RESULT)
    parser.add_argument("--worker", choices=SIDES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        worker(args.worker, args)
        return
    result = about(args) | {"batch": args.batch}
    for net in args.nets:
        taken = turns.take(commands(__file__, args, net), args.rounds, on=net)
        result[net] = summarize(*taken)
        report(net, result[net])
    turns.save(args.out, result)


if __name__ == "__main__":
    main()
