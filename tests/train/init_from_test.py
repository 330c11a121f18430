"""Runs that start from parts of other runs, and parts that would not mean the same."""

import functools
import pathlib
import types

import jax
import numpy as np
import pytest
from PIL import Image

from mmjax import tree
from mmjax.data.fields import label
from mmjax.errors import UserError
from mmjax.inference import load
from mmjax.state import TrainState
from mmjax.tasks import base
from mmjax.train import config as config_lib
from mmjax.train import init_from as init_from_lib
from mmjax.train import setup
from mmjax.train.init_from import init_from, resize_positions

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


BIG = ["task.image_size=24", "data.fields.image.size=24"]  # 3 x 3 patches, not 2 x 2


def test_positions_of_another_resolution_are_resized(tiny_run, caplog):
    learned = tree.flatten(load.load_run(tiny_run).state.eval_vars().params)
    state = init_from(*blank([*BIG, f"graft.params={tiny_run}"]))
    new, ema = tree.flatten(state.vars.params), tree.flatten(state.ema)
    old, big = (t["image/position_embedding"] for t in (learned, new))
    assert old.shape == (5, 32) and big.shape == (10, 32)
    np.testing.assert_array_equal(big[0], old[0])  # the class token's
    np.testing.assert_allclose(big[1:], pillow(old[1:], 3), atol=1e-6)
    assert "resized from 2 x 2 to 3 x 3 patches" in caplog.text
    for path in new:
        np.testing.assert_array_equal(ema[path], new[path])
        if path != "image/position_embedding":
            np.testing.assert_array_equal(learned[path], new[path], path)


@pytest.mark.parametrize(("old", "new"), [(7, 12), (16, 24), (24, 16), (3, 3)])
@pytest.mark.parametrize("token", [0, 1])
def test_positions_are_resized_as_pillow_resizes(old, new, token):
    rng = np.random.default_rng(0)
    table = rng.normal(size=(old**2 + token, 5)).astype(np.float32)
    given = {
        "image": {"position_embedding": table},
        "text": {"position_embedding": table},
    }
    want = jax.eval_shape(
        lambda: {
            "image": {"position_embedding": np.zeros((new**2 + token, 5))},
            "text": {"position_embedding": np.zeros((new**2 + token, 5))},
        }
    )
    out, lines = resize_positions(given, want)
    assert out["text"]["position_embedding"] is table
    got = out["image"]["position_embedding"]
    assert len(lines) == (old != new) and got.shape == (new**2 + token, 5)
    np.testing.assert_array_equal(got[:token], table[:token])
    np.testing.assert_allclose(got[token:], pillow(table[token:], new), atol=1e-5)


def test_another_context_is_refused(tiny_run):
    """The text's positions are no square of patches, and are not resized."""
    context = ["task.context=9", "data.fields.tokens.context=9"]
    with pytest.raises(UserError, match=r"position_embedding is \(16, .* and \(9, "):
        init_from(*blank([*context, f"graft.params.text={tiny_run}"]))


def pillow(table, side):
    """Positions (n * n, d) resized by Pillow, to (side * side, d)."""
    n = int(len(table) ** 0.5)
    planes = np.asarray(table, np.float32).reshape(n, n, -1)
    out = [
        np.asarray(Image.fromarray(planes[..., k]).resize((side, side), Image.BICUBIC))
        for k in range(planes.shape[-1])
    ]
    return np.stack(out, -1).reshape(side * side, -1)


def blank(overrides: list[str], spec: str = CLIP) -> tuple:
    """(parts, fresh state) of a config of its own shapes."""
    parts = setup.build(config_lib.load(spec, [f"--config.{t}" for t in overrides]))
    return parts, parts.layout.init(
        parts.update.init, jax.random.key(7), parts.example()
    )


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


def test_heads_of_64_are_those_that_0_stands_for():
    def facts(heads: int) -> dict:
        given = ["task.image.width=128", "task.text.width=128"]
        given += [f"task.image.heads={heads}", f"task.text.heads={heads}"]
        config = config_lib.load(CLIP, [f"--config.{text}" for text in given])
        return init_from_lib._fields(base.build(config.task), "params")

    assert facts(0) == facts(2) != facts(4)
    assert facts(0)["image.heads"] == 2


def test_class_names_go_with_a_head():
    def facts(names: tuple[str, ...], leaf: str) -> dict:
        fields = {"label": label.Field().restored(names)}
        run = types.SimpleNamespace(fields=fields, task=None, image_cfg=None)
        return init_from_lib._inputs(run, [leaf])

    head = [facts(names, "params/head/kernel") for names in (("a", "b"), ("b", "a"))]
    assert head[0]["the class names"].startswith("2 names, fingerprint")
    assert head[0] != head[1] and head[0] == facts(("a", "b"), "params/head/kernel")
    assert "the class names" not in facts(("a", "b"), "params/tower/head/kernel")


def test_a_prior_keeps_the_tokenizer_whose_codes_it_learned(codes, tmp_path):
    from mmjax.train import loop

    given = [f"--config.graft.tokenizer={codes}", "--config.steps=1"]
    config = config_lib.load(PRIOR, given)
    config.optim.warmup, config.evals = 0, {}
    loop.run(config, tmp_path)
    held = tree.flatten(load.load_run(tmp_path).state.vars.frozen)
    both = [f"graft.params={tmp_path}", f"graft.tokenizer={tmp_path}"]
    for tokenizer in (tmp_path, codes):
        _, new, _ = started([both[0], f"graft.tokenizer={tokenizer}"], PRIOR)
        for path, value in held.items():
            np.testing.assert_array_equal(new[f"frozen/{path}"], value, path)
    with pytest.raises(UserError, match="fingerprint of the frozen tokenizer is '"):
        started(both[:1], PRIOR)
