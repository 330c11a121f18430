"""Training steps and decoding on the accelerator at hand: rate, MFU and peak memory.

    python benchmarks/accelerator.py --quick
    python benchmarks/accelerator.py --out benchmarks/results/h100.json

Needs this repository and jax[cuda13] or jax[tpu]. Every case runs in a process of its
own, on one device, in bfloat16: `mmjax.train.step.train_step` of a preset, compiled
with donated state, on batches that stay on the device. MFU is the operations of the
model, none recomputed, over the rate of a bfloat16 matrix product that the same
process times. The longest kernels are those of a trace of three steps.

Where torch with CUDA and open_clip are installed, here or for `--peer-python`, CLIP's
cases run open_clip too, eagerly and under `torch.compile`, in bfloat16 autocast, each
in turn with ours. `--quick` measures CLIP ViT-B/16 and the prior of 1.3 billion.
`--tiny` checks that the program runs, on any machine: its figures mean nothing, and it
writes them nowhere unless `--out` says so.
"""

import argparse
import dataclasses
import glob
import math
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import sides
import turns

RESULT = sides.RESULTS / "accelerator.json"
SIDE = 8192  # of the matrices whose product is the device's rate
ADAMW = dict(lr=1e-4, b1=0.9, b2=0.95, eps=1e-6, weight_decay=0.1)
KERNELS = 8  # listed of a profile
TARGET, SHARE = 1.2, 0.5  # of the best peer's time; of the measured rate
PEERS = ("open_clip", "open_clip_compiled")
HALF = "--config.task.dtype=bfloat16"
SIGLIP = ("--config.task.loss_name=sigmoid", "--config.task.loss_impl=chunked")
TINY = {"clip": "clip:tiny", "dvae": "dvae:tiny", "prior": "prior:tiny"}
TINY |= {"diffusion": "diffusion:tiny_pixels"}


@dataclasses.dataclass(frozen=True)
class Case:
    """What is measured: a preset on so many rows; `unit` a row has `units` of."""

    preset: str
    rows: int
    overrides: tuple[str, ...] = ()
    unit: str = "images"
    units: int = 1
    decode: bool = False
    peer: str = ""  # open_clip's name

    @property
    def family(self) -> str:
        return self.preset.split(":")[0]


UNET = ("--config.task.net.width=320", "--config.task.net.mult=(1,2,4,4)")
UNET += ("--config.task.net.depth=2", "--config.task.net.attention=(0,1,2)")
UNET += ("--config.task.net.heads=8", "--config.task.net.groups=32")
UNET += ("--config.task.net.dtype=bfloat16", "--config.task.stage1.image_size=256")
UNET += ("--config.data.fields.image.size=256",)  # latents of 32 x 32
CASES = {
    "clip_vit_b16": Case("clip:vit_b16", 256, (HALF,), peer="ViT-B-16"),
    "clip_vit_l14": Case(
        "clip:vit_l14", 128, (HALF, "--config.task.remat=none"), peer="ViT-L-14"
    ),
    "siglip_vit_b16": Case("clip:vit_b16", 256, (HALF, *SIGLIP)),
    "dvae": Case("dvae:paper", 32),
    "prior_1_3b": Case("prior:mindalle_1_3b", 16, (), "tokens", 64 + 256),
    "prior_1_3b_decode": Case(
        "prior:mindalle_1_3b", 32, (), "tokens", 256, decode=True
    ),
    "unet": Case("diffusion:shapes_unet", 32, UNET),
}
QUICK = ("clip_vit_b16", "prior_1_3b")


def loaded(case: Case, *, tiny: bool) -> tuple[Any, dict[str, np.ndarray]]:
    """(the task, a batch of noise) of a case."""
    sides.start_mmjax()
    from mmjax.data import fields as fields_lib
    from mmjax.planning import program
    from mmjax.tasks import base
    from mmjax.train import config as config_lib

    name = TINY[case.family] if tiny else case.preset
    family, preset = name.split(":")
    path = f"{sides.ROOT}/configs/{family}.py:{preset}"
    cfg = config_lib.load(path, [] if tiny else list(case.overrides))
    task = base.build(cfg.task.to_dict())
    fields = fields_lib.build(cfg.data.fields.to_dict())
    rows, rng, batch = 4 if tiny else case.rows, np.random.default_rng(0), {}
    shapes = program.batch_of(fields, task, rows)
    if case.family == "prior":  # of images that were encoded beforehand
        del shapes["image"]
        ids = rng.integers(0, task.model.image_vocab, (rows, task.model.tokens))
        batch["image_tokens"] = ids.astype(np.int32)
    words = getattr(task, "vocab_size", 0)
    if "tokens" in shapes and not words:  # of the preset
        words = task.model.text.vocab_size
    for key, x in shapes.items():
        most = {"image": 256, "tokens": words}.get(key, 2)
        batch[key] = rng.integers(0, most, x.shape).astype(x.dtype)
    if "tokens" in batch:
        batch["tokens"][:, -1] = words - 1  # the end of the text, where CLIP pools
        batch["tokens_mask"] = np.ones_like(batch["tokens"], bool)
    return task, batch


