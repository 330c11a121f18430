"""Weak scaling on paper: what a device sends in a step as devices grow from 8 to 512.

    python benchmarks/weak_scaling.py --json FILE.json --png FILE.png

Rows of a device stay as they are, so the batch grows with the devices; the state is
split over the 8 devices of a node (fsdp) and repeated over nodes (data). Bytes are read
from the compiled programs (`mmjax plan`), on virtual devices: nothing here is timed,
and no accelerator is needed. About 10 minutes on two cores.
"""

import argparse
import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
DEVICES = (8, 16, 32, 64, 128, 256, 512)
NODE = 8
KEPT = ("devices", "mesh_", "batch_size", "collective_bytes", "compute_seconds")
# name: (config, rows of a device, overrides)
RUNS = {
    "CLIP ViT-L/14, dense": ("clip.py:vit_l14", 64, ("task.loss_impl=dense",)),
    "CLIP ViT-L/14, ring": ("clip.py:vit_l14", 64, ("task.loss_impl=ring",)),
    "prior 12B": ("prior.py:dalle_12b", 4, ()),
}


def plan(config: str, devices: int, rows: int, overrides: tuple[str, ...]) -> dict:
    """The flat JSON of `mmjax plan`, in a process that shows so many devices."""
    command = [sys.executable, "-m", "mmjax.cli", "plan", "--json"]
    command += ["--config", str(ROOT / "configs" / config)]
    command += ["--mesh", f"data={devices // NODE},fsdp={NODE}"]
    command += [f"--config.batch_size={rows * devices}"]
    command += [f"--config.{text}" for text in overrides]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr.strip()}")
    found = json.loads(done.stdout)
    return {k: v for k, v in found.items() if k.startswith(KEPT)}


def draw(found: dict[str, dict[str, dict]], path: pathlib.Path) -> None:
    """Bytes sent by a device over the number of devices, and where they go."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained", dpi=110)
    left, right = figure.subplots(1, 2)
    for name, by_devices in found.items():
        xs = [int(n) for n in by_devices]
        gigabytes = [p["collective_bytes"] / 1e9 for p in by_devices.values()]
        (line,) = left.plot(xs, gigabytes, marker="o", markersize=4, label=name)
        share = [
            sent / p["compute_seconds"]
            for sent, p in zip(gigabytes, by_devices.values(), strict=True)
        ]
        right.plot(xs, share, marker="o", markersize=4, color=line.get_color())
    left.set(xlabel="devices", ylabel="GB a device sends in a step")
    right.set(xlabel="devices", ylabel="GB sent / s of products at an H100's peak")
    for axes in (left, right):
        axes.set(xscale="log", yscale="log", xticks=DEVICES, xticklabels=DEVICES)
        axes.minorticks_off()
        axes.spines[["top", "right"]].set_visible(False)
    left.legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE")
    parser.add_argument("--png", type=pathlib.Path, metavar="FILE")
    parser.add_argument("--devices", type=int, nargs="*", default=DEVICES)
    args = parser.parse_args()
    found: dict[str, dict[str, dict]] = {}
    for name, (config, rows, overrides) in RUNS.items():
        for devices in args.devices:
            made = plan(config, devices, rows, overrides)
            found.setdefault(name, {})[str(devices)] = made
            kinds = {
                key.removeprefix("collective_bytes_"): f"{value / 1e9:.2f}"
                for key, value in made.items()
                if key.startswith("collective_bytes_")
            }
            total = made["collective_bytes"] / 1e9
            print(f"{name:<24} {devices:>4} devices  {total:8.2f} GB  {kinds}")
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")
    if args.png:
        draw(found, args.png)


if __name__ == "__main__":
    main()
