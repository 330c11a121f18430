"""Memory of the contrastive loss, forward and backward: dense, chunked and ring.

    python benchmarks/contrastive_memory.py
    python benchmarks/contrastive_memory.py --measure 0  # the compiler's figures alone

Two tables, for float32 embeddings of width 512 over 8 devices under jit:

- per device, from the compiler's own analysis of the program (`memory_analysis`):
  arguments + outputs + temporaries, at every batch size. Nothing is run, so the devices
  are virtual, whatever the machine.
- measured: peak resident memory of a fresh process that runs the program on this
  machine's CPU as 8 virtual devices, less that of a process which does all the same
  with a loss that needs none (`mean(image * text)`). A process holds all 8 devices, so
  this is their sum. Seconds are the second call's, and are for information: 8 virtual
  devices share the cores.

Writes JSON, with the machine.
"""

import argparse
import json
import os
import pathlib
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import sides

FORMS = ("dense", "chunked", "ring")
NONE = "none"  # the baseline of the measurement
MIB = 2**20


def program(form: str, args: argparse.Namespace) -> tuple[Callable, Any]:
    """A jitted loss with gradients to images, texts and scale; where rows lie."""
    import jax
    import jax.numpy as jnp
    from jax.sharding import NamedSharding, PartitionSpec

    from mmjax.losses import contrastive, contrastive_tiles
    from mmjax.parallel import Layout

    placed = Layout(devices=jax.devices()[: args.devices]).row_sharding

    def loss(image_bd: jax.Array, text_bd: jax.Array, scale: jax.Array) -> jax.Array:
        if form == NONE:
            return scale * jnp.mean(image_bd * text_bd)
        numbers = (scale,) if args.loss == "info_nce" else (scale, -10.0)
        if form == "dense":
            return getattr(contrastive, args.loss)(image_bd, text_bd, *numbers)
        return getattr(contrastive_tiles, args.loss)(
            image_bd,
            text_bd,
            *numbers,
            block=args.block,
            ring=form == "ring",
            placed=placed,
        )[0]

    same = NamedSharding(placed.mesh, PartitionSpec())
    compiled = jax.jit(
        jax.value_and_grad(loss, argnums=(0, 1, 2)),
        out_shardings=(same, (placed, placed, same)),
    )
    return compiled, placed


def analyse(form: str, batch: int, args: argparse.Namespace) -> dict[str, int]:
    """Bytes per device of the compiled program."""
    import jax
    import jax.numpy as jnp

    fn, placed = program(form, args)
    rows = jax.ShapeDtypeStruct((batch, args.width), jnp.float32, sharding=placed)
    found = fn.lower(rows, rows, jnp.float32(10.0)).compile().memory_analysis()
    kinds = ("argument", "output", "temp")
    sizes = {kind: getattr(found, f"{kind}_size_in_bytes") for kind in kinds}
    return sizes | {"total": sum(sizes.values())}


def run_once(form: str, args: argparse.Namespace) -> dict[str, float]:
    """In a process of its own: peak resident bytes, seconds of the second call."""
    import jax
    import numpy as np

    fn, placed = program(form, args)
    rng = np.random.default_rng(0)

    def rows() -> jax.Array:
        x = rng.standard_normal((args.measure, args.width), np.float32)
        return jax.device_put(x / np.linalg.norm(x, axis=1, keepdims=True), placed)

    image, text = rows(), rows()
    for _ in range(2):
        begin = time.perf_counter()
        value, grads = jax.block_until_ready(fn(image, text, np.float32(10.0)))
        seconds = time.perf_counter() - begin
        if not all(np.isfinite(np.asarray(x[0])).all() for x in grads[:2]):
            raise SystemExit(f"{form}: the gradient is not finite")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"peak_rss": peak, "seconds": seconds, "loss": float(value)}


def measure(args: argparse.Namespace) -> dict[str, dict]:
    """`run_once` of every form and of the baseline."""
    found = {}
    for form in (NONE, *FORMS):
        child = [sys.executable, str(pathlib.Path(__file__).resolve()), *sys.argv[1:]]
        done = subprocess.run(
            [*child, "--child", form], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(f"{form} failed:\n{done.stderr[-2000:]}")
        found[form] = json.loads(done.stdout.splitlines()[-1])
        found[form]["above_baseline"] = (
            found[form]["peak_rss"] - found[NONE]["peak_rss"]
        )
        print(f"  measured {form}", file=sys.stderr, flush=True)
    return found


def show(
    table: list[dict], measured: dict[str, dict], args: argparse.Namespace
) -> None:
    print(f"MiB per device ({args.devices} devices, {args.loss}), by the compiler")
    print(f"{'batch':>8} {'form':<8} {'argument':>9} {'output':>8} {'temp':>9} total")
    for row in table:
        sizes = [row[k] / MIB for k in ("argument", "output", "temp", "total")]
        numbers = "{:9.1f} {:8.1f} {:9.1f} {:.1f}".format(*sizes)
        print(f"{row['batch']:>8} {row['form']:<8} {numbers}")
    if not measured:
        return
    print(f"\nMeasured at batch {args.measure}: MiB of the process, above the baseline")
    for form in FORMS:
        row = measured[form]
        above = row["above_baseline"] / MIB
        print(f"{form:>8} {above:9.0f} MiB {row['seconds']:7.1f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", type=int, nargs="+", default=[4096, 16384, 32768])
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--devices", type=int, default=8)
    parser.add_argument("--block", type=int, default=1024)
    parser.add_argument("--loss", choices=("info_nce", "sigmoid"), default="info_nce")
    parser.add_argument("--measure", type=int, default=16384, help="batch; 0: do not")
    parser.add_argument("--child", default="", help="measures a form: for own use")
    default = sides.RESULTS / "contrastive_memory.json"
    parser.add_argument("--out", type=pathlib.Path, default=default)
    args = parser.parse_args()
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    sys.path.insert(0, str(sides.ROOT))
    from mmjax.parallel import runtime

    runtime.configure(devices=args.devices)
    if args.child:
        print(json.dumps(run_once(args.child, args)))
        return
    measured = measure(args) if args.measure else {}
    table = [
        {"batch": batch, "form": form, **analyse(form, batch, args)}
        for batch in args.batches
        for form in FORMS
    ]
    show(table, measured, args)
    skip = ("child", "out")
    options = {k: v for k, v in vars(args).items() if k not in skip}
    result = {
        "options": options,
        "machine": runtime.describe(),
        "bytes_per_device": table,
        "measured": measured,
    }
    args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
