"""What a person may ask of a generator: options, prompts, seeds and counts."""

import fuzzing
import numpy as np
import pytest

from mmjax.inference import generate, load
from mmjax.train import config, loop

PROMPTS = ("a red star", "a blue ring above a green star")
OPTIONS = ("temperature", "top_k", "top_p", "guidance", "dtype", "temprature", "")
VALUES = (1e-9, 1e-3, 0.5, 1.0, 1.5, 4, 1e9, -0.0, 2**31 - 1, "bfloat16", "float32")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run") / "prior"
    cfg = config.load("configs/prior.py:tiny", ["--config.steps=1"])
    cfg.evals = {}
    loop.run(cfg, workdir)
    return load.load_run(workdir)


def checked(drawn, k, prompts):
    """RIGHT where images are what they say; a blank one is what no sampler draws."""
    images = drawn.images
    assert images.shape[:2] == (len(prompts), k) and images.dtype == np.uint8
    for array in drawn.arrays.values():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            return fuzzing.SILENT
    return fuzzing.RIGHT


@pytest.mark.fuzz
@pytest.mark.parametrize("count", [max(1, round(fuzzing.COUNT * 0.008))])
def test_options(count, run, ledger):
    """Those that pass are compiled, which takes seconds each."""

    def attempt(rng, notes):
        names = rng.sample(OPTIONS, rng.choice((1, 2)))
        pool = VALUES if rng.random() < 0.4 else fuzzing.HOSTILE
        options = {name: rng.choice(pool) for name in names}
        notes.append(f"{options!r:.200}")
        drawn = generate.Generator(run, sampling=options, batch=2)
        return checked(drawn.sample(PROMPTS[:1], k=2), 2, PROMPTS[:1])

    ledger.explore("sampling", count, attempt)


@pytest.mark.fuzz
@pytest.mark.parametrize("count", [max(1, round(fuzzing.COUNT * 0.04))])
def test_prompts(count, run, ledger):
    drawn_by = generate.Generator(run, batch=2)
    want = drawn_by.sample(PROMPTS[:1], k=2, seed=3).images

    def attempt(rng, notes):
        pool = (*PROMPTS, *(v for v in fuzzing.HOSTILE if isinstance(v, str)), 0, -1)
        prompts = [rng.choice(pool) for _ in range(rng.choice((1, 1, 2)))]
        seed = rng.choice((3, 0, -1, 2**32, 2**70))
        k = rng.choice((2, 2, 2, 0, -1))
        notes += [f"{prompts!r:.200}", seed, k]
        drawn = drawn_by.sample(prompts, k=k, seed=seed)
        if prompts[0] == PROMPTS[0] and seed == 3 and (drawn.images[0] != want).any():
            return fuzzing.SILENT
        return checked(drawn, k, prompts)

    ledger.explore("sampling", count, attempt)
