"""Latents a second, sampled with guidance: mmjax beside diffusers on torch.

    python benchmarks/diffusion_sample.py --rounds 5 --memory

20 steps of DDIM on Stable Diffusion's schedule, guidance 7.5 (two rows a latent in
every call of the network), 4 candidates of one text or label, float32, on CPU, random
weights; the networks and what differs in them are in denoisers.py. Ours is predict
"sample" of the task `diffusion`, compiled, with its text tower and its decoding (by an
autoencoder that costs next to nothing). diffusers' is the loop of its pipelines under
`torch.inference_mode` from given text states, with nothing around it: the network,
guidance, `DDIMScheduler.step`. It runs as `diffusers`: eager, as its config says;
`diffusers_channels_last`; and `diffusers_compiled`, under `torch.compile`. All live in
processes of their own and take turns. The target, 1.0, is for the fastest of them.

`--memory` draws K = 16 and K = 64 candidates of one text by the UNet and
`mmjax.inference.generate`, 8 in a call, in processes of their own, and reports the peak
of memory that each held. `--rounds 0` leaves the speed out.

Needs torch and diffusers (extra `parity`), here or for `--peer-python`.
"""

import argparse
import pathlib
import time
from collections.abc import Callable

import denoisers
import diffusion_step
import numpy as np
import sides
import turns

RESULT = sides.RESULTS / "diffusion_sample.json"
PEERS = diffusion_step.PEERS
SIDES = ("mmjax", *PEERS)
GUIDANCE, PROMPT = 7.5, "a star"
# Stable Diffusion's: steps are whole multiples of 50, plus one, and stop at the first.
LADDER = dict(sampler="ddim", spacing="leading", offset=1, clean=False)


def task_fields(args: argparse.Namespace) -> dict:
    """`config.task` of ours."""
    sampling = LADDER | dict(steps=args.steps, guidance=GUIDANCE)
    return denoisers.task_fields(args) | {"sampling": sampling}


def ours(args: argparse.Namespace) -> tuple:
    """(function that samples, facts)."""
    sides.start_mmjax()
    import jax
    import jax.numpy as jnp

    from mmjax.state import Ctx
    from mmjax.tasks import base

    task = base.build(task_fields(args))
    batch = denoisers.make_batch(args, 1)
    variables = jax.jit(task.init)(jax.random.key(0), batch)
    del batch["latent"]
    batch["seed"] = np.zeros(1, np.uint32)
    batch["candidate"] = np.arange(args.batch, dtype=np.int32)[None]
    ctx = Ctx(rng=jax.random.key(0), step=jnp.int32(0))
    start = time.perf_counter()
    run = jax.jit(
        lambda variables, batch: task.predict()["sample"](variables, batch, ctx)
    )
    run = run.lower(variables, batch).compile()
    facts = {"jax": jax.__version__, "compile_s": time.perf_counter() - start}
    facts["parameters"] = sum(x.size for x in jax.tree.leaves(variables.params))
    return lambda: jax.device_get(run(variables, batch))["image"][0], facts


def theirs(args: argparse.Namespace, *, channels_last: bool, compiled: bool) -> tuple:
    """The same of diffusers."""
    import diffusers
    import torch

    torch.manual_seed(0)
    net = denoisers.peer_net(args).eval()
    layout = torch.channels_last if channels_last else torch.contiguous_format
    run = net = net.to(memory_format=layout)
    if compiled:
        run = torch.compile(net)
    given = {
        name: value.repeat_interleave(args.batch, 0)
        for name, value in denoisers.condition(args, 2).items()
    }
    if args.net == "dit":
        given["class_labels"][args.batch :] = denoisers.CLASSES  # of none
    schedule = diffusers.DDIMScheduler(
        **denoisers.peer_schedule(),
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    schedule.set_timesteps(args.steps)
    shape = args.batch, denoisers.CHANNELS, args.grid, args.grid

    def sample() -> np.ndarray:
        x = torch.randn(shape).contiguous(memory_format=layout)
        with torch.inference_mode():
            for t in schedule.timesteps:
                rows = torch.cat([x, x])
                # A scalar will do for UNets alone.
                noise = run(rows, t.expand(len(rows)), **given).sample
                noise, without = noise.chunk(2)
                noise = without + GUIDANCE * (noise - without)
                x = schedule.step(noise, t, x).prev_sample
        return x.numpy()

    facts = {
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "threads": torch.get_num_threads(),
        "parameters": sum(p.numel() for p in net.parameters()),
    }
    return sample, facts


def worker(side: str, args: argparse.Namespace) -> None:
    """The child of one side."""
    turns.pin(args.cores)
    sample, facts = ours(args) if side == "mmjax" else theirs(args, **PEERS[side])
    assert len(sample()) == args.batch
    turns.serve(facts, lambda: turns.timed(sample))


def sampler(args: argparse.Namespace) -> Callable[[int], np.ndarray]:
    """Candidates of a run of this shape that was never trained: k to images."""
    sides.start_mmjax()
    import jax
    import jax.numpy as jnp
    from ml_collections import ConfigDict

    from mmjax.data import tokenizers
    from mmjax.inference.generate import Generator
    from mmjax.inference.load import Run
    from mmjax.state import TrainState
    from mmjax.train import setup
    from mmjax_configs import diffusion as configs

    config = configs.get_config("tiny")
    config.task = ConfigDict(task_fields(args))
    config.data.fields.tokens = dict(kind="text", context=denoisers.CONTEXT)
    config.data.fields.image.size = args.grid
    tokenizer = tokenizers.build({"kind": "bytes", "context": denoisers.CONTEXT})
    parts = setup.build(config, saved={"tokens": tokenizer.to_json()})
    made = jax.jit(parts.task.init)(jax.random.key(0), parts.example())
    state = TrainState(jnp.zeros((), jnp.int32), made, (), None, jax.random.key(1))
    generator = Generator(
        Run(pathlib.Path("untrained"), parts, state), batch=args.chunk
    )
    return lambda k: generator.sample([PROMPT], k=k).images


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    denoisers.add_shape(parser)
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--batch", type=int, default=4, help="candidates")
    parser.add_argument("--steps", type=int, default=20, help="of DDIM")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory", nargs="*", type=int, metavar="K", help="16 64")
    parser.add_argument("--chunk", type=int, default=8, help="candidates in a call")
    parser.add_argument("--out", type=pathlib.Path, default=RESULT)
    parser.add_argument("--candidates", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--worker", choices=(*SIDES, "memory"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker == "memory":
        turns.pin(args.cores)
        args.net = "unet"
        sample = sampler(args)
        turns.print_peak(lambda: sample(args.candidates))
        return
    if args.worker:
        worker(args.worker, args)
        return
    result = denoisers.about(args) | {"steps": args.steps, "guidance": GUIDANCE}
    if args.rounds:
        result |= denoisers.measure(__file__, args, rows=args.batch)
    if args.memory is not None:
        args.memory = args.memory or [16, 64]
        result |= {"chunk": args.chunk, "memory": turns.peaks(__file__, args)}
    turns.save(args.out, result)


if __name__ == "__main__":
    main()
