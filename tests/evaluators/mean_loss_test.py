"""Held-out losses: padding and broken rows never count, batches never change."""

import jax
import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.evaluators import mean_loss


def example(make_source, n=10, **more):
    vectors = np.arange(n * 12).reshape(n, 12)
    return make_source(vectors, texts=[["a"]] * n, **more)


def row_means(variables, batch):
    flat = batch["image"].reshape(batch["image"].shape[0], -1)
    return variables["scale"] * flat.mean(1)


def scalar_loss(variables, batch):
    rows = row_means(variables, batch)
    return {"loss": rows.mean(), "square": (rows**2).mean()}


def row_loss(variables, batch):
    return {"loss": row_means(variables, batch)}


VARS = {"scale": np.float32(2)}


def run(make_env, source, loss, size=4, **cfg):
    env = make_env(batch_size=size, loss=loss)
    evaluator = mean_loss.Evaluator({"source": source, **cfg}, env)
    evaluator.check(jax.eval_shape(lambda: VARS))
    result = evaluator.run(VARS)
    assert len(env.shapes["loss"]) == 1
    return result


def test_drops_the_partial_batch(make_env, make_source):
    source = example(make_source)
    got = run(make_env, source, scalar_loss)
    rows = 2 * source.vectors[:8].mean(1)
    assert got.values["loss"] == pytest.approx(rows.mean())
    assert got.values["square"] == pytest.approx((rows**2).mean())
    assert got.values["loss_lo"] <= got.values["loss"] <= got.values["loss_hi"]
    counts = got.card["counts"]
    assert counts == {"examples": 8, "batches": 2, "dropped": 2, "broken": 0}
    assert got.card["batches"]["partial"] == "drop"
    assert got.card["interval"]["resampled"] == "batches"
    assert got.values == run(make_env, source, scalar_loss).values


def test_masked_rows(make_env, make_source):
    source = example(make_source, broken=(1,))
    got = run(make_env, source, row_loss, partial="mask")
    rows = 2 * np.delete(source.vectors, 1, 0).mean(1)
    assert got.values["loss"] == pytest.approx(rows.mean())
    counts = got.card["counts"]
    assert counts == {"examples": 9, "batches": 3, "dropped": 0, "broken": 1}
    assert got.card["interval"]["resampled"] == "examples"


def test_scalars_weigh_their_real_rows(make_env, make_source):
    def loss(variables, batch):
        return {
            "loss": (batch["_mask"] * row_means(variables, batch)).sum()
            / batch["_mask"].sum()
        }

    source = example(make_source)
    got = run(make_env, source, loss, partial="mask")
    assert got.values["loss"] == pytest.approx(2 * source.vectors.mean())


def test_padding_rows_may_be_nan(make_env, make_source):
    def loss(variables, batch):
        return {"loss": row_means(variables, batch) / batch["_mask"]}

    source = example(make_source)
    with np.errstate(invalid="ignore"):
        got = run(make_env, source, loss, partial="mask")
    assert got.values["loss"] == pytest.approx(2 * source.vectors.mean())


def test_refusals(make_env, make_source):
    source = example(make_source, 3)
    with pytest.raises(UserError, match="3 examples and a batch needs 4"):
        run(make_env, source, scalar_loss)
    assert (
        run(make_env, source, scalar_loss, batch_size=3).card["counts"]["batches"] == 1
    )

    def matrix(variables, batch):
        return {"fine": row_means(variables, batch), "bad": batch["image"]}

    with pytest.raises(UserError, match=r"'bad': \(3, 2, 2, 3\)"):
        run(make_env, source, matrix, size=3)
    with pytest.raises(UserError, match="must give named scalars"):
        run(make_env, source, row_means, size=3)
    with pytest.raises(UserError, match="no predict function 'loss'"):
        env = make_env(batch_size=3)
        mean_loss.Evaluator({"source": source}, env).check(VARS)
    broken = example(make_source, 3, broken=(0, 1, 2))
    with pytest.raises(UserError, match="3 records, all of them broken"):
        run(make_env, broken, scalar_loss, size=3)
