"""Two players go on from a checkpoint bit by bit, batch statistics included."""

import pathlib
import shutil

import jax
import numpy as np
import pytest

from mmjax import tree
from mmjax.train import config as config_lib
from mmjax.train import loop, restore


def leaves(workdir: pathlib.Path) -> dict[str, np.ndarray]:
    _, state = restore.restore(workdir, optimizer=True)
    state = state.replace(rng=jax.random.key_data(state.rng))
    return tree.flatten(jax.device_get(state))


@pytest.mark.long
@pytest.mark.parametrize("preset", ["tiny", "tiny_kl"])
def test_resumed_before_the_generator_sees_the_other(preset, tmp_path):
    whole, halted = tmp_path / "whole", tmp_path / "halted"
    given = ["--config.task.start=3", "--config.task.warmup=2"]
    config = config_lib.load(f"adversarial:{preset}", given)
    config.evals = {}
    loop.run(config, whole)
    shutil.copytree(whole, halted)
    shutil.rmtree(halted / "checkpoints" / "4")
    loop.run(config, halted)
    want, got = leaves(whole), leaves(halted)
    assert want.keys() == got.keys()
    assert any("opt_state" in path and "discriminator" in path for path in want)
    for path, value in want.items():
        np.testing.assert_array_equal(got[path], value, err_msg=path)