def ours(case: Case, *, tiny: bool) -> tuple[Callable[[], Any], dict]:
    """(what is timed, facts)."""
    import jax

    from mmjax.train import flops

    task, batch = loaded(case, tiny=tiny)
    with jax.default_device(jax.devices()[0]):
        batch = jax.device_put(batch)
        if case.decode:
            return decoding(task, batch)
        step, facts = sides.mmjax_step(task, batch, ADAMW)

    def gradients(variables: Any, batch: Mapping) -> Any:
        from mmjax.state import Ctx

        ctx = Ctx(rng=jax.random.key(0), step=np.int32(0), train=True)
        loss = lambda p: task.loss(variables._replace(params=p), batch, ctx)  # noqa: E731
        return jax.grad(loss, has_aux=True)(variables.params)

    variables = jax.eval_shape(task.init, jax.random.key(0), batch)
    facts["model_flops"] = flops.step_flops(gradients, variables, batch)
    return step, facts


def decoding(task: Any, batch: Mapping) -> tuple[Callable[[], Any], dict]:
    """The same of drawing an image a row."""
    import jax

    from mmjax.state import Ctx

    rows = len(batch["tokens"])
    batch = {key: batch[key] for key in ("tokens", "tokens_mask")}
    batch["seed"] = np.arange(rows, dtype=np.uint32)
    batch["candidate"] = np.zeros((rows, 1), np.int32)
    variables = jax.jit(task.init)(jax.random.key(0), batch)
    ctx = Ctx(rng=jax.random.key(0), step=np.int32(0))
    start = time.perf_counter()
    run = jax.jit(lambda v, b: task.predict()["sample"](v, b, ctx))
    run = run.lower(variables, batch).compile()
    facts = {"jax": jax.__version__, "compile_s": time.perf_counter() - start}
    return lambda: jax.block_until_ready(run(variables, batch)), facts


def device_facts() -> dict:
    """The device's name, and what it reaches on a large product."""
    import jax
    import jax.numpy as jnp

    device = jax.devices()[0]
    side = SIDE if device.platform != "cpu" else 512
    a = jnp.ones((side, side), jnp.bfloat16)
    product = jax.jit(jnp.matmul)
    jax.block_until_ready(product(a, a))

    def ten() -> None:
        x = a
        for _ in range(10):
            x = product(a, x)
        jax.block_until_ready(x)

    rate = turns.rate(ten, 20 * side**3)
    return {"device": device.device_kind, "platform": device.platform, "rate": rate}


def profile(step: Callable[[], Any]) -> list[dict]:
    """The longest kernels of three steps, and their share of all kernels' time."""
    import jax

    took: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(3):
                step()
        (path,) = glob.glob(f"{folder}/**/*.xplane.pb", recursive=True)
        data = jax.profiler.ProfileData.from_file(path)
        for plane in data.planes:
            if not plane.name.startswith("/device:"):
                continue
            for line in plane.lines:
                if line.name.startswith(("Stream", "XLA Ops")):
                    for event in line.events:
                        name = event.name[:80]
                        took[name] = took.get(name, 0.0) + event.duration_ns
    total = sum(took.values())
    longest = sorted(took, key=took.get, reverse=True)[:KERNELS]
    return [{"kernel": name, "share": took[name] / total} for name in longest]


