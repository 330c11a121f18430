"""Fused attention against a reference, and found in programs for other platforms.

Splash runs in Pallas' interpreter here. What is handed to cuDNN goes to XLA's form of
the same function; cuDNN itself needs a GPU, and its test skips where there is none.
"""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from mmjax.errors import UserError
from mmjax.models import presets
from mmjax.models.prior import Prior
from mmjax.nn import attention, attention_kernels
from mmjax.nn.attention import CrossAttention
from mmjax.nn.grid_masks import KINDS
from mmjax.train import flops

KERNEL = {"cuda": "__cudnn$fmha", "tpu": "tpu_custom_call"}
B, H, Q, T, D = 2, 2, 131, 131, 16
RNG = np.random.default_rng(0)
ROWS_BT = RNG.random((B, T)) < 0.7
ROWS_BT[:, 0] = True
SAME_QT = RNG.random((Q, T)) < 0.5
MASKS = {
    "none": ({}, True),
    "causal": ({"causal": True}, np.tri(Q, T, dtype=bool)),
    "rows": ({"mask_bt": ROWS_BT}, ROWS_BT[:, None, None]),
    "same": ({"mask_qt": SAME_QT}, SAME_QT),
}


def qkv(dtype: str = "float32", *, q: int = Q, t: int = T) -> list[jax.Array]:
    rng = np.random.default_rng(1)
    return [jnp.asarray(rng.normal(size=(B, H, n, D)), dtype) for n in (q, t, t)]


def expected(q, k, v, mask) -> np.ndarray:
    """In float64 numpy."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    logits = np.where(mask, np.einsum("bhqd,bhtd->bhqt", q, k) / D**0.5, -np.inf)
    probs = np.exp(logits - logits.max(-1, keepdims=True))
    return np.einsum("bhqt,bhtd->bhqd", probs / probs.sum(-1, keepdims=True), v)


def plain(q, k, v, mask):
    logits = jnp.where(mask, jnp.einsum("bhqd,bhtd->bhqt", q, k) / D**0.5, -1e30)
    return jnp.einsum("bhqt,bhtd->bhqd", jax.nn.softmax(logits), v)


def grads(run, *arrays):
    return jax.jit(jax.grad(lambda *x: (run(*x) ** 2).sum(), (0, 1, 2)))(*arrays)


splash = functools.partial(attention_kernels.splash, interpret=True)


@pytest.fixture
def on_xla(monkeypatch):
    monkeypatch.setattr(
        attention_kernels, "_dot_product_attention", jax.nn.dot_product_attention
    )


@pytest.mark.parametrize("name", ["causal", "same"])  # "rows" is split over devices
def test_splash_is_the_reference_and_so_is_its_gradient(name):
    how, mask = MASKS[name]
    arrays = qkv()

    def both(*arrays):
        y, pull = jax.vjp(functools.partial(splash, **how), *arrays)
        return y, pull(2 * y)

    y, by = jax.jit(both)(*arrays)
    np.testing.assert_allclose(y, expected(*arrays, mask), atol=1e-5)
    for ours, theirs in zip(
        by, grads(lambda *x: plain(*x, mask), *arrays), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize("name", MASKS)
def test_what_cudnn_is_asked_for_is_the_reference(name, on_xla):
    how, mask = MASKS[name]
    arrays = qkv()
    y = attention_kernels.cudnn(*arrays, **how)
    np.testing.assert_allclose(y, expected(*arrays, mask), atol=1e-5)


def test_bfloat16_is_equal_within_its_rounding(on_xla):
    arrays = qkv("bfloat16")
    want = expected(*arrays, MASKS["same"][1])
    bound = 2.0**-8 * np.abs(np.asarray(arrays[2], np.float32)).max()
    for run in (splash, attention_kernels.cudnn):
        y = run(*arrays, mask_qt=SAME_QT)
        assert y.dtype == jnp.bfloat16
        np.testing.assert_allclose(np.asarray(y, np.float32), want, atol=bound)


@pytest.mark.parametrize("name", ["rows", "same"])
def test_tiles_are_the_reference_and_so_is_their_gradient(name):
    arrays = qkv()
    how = {k: jnp.asarray(x) if k != "causal" else x for k, x in MASKS[name][0].items()}
    run = functools.partial(attention.attend, **how)
    tiled = functools.partial(run, attention="tiled")
    np.testing.assert_allclose(tiled(*arrays), run(*arrays), atol=1e-6)
    for ours, theirs in zip(grads(tiled, *arrays), grads(run, *arrays), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_every_device_runs_splash_on_its_own_rows_and_heads():
    kinds = (AxisType.Auto,) * 2
    mesh = jax.make_mesh((2, 2), ("data", "tensor"), axis_types=kinds)
    place = NamedSharding(mesh, PartitionSpec("data", "tensor"))
    arrays = [jax.device_put(x, place) for x in qkv()]
    rows_bt = jax.device_put(ROWS_BT, NamedSharding(mesh, PartitionSpec("data")))

    def loss(rows_bt, *arrays):
        return (splash(*arrays, mask_bt=rows_bt) ** 2).sum()

    step = jax.jit(jax.grad(loss, (1, 2, 3)))
    compiled = step.lower(rows_bt, *arrays).compile()
    assert "all-gather" not in compiled.as_text()
    mask = ROWS_BT[:, None, None]
    for ours, theirs in zip(
        compiled(rows_bt, *arrays),
        grads(lambda *x: plain(*x, mask), *qkv()),
        strict=True,
    ):
        assert ours.sharding.is_equivalent_to(place, 4)
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


def kernels_in(platform: str, loss, *shapes) -> int:
    """How many calls of the platform's kernel the program of a gradient holds."""
    with attention_kernels.tracing_for(platform):
        step = jax.jit(jax.grad(loss)).trace(*shapes)
        text = step.lower(lowering_platforms=(platform,)).as_text()
    return len(re.findall(rf"custom_call @{re.escape(KERNEL[platform])}", text))


