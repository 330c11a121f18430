"""Operation counts against numbers worked out by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.train import flops


def _of(*shapes: tuple[int, ...], dtype=jnp.float32) -> list[jax.ShapeDtypeStruct]:
    return [jax.ShapeDtypeStruct(shape, dtype) for shape in shapes]


def test_matmul():
    assert flops.step_flops(jnp.matmul, *_of((3, 5), (5, 7))) == 2 * 3 * 5 * 7


def test_batched_einsum():
    fn = functools.partial(jnp.einsum, "bqd,bkd->bqk")
    assert flops.step_flops(fn, *_of((4, 3, 5), (4, 7, 5))) == 2 * 4 * 3 * 7 * 5


def test_gradient_costs_twice_the_forward():
    def loss(w, x):
        return (x @ w).sum() ** 2

    args = _of((5, 7), (3, 5))
    both = flops.step_flops(jax.grad(loss, (0, 1)), *args)
    weight_alone = flops.step_flops(jax.grad(loss), *args)
    assert (both, weight_alone) == (3 * 210, 2 * 210)


def test_operands_dtypes_are_told_apart():
    def fn(x, y):
        narrow = [a.astype(jnp.bfloat16) for a in (x, y)]
        return jnp.matmul(*narrow, preferred_element_type=jnp.float32), x @ y

    found = flops.count(fn, *_of((2, 3), (3, 4)))
    assert found.by_dtype == {"bfloat16": 48, "float32": 48}
    assert found.model == 96


def test_elementwise_work_is_free():
    assert flops.step_flops(lambda x: jax.nn.softmax(jnp.exp(x)), *_of((9, 9))) == 0


# 5 pixels, 3 taps: 13 of 15 meet the picture with SAME padding, 9 of 9 with none.
@pytest.mark.parametrize(
    ("padding", "stride", "taps"),
    [("VALID", 1, 9), ("SAME", 1, 13), ("SAME", 2, 7), ("VALID", 2, 6)],
)
def test_convolution(padding: str, stride: int, taps: int):
    conv = functools.partial(
        jax.lax.conv_general_dilated,
        window_strides=(stride, stride),
        padding=padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    args = _of((2, 5, 5, 4), (3, 3, 4, 6))
    forward = 2 * 2 * taps**2 * 4 * 6
    assert flops.step_flops(conv, *args) == forward
    both = jax.grad(lambda x, k: (conv(x, k) ** 2).sum(), (0, 1))
    assert flops.step_flops(both, *args) == 3 * forward


def test_grouped_and_transposed_convolution():
    grouped = functools.partial(
        jax.lax.conv_general_dilated,
        window_strides=(1, 1),
        padding="VALID",
        feature_group_count=2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    args = _of((2, 5, 5, 4), (3, 3, 2, 6))
    assert flops.step_flops(grouped, *args) == 2 * 2 * 9 * 9 * 2 * 6
    both = jax.grad(lambda x, k: (grouped(x, k) ** 2).sum(), (0, 1))
    assert flops.step_flops(both, *args) == 3 * 2 * 2 * 9 * 9 * 2 * 6
    up = functools.partial(jax.lax.conv_transpose, strides=(2, 2), padding="VALID")
    # every one of 3 x 3 pixels meets each of the 2 x 2 taps once
    assert flops.step_flops(up, *_of((1, 3, 3, 4), (2, 2, 4, 6))) == 2 * 9 * 4 * 4 * 6


def _layers(w_kdd: jax.Array, x_bd: jax.Array, *, again: bool = False) -> jax.Array:
    def layer(x, w):
        return jnp.tanh(x @ w), None

    y, _ = jax.lax.scan(jax.checkpoint(layer) if again else layer, x_bd, w_kdd)
    return (y**2).sum()


def test_a_scan_counts_every_turn():
    args = _of((6, 5, 5), (3, 5))
    assert flops.step_flops(_layers, *args) == 6 * 150
    assert flops.step_flops(jax.grad(_layers, (0, 1)), *args) == 3 * 6 * 150
    twice = lambda w, x: jax.lax.map(lambda row: _layers(w, row), x)  # noqa: E731
    assert flops.step_flops(twice, *_of((6, 5, 5), (4, 3, 5))) == 4 * 6 * 150


def test_recomputation_is_kept_apart():
    loss = functools.partial(_layers, again=True)
    found = flops.count(jax.jit(jax.grad(loss, (0, 1))), *_of((6, 5, 5), (3, 5)))
    assert (found.model, found.again) == (3 * 6 * 150, 6 * 150)


def test_a_policy_that_keeps_products_recomputes_none():
    def layer(w, x):
        return jnp.tanh(jnp.tanh(x @ w) @ w).sum()

    keep = jax.checkpoint(layer, policy=jax.checkpoint_policies.dots_saveable)
    drop = jax.checkpoint(layer)
    args = _of((5, 5), (3, 5))
    kept, dropped = (flops.count(jax.grad(f, (0, 1)), *args) for f in (keep, drop))
    assert kept.model == dropped.model == 3 * 2 * 150
    assert (kept.again, dropped.again) == (0, 2 * 150)


def test_the_dearest_branch_counts():
    def fn(x):
        return jax.lax.cond(x[0, 0] > 0, lambda x: x @ x, lambda x: x @ x @ x, x)

    assert flops.step_flops(fn, *_of((3, 3))) == 2 * 54


def test_a_while_loop_counts_as_one_turn():
    def fn(x):
        return jax.lax.while_loop(lambda c: c[0, 0] < 9, lambda c: c @ c, x)

    assert flops.step_flops(fn, *_of((3, 3))) == 54


@pytest.mark.parametrize("devices", [1, 4])
def test_shards_add_up_to_the_whole(devices: int):
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:devices]), ("data",))
    rows, whole = jax.P("data"), jax.P()
    sharded = jax.shard_map(
        jnp.matmul, mesh=mesh, in_specs=(rows, whole), out_specs=rows
    )
    assert flops.step_flops(sharded, *_of((8, 5), (5, 7))) == 2 * 8 * 5 * 7
    mapped = jax.pmap(
        jnp.matmul, axis_name="data", in_axes=(0, None), devices=jax.devices()[:devices]
    )
    args = _of((devices, 8 // devices, 5), (5, 7))
    assert flops.step_flops(mapped, *args) == 2 * 8 * 5 * 7


def test_paths_name_the_scope():
    def fn(x):
        with jax.named_scope("tower"):
            return x @ x

    (product,) = flops.products(jax.make_jaxpr(jax.jit(fn))(*_of((3, 3))).jaxpr)
    assert product.path == "tower"
