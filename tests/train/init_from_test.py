"""Runs that start from parts of other runs, and parts that would not mean the same."""

import functools
import pathlib

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

CLIP, PRIOR = "clip:tiny", "prior:tiny"


@functools.cache
def fresh_run(spec: str) -> TrainState:
    """A state at step 0, before anything is taken from elsewhere."""
    parts = setup.build(config_lib.load(spec))
    return parts.layout.init(parts.update.init, jax.random.key(7), parts.example())


def started(overrides: list[str], spec: str = CLIP) -> tuple:
    """(fresh variables, the same after `init_from`, the state's average)."""
    config = config_lib.load(spec, [f"--config.{text}" for text in overrides])
    state = init_from(setup.build(config), fresh_run(spec))
    flat = [tree.flatten(s.vars._asdict()) for s in (fresh_run(spec), state)]
    return *flat, tree.flatten(state.ema)


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        (["graft.params={run}"], "params/"),
        (["graft.params.image={run}#image"], "params/image/"),
        (["graft.image={run}#params/image"], "params/image/"),
        (["graft.params.text={run}"], "params/text/"),
        (["graft.params.text.transformer={run}"], "params/text/transformer/"),
        (["graft.logit_scale={run}"], "params/logit_scale"),
    ],
)
def test_a_part_is_the_runs_average_and_the_rest_stays(tiny_run, given, taken):
    learned = tree.flatten(load.load_run(tiny_run).state.eval_vars()._asdict())
    fresh, new, ema = started([text.format(run=tiny_run) for text in given])
    assert any(path.startswith(taken) for path in new)
    for path, value in new.items():
        want = learned if path.startswith(taken) else fresh
        np.testing.assert_array_equal(value, want[path], path)
        np.testing.assert_array_equal(value, ema[path.removeprefix("params/")], path)


def test_a_part_overrides_the_whole(tiny_run, tmp_path: pathlib.Path):
    given = [f"graft.params={tiny_run}", f"graft.params.image={tiny_run}#text"]
    with pytest.raises(UserError, match="config.graft.params.image: class_token"):
        started(given)


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        (
            ["graft.params="],
            ["config.graft.params is empty", "--config.graft.params=D"],
        ),
        (["graft.imag={run}"], ["config.graft.imag: no 'imag'", "'params/image'"]),
        (["graft.image={run}#imagee"], ["no 'imagee'", "did you mean 'params/image'"]),
        (["graft.image=nowhere"], ["nowhere is not a run"]),
        (
            ["task.act=gelu", "graft.image={run}"],
            ["act is 'quick_gelu' in", "and 'gelu' in this run"],
        ),
        (
            ["task.text.heads=1", "graft.text={run}"],
            ["heads is 2 in", "and 1 in this run"],
        ),
        (
            ["task.mean=(0.4,0.5,0.5)", "graft.image={run}"],
            ["task.mean is (0.5, 0.5, 0.5)", "(0.4, 0.5, 0.5)"],
        ),
        (
            ["data.fields.image.mode=crop", "graft.params={run}"],
            ["the image's mode is 'squash'", "'crop'"],
        ),
        (
            ["data.fields.tokens.lower=False", "graft.text={run}"],
            ["the tokenizer is '520 ids, context 16, fingerprint"],
        ),
    ],
)
def test_refusals_have_both_values(tiny_run, given, parts):
    with pytest.raises(UserError) as caught:
        started([text.format(run=tiny_run) for text in given])
    for part in parts:
        assert part in str(caught.value)


def test_what_a_part_does_not_read_may_differ(tiny_run):
    started(["data.fields.tokens.lower=False", f"graft.image={tiny_run}"])
    started(
        ["data.fields.image.mode=crop", "task.std=(1,1,1)", f"graft.text={tiny_run}"]
    )
    started(["task.text.act=gelu", f"graft.image={tiny_run}"])
    started(["data.fields.tokens.lower=False", f"graft.text.transformer={tiny_run}"])


@pytest.fixture(scope="module")
def codes(tmp_path_factory) -> pathlib.Path:
    """A VQ-VAE of the sizes that prior:tiny holds."""
    from mmjax.train import loop

    workdir = tmp_path_factory.mktemp("codes")
    config = config_lib.load("vqvae:tiny", ["--config.steps=1"])
    config.task.tokenizer = config_lib.load(PRIOR).task.stage1
    config.optim.warmup, config.evals = 0, {}
    loop.run(config, workdir)
    return workdir


def test_frozen_variables_take_all_that_a_run_learned(codes):
    state = load.load_run(codes).state.eval_vars()
    learned = tree.flatten({"params": state.params, **state.extra})
    _, new, _ = started(
        [f"graft.tokenizer={codes}", "data.fields.image.mode=crop"], PRIOR
    )
    for path, value in learned.items():
        np.testing.assert_array_equal(new[f"frozen/tokenizer/{path}"], value, path)


def test_a_frozen_tokenizer_of_other_fields(codes):
    given = [f"graft.tokenizer={codes}", "task.stage1.net.groups=4"]
    with pytest.raises(UserError, match="decoder.net.groups is 8 in .* and 4 in"):
        started(given, PRIOR)
