"""A belief net unrolled: an autoencoder starts from a Boltzmann run's weights."""

import pathlib

import jax
import numpy as np
import pytest

from mmjax import tree
from mmjax.errors import UserError
from mmjax.inference import load
from mmjax.train import config as config_lib
from mmjax.train import loop, setup
from mmjax.train.init_from import init_from

AUTOENCODER = "bimodal_autoencoder:tiny"


@pytest.fixture(scope="module")
def net(tmp_path_factory) -> pathlib.Path:
    workdir = tmp_path_factory.mktemp("net")
    config = config_lib.load(f"{AUTOENCODER}_dbn", ["--config.steps=2"])
    config.optim.warmup, config.evals = 0, {}
    loop.run(config, workdir)
    return workdir


def params(*given: str) -> dict[str, np.ndarray]:
    """Those of an autoencoder at step 0, after what it starts from."""
    config = config_lib.load(AUTOENCODER, [f"--config.{text}" for text in given])
    parts = setup.build(config)
    state = parts.layout.init(parts.update.init, jax.random.key(7), parts.example())
    return tree.flatten(jax.device_get(init_from(parts, state).vars.params))


def test_all_of_the_net_is_taken(net):
    learned = tree.flatten(load.load_run(net).state.eval_vars().params)
    now = params(f"graft.params={net}#params")
    assert now.keys() == learned.keys()
    for path, value in learned.items():
        np.testing.assert_array_equal(now[path], value, path)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("task.joint=11", r"bias/joint is \(10,\) in .* and \(11,\) in this model"),
        ("data.train.center=False", "statistics of data.fields.first is 'finger"),
    ],
)
def test_nets_that_read_otherwise(net, given, message):
    with pytest.raises(UserError, match=message):
        params(f"graft.params={net}#params", given)
