"""A text tower that stays frozen: a CLIP's weights, read with the CLIP's tokens."""

import functools

import jax
import numpy as np
import pytest

from mmjax import tree
from mmjax.errors import UserError
from mmjax.inference import load
from mmjax.state import TrainState
from mmjax.train import config as config_lib
from mmjax.train import setup
from mmjax.train.init_from import init_from


@functools.cache
def fresh() -> TrainState:
    """At step 0, before anything is taken from elsewhere."""
    parts = setup.build(config_lib.load("df_gan:tiny"))
    return parts.layout.init(parts.update.init, jax.random.key(7), parts.example())


def frozen(*given: str) -> dict[str, np.ndarray]:
    """The frozen variables of a DF-GAN at step 0, after what it starts from."""
    config = config_lib.load("df_gan:tiny", [f"--config.{text}" for text in given])
    state = init_from(setup.build(config), fresh())
    return tree.flatten(jax.device_get(state.vars.frozen))


def test_the_tower_and_its_tokens_are_the_runs(tiny_run):
    other = "data.train=shapes:train?size=16&count=40"  # other words for a tokenizer
    given = [f"graft.text={tiny_run}#params/text", other]
    learned = tree.flatten(load.load_run(tiny_run).state.eval_vars().params["text"])
    now = frozen(*given, f"data.fields.tokens.path={tiny_run}")
    assert now.keys() == {f"text/{path}" for path in learned}
    for path, value in learned.items():
        np.testing.assert_array_equal(now[f"text/{path}"], value, path)
    with pytest.raises(UserError, match=r"the tokenizer is '520 ids.*' in .* and '5"):
        frozen(*given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("task.tower.heads=4", "heads is 2 in .* and 4 in this run"),
        ("data.fields.image.mode=crop", ""),  # the tower reads no image
    ],
)
def test_the_tower_computes_what_the_run_did(tiny_run, given, message):
    graft = f"graft.text={tiny_run}#params/text"
    if not message:
        assert frozen(graft, given)
        return
    with pytest.raises(UserError, match=message):
        frozen(graft, given)
