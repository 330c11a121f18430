"""Images a second of the training pipeline, beside a torch DataLoader.

    python benchmarks/data_pipeline.py            # needs the extra `bench`

Each record is read from a tar shard, decoded (256 px JPEG), cropped at random to 64 or
224 px, and its caption tokenised with CLIP's BPE. Three peers, in one run, in turn:
  ours        mmjax.data.pipeline with two threads; also with two worker processes
  open_clip   DataLoader, two workers: Pillow, torchvision's bicubic crop, open_clip's
              normalised floats and tokenizer
  same_ops    DataLoader, two workers: our decoder, crop and tokenizer
Prints the median rates, the CPU time an image costs (which other load on the machine
disturbs less) and the ratios of both, and writes them as JSON.
"""

from __future__ import annotations

import argparse
import functools
import io
import json
import os
import pathlib
import statistics
import tarfile
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from mmjax.data import pipeline, tokenizers
from mmjax.data.fields import image, text
from mmjax.data.sources import open_source
from mmjax.data.tokenizers import base

OUT = pathlib.Path(__file__).parent / "results" / "data_pipeline.json"
WORDS = "a man dog woman child red blue ball runs on the grass beside water with two"


def write_shard(path: pathlib.Path, count: int) -> None:
    """Photo-like pictures: smooth colour fields with grain, about 27 kB each."""
    rng = np.random.default_rng(0)
    words = WORDS.split()
    with tarfile.open(path, "w") as tar:
        for i in range(count):
            field = rng.integers(0, 256, (24, 24, 3)).astype(np.uint8)
            big = np.asarray(Image.fromarray(field).resize((256, 256), 3), np.float32)
            grain = rng.normal(size=big.shape) * 6
            pixels = (big + grain).clip(0, 255).astype(np.uint8)
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, "JPEG", quality=90)
            caption = " ".join(rng.choice(words, 11)) + " ."
            for name, data in (
                (f"{i:05d}.jpg", file.getvalue()),
                (f"{i:05d}.json", json.dumps({"captions": [caption] * 5}).encode()),
            ):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


class OpenClipSet:
    """What an open_clip training script does with one record."""

    def __init__(self, source: Any, size: int):
        import open_clip
        from open_clip.transform import image_transform

        self.source = source
        self.transform = image_transform(size, is_train=True)
        self.tokenize = open_clip.get_tokenizer("ViT-B-32")

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, i: int) -> tuple[Any, Any]:
        with Image.open(io.BytesIO(self.source.encoded(i))) as img:
            pixels = self.transform(img.convert("RGB"))
        captions = self.source.captions(i)
        return pixels, self.tokenize(captions[np.random.randint(len(captions))])[0]


class SameOpsSet:
    """The same record by our own decoder, crop and tokenizer."""

    def __init__(self, source: Any, size: int, tokenizer: base.Tokenizer):
        self.source, self.tokenizer = source, tokenizer
        self.cfg = image.Field(size=size)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, i: int) -> tuple[Any, Any, Any]:
        rng = np.random.default_rng(i)
        record = self.source[i]
        captions = record["text"]
        tokens, mask = self.tokenizer.encode([captions[rng.integers(len(captions))]])
        return self.cfg.train(record["image"], rng), tokens[0], mask[0]


def torch_batches(data: Any, batch: int) -> Iterator[Any]:
    """A DataLoader's batches, epoch after epoch, its workers kept."""
    import torch

    loader = torch.utils.data.DataLoader(
        data,
        batch_size=batch,
        shuffle=True,
        num_workers=2,
        drop_last=True,
        persistent_workers=True,
    )
    while True:
        yield from loader


def our_batches(
    source: Any, size: int, batch: int, tokenizer: base.Tokenizer, **options: int
) -> pipeline.TrainIterator:
    fields = {
        "image": image.Field(size=size),
        "tokens": text.Field().bound(encoder=tokenizer),
    }
    return pipeline.TrainIterator(source, fields, batch_size=batch, seed=0, **options)


def cpu_seconds() -> float:
    """CPU time so far of this process and of its workers (Linux)."""
    parent, spent = {}, {}
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):  # it has just ended
            continue
        pid = int(stat.parent.name)
        parent[pid], spent[pid] = int(fields[1]), int(fields[11]) + int(fields[12])
    family = {os.getpid()}
    while grown := {pid for pid, up in parent.items() if up in family} - family:
        family |= grown
    return sum(spent[pid] for pid in family) / os.sysconf("SC_CLK_TCK")


def rate(batches: Iterator[Any], batch: int, seconds: float) -> tuple[float, float]:
    """(images a second, CPU milliseconds an image), workers up and buffers warm."""
    for _ in range(8):  # more than any of them keeps ahead
        next(batches)
    count, start, cpu = 0, time.perf_counter(), cpu_seconds()
    while time.perf_counter() - start < seconds:
        next(batches)
        count += batch
    elapsed = time.perf_counter() - start
    return count / elapsed, 1000 * (cpu_seconds() - cpu) / count


def measure(
    source: Any, size: int, tokenizer: base.Tokenizer, args: argparse.Namespace
) -> dict[str, Any]:
    """Medians of all peers at one size, taken in turn."""
    ours = functools.partial(our_batches, source, size, args.batch, tokenizer)
    peers = {  # each waits, its buffers full, while another is measured
        "open_clip": torch_batches(OpenClipSet(source, size), args.batch),
        "same_ops": torch_batches(SameOpsSet(source, size, tokenizer), args.batch),
        "ours": ours(threads=2),
        "ours_workers": ours(workers=2),
    }
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in peers}
    for _ in range(args.rounds):
        for name, batches in peers.items():
            seen[name].append(rate(batches, args.batch, args.seconds))
    for batches in peers.values():
        batches.close()
    out: dict[str, Any] = {"rounds": seen}
    for name, pairs in seen.items():
        speed, cpu = (statistics.median(column) for column in zip(*pairs, strict=True))
        out[name] = {"images_per_s": round(speed, 1), "cpu_ms": round(cpu, 3)}
        print(
            f"{size:4d} px  {name:13s} {speed:7.0f} img/s  {cpu:6.2f} CPU ms an image"
        )
    for peer in ("open_clip", "same_ops"):
        faster = out["ours"]["images_per_s"] / out[peer]["images_per_s"]
        leaner = out[peer]["cpu_ms"] / out["ours"]["cpu_ms"]
        out[f"ours_over_{peer}"] = {"rate": round(faster, 2), "cpu": round(leaner, 2)}
        print(f"{size:4d} px  ours / {peer}: {faster:.2f}x, by CPU time {leaner:.2f}x")
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 224])
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--out", type=pathlib.Path, default=OUT)
    args = parser.parse_args()
    import open_clip
    import torch

    vocabulary = (
        pathlib.Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz"
    )
    tokenizer = tokenizers.build({"kind": "clip", "path": str(vocabulary)})
    with tempfile.TemporaryDirectory() as folder:
        shard = pathlib.Path(folder, "x.tar")
        write_shard(shard, args.images)
        source = open_source(f"webdataset:{shard}")
        results = {
            f"{size}px": measure(source, size, tokenizer, args) for size in args.sizes
        }
    results["setting"] = {
        "load_average": os.getloadavg(),
        "cores": os.cpu_count(),
        "batch": args.batch,
        "decoder": image.backend(),
        "torch": torch.__version__,
        "open_clip": open_clip.__version__,
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(results, indent=2) + "\n")
    print(f"written: {args.out}")


if __name__ == "__main__":
    main()
