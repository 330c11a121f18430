"""Fusion blocks against numpy, against each other, and where a part is absent."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.nn import fusion
from mmjax.nn.fusion import cross_modal, late

ROWS, STEPS, WIDTHS = 3, 4, {"a": 2, "b": 3}
WANTED = fusion.Wanted(outputs=2, steps=True)


def parts_of(seed=0, widths=WIDTHS, steps=STEPS):
    rng = np.random.default_rng(seed)
    parts = {
        k: np.float32(rng.normal(size=(ROWS, steps, d))) for k, d in widths.items()
    }
    return parts, {k: np.ones((ROWS, steps), bool) for k in widths}


def run(block, parts, masks, wanted=WANTED, params=None):
    """(parameters, fused), in one compilation."""

    def both(parts, masks):
        fresh = {"params": params} if params else block.init(KEY, parts, masks, wanted)
        return fresh["params"], block.apply(fresh, parts, masks, wanted)

    return jax.device_get(jax.jit(both)(parts, masks))


KEY = jax.random.key(0)


def dense(p, x):
    return x @ p["kernel"] + p.get("bias", 0)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("kind", fusion.kinds())
def test_an_absent_part_is_absent(kind):
    """Whatever it holds, and however many of the others' steps are padding."""
    block = fusion.find(kind, "block")()
    parts, masks = parts_of()
    masks["b"][0], masks["a"][1, 3:], masks["b"][1, 3:] = False, False, False

    def scores(parts, masks):
        zeroed = {k: x * masks[k][..., None] for k, x in parts.items()}
        return block.apply(variables, zeroed, masks, WANTED).scores

    rng = np.random.default_rng(3)
    variables = jax.tree.map(
        lambda x: np.float32(0.5 * rng.normal(size=x.shape)),
        jax.eval_shape(lambda p, m: block.init(KEY, p, m, WANTED), parts, masks),
    )
    call = jax.jit(scores)
    before = call(parts, masks)
    assert before.shape == (ROWS, STEPS, 2) and np.isfinite(before).all()
    other = {"a": parts["a"], "b": parts["b"].copy()}
    other["b"][0], other["b"][1, 3:] = 9.0, -9.0
    after = call(other, masks)
    np.testing.assert_array_equal(before[0], after[0])
    np.testing.assert_array_equal(before[1, :3], after[1, :3])
    there = {**masks, "b": np.ones_like(masks["b"])}
    assert np.abs(np.asarray(call(other, there)[0] - after[0])).max() > 1e-6
    none = call(parts, {k: np.zeros_like(m) for k, m in masks.items()})
    assert np.isfinite(none).all()


def test_tensor_is_a_dense_layer_of_all_products():
    parts, masks = parts_of()
    p, got = run(fusion.find("tensor", "x")(width=5), parts, masks)
    one = {
        k: np.concatenate([x, np.ones_like(x[..., :1])], -1) for k, x in parts.items()
    }
    outer = np.einsum("bti,btj->btij", one["a"], one["b"]).reshape(ROWS, STEPS, -1)
    want = np.maximum(dense(p["fuse"], outer), 0)
    np.testing.assert_allclose(got.features, want, atol=1e-5)
    np.testing.assert_allclose(got.scores, dense(p["head"], want), atol=1e-5)


def test_low_rank_is_tensor_at_full_rank():
    """Factors: unit vectors of one part, and the kernel at them of the other."""
    parts, masks = parts_of()
    p, want = run(fusion.find("tensor", "x")(width=5), parts, masks)
    (i, j), kernel = (d + 1 for d in WIDTHS.values()), p["fuse"]["kernel"]
    kernel_ijw = kernel.reshape(i, j, 5)
    factors = {"a_kernel": np.zeros((i * j, i, 5)), "b_kernel": np.zeros((i * j, j, 5))}
    for r, (m, n) in enumerate(itertools.product(range(i), range(j))):
        factors["a_kernel"][r, m] = 1.0
        factors["b_kernel"][r, n] = kernel_ijw[m, n]
    same = {"weight": np.ones(i * j), "bias": p["fuse"]["bias"], "head": p["head"]}
    low = fusion.find("low_rank", "x")(width=5, rank=i * j)
    _, got = run(low, parts, masks, params=jax.tree.map(jnp.float32, factors | same))
    np.testing.assert_allclose(got.scores, want.scores, atol=1e-5)


def test_tensor_says_when_it_is_too_large():
    widths = {name: 127 for name in "abc"}
    parts, masks = parts_of(widths=widths, steps=1)
    block = fusion.find("tensor", "x")()
    with pytest.raises(UserError, match="2097152 products, at most 1048576.*low_rank"):
        jax.eval_shape(lambda: block.init(KEY, parts, masks, WANTED))


