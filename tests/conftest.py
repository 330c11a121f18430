"""Shared fixtures. Virtual devices and the compilation cache are set up here."""

import os
import pathlib

import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Tiny programs spend their time in the compiler: half of it without LLVM's passes, here
# and in the processes that tests start. Of a flag that comes twice the last one counts.
os.environ["XLA_FLAGS"] = " ".join(
    ["--xla_backend_optimization_level=0", os.environ.get("XLA_FLAGS", "")]
)
# Two workers on two cores: threads of BLAS for matrices of ten rows only wait.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from mmjax.parallel import runtime

runtime.configure(devices=4)
ROOT = pathlib.Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def bundle() -> pathlib.Path:
    """The folder of real data; tests that need it skip where it is absent."""
    folder = pathlib.Path(os.environ.get("MMJAX_DATA", "$MMJAX_DATA"))
    if not (folder / "flickr8k").is_dir():
        pytest.skip(f"no data bundle at {folder}: set MMJAX_DATA to its folder")
    return folder


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The workdir of configs/clip.py:tiny after two steps, both saved; read only."""
    from mmjax.train import config, loop

    workdir = tmp_path_factory.mktemp("run") / "tiny"
    overrides = ["--config.steps=2", "--config.checkpoint.every=1"]
    loop.run(config.load("configs/clip.py:tiny", overrides), workdir)
    return workdir


@pytest.fixture(scope="session")
def tiny_prior(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The workdir of configs/prior.py:tiny after two steps; read only.

    Its one evaluator draws images of three prompts and judges them.
    """
    from mmjax.train import config, loop

    workdir = tmp_path_factory.mktemp("run") / "prior"
    given = ["--config.steps=2", "--config.optim.ema=0.0"]
    given += [f"--config.{k}.context=96" for k in ("task", "data.fields.tokens")]
    cfg = config.load("configs/prior.py:tiny", given)
    cfg.evals = {}
    drawn = {"type": "generation", "source": "shapes:val?size=16&count=3"}
    cfg.evals["drawn"] = {**drawn, "candidates": 2, "sample_seed": 7}
    loop.run(cfg, workdir)
    return workdir