def theirs(case: Case, *, compiled: bool) -> tuple[Callable[[], float], dict]:
    """A step of open_clip under bfloat16 autocast."""
    import open_clip
    import torch

    torch.manual_seed(0)
    model = open_clip.create_model(case.peer).cuda().train()
    size = model.visual.image_size
    size = size if isinstance(size, int) else size[0]
    x = torch.randn(case.rows, 3, size, size, device="cuda")
    ids = torch.randint(1, 49406, (case.rows, 77), device="cuda")
    ids[:, -1] = 49407
    adamw = sides.torch_adamw(model, **ADAMW, fused=True)
    contrastive = open_clip.ClipLoss()

    def train() -> torch.Tensor:
        adamw.zero_grad()
        with torch.autocast("cuda", torch.bfloat16):
            loss = contrastive(*model(x, ids)[:3])
        loss.backward()
        adamw.step()
        return loss

    run = torch.compile(train) if compiled else train
    facts = {"torch": torch.__version__, "open_clip": open_clip.__version__}
    return lambda: run().item(), facts


def worker(side: str, args: argparse.Namespace) -> None:
    """The child of one side of one case."""
    case = CASES[args.case]
    if side in PEERS:
        import torch

        step, facts = theirs(case, compiled=side == PEERS[1])
        for _ in range(3):
            step()
        facts["peak_bytes"] = torch.cuda.max_memory_allocated()
    else:
        import jax

        step, facts = ours(case, tiny=args.tiny)
        for _ in range(3):
            step()
        memory = jax.devices()[0].memory_stats() or {}
        facts |= device_facts() | {"peak_bytes": memory.get("peak_bytes_in_use", 0)}
        facts["profile"] = profile(step)
    turns.serve(facts, lambda: turns.timed(step, args.steps))


def peers(case: Case, args: argparse.Namespace) -> tuple[str, ...]:
    """Those that are installed and have a GPU."""
    if not case.peer or args.tiny:
        return ()
    code = "import open_clip, torch, sys; sys.exit(not torch.cuda.is_available())"
    done = subprocess.run([args.peer_python, "-c", code], stderr=subprocess.DEVNULL)
    return PEERS if done.returncode == 0 else ()


def measure(name: str, args: argparse.Namespace) -> dict:
    """Runs a case, prints its line, and gives its numbers."""
    case = CASES[name]
    others = peers(case, args)
    commands = turns.commands(
        __file__, ("mmjax", *others), args.peer_python, "--case", name
    )
    facts, found = turns.take(commands, args.rounds, on=name)
    seconds = turns.median(found["mmjax"], "s")
    own = facts["mmjax"]
    rows = 4 if args.tiny else case.rows
    result = {
        "seconds": seconds,
        f"{case.unit}_per_second": rows * case.units / seconds,
        "mfu_of_measured_rate": own.get("model_flops", math.nan)
        / seconds
        / own["rate"],
        "peak_bytes": own["peak_bytes"],
        "ratios": {k: turns.ratio(found[k], found["mmjax"], "s") for k in others},
        "facts": facts,
        "rounds": found,
    }
    if "model_flops" not in own:
        del result["mfu_of_measured_rate"]
    share = result.get("mfu_of_measured_rate")
    print(
        f"{name}: {1e3 * seconds:.1f} ms, {rows * case.units / seconds:,.0f} "
        f"{case.unit}/s, "
        + (f"MFU {100 * share:.1f} %, " if share is not None else "")
        + f"peak {own['peak_bytes'] / 1e9:.1f} GB"
        + "".join(f", {k} takes {v:.2f} of ours" for k, v in result["ratios"].items()),
        flush=True,
    )
    for kernel in own["profile"]:
        print(f"    {100 * kernel['share']:5.1f} %  {kernel['kernel']}")
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--cases", nargs="+", choices=tuple(CASES), default=list(CASES))
    add("--quick", action="store_true", help=f"{' and '.join(QUICK)} alone")
    add("--tiny", action="store_true", help="tiny presets: does it run?")
    add("--rounds", type=int, default=5)
    add("--steps", type=int, default=10, help="steps a round")
    add("--peer-python", default=sys.executable)
    add("--out", type=pathlib.Path)
    add("--worker", choices=("mmjax", *PEERS), help=argparse.SUPPRESS)
    add("--case", choices=tuple(CASES), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        worker(args.worker, args)
        return
    names = QUICK if args.quick else args.cases
    results = {name: measure(name, args) for name in names}
    first = next(iter(results.values()))["facts"]["mmjax"]
    if first["platform"] == "cpu" and not args.tiny:
        print("this is a CPU: the figures are of no accelerator")
    out = args.out or (None if args.tiny or first["platform"] == "cpu" else RESULT)
    if out:
        about = {"device": first["device"], "machine": turns.machine()}
        turns.save(out, about | {"targets": [TARGET, SHARE], "cases": results})


if __name__ == "__main__":
    main()
