"""Beam search against all sequences there are, of a chain small enough to list them."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.sampling import autoregressive, beam

V, LENGTH, END, P = 4, 3, 2, 3


def chain(seed=0):
    """Log-probabilities of the first token by prompt, and of the next."""
    rng = np.random.default_rng(seed)

    def log_softmax(x):
        return x - np.log(np.exp(x).sum(-1, keepdims=True))

    first_pv = log_softmax(rng.normal(size=(P, V)))
    return first_pv, log_softmax(rng.normal(size=(LENGTH, P, V, V)))


def run(k, **how):
    """`search` on the chain, whose state is the row's prompt and what it has said."""
    first_pv, after = chain()
    after = jnp.asarray(after)

    def step(state, ids_b, index):
        prompt_b, said_bm = state
        said_bm = said_bm.at[:, index].set(ids_b)
        return after[index, prompt_b, ids_b], (prompt_b, said_bm)

    state = jnp.repeat(jnp.arange(P), k), jnp.zeros((P * k, LENGTH + 1), jnp.int32)
    args = jnp.asarray(first_pv), step, state
    how = {"beam": k, "length": LENGTH, "end": END} | how
    return jax.tree.map(np.asarray, jax.jit(lambda: beam.search(*args, **how))())


def every(prompt, length_norm=0.0, forbid=(), length=LENGTH):
    """All sequences as (score, ids), the best first."""
    first_pv, after = chain()
    ids = [i for i in range(V) if i not in forbid]
    found = {}
    for said in itertools.product(ids, repeat=length):
        if END in said:
            said = said[: said.index(END) + 1]
        total = first_pv[prompt, said[0]]
        for m, (before, now) in enumerate(itertools.pairwise(said)):
            total += after[m, prompt, before, now]
        padded = said + (END,) * (length - len(said))
        found[padded] = total / len(said) ** length_norm
    return sorted(((score, ids) for ids, score in found.items()), reverse=True)


def by_hand(prompt, k, length_norm=0.0, forbid=()):
    """The k best (score, ids), by lists: beam search as its docstring has it."""
    first_pv, after = chain()
    live, done = [(0.0, ())], []
    for m in range(LENGTH):
        options = []
        for total, said in live:
            log_v = after[m - 1, prompt, said[-1]] if said else first_pv[prompt]
            options += [(total + log_v[i], (*said, i)) for i in range(V)]
        options = [o for o in options if o[1][-1] not in forbid]
        options.sort(reverse=True)
        done += [
            (total / (m + 1) ** length_norm, said)
            for total, said in options[:k]
            if said[-1] == END
        ]
        live = [o for o in options if o[1][-1] != END][:k]
    done += [(total / LENGTH**length_norm, said) for total, said in live]
    padded = [(score, said + (END,) * (LENGTH - len(said))) for score, said in done]
    return sorted(padded, reverse=True)[:k]


@pytest.mark.parametrize(
    ("k", "how"), [(2, {"length_norm": 0.7}), (3, {}), (3, {"forbid": (0,)})]
)
def test_sequences_and_scores_are_those_of_lists(k, how):
    ids_pkm, score_pk = run(k, **how)
    for prompt in range(P):
        want = by_hand(prompt, k, **how)
        assert [tuple(ids) for ids in ids_pkm[prompt].tolist()] == [x for _, x in want]
        np.testing.assert_allclose(score_pk[prompt], [x for x, _ in want], atol=1e-5)
        assert every(prompt, **how)[0][0] >= want[0][0] - 1e-9


def test_with_as_many_beams_as_ids_two_tokens_are_the_best_of_all():
    ids_pkm, score_pk = run(V, length=2)
    for prompt in range(P):
        (score, ids), *_ = every(prompt, length=2)
        assert tuple(ids_pkm[prompt, 0]) == ids
        assert score_pk[prompt, 0] == pytest.approx(score, abs=1e-5)


def test_one_beam_is_greedy():
    first_pv, after = chain()
    ids_pkm, _ = run(1)
    for prompt in range(P):
        said = [int(first_pv[prompt].argmax())]
        while said[-1] != END and len(said) < LENGTH:
            said.append(int(after[len(said) - 1, prompt, said[-1]].argmax()))
        said += [END] * (LENGTH - len(said))
        assert ids_pkm[prompt, 0].tolist() == said


def test_the_state_follows_its_beam():
    """A model whose next token is that before the last, so that a mix-up shows."""

    def step(said_bm, ids_b, index):
        said_bm = said_bm.at[:, index].set(ids_b)
        before_b = said_bm[:, jnp.maximum(index - 1, 0)]
        return 9.0 * jax.nn.one_hot((before_b + 1) % V, V), said_bm

    first_pv = jnp.asarray([[1.0, 0.9, -9.0, 0.8]])
    how = {"beam": 3, "length": 6, "end": END}
    ids_pkm, _ = beam.search(first_pv, step, jnp.zeros((3, 7), jnp.int32), **how)
    for ids_m in np.asarray(ids_pkm)[0]:
        for m in range(2, 6):
            if END in ids_m[:m]:
                break
            assert ids_m[m] == (ids_m[m - 2] + 1) % V


def test_drawing_ends_where_the_end_was_said():
    first_pv, after = chain()
    after = jnp.asarray(after)

    def step(state, ids_b, index):
        return after[index, 0, ids_b], state

    ids_bm, _ = autoregressive.generate(
        beam.without(jnp.asarray(first_pv[:1]), (0,)),
        beam.ended(step, END, (0,)),
        jnp.zeros(()),
        jax.random.split(jax.random.key(0), 64),
        start=0,
        length=LENGTH,
        options=autoregressive.Sampling(),
    )
    ids_bm = np.asarray(ids_bm)
    ended = np.cumsum(ids_bm == END, axis=1) > 0
    assert (ids_bm[ended] == END).all() and not (ids_bm == 0).any()
    assert 0 < ended[:, -1].mean() < 1


def test_a_beam_wider_than_the_vocabulary():
    message = "beam is 4, and the vocabulary has 3 ids to choose from: use 1 to 3"
    with pytest.raises(UserError, match=message):
        run(4, forbid=(0,))
