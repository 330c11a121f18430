"""Tiled contrastive losses against numpy in float64, on 1, 2, 4 and 8 devices."""

import functools
import math
import os
import pathlib
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from mmjax.errors import UserError
from mmjax.losses import contrastive, contrastive_tiles

B, D, BLOCK = 24, 8, 5  # neither 24 nor 24 / devices is a multiple of 5
SCALE, BIAS = 9.0, -3.0
FORMS = [(name, ring) for name in ("info_nce", "sigmoid") for ring in (False, True)]


def pairs(b: int = B, d: int = D) -> tuple:
    """Unit images and texts, and keys of which several are equal."""
    rng = np.random.default_rng(0)
    image, text = rng.normal(size=(2, b, d))
    keys = rng.integers(0, 3, (b, 2)).astype(np.int32)
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (image, text)]
    return *(np.float32(x) for x in unit), keys


def softmax(z: np.ndarray, axis: int) -> np.ndarray:
    e = np.exp(z - z.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def reference(name: str, image, text, keys) -> tuple:
    """Loss; gradients to image, text, scale and bias; hits. By the formulas."""
    image, text = np.float64(image), np.float64(text)
    b, cos = len(image), np.float64(image) @ np.float64(text).T
    match = np.eye(b, dtype=bool)
    if keys is not None:
        match = (keys[:, None] == keys[None]).all(-1)
    if name == "info_nce":
        z, target = SCALE * cos, match / match.sum(1, keepdims=True)
        rows, columns = softmax(z, 1), softmax(z, 0)
        loss = -(target * (np.log(rows) + np.log(columns))).sum() / (2 * b)
        slope = ((rows + columns) / 2 - target) / b
    else:
        z = SCALE * cos + BIAS
        loss = np.log1p(np.exp(np.where(match, -z, z))).sum() / b
        slope = (1 / (1 + np.exp(-z)) - match) / b
    to_image, to_text = SCALE * slope @ text, SCALE * slope.T @ image
    grads = to_image, to_text, (slope * cos).sum(), slope.sum()
    return loss, grads, match[np.arange(b), cos.argmax(1)]


def tiled(name, ring, placed, image, text, scale, bias, keys, block=BLOCK):
    numbers = (scale,) if name == "info_nce" else (scale, bias)
    loss = getattr(contrastive_tiles, name)
    return loss(image, text, *numbers, keys=keys, block=block, ring=ring, placed=placed)


def all_forms(placed, image, text, scale, bias, keys):
    """ "name ring" -> ((loss, hit), gradients) of every form, in one program."""
    found = {}
    for name, ring in FORMS:
        fn = functools.partial(tiled, name, ring, placed)
        grad = jax.value_and_grad(fn, argnums=(0, 1, 2, 3), has_aux=True)
        found[f"{name} {ring:d}"] = grad(image, text, scale, bias, keys)
    return found


def over(devices: int, axes: tuple[str, ...] = ("data", "fsdp")) -> NamedSharding:
    """Rows over a mesh of `devices`."""
    shape = (devices // 2, 2, 1) if devices > 1 else (1, 1, 1)
    grid = np.asarray(jax.devices()[:devices]).reshape(shape)
    types = (AxisType.Auto,) * 3
    mesh = Mesh(grid, ("data", "fsdp", "tensor"), axis_types=types)
    return NamedSharding(mesh, PartitionSpec(axes))


def run_jit(devices: int) -> dict:
    placed = over(devices)
    image, text, keys = (jax.device_put(x, placed) for x in pairs())
    return jax.jit(functools.partial(all_forms, placed))(image, text, SCALE, BIAS, keys)


def run_pmap(devices: int) -> dict:
    """As a training step does it: every device differentiates its copy of the loss,
    and gradients to shared numbers are averaged."""
    mapped = jax.pmap(
        functools.partial(all_forms, "data"),
        axis_name="data",
        in_axes=(0, 0, None, None, 0),
        devices=jax.devices()[:devices],
    )

    def split(x: np.ndarray) -> np.ndarray:
        return x.reshape(devices, -1, *x.shape[1:])

    image, text, keys = pairs()
    got = jax.device_get(mapped(split(image), split(text), SCALE, BIAS, split(keys)))
    found = {}
    for form, ((loss, hit), (to_image, to_text, *to_numbers)) in got.items():
        assert np.ptp(loss) == 0
        rows = [x.reshape(B, -1) / devices for x in (to_image, to_text)]
        grads = *rows, *(x.mean() for x in to_numbers)
        found[form] = (loss[0], hit.reshape(B)), grads
    return found


def check(devices: int, mode: str) -> None:
    got = jax.device_get({"jit": run_jit, "pmap": run_pmap}[mode](devices))
    image, text, keys = pairs()
    assert len(got) == len(FORMS)
    for form, ((loss, hit), grads) in got.items():
        name = form.split()[0]
        want, want_grads, want_hit = reference(name, image, text, keys)
        np.testing.assert_allclose(loss, want, atol=1e-5, rtol=1e-6, err_msg=form)
        np.testing.assert_array_equal(hit, want_hit, err_msg=form)
        names = ("image", "text", "scale", "bias")
        for what, a, b in zip(names, grads, want_grads, strict=True):
            if what == "bias" and name == "info_nce":
                assert a == 0  # it has none
                continue
            np.testing.assert_allclose(a, b, atol=1e-5, err_msg=f"{form} {what}")


@pytest.mark.parametrize("mode", ["jit", "pmap"])
@pytest.mark.parametrize("devices", [1, 2, 4])
def test_value_gradient_and_hits(devices: int, mode: str):
    check(devices, mode)


def test_value_gradient_and_hits_on_eight_devices():
    code = (
        "from mmjax.parallel import runtime; runtime.configure(devices=8); import jax\n"
        "import contrastive_tiles_test as t\n"
        "t.check(8, 'jit'); t.check(8, 'pmap'); print(jax.device_count())"
    )
    root = pathlib.Path(__file__).parents[2]
    paths = (
        f"import sys; sys.path[:0] = [{str(root)!r}, {str(root / 'tests/losses')!r}]"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"{paths}\n{code}"],
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "8"), done.stderr[-3000:]


@pytest.mark.parametrize("name", ["info_nce", "sigmoid"])
def test_the_reference_is_the_dense_loss(name: str):
    image, text, keys = pairs()
    positives = (keys[:, None] == keys[None]).all(-1)

    def dense(image, text, scale, bias):
        numbers = (scale,) if name == "info_nce" else (scale, bias)
        return getattr(contrastive, name)(image, text, *numbers, positives=positives)

    grad = jax.jit(jax.value_and_grad(dense, argnums=(0, 1, 2, 3)))
    loss, grads = grad(image, text, SCALE, BIAS)
    want, want_grads, _ = reference(name, image, text, keys)
    np.testing.assert_allclose(loss, want, rtol=1e-6)
    for a, b in list(zip(grads, want_grads, strict=True))[: 3 + (name == "sigmoid")]:
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_any_block_and_no_keys(block: int):
    image, text, _ = pairs()

    @jax.jit
    def every(image):
        args = (image, text, SCALE, BIAS, None, block)
        return [tiled(name, ring, over(4), *args) for name, ring in FORMS]

    for (name, _), (loss, hit) in zip(FORMS, every(image), strict=True):
        want, _, want_hit = reference(name, image, text, None)
        np.testing.assert_allclose(loss, want, rtol=1e-6)
        np.testing.assert_array_equal(hit, want_hit)


def test_sharp_and_equal_pairs():
    """At scale 100 the loss of matched rows is near 0; equal texts are equally near."""
    rng = np.random.default_rng(1)
    image = contrastive.l2_normalize(rng.normal(size=(B, 64)))
    image = image.at[7].set(image[2]).at[23].set(image[2])
    text = image

    def dense(image):
        return contrastive.info_nce(image, text, 100.0)

    want, want_grad = jax.jit(jax.value_and_grad(dense))(image)
    nearest = np.arange(B)
    nearest[[7, 23]] = 2
    for ring in (False, True):

        def form(image, ring=ring):
            return tiled("info_nce", ring, over(4), image, text, 100.0, 0.0, None)

        (loss, hit), grad = jax.jit(jax.value_and_grad(form, has_aux=True))(image)
        # logits of 100 are rounded to 4e-6, by either form
        np.testing.assert_allclose(loss, want, atol=4e-6)
        np.testing.assert_allclose(grad, want_grad, atol=1e-5)
        np.testing.assert_array_equal(hit, nearest == np.arange(B))


def largest(program: jax.stages.Lowered) -> int:
    """Elements of the largest array of the compiled program of one device."""
    text = program.compile().as_text()
    shapes = re.findall(r"\b(?:f32|s32|u32|pred|f64|s64|bf16)\[([\d,]+)\]", text)
    assert len(shapes) > 10
    return max(math.prod(map(int, shape.split(","))) for shape in shapes)


@pytest.mark.parametrize("mode", ["jit", "pmap"])
def test_no_array_of_all_pairs(mode: str):
    b, devices, block = 256, 4, 16
    rows = b // devices
    image, text, keys = pairs(b)
    placed = over(devices) if mode == "jit" else "data"

    def lower(loss) -> int:
        grad = jax.grad(loss, argnums=(0, 1))
        if mode == "jit":
            put = [jax.device_put(x, placed) for x in (image, text, keys)]
            return largest(jax.jit(grad).lower(*put))
        parts = [x.reshape(devices, rows, -1) for x in (image, text, keys)]
        return largest(jax.pmap(grad, axis_name="data").lower(*parts))

    def dense(image, text, keys):
        if mode == "pmap":
            image, text, keys = (
                jax.lax.all_gather(x, "data", tiled=True) for x in (image, text, keys)
            )
        positives = (keys[:, None] == keys[None]).all(-1)
        return contrastive.info_nce(image, text, SCALE, positives=positives)

    assert lower(dense) >= rows * b  # what is looked for is found where it is
    for name, ring in FORMS:

        def form(image, text, keys, name=name, ring=ring):
            args = (image, text, SCALE, BIAS, keys, block)
            return tiled(name, ring, placed, *args)[0]

        assert lower(form) <= max(b * D, rows * block) < rows * b


def test_row_ids_are_equal_where_rows_are():
    rng = np.random.default_rng(0)
    keys = rng.integers(-1, 2, (40, 3)).astype(np.int32)
    ids = np.asarray(jax.jit(contrastive.row_ids)(keys))
    same = (keys[:, None] == keys[None]).all(-1)
    np.testing.assert_array_equal(ids[:, None] == ids[None], same)
    assert set(ids) == set(range(len(np.unique(keys, axis=0))))


def test_half_precision_inputs_keep_their_type_in_gradients():
    image, text, _ = (jnp.asarray(x, jnp.bfloat16) for x in pairs())

    def loss(image):
        return contrastive_tiles.info_nce(image, text, SCALE, block=BLOCK)[0]

    value, grad = jax.jit(jax.value_and_grad(loss))(image)
    assert value.dtype == jnp.float32 and grad.dtype == jnp.bfloat16


def test_bad_numbers():
    image, text, _ = pairs()
    with pytest.raises(UserError, match="block is 0"):
        contrastive_tiles.info_nce(image, text, SCALE, block=0)
    with pytest.raises(UserError, match="22 pairs must split over 4 devices"):
        contrastive_tiles.info_nce(
            image[:22], text[:22], SCALE, block=4, placed=over(4)
        )