def test_gated_units_are_arevalos():
    parts, masks = parts_of()
    masks["b"][0] = False
    p, got = run(fusion.find("gated", "x")(width=3), parts, masks)
    both = np.concatenate(list(parts.values()), -1)
    want = sum(
        sigmoid(dense(p[f"gate_{k}"], both))
        * np.tanh(dense(p[f"say_{k}"], x))
        * masks[k][..., None]
        for k, x in parts.items()
    )
    np.testing.assert_allclose(got.features, want, atol=1e-5)


@pytest.mark.parametrize("rule", ["mean", "learned", "product"])
def test_rules_of_late_fusion(rule):
    rng = np.random.default_rng(1)
    answer, weight = rng.normal(size=(2, 1, 3, 2)), rng.normal(size=2)
    given = np.array([[[True, True]], [[True, False]]])
    weight = weight if rule == "learned" else np.zeros(2)
    got = late.combined(jnp.asarray(answer), given, weight, rule, classes=True)
    p = np.exp(answer) / np.exp(answer).sum(2, keepdims=True)
    share = np.exp(weight) / np.exp(weight).sum()
    whole = p[0, 0].prod(1) if rule == "product" else p[0, 0] @ share
    np.testing.assert_allclose(np.exp(got[0, 0]), whole, rtol=1e-5)
    np.testing.assert_allclose(np.exp(got[1, 0]), p[1, 0, :, 0], rtol=1e-5)
    if rule != "product":
        numbers = late.combined(jnp.asarray(answer), given, weight, rule, classes=False)
        np.testing.assert_allclose(numbers[0, 0], answer[0, 0] @ share, rtol=1e-5)


def norm(p, x):
    x = x - x.mean(-1, keepdims=True)
    return (
        x / np.sqrt(np.square(x).mean(-1, keepdims=True) + 1e-5) * p["scale"]
        + p["bias"]
    )


def test_cross_attention_is_tsais():
    rng, heads, w = np.random.default_rng(2), 2, 4
    target, source = rng.normal(size=(2, 3, w)), rng.normal(size=(2, 5, w))
    mask = np.arange(5) < np.array([5, 3])[:, None]
    block = cross_modal.CrossBlock(heads)
    args = [jnp.float32(target), jnp.float32(source), mask]
    p, got = jax.device_get(
        jax.jit(lambda *a: (v := block.init(KEY, *a), block.apply(v, *a)))(*args)
    )
    p, want = p["params"], target.copy()
    q = dense(p["attn"]["q"], norm(p["norm"], target))
    k, v = np.split(dense(p["attn"]["kv"], norm(p["norm"], source)), 2, -1)
    for row in range(2):
        n = mask[row].sum()
        heard = []
        for h in range(heads):
            one = slice(h * 2, h * 2 + 2)
            logits = q[row][:, one] @ k[row][:n, one].T / np.sqrt(2)
            share = np.exp(logits - logits.max(1, keepdims=True))
            heard.append(share / share.sum(1, keepdims=True) @ v[row][:n, one])
        want[row] += dense(p["attn"]["out"], np.concatenate(heard, 1))
    hidden = np.maximum(dense(p["mlp"]["fc"], norm(p["norm_mlp"], want)), 0)
    np.testing.assert_allclose(got, want + dense(p["mlp"]["proj"], hidden), atol=1e-5)


def test_memory_is_zadehs():
    parts, masks = parts_of(steps=2)
    block = fusion.find("memory", "x")(width=2, memory=3)
    p, got = run(block, parts, masks)
    step = p["step"]
    cell = {k: (np.zeros((ROWS, 2)), np.zeros((ROWS, 2))) for k in parts}
    memory = np.zeros((ROWS, 3))

    def two(name, x):
        return dense(step[f"{name}_2"], np.maximum(dense(step[f"{name}_1"], x), 0))

    for t in range(2):
        new = {}
        for name, (c, h) in cell.items():
            x = np.concatenate([parts[name][:, t], h], 1)
            i, f, g, o = np.split(dense(step[f"lstm_{name}"], x), 4, 1)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            new[name] = c, sigmoid(o) * np.tanh(c)
        both = np.concatenate([s[k][0] for s in (cell, new) for k in "ab"], 1)
        share = np.exp(two("attention", both))
        seen = share / share.sum(1, keepdims=True) * both
        wide = np.concatenate([seen, memory], 1)
        memory = sigmoid(two("keep", wide)) * memory
        memory += sigmoid(two("write", wide)) * np.tanh(two("say", seen))
        cell = new
        want = np.concatenate([cell["a"][1], cell["b"][1], memory], 1)
        np.testing.assert_allclose(got.features[:, t], want, atol=1e-5)


def test_unknown_blocks_have_neighbours():
    with pytest.raises(UserError, match="'tensr'; did you mean 'tensor'"):
        fusion.find("tensr", "config.task.block")
