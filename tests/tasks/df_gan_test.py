"""DF-GAN as a task: whose gradients are whose, what sampling promises, refusals."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax import schema
from mmjax.errors import UserError
from mmjax.losses import adversarial
from mmjax.state import Ctx, Vars
from mmjax.tasks.df_gan import Task
from tests.support.numpy_layers import filled

B, SIZE, CONTEXT, WORDS = 6, 16, 5, 30
TOWER = dict(kind="cbow", width=8, vocab_size=WORDS)
FIELDS = dict(image_size=SIZE, width=4, noise=3, patch=2, tower=TOWER)


def task(**kwargs) -> Task:
    return schema.from_mapping(Task, FIELDS | kwargs, "config.task")


def batch() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (B, SIZE, SIZE, 3), dtype=np.uint8)
    tokens = rng.integers(1, WORDS, (B, CONTEXT), dtype=np.int32)
    return {"image": image, "tokens": tokens, "tokens_mask": tokens > 0}


def ctx() -> Ctx:
    return Ctx(rng=jax.random.key(3), step=jnp.int32(0), train=True)


@functools.cache
def variables() -> Vars:
    """Random weights: fusion reads the text, residuals count."""
    made = task()
    shapes = jax.eval_shape(made.init, jax.random.key(0), batch())
    e_1d = jnp.zeros((1, TOWER["width"]))
    params = filled(made.model, jnp.zeros((1, made.noise)), e_1d)["params"]
    rng = np.random.default_rng(1)
    frozen = jax.tree.map(
        lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32), shapes.frozen
    )
    assert jax.tree.structure(params) == jax.tree.structure(shapes.params)
    return Vars(params=params, frozen=frozen)


@functools.cache
def stepped():
    return jax.jit(lambda v, b: task().grads(v, b, ctx()))


def played(params: dict, rows: dict, frozen: dict) -> tuple:
    """Both losses by their definition, as functions of all parameters."""
    made, weights = task(), Vars(params=params, frozen=frozen)
    table = frozen["text"]["token_embedding"][rows["tokens"]].mean(1)
    e_bd = (table - table.mean(1, keepdims=True)) / table.std(1, keepdims=True)
    keys = ctx().example_keys(B)
    noise_bz = jax.vmap(lambda key: jax.random.normal(key, (made.noise,)))(keys)

    def apply(method, *args):
        return made.model.apply({"params": weights.params}, *args, method=method)

    def score(x, e):
        return apply("scores", apply("features", x), e)

    real = rows["image"] / 127.5 - 1.0
    fake = apply("generate", noise_bz, e_bd)
    wrong = jnp.concatenate([e_bd[-1:], e_bd[:-1]])
    pull = jax.vjp(score, real, e_bd)[1](jnp.ones(B))
    norm_b = jnp.sqrt(sum(jnp.square(g.reshape(B, -1)).sum(-1) for g in pull))
    penalty = 2.0 * jnp.mean(norm_b**6)
    judge = adversarial.hinge_real(score(real, e_bd)) + penalty
    judge += 0.5 * adversarial.hinge_fake(score(jax.lax.stop_gradient(fake), e_bd))
    judge += 0.5 * adversarial.hinge_fake(score(real, wrong))
    return judge, -score(fake, e_bd).mean(), penalty


def test_each_player_has_the_gradient_of_its_own_loss():
    weights, rows = variables(), batch()
    grads, extra, metrics = stepped()(weights, rows)
    both = jax.jit(jax.jacrev(lambda p: played(p, rows, weights.frozen)[:2]))
    judge, draw = both(weights.params)
    want = {"generator": draw["generator"], "discriminator": judge["discriminator"]}
    assert not extra and jax.tree.structure(grads) == jax.tree.structure(want)
    for got, right in zip(*map(jax.tree.leaves, (grads, want)), strict=True):
        np.testing.assert_allclose(got, right, rtol=1e-3, atol=1e-4 * abs(right).max())
    assert all(np.asarray(g).any() for g in jax.tree.leaves(grads))
    loss, generator, penalty = played(weights.params, rows, weights.frozen)
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-4)
    np.testing.assert_allclose(metrics["generator"], generator, rtol=1e-4)
    np.testing.assert_allclose(metrics["penalty"], penalty, rtol=1e-4)


def test_one_text_for_all_has_no_wrong_one():
    """Then the discriminator has nothing to learn from mismatched pairs."""
    rows = batch()
    rows["tokens"][:] = rows["tokens"][0]
    weights = variables()
    loss = stepped()(weights, rows)[2]["loss"]
    params = {"params": weights.params}
    e_bd = task()._condition(weights, rows)
    real = task().model.apply(params, rows["image"] / 127.5 - 1.0, method="features")
    real_b = task().model.apply(params, real, e_bd, method="scores")
    counted = 0.5 * adversarial.hinge_fake(real_b)  # as one would that is wrong
    want = played(weights.params, rows, weights.frozen)[0] - counted
    np.testing.assert_allclose(loss, want, rtol=1e-4)
    assert counted > 0.1


def test_balance_and_collapse_are_measured():
    weights, rows = variables(), batch()
    metrics = stepped()(weights, rows)[2]
    shares = {k: v for k, v in metrics.items() if k.endswith("accuracy")}
    assert len(shares) == 3 and all(0 <= v <= 1 for v in shares.values())
    images = rows["image"] / 127.5 - 1.0
    assert metrics["spread"] > 0
    alike = jax.tree.map(np.zeros_like, weights.params["generator"])
    collapsed = weights._replace(params={**weights.params, "generator": alike})
    metrics = stepped()(collapsed, rows)[2]
    assert metrics["spread"] < 1e-5 and images.std(0).mean() > 0.1
    called = predicted("loss")
    values = called(weights, rows)
    assert all(v.shape == (B,) for v in values.values())
    assert (called(collapsed, rows)["diversity"] == 0).all()
    assert (values["diversity"] > 0).all()
    shown = {"seed": np.zeros(B, np.uint32), "candidate": np.zeros((B, 1), np.int32)}
    flat = predicted("sample")(collapsed, rows | shown)["image"]
    assert (flat == 128).all()  # tanh(0), to the nearest even


@functools.cache
def predicted(name: str, **sampling: float):
    made = dataclasses.replace(task(), sampling=type(task().sampling)(**sampling))
    return jax.jit(lambda v, b: made.predict()[name](v, b, ctx()))


def drawn(rows: list[int], candidates: list[int], **sampling: float) -> np.ndarray:
    """Images (p, k, s, s, 3) of some rows' texts; a row's seed is its number."""
    given = {k: v[rows] for k, v in batch().items() if k != "image"}
    given["seed"] = np.asarray(rows, np.uint32)
    given["candidate"] = np.tile(np.asarray(candidates, np.int32), (len(rows), 1))
    return np.asarray(predicted("sample", **sampling)(variables(), given)["image"])


def test_a_candidate_follows_from_its_text_seed_and_number():
    all_of = drawn([0, 1, 2], [0, 1, 2, 3])
    assert all_of.shape == (3, 4, SIZE, SIZE, 3) and all_of.dtype == np.uint8
    some = drawn([2, 1], [3, 1]).astype(int)
    # products of another shape may be rounded otherwise, by one level at most
    assert abs(some - all_of[[2, 1]][:, [3, 1]].astype(int)).max() <= 1
    flat = all_of.reshape(12, -1).astype(int)
    assert min(abs(flat[i] - flat[j]).max() for i in range(12) for j in range(i)) > 9


def test_truncation_keeps_noise_small():
    sampling = type(task().sampling)
    keys = jax.random.split(jax.random.key(0), 200)
    draw = jax.vmap(lambda key, most: sampling(most).noise(key, 50), (0, None))
    noise = np.asarray(draw(keys, 0.5))
    assert abs(noise).max() <= 0.5 and abs(noise.mean()) < 0.02
    assert abs(np.asarray(draw(keys, 0.0)).std() - 1) < 0.02
    near, far = (drawn([0], [0, 1, 2], truncation=t).astype(int) for t in (1e-3, 0.0))
    assert abs(near - near[:, :1]).max() <= 2 < abs(far - far[:, :1]).max()


def test_labels_in_place_of_texts():
    made = task(tower={}, classes=7)
    assert made.reads == ("image", "label") and task().reads == ("image", "tokens")
    rows = {"image": batch()["image"], "label": np.asarray([0, 1, 1, 2, -1, 6])}
    weights = jax.eval_shape(made.init, jax.random.key(0), rows)
    assert not weights.frozen
    e_bd = made._condition(weights, rows)
    assert (
        e_bd.shape == (B, 7) and not (e_bd.sum(1) - rows["label"].clip(-1, 0) - 1).any()
    )
    made.check({"label": {"class_names": ["a"] * 7}})
    with pytest.raises(UserError, match="classes is 7, and the data have 8 classes"):
        made.check({"label": {"class_names": ["a"] * 8}})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (dict(classes=3), "classes 3: give a tower"),
        (dict(tower={}), "classes 0: give a tower"),
        (dict(image_size=24), "image_size is 24 and patch 2: use an image of 8 pixels"),
        (dict(penalty=-1.0), "penalty is -1.0"),
        (dict(power=1.0), "power is 1.0"),
        (dict(noise=0), "noise is 0"),
        (dict(tower=dict(TOWER, depth=2)), "'cbow' has no 'depth'"),
        (dict(sampling=dict(truncation=-1.0)), "truncation is -1.0"),
    ],
)
def test_refusals(given, message):
    with pytest.raises(UserError, match=message):
        task(**given)


def test_another_vocabulary_is_refused():
    with pytest.raises(UserError, match=r"40 ids .* and the model 30"):
        task().check({"tokens": {"vocab_size": 40, "shape": (CONTEXT,)}})
