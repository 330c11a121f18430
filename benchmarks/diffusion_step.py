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

Parameters are printed, and the operations of a step's products and convolutions: XLA's
count of ours as executed, elementwise operations included, and torch's own count. The
two networks (`--nets`), and what differs in them, are in denoisers.py.

Needs torch and diffusers (extra `parity`), here or for `--peer-python`.
"""

import argparse
import pathlib

import denoisers
import sides
import turns

RESULT = sides.RESULTS / "diffusion_step.json"
ADAMW = dict(lr=1e-4, b1=0.9, b2=0.999, eps=1e-8, weight_decay=1e-2)
PLAIN = dict(channels_last=False, compiled=False)  # diffusers' defaults
PEERS = {
    "diffusers": PLAIN,
    "diffusers_channels_last": PLAIN | dict(channels_last=True),
    "diffusers_compiled": PLAIN | dict(compiled=True),
}
SIDES = ("mmjax", *PEERS)


def ours(args: argparse.Namespace) -> tuple:
    """(step function returning the loss, facts)."""
    sides.start_mmjax()
    from mmjax.tasks import base

    task = base.build(denoisers.task_fields(args))
    return sides.mmjax_step(task, denoisers.make_batch(args, args.batch), ADAMW)


def theirs(args: argparse.Namespace, *, channels_last: bool, compiled: bool) -> tuple:
    """The same of diffusers, as its training scripts do it."""
    import diffusers
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.nn.functional import mse_loss
    from torch.utils.flop_counter import FlopCounterMode

    torch.manual_seed(0)
    net = denoisers.peer_net(args).train()
    layout = torch.channels_last if channels_last else torch.contiguous_format
    net = net.to(memory_format=layout)
    latent = torch.from_numpy(denoisers.make_batch(args, args.batch)["latent"])
    latent = latent.permute(0, 3, 1, 2).contiguous(memory_format=layout)
    given = denoisers.condition(args, args.batch)
    schedule = diffusers.DDPMScheduler(**denoisers.peer_schedule())
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    denoisers.add_shape(parser)
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=1, help="steps a round")
    parser.add_argument("--out", type=pathlib.Path, default=RESULT)
    parser.add_argument("--worker", choices=SIDES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        worker(args.worker, args)
        return
    turns.save(args.out, denoisers.about(args) | denoisers.measure(__file__, args))


if __name__ == "__main__":
    main()
