"""Bytes sent, against programs whose collectives are known."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from mmjax import parallel
from mmjax.planning import hlo, program

N = 4


def placed(*axes):
    mesh = jax.sharding.Mesh(jax.devices()[:N], ("data",))
    return NamedSharding(mesh, PartitionSpec(*axes))


def compiled(fn, inputs, out):
    return program.compile_seen(jax.jit(fn, out_shardings=out).lower(*inputs))[1]


def shape(dims, sharding, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(dims, dtype, sharding=sharding)


def test_all_reduce_of_a_sum_over_rows():
    x = shape((N * 8, 64), placed("data"))
    (one,) = hlo.collectives(compiled(lambda x: x.sum(0), [x], placed()))
    assert (one.kind, one.size, one.group, one.runs) == (
        "all-reduce",
        64 * 4,
        tuple(range(N)),
        1,
    )
    assert one.sent == 2 * 3 / 4 * 64 * 4


def test_all_gather_of_a_split_array():
    x = shape((N * 8, 64), placed("data"))
    (one,) = hlo.collectives(compiled(lambda x: x + 1, [x], placed()))
    assert one.kind == "all-gather"
    assert one.sent == 3 / 4 * (N * 8 * 64 * 4)


def test_a_loops_collectives_count_as_often_as_it_turns():
    kernels = shape((7, 16, 16), placed(None, "data"))
    x = shape((N * 2, 16), placed("data"))

    def fn(kernels, x):
        def body(x, kernel):
            whole = jax.lax.with_sharding_constraint(kernel, placed())
            return jnp.tanh(x @ whole), None

        return jax.lax.scan(body, x, kernels)[0]

    found = hlo.collectives(compiled(fn, [kernels, x], placed("data")))
    in_loop = [one for one in found if one.runs == 7]
    assert sum(one.sent for one in in_loop) == 7 * 3 / 4 * (16 * 16 * 4)
    assert hlo.by_kind(found) == {"all-gather": 7 * 3 / 4 * (16 * 16 * 4)}


def test_a_ring_passes_its_blocks_on():
    x = shape((N * 8, 64), placed("data"))

    def ring(x):
        pairs = [(i, (i + 1) % N) for i in range(N)]
        return jax.lax.ppermute(x, "data", pairs)

    mapped = jax.shard_map(
        ring, mesh=placed().mesh, in_specs=PartitionSpec("data"),
        out_specs=PartitionSpec("data"),
    )  # fmt: skip
    (one,) = hlo.collectives(compiled(mapped, [x], placed("data")))
    assert one.kind == "collective-permute" and one.sent == 8 * 64 * 4
    assert one.group == (0, 1)


def test_16_bit_sums_count_at_16_bits():
    x = shape((N * 8, 64), placed("data"), jnp.bfloat16)
    w = shape((64, 32), placed(None, None), jnp.bfloat16)

    def fn(x, w):
        return jax.lax.dot(x.T, x @ w, preferred_element_type=jnp.bfloat16)

    (one,) = hlo.collectives(compiled(fn, [x, w], placed()))
    assert one.kind == "all-reduce" and one.size == 64 * 32 * 2


def test_one_device_sends_nothing():
    mesh = jax.sharding.Mesh(jax.devices()[:1], ("data",))
    alone = NamedSharding(mesh, PartitionSpec("data"))
    x = shape((8, 64), alone)
    assert hlo.collectives(compiled(lambda x: x.sum(0), [x], None)) == []


LINE = "  %a = f32[8]{0} all-reduce(%b), replica_groups=GROUPS, to_apply=%add"


@pytest.mark.parametrize(
    ("groups", "want"),
    [
        ("{{0,2},{1,3}}", (0, 2)),
        ("[2,2]<=[4]", (0, 1)),
        ("[2,2]<=[2,2]T(1,0)", (0, 2)),
        ("mesh['x'=2,'y'=2] {'y'}", (0, 1)),
        ("mesh['x'=2,'y'=2] {'x'}", (0, 2)),
        ("mesh['x'=2,'y'=2] {'x','y'}", (0, 1, 2, 3)),
        ("mesh['x'=2,'y'=4], device_ids=([4,2]T(1,0)) {'y'}", (0, 2, 4, 6)),
        ("mesh['x'=8] {'x':(2)2}", (0, 2)),
        ("mesh['x'=2,'y'=4] {'x','y':(1)2}", (0, 2, 4, 6)),
    ],
)
def test_forms_of_device_groups(groups, want):
    text = "\n".join(["ENTRY %main (b: f32[8]) -> f32[8] {", LINE, "}"])
    (one,) = hlo.collectives(text.replace("GROUPS", groups))
    assert one.group == want


def test_what_is_not_understood_is_an_error_and_not_a_zero():
    head = "ENTRY %main (b: f32[8]) -> f32[8] {"
    with pytest.raises(ValueError, match="of another form"):
        hlo.collectives("\n".join([head, LINE.replace("GROUPS", "odd"), "}"]))
    body = ["%body (b: f32[8]) -> f32[8] {", LINE.replace("GROUPS", "{{0,1}}"), "}"]
    loop = "  %w = f32[8]{0} while(%b), condition=%cond, body=%body"
    with pytest.raises(ValueError, match="loop of unknown length"):
        hlo.collectives("\n".join([*body, head, loop, "}"]))


def test_gradients_of_a_mesh_are_summed_once_over_each_axis():
    """A dense layer: gather its kernel over fsdp, sum its gradient over both."""
    layout = parallel.Layout(
        parallel.ParallelConfig(mesh=parallel.MeshConfig(data=2, fsdp=2)),
        jax.devices()[:4],
    )
    kernel = {"fc": {"kernel": jax.ShapeDtypeStruct((64, 32), jnp.float32)}}
    kernel = layout.abstract(kernel)
    x = shape((8, 64), layout.batch_sharding)

    def step(params, x):
        return jax.grad(lambda p: jnp.square(x @ p["fc"]["kernel"]).sum())(params)

    out = jax.tree.map(lambda s: s.sharding, kernel)
    sent = hlo.by_kind(hlo.collectives(compiled(step, [kernel, x], out)))
    whole = 64 * 32 * 4
    assert sent["all-gather"] == whole / 2
    # scattered over fsdp, then the halves summed over data; or all at once
    assert sent["reduce-scatter"] + sent.get("all-reduce", 0) in (
        whole / 2 + 2 * whole / 4,
        whole * 3 / 4,
    )


def test_a_sum_that_is_only_sliced_is_a_reduce_scatter():
    x = shape((N * 8, 64), placed("data"))
    found = hlo.collectives(compiled(lambda x: x.sum(0), [x], placed("data")))
    (one,) = found
    assert one.kind == "reduce-scatter" and one.sent == 3 / 4 * 64 * 4
