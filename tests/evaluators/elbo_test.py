"""ELBO: sums and units by hand, for stage 1 alone and for both stages."""

import json
import math

import jax
import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.evaluators import elbo

DIMS = 12


def stage_1(variables, batch):
    """Nats that depend on the picture."""
    flat = batch["image"].reshape(len(batch["image"]), -1).astype("float32")
    return {"reconstruction": -flat.sum(1) * variables["a"], "kl": 0 * flat[:, 0] + 3.0}


def both_stages(variables, batch):
    image = batch["image"].reshape(len(batch["image"]), -1).astype("float32")
    return {
        "image_nll": image[:, 0],
        "text_nll": batch["tokens_mask"].sum(1).astype("float32"),
        "reconstruction": -variables["a"] * image.sum(1),
    }


VARS = {"a": np.float32(0.5)}


def example(make_source, **more):
    vectors = np.random.default_rng(0).integers(0, 200, (9, DIMS))
    texts = [["one"], ["one two"], ["one two three"]] * 3
    return make_source(vectors, texts=texts, **more), vectors


def run(env, source, **cfg):
    evaluator = elbo.Evaluator({"source": source, **cfg}, env, "here")
    evaluator.check(jax.eval_shape(lambda: VARS))
    return evaluator.run(VARS)


def test_stage_1_by_hand(make_env, make_source):
    source, vectors = example(make_source)
    env = make_env(elbo_terms=stage_1, tokenizer=False)
    got = run(env, source)
    reconstruction = -0.5 * vectors.sum(1)
    want = -(reconstruction + 3).mean()
    assert got.values["elbo"] == pytest.approx(want, rel=1e-6)
    assert got.values["divergence"] == got.values["kl"] == 3
    bits = -want / (DIMS * math.log(2)) + 8
    assert got.values["density_bits"] == pytest.approx(bits, rel=1e-6)
    assert "image_density_bits" not in got.values
    assert got.values["elbo_lo"] <= want <= got.values["elbo_hi"]
    np.testing.assert_allclose(got.arrays["reconstruction"], reconstruction)
    assert got.card["bound"] and got.card["tokenizer"] is None


def test_both_stages_by_hand(make_env, make_source):
    source, vectors = example(make_source)
    got = run(make_env(elbo_terms=both_stages), source, beta=2.0)
    words = np.array([1, 2, 3] * 3)
    divergence = vectors[:, 0] + words
    minus = -0.5 * vectors.sum(1) + 2 * divergence
    assert got.values["divergence"] == pytest.approx(divergence.mean())
    assert got.values["elbo"] == pytest.approx(-minus.mean(), rel=1e-6)
    image = (minus - 2 * words).mean() / (DIMS * math.log(2)) + 8
    assert got.values["image_density_bits"] == pytest.approx(image, rel=1e-6)
    assert got.card["beta"] == 2 and got.card["tokenizer"]["kind"] == "words"


def test_an_even_density_over_256_levels_is_8_bits():
    assert elbo.bits(np.zeros(1), DIMS) == pytest.approx(8)
    assert elbo.bits(np.full(1, -DIMS * math.log(2)), DIMS) == pytest.approx(7)


def test_padding_and_broken_records_do_not_count(make_env, make_source):
    source, vectors = example(make_source, broken=(4,))
    env = make_env(elbo_terms=both_stages)
    results = [run(env, source, batch_size=b) for b in (2, 5, 32)]
    want = -0.5 * np.delete(vectors, 4, axis=0).sum(1)
    for got in results:
        np.testing.assert_allclose(got.arrays["reconstruction"], want)
        assert got.card["counts"] == {"examples": 8, "broken": 1, "dims": DIMS}
        assert got.card["id"] == results[0].card["id"]


def test_less_divergence_is_no_bound(make_env, make_source):
    source, _ = example(make_source)
    env = make_env(elbo_terms=stage_1)
    card = json.loads(json.dumps(run(env, source, beta=0.5).card))
    assert card["bound"] is False and card["id"] != run(env, source).card["id"]
    with pytest.raises(UserError, match="here: beta is -1"):
        run(env, source, beta=-1)


def test_refusals(make_env, make_source):
    source, _ = example(make_source)
    with pytest.raises(UserError, match="no predict function 'elbo_terms'"):
        run(make_env(), source)

    def without(name):
        def terms(variables, batch):
            got = both_stages(variables, batch)
            return {key: got[key] for key in got if key != name}

        return make_env(elbo_terms=terms)

    for name in ("reconstruction", "text_nll"):
        with pytest.raises(UserError, match="must give reconstruction with kl, or"):
            run(without(name), source)

    def scalar(variables, batch):
        return {key: value.mean() for key, value in stage_1(variables, batch).items()}

    with pytest.raises(UserError, match=r"\(4,\) each; gives .*\(\)"):
        run(make_env(elbo_terms=scalar), source)

    def broken(variables, batch):
        return {**stage_1(variables, batch), "kl": np.full(4, np.nan)}

    with pytest.raises(UserError, match="kl is not finite"):
        elbo.Evaluator({"source": source}, make_env(elbo_terms=broken)).run(VARS)


def test_tokens_alone_have_no_likelihood(make_env, make_source):
    source, _ = example(make_source)
    env = make_env(elbo_terms=stage_1)
    batches = env.eval_batches

    def without_images(*args, **kwargs):
        for batch in batches(*args, **kwargs):
            yield {key: value for key, value in batch.items() if key != "image"}

    object.__setattr__(env, "eval_batches", without_images)
    with pytest.raises(UserError, match="the records are tokens"):
        run(env, source)
