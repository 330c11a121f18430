"""Drawing tokens, from models small enough to know the answer."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.sampling import autoregressive as ar
from mmjax.sampling import candidates
from mmjax.sampling.autoregressive import Sampling

V, LENGTH = 4, 3
PLAIN = Sampling()


def log_softmax(x: np.ndarray) -> np.ndarray:
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def logits(b: int = 5, v: int = 50) -> jax.Array:
    return jnp.asarray(2 * np.random.default_rng(0).normal(size=(b, v)), jnp.float32)


def chain(seed: int = 0) -> tuple[jax.Array, jax.Array]:
    """Logits of the first token (v,); of the next by position and token (n, v, v)."""
    rng = np.random.default_rng(seed)
    first, after = rng.normal(size=V), rng.normal(size=(LENGTH, V, V))
    return jnp.asarray(first, jnp.float32), jnp.asarray(after, jnp.float32)


def run(rows: int, options: Sampling = PLAIN, start: int = 0, seed: int = 0):
    """`generate` on the chain, whose state counts the calls it has had."""
    first_v, after_nvv = chain(seed)

    def step(calls, ids_b, index):
        return after_nvv[index, ids_b] + 0.0 * calls, calls + 1

    keys_b = candidates.row_keys(jnp.zeros(1, jnp.uint32), jnp.arange(rows)[None])
    first_pv = jnp.tile(first_v[None], (2 if options.guided else 1, 1))
    return jax.jit(
        lambda: ar.generate(
            first_pv,
            step,
            jnp.zeros(()),
            keys_b,
            start=start,
            length=LENGTH,
            options=options,
        )
    )()


def test_sequences_come_as_often_as_the_chain_says():
    first_v, after_nvv = (np.asarray(x, np.float64) for x in chain())
    ids, _ = run(20000)
    places = np.ravel_multi_index(np.asarray(ids).T, (V,) * LENGTH)
    got = np.bincount(places, minlength=V**LENGTH) / len(ids)
    log_p = [
        log_softmax(first_v)[a]
        + log_softmax(after_nvv[0, a])[b]
        + log_softmax(after_nvv[1, b])[c]
        for a, b, c in itertools.product(range(V), repeat=LENGTH)
    ]
    # five standard deviations of the largest count
    np.testing.assert_allclose(got, np.exp(log_p), atol=5 * (0.1 / len(ids)) ** 0.5)


@pytest.mark.parametrize(
    "options",
    [
        Sampling(),
        Sampling(temperature=0.5),
        Sampling(top_k=2),
        Sampling(top_p=0.6),
        Sampling(temperature=2.0, top_k=3, top_p=0.8),
    ],
)
def test_log_probabilities_are_those_drawn_from(options: Sampling):
    first_v, after_nvv = chain()
    ids_bn, log_prob_b = run(200, options)
    want_b = ar.restrict(jnp.tile(first_v[None], (200, 1)), options)
    want_b = jnp.take_along_axis(want_b, ids_bn[:, :1], 1)[:, 0]
    for i in range(LENGTH - 1):
        logp_bv = ar.restrict(after_nvv[i, ids_bn[:, i]], options)
        want_b += jnp.take_along_axis(logp_bv, ids_bn[:, i + 1, None], 1)[:, 0]
    np.testing.assert_allclose(log_prob_b, want_b, rtol=1e-5)
    assert np.isfinite(log_prob_b).all()


def test_a_start_leaves_that_many_tokens_out():
    ids_bn, _ = run(6, start=LENGTH - 1)
    assert ids_bn.shape == (6, 1)


def test_a_row_follows_from_its_key_alone():
    all_bn, all_b = run(12)
    few_bn, few_b = run(5)
    np.testing.assert_array_equal(all_bn[:5], few_bn)
    np.testing.assert_allclose(all_b[:5], few_b, rtol=1e-6)


def test_keys_are_of_prompt_seed_and_candidate():
    seeds, numbers = jnp.asarray([3, 8], jnp.uint32), jnp.asarray([[0, 5], [5, 0]])
    keys_b = candidates.row_keys(seeds, numbers)
    want = [
        jax.random.fold_in(jax.random.key(s), c)
        for s, c in ((3, 0), (3, 5), (8, 5), (8, 0))
    ]
    np.testing.assert_array_equal(
        jax.random.key_data(keys_b), jnp.stack([jax.random.key_data(k) for k in want])
    )


def test_top_k_keeps_the_k_most_probable():
    x_bv = logits()
    logp_bv = np.asarray(ar.restrict(x_bv, Sampling(top_k=7)))
    kept = np.argsort(-np.asarray(x_bv), -1)[:, :7]
    for row, ids in zip(logp_bv, kept, strict=True):
        assert set(np.flatnonzero(np.isfinite(row))) == set(ids)
    np.testing.assert_allclose(np.exp(logp_bv).sum(-1), 1.0, rtol=1e-5)
    best = ar.restrict(x_bv, Sampling(top_k=1))
    np.testing.assert_array_equal(jnp.argmax(best, -1), jnp.argmax(x_bv, -1))


@pytest.mark.parametrize(
    ("temperature", "options"),
    [(1e-3, {}), (1e-5, {"top_p": 0.5}), (1e-9, {}), (1e-30, {"top_k": 3})],
)
def test_a_small_temperature_is_greedy(temperature: float, options: dict):
    """In the compiled loop too, where guided logits are computed more than once."""
    x_bv = 40 * logits(16)
    without_bv = x_bv[::-1] + 1 / 3
    options = Sampling(temperature=temperature, guidance=1.5, **options)
    keys_b = jax.random.split(jax.random.key(1), 8)

    def step(state, ids_b, index):
        return jnp.sin(ids_b[:, None] * 7.3 + state) * 30, state + 0.1

    state = jnp.concatenate([x_bv[:8], without_bv[:8]])
    ids_bn, log_prob_b = jax.jit(
        lambda first_pv: ar.generate(
            first_pv, step, state, keys_b, start=0, length=6, options=options
        )
    )(jnp.concatenate([x_bv[:8], without_bv[:8]]))
    assert np.isfinite(log_prob_b).all() and (log_prob_b <= 0).all()
    first_bv = candidates.guide(x_bv[:8], without_bv[:8], 1.5)
    np.testing.assert_array_equal(ids_bn[:, 0], first_bv.argmax(-1))
    same = ar.restrict(jnp.asarray([[2.0, 5.0, 5.0]]), options)
    np.testing.assert_allclose(np.exp(same), [[0.0, 0.5, 0.5]], atol=1e-6)


@pytest.mark.parametrize("mass", [1e-6, 0.3, 0.5, 0.9, 0.999])
def test_top_p_keeps_the_fewest_that_hold_the_mass(mass: float):
    """Against the sort of the paper."""
    x_bv = logits()
    logp_bv = np.asarray(ar.restrict(x_bv, Sampling(top_p=mass)))
    for row, got in zip(np.asarray(jax.nn.softmax(x_bv, -1)), logp_bv, strict=True):
        order = np.argsort(-row)
        fewest = np.searchsorted(np.cumsum(row[order]), mass) + 1
        assert set(np.flatnonzero(np.isfinite(got))) == set(order[:fewest])
    np.testing.assert_allclose(np.exp(logp_bv).sum(-1), 1.0, rtol=1e-5)


def test_top_p_of_equal_probabilities_keeps_all():
    logp_bv = ar.restrict(jnp.zeros((1, 8)), Sampling(top_p=0.5))
    np.testing.assert_allclose(logp_bv, -np.log(8), rtol=1e-5)


def test_guidance_is_a_straight_line_through_both_streams():
    a_bv, b_bv = logits(2), logits(2)[::-1]
    np.testing.assert_allclose(candidates.guide(a_bv, b_bv, 1.0), a_bv, atol=1e-5)
    np.testing.assert_allclose(candidates.guide(a_bv, b_bv, 0.0), b_bv, atol=1e-5)
    want = 3.0 * a_bv - 2.0 * b_bv
    np.testing.assert_allclose(candidates.guide(a_bv, b_bv, 3.0), want, atol=1e-5)


def test_guidance_draws_from_the_guided_distribution():
    """The first half of the rows has the prompt: p ~ c^s u^(1-s)."""
    with_v, without_v = chain(0)[0], chain(1)[0]
    keys_b = candidates.row_keys(jnp.zeros(1, jnp.uint32), jnp.arange(8)[None])
    options = Sampling(guidance=2.5)

    def step(seen, ids_b, index):
        half = len(ids_b) // 2
        same = (ids_b[:half] == ids_b[half:]).all()  # both streams read what was drawn
        logits_v = jnp.stack([with_v, without_v])
        return jnp.repeat(logits_v, half, axis=0), seen & same

    first_pv = jnp.stack([with_v, without_v])
    ids_bn, log_prob_b = ar.generate(
        first_pv, step, jnp.asarray(True), keys_b, start=0, length=2, options=options
    )
    guided = log_softmax(np.asarray(2.5 * with_v - 1.5 * without_v))
    np.testing.assert_allclose(log_prob_b, guided[ids_bn].sum(-1), rtol=1e-5)


def test_same_streams_make_guidance_vanish():
    plain, _ = run(50)
    guided, _ = run(50, Sampling(guidance=4.0))
    np.testing.assert_array_equal(guided, plain)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        (dict(temperature=0.0), "temperature is 0.0.*top_k 1"),
        (dict(temperature=float("nan")), "temperature is nan"),
        (dict(temperature=float("inf")), "temperature is inf"),
        (dict(guidance=float("nan")), "guidance is nan"),
        (dict(guidance=float("-inf")), "guidance is -inf"),
        (dict(top_k=-1), "top_k is -1"),
        (dict(top_p=0.0), "top_p is 0.0"),
        (dict(dtype="float16"), "use float32 or bfloat16"),
    ],
)
def test_bad_options_are_named(numbers: dict, message: str):
    with pytest.raises(ValueError, match=message):
        Sampling(**numbers)


def test_more_than_all_ids_is_an_error():
    with pytest.raises(UserError, match="top_k is 51, but there are 50 ids"):
        ar.restrict(logits(), Sampling(top_k=51))