@pytest.fixture(params=KERNEL)
def platform(request, monkeypatch):
    """A platform to lower for, as if cuDNN were installed."""
    from jax._src.cudnn import fused_attention_stablehlo

    monkeypatch.setattr(fused_attention_stablehlo, "check_cudnn_version", lambda: 91400)
    return request.param


def abstract(module, *inputs):
    return jax.eval_shape(lambda: module.init(jax.random.key(0), *inputs))


def test_clip_l14_holds_the_kernels(platform):
    """Its widths and lengths; two layers, of which the last has one query."""
    model = presets.build("ViT-L/14", dtype="bfloat16", vocab_size=64)
    towers = (model.image.clone(depth=2), model.text.clone(depth=2))
    model = model.clone(image=towers[0], text=towers[1])
    size = model.image.image_size
    inputs = jnp.zeros((2, size, size, 3)), jnp.zeros((2, 77), jnp.int32)
    variables = abstract(model, *inputs, inputs[1] > 0)

    def loss(variables):
        out = model.apply(variables, *inputs, inputs[1] > 0)
        return (out.image * out.text).sum().astype(jnp.float32)

    # On TPUs the blocks would make 77 tokens 2.8 times the work: the reference.
    fewest = 4 if platform == "cuda" else 3
    assert kernels_in(platform, loss, variables) >= fewest


@pytest.mark.parametrize("masks", [*KINDS, "scanned"])
def test_the_prior_holds_them_for_every_mask(platform, masks):
    scan = masks == "scanned"
    how = {"masks": KINDS if scan else masks, "scan": scan, "remat": "full"}
    depth = len(KINDS) if scan else 1
    model = Prior(64, depth, 2, 50, 32, 40, 16, dtype="bfloat16", **how)
    ids, image = jnp.zeros((2, 32), jnp.int32), jnp.zeros((2, 256), jnp.int32)
    variables = abstract(model, ids, ids == 0, image)

    def loss(variables):
        logits = model.apply(variables, ids, ids == 0, image)
        return sum(x.sum() for x in logits)

    # Two tiles of image tokens, forwards and for the gradient.
    assert kernels_in(platform, loss, variables) >= 4


def test_cross_attention_holds_them(platform):
    module = CrossAttention(2, dtype="bfloat16")
    x_nw, context_blc = jnp.zeros((2 * 256, 128)), jnp.zeros((2, 77, 32))
    mask_bl = jnp.ones((2, 77), bool)
    variables = abstract(module, x_nw, context_blc, mask_bl)

    def loss(variables):
        return module.apply(variables, x_nw, context_blc, mask_bl).sum().astype("f")

    assert kernels_in(platform, loss, variables) >= 2


def test_a_kernel_counts_as_many_operations_as_the_reference(platform):
    shapes = [jax.ShapeDtypeStruct((2, 2, 256, 64), jnp.bfloat16)] * 3

    def step(*arrays):
        run = lambda *x: attention.attend(*x).astype("f").sum()  # noqa: E731
        return jax.grad(run, (0, 1, 2))(*arrays)

    want = flops.count(step, *shapes).model
    with attention_kernels.tracing_for(platform):
        assert flops.count(lambda *x: step(*x), *shapes).model == want


@pytest.mark.parametrize(
    "asked, dtype, message",
    [
        ("flash", "bfloat16", "config.task.attention 'flash'"),
        ("splash", "bfloat16", "a kernel for tpu, and this program is for cuda"),
        ("cudnn", "float32", "cuDNN takes bfloat16 and float16, not float32"),
    ],
)
def test_a_kernel_that_does_not_exist(asked, dtype, message):
    shape = jax.ShapeDtypeStruct((1, 2, 8, 16), dtype)
    with attention_kernels.tracing_for("cuda"), pytest.raises(UserError, match=message):
        attention_kernels.choose(asked, shape, 8)


def test_cpus_have_none():
    with pytest.raises(
        UserError, match="a kernel for cuda, and this program is for cp"
    ):
        attention.attend(*qkv(), attention="cudnn")


@pytest.mark.parametrize(
    "platform, q, keys, dtype, kernel",
    [
        ("cuda", 77, 77, "bfloat16", "cudnn"),
        ("cuda", 257, 257, "float32", "reference"),
        ("tpu", 257, 257, "bfloat16", "splash"),
        ("tpu", 77, 77, "bfloat16", "reference"),
        ("cpu", 257, 257, "bfloat16", "reference"),
    ],
)
def test_auto_takes_what_fits(platform, q, keys, dtype, kernel):
    shape = jax.ShapeDtypeStruct((1, 16, q, 64), dtype)
    with attention_kernels.tracing_for(platform) as target:
        assert attention_kernels.choose("auto", shape, keys) == kernel
    ((line, said),) = target.chosen.items()
    assert line.startswith(f"{q} queries, {keys} keys, 16 heads of 64")
    assert said.startswith(kernel)


@pytest.mark.skipif(
    jax.default_backend() != "gpu", reason="cuDNN's own numbers need an NVIDIA GPU"
)
@pytest.mark.parametrize("name", MASKS)
def test_cudnn_is_the_reference(name):
    how, mask = MASKS[name]
    arrays = qkv("bfloat16")
    y = attention_kernels.cudnn(*arrays, **how)
    bound = 2.0**-7 * np.abs(np.asarray(arrays[2], np.float32)).max()
    want = expected(*arrays, mask)
    np.testing.assert_allclose(np.asarray(y, np.float32), want, atol=bound)
