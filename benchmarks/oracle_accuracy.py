"""How well the oracle reads damaged renders: `python benchmarks/oracle_accuracy.py`.

Prints one row per image size and damage, the share of scenes with each attribute right,
and writes benchmarks/results/oracle_accuracy.json. About two minutes on one core.
"""

from __future__ import annotations

import argparse
import io
import json
import pathlib
import time
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFilter

from mmjax.data.shapes import oracle
from mmjax.data.sources import shapes

Damage = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def noise(sigma: float) -> Damage:
    """Gaussian noise; sigma as a share of the range 0..255."""

    def damage(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        noisy = image + 255 * sigma * rng.standard_normal(image.shape)
        return (noisy + 0.5).clip(0, 255).astype(np.uint8)

    return damage


def blur(radius: float) -> Damage:
    """PIL's Gaussian blur; radius in pixels."""

    def damage(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        blurred = Image.fromarray(image).filter(ImageFilter.GaussianBlur(radius))
        return np.asarray(blurred)

    return damage


def jpeg(quality: int) -> Damage:
    """PIL's JPEG with its default chroma subsampling, there and back."""

    def damage(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        data = io.BytesIO()
        Image.fromarray(image).save(data, "JPEG", quality=quality)
        return np.asarray(Image.open(data))

    return damage


SEED = 101  # not 0: the oracle was tuned while looking at scenes of seed 0

DAMAGES: dict[str, Damage] = {
    "clean": lambda image, rng: image,
    "noise 0.05": noise(0.05),
    "noise 0.1": noise(0.1),
    "blur 0.5": blur(0.5),
    "blur 1": blur(1.0),
    "jpeg 75": jpeg(75),
    "jpeg 50": jpeg(50),
}


def measure(source: shapes.Shapes, damage: Damage) -> dict[str, float]:
    """Mean scores over the source, with the mean rms and CPU milliseconds an image."""
    rng = np.random.default_rng(0)
    scores, rms, seconds = [], [], 0.0
    for record in map(source.__getitem__, range(len(source))):
        image = damage(record["image"], rng)
        start = time.process_time()
        reading = oracle.read(image)
        seconds += time.process_time() - start
        scores.append(oracle.score(record["scene"], reading.scene))
        rms.append(reading.rms)
    row = {k: float(np.mean([s[k] for s in scores])) for k in oracle.ATTRIBUTES}
    cpu_ms = 1000 * seconds / len(source)
    return row | {"rms": float(np.mean(rms)), "cpu_ms": cpu_ms}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=500, help="scenes a row")
    here = pathlib.Path(__file__).parent
    default = here / "results" / "oracle_accuracy.json"
    parser.add_argument("--out", type=pathlib.Path, default=default)
    args = parser.parse_args()
    rows = []
    for size in (32, 64):
        source = shapes.open("val", size=size, count=args.count, seed=SEED)
        for name, damage in DAMAGES.items():
            row = {"pixels": size, "damage": name, **measure(source, damage)}
            if not rows:
                print(" ".join(f"{key:>10}" for key in row))
            cells = (
                f"{v:10.3f}" if isinstance(v, float) else f"{v:>10}"
                for v in row.values()
            )
            print(" ".join(cells), flush=True)
            rows.append(row)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    facts = {"source": f"shapes:val?seed={SEED}", "count": args.count, "rows": rows}
    args.out.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
