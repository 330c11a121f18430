"""The diffusion task: what it refuses, what it draws, and what its parts are for."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.sampling.diffusion import Sampling
from mmjax.state import Ctx
from mmjax.tasks import base
from mmjax_configs import diffusion as config

PLAIN = Sampling(sampler="ddim", steps=3)


def task_of(**keys):
    made = config.tiny().task
    made.update(keys)
    return base.build(made)


TASK = task_of(sampling=dict(sampler="ddim", steps=3))


def batch_of(rows=4, seed=0):
    """Images and texts of start, some words, end and padding."""
    rng = np.random.default_rng(seed)
    tokens_bl = rng.integers(1, 500, (rows, 16)).astype(np.int32)
    length_b1 = rng.integers(4, 10, (rows, 1))
    tokens_bl[:, 0] = 518
    place_l = np.arange(16)
    tokens_bl = np.where(place_l < length_b1 - 1, tokens_bl, 0)
    tokens_bl = np.where(place_l == length_b1 - 1, 519, tokens_bl)
    return {
        "image": rng.integers(0, 256, (rows, 16, 16, 3), dtype=np.uint8),
        "tokens": tokens_bl,
        "tokens_mask": place_l < length_b1,
    }


@pytest.fixture(scope="module")
def variables():
    """Random, with none of the zeros that training begins with."""
    made = jax.jit(TASK.init)(jax.random.key(0), batch_of())
    leaves, tree = jax.tree.flatten(made.params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    pairs = zip(leaves, keys, strict=True)
    moved = [x + 0.1 * jax.random.normal(key, x.shape) for x, key in pairs]
    return made._replace(params=jax.tree.unflatten(tree, moved))


def ctx(*, train=False):
    return Ctx(rng=jax.random.key(2), step=jnp.int32(0), train=train)


def prompts(p=2, k=2, **more):
    rows = {key: value[:p] for key, value in batch_of().items() if key != "image"}
    candidate_pk = np.tile(np.arange(k, dtype=np.int32), (p, 1))
    return rows | {"seed": np.arange(p, dtype=np.uint32), "candidate": candidate_pk}


def draw(variables, batch, how="sample", **options):
    task = dataclasses.replace(TASK, sampling=dataclasses.replace(PLAIN, **options))
    call = jax.jit(lambda v, b: task.predict()[how](v, b, ctx()))
    return jax.tree.map(np.asarray, call(variables, batch))


def near(a, b, levels=1):
    assert np.abs(a.astype(int) - b.astype(int)).max() <= levels


def test_a_candidate_follows_from_prompt_seed_and_number(variables):
    image = draw(variables, prompts(k=2))["image"]
    assert image.shape == (2, 2, 16, 16, 3) and image.dtype == np.uint8
    assert len(np.unique(image.reshape(4, -1), axis=0)) == 4
    other = {key: value[1:] for key, value in prompts(k=2).items()}
    other["candidate"] = np.array([[1, 5, 0]], np.int32)
    near(draw(variables, other)["image"][0, [2, 0]], image[1])


def test_guidance_1_is_the_conditional_model(variables):
    plain = draw(variables, prompts())["image"]
    near(draw(variables, prompts(), guidance=1 + 1e-6)["image"], plain)
    away = draw(variables, prompts(), guidance=3.0)["image"]
    assert np.abs(away.astype(int) - plain.astype(int)).max() > 2
    # away from the prompt itself there is nowhere to go
    texts = {f"negative_{k}": v for k, v in prompts().items() if k.startswith("tok")}
    near(draw(variables, prompts() | texts, guidance=3.0)["image"], plain)


def test_a_prompt_without_words_is_the_dropped_one(variables):
    batch = batch_of(2)
    empty = np.zeros((2, 16), np.int32)
    empty[:, :2] = 518, 519
    bare = {"tokens": empty, "tokens_mask": np.arange(16) < np.full((2, 1), 2)}
    condition = TASK._condition(variables, batch, dropped_b=jnp.array([True, False]))
    want = TASK._condition(variables, bare)
    for got, wanted in zip(condition, want, strict=True):
        np.testing.assert_allclose(got[0], wanted[0], atol=1e-6)
    assert np.abs(condition.vector[1] - want.vector[1]).max() > 1e-3


def test_image_to_image_begins_from_the_image(variables):
    batch = prompts() | {"image": batch_of(2)["image"]}
    with pytest.raises(UserError, match="strength is 0.5.*none is given"):
        draw(variables, prompts(), strength=0.5)
    kept = TASK._image(variables, TASK._rows(variables, {"image": batch["image"]}))
    off = [
        np.abs(
            draw(variables, batch, steps=20, strength=s)["image"] - 1.0 * kept[:, None]
        )
        for s in (0.05, 1.0)
    ]
    assert off[0].mean() < off[1].mean()


def test_inpainting_keeps_what_is_given(variables):
    known = np.zeros((2, 16, 16), bool)
    known[0, :, :7], known[1, 4:8] = True, True
    image = batch_of(2)["image"]
    batch = prompts(k=3) | {"image": image, "known": known}
    drawn = draw(variables, batch, "complete")["image"]
    for c in range(3):
        np.testing.assert_array_equal(drawn[:, c][known], image[known])
    assert (drawn[:, 0][~known] != drawn[:, 1][~known]).any()
    # What is not known has no part in it, also where the encoder's filters reach it.
    hidden = np.where(known[..., None], image, 255 - image)
    again = draw(variables, batch | {"image": hidden}, "complete")["image"]
    np.testing.assert_array_equal(again, drawn)
    with pytest.raises(UserError, match="strength is 0.5"):
        draw(variables, batch, "complete", strength=0.5)
    batch = prompts(k=3) | {"image": image, "known": np.zeros_like(known)}
    free = draw(variables, batch, "complete")["image"]
    near(free, draw(variables, prompts(k=3))["image"])


def test_an_image_is_found_again_from_its_noise(variables):
    batch = prompts(k=1) | {"image": batch_of(2)["image"]}
    noise = draw(variables, batch, "invert", steps=500)["noise"]
    del batch["image"]
    back = draw(variables, batch | {"noise": noise}, steps=500)["image"]
    rows = TASK._rows(variables, {"image": batch_of(2)["image"]})
    want = np.asarray(TASK._image(variables, rows)).astype(float)
    other = draw(variables, batch, steps=500)["image"]
    off, apart = (np.abs(drawn[:, 0] - want).mean() for drawn in (back, other))
    assert off < 0.15 * apart, (off, apart)


def test_the_loss_by_hand(variables):
    options = dict(steps=3, guidance=1.0)
    task = task_of(weighting="none", caption_dropout=0.0, sampling=options)
    batch, rng = batch_of(3), ctx(train=True)
    loss, (_, metrics) = task.loss(variables, batch, rng)
    assert loss == metrics["square_error"]
    rows, total = np.asarray(task._rows(variables, batch)), []
    for i, key in enumerate(rng.example_keys(3)):
        at, of_noise, _, _ = jax.random.split(key, 4)
        time = int(jax.random.randint(at, (), 0, 1000))
        eps = np.asarray(jax.random.normal(of_noise, rows.shape[1:]))
        alpha, sigma = (x[time] for x in task.schedule.table)
        one = {name: value[i : i + 1] for name, value in batch.items()}
        given = task._apply(
            variables,
            "__call__",
            jnp.asarray(alpha * rows[i] + sigma * eps)[None],
            jnp.full(1, float(time)),
            task._condition(variables, one),
        )
        total.append(np.square(given[0] - (alpha * eps - sigma * rows[i])).mean())
    assert loss == pytest.approx(np.mean(total), rel=1e-4)


def test_labels_condition_a_model_of_pixels():
    made = config.tiny().task
    made.update(classes=3, image_size=16, pooled=False)
    task = base.build({**made, "tower": {}, "stage1": {}})
    batch = {"image": batch_of()["image"], "label": np.array([0, 1, 2, 1], np.int32)}
    variables = task.init(jax.random.key(0), batch)
    assert not variables.frozen and task.reads == ("image", "label")
    loss, _ = task.loss(variables, batch, ctx(train=True))
    assert np.isfinite(loss)
    batch = {"label": np.array([2], np.int32), "seed": np.zeros(1, np.uint32)}
    batch["candidate"] = np.arange(2, dtype=np.int32)[None]
    image = task.predict()["sample"](variables, batch, ctx())["image"]
    assert image.shape == (1, 2, 16, 16, 3)
    with pytest.raises(UserError, match="classes is 3.*4 classes"):
        spec = {"image": {"shape": (16, 16, 3)}, "label": {"class_names": "abcd"}}
        task.check(spec)


@pytest.mark.parametrize(
    "keys, words",
    [
        ({"prediction": "noise"}, "'noise'"),
        ({"times": "log"}, "'log'"),
        ({"times_mean": 0.5}, "times_mean is 0.5 and times 'uniform'"),
        ({"weighting": "snr"}, "'snr'.*min_snr"),
        ({"image_size": 32}, "image_size is 32.*16"),
        ({"classes": 3}, "classes is 3.*tower"),
        ({"prediction": "eps", "schedule": {"kind": "flow"}}, "'eps'.*flow.*v, x0"),
        ({"caption_dropout": 0.0}, "guidance is 2.0.*caption_dropout"),
        ({"caption_dropout": 1.5}, "1.5.*0 to 1"),
        ({"sampling": {"steps": 2000}}, "2000.*1000"),
        ({"net": {"kind": "dot"}}, "'dot'.*dit"),
        ({"net": {"kind": "dit", "patch": 3, "width": 8, "heads": 1}}, "3.*8 a side"),
        ({"net": {"kind": "dit", "width": 32, "heads": 3}}, "32.*3 heads"),
        ({"schedule": {"kind": "sqrt"}}, "'sqrt'.*cosine"),
    ],
)
def test_numbers_that_do_not_fit(keys, words):
    with pytest.raises(UserError, match=words):
        task_of(**keys)


def test_latents_of_another_shape():
    spec = {"latent": {"shape": (4, 4, 4)}, "tokens": {"shape": (16,)}}
    with pytest.raises(UserError, match=r"\(4, 4, 4\).*\(8, 8, 4\)"):
        TASK.check(spec)


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
def test_noise_begins_with_variance_1_at_any_level(spacing):
    """As data of unit variance have it there; a fresh net gives v = 0, so alpha x."""
    keys = dict(sampler="ddim", steps=2, spacing=spacing, offset=1, guidance=1.0)
    task = task_of(sampling=keys | {"eta": 0.0})
    variables = jax.jit(task.init)(jax.random.key(0), batch_of())
    noise = np.random.default_rng(0).normal(size=(2, 1, 8, 8, 4)).astype(np.float32)
    drawn = task.predict()["sample"](variables, prompts(k=1) | {"noise": noise}, ctx())[
        "image"
    ]
    x, (_, alpha_m, sigma_m) = noise[:, 0], task.levels
    for i in range(2):
        x = alpha_m[i + 1] * alpha_m[i] * x + sigma_m[i + 1] * sigma_m[i] * x
    near(np.asarray(drawn[:, 0]), np.asarray(task._image(variables, jnp.asarray(x))))
