"""Reconstruction: numbers by hand, the alarm, and what it refuses."""

import dataclasses
import json
import logging
import types

import jax
import numpy as np
import pytest
from PIL import Image

from mmjax.errors import UserError
from mmjax.evaluators import reconstruction
from mmjax.evaluators.base import Network
from mmjax.metrics import frechet

CODES = 5


def reconstruct(variables, batch):
    """Every channel moved by variables["off"]; tokens are the pixels' first channel."""
    image = batch["image"].astype("float32") / 255.0 + variables["off"]
    tokens = batch["image"][..., 0].reshape(len(batch["image"]), -1) % CODES
    return {"image": image, "image_tokens": tokens.astype("int32"), "vocab_size": CODES}


def example(make_source, n=10, seed=0, **more):
    vectors = np.random.default_rng(seed).integers(0, 200, (n, 12))
    return make_source(vectors, **more), vectors.reshape(n, 2, 2, 3)


def run(make_env, source, variables, **cfg):
    env = make_env(reconstruct=reconstruct, tokenizer=False)
    evaluator = reconstruction.Evaluator({"source": source, **cfg}, env, "here")
    evaluator.check(jax.eval_shape(lambda: variables))
    return evaluator.run(variables)


def test_psnr_and_mse_by_hand(make_env, make_source):
    source, images = example(make_source)
    off = np.random.default_rng(1).normal(size=(2, 2, 3)).astype(np.float32) * 0.1
    got = run(make_env, source, {"off": off})
    mse = float(np.square(off).mean())
    assert got.values["mse"] == pytest.approx(mse, rel=1e-5)
    assert got.values["psnr"] == pytest.approx(-10 * np.log10(mse), rel=1e-5)
    assert got.values["psnr_lo"] <= got.values["psnr"] <= got.values["psnr_hi"]
    counts = np.bincount((images[..., 0] % CODES).ravel(), minlength=CODES)
    share = counts[counts > 0] / counts.sum()
    perplexity = np.exp(-(share * np.log(share)).sum())
    assert got.values["perplexity"] == pytest.approx(perplexity)
    np.testing.assert_array_equal(got.arrays["count"], counts)


def test_psnr_is_a_mean_of_pictures(make_env, make_source):
    source = make_source([[0] * 12, [100] * 12])

    def by_brightness(variables, batch):
        image = batch["image"].astype("float32") / 255.0
        return {"image": image + 0.01 + 0.09 * (image > 0.2)}

    env = make_env(reconstruct=by_brightness, tokenizer=False)
    values = reconstruction.Evaluator({"source": source}, env).run({}).values
    assert values["psnr"] == pytest.approx((40 + 20) / 2, abs=1e-3)
    assert values["mse"] == pytest.approx((1e-4 + 1e-2) / 2, rel=1e-3)
    assert values["psnr_lo"] == pytest.approx(20, abs=1e-3)
    assert "used" not in values and "codes" not in values


def test_a_perfect_picture_is_100_db(make_env, make_source):
    source, _ = example(make_source)
    assert run(make_env, source, {"off": np.float32(0)}).values["psnr"] == 100


def test_batches_padding_and_broken_records_do_not_count(make_env, make_source):
    source, images = example(make_source, broken=(2, 5))
    variables = {"off": np.float32(0.1)}
    results = [run(make_env, source, variables, batch_size=b) for b in (1, 4, 7, 64)]
    kept = np.delete(images, [2, 5], axis=0)
    counts = np.bincount((kept[..., 0] % CODES).ravel(), minlength=CODES)
    for got in results:
        assert got.card["counts"] == {"examples": 8, "broken": 2}
        np.testing.assert_array_equal(got.arrays["count"], counts)
        np.testing.assert_array_equal(got.arrays["index"], [0, 1, 3, 4, 6, 7, 8, 9])
        assert got.values == pytest.approx(results[0].values)
        assert got.card["id"] == results[0].card["id"]


@pytest.mark.parametrize("alarm, warned", [(0.5, True), (0.4, False), (0.0, False)])
def test_the_alarm(make_env, make_source, caplog, alarm, warned):
    source = make_source([[0, 1, 2] * 4, [1, 1, 1] * 4])  # two codes of five
    with caplog.at_level(logging.WARNING):
        got = run(make_env, source, {"off": np.float32(0)}, alarm=alarm)
    assert (got.values["codes"], got.values["used"], got.values["dead"]) == (2, 0.4, 3)
    assert ("8 tokens use 2 of 5 codes, 40.0 % " in caplog.text) == warned


def test_few_tokens_are_no_collapse(make_env, make_source, caplog):
    source = make_source([[0, 1, 2] * 4])

    def wide(variables, batch):
        return {
            **reconstruct(variables, batch),
            "vocab_size": 1000,
            "image_tokens": tokens,
        }

    tokens = np.array([[3, 14, 15, 92]]).repeat(4, 0)
    env = make_env(reconstruct=wide, tokenizer=False)
    off = {"off": np.float32(0)}
    cfg = {"source": source, "alarm": 0.9}
    got = reconstruction.Evaluator(cfg, env).run(off)
    assert got.values["used"] == 0.004 and not caplog.text
    tokens[:] = 3
    reconstruction.Evaluator(cfg, env).run(off)
    assert "4 tokens use 1 of 1000 codes, 25.0 % " in caplog.text


def test_the_picture(make_env, make_source, tmp_path):
    source, images = example(make_source)
    path = tmp_path / "deep" / "grid.png"
    variables = {"off": np.float32(0.5)}
    run(make_env, source, variables, png=str(path), images=9)
    sheet = np.asarray(Image.open(path))
    for wanted in (images[0], images[8]):
        made = np.rint(np.clip(wanted / 255.0 + 0.5, 0, 1) * 255)
        for pixels in (wanted, made):
            alike = (sheet[..., None, None, :] == pixels.reshape(1, 1, -1, 1, 3)).all(
                -1
            )
            assert alike.any((0, 1, 3)).all(), "every pixel's colour is on the sheet"


def test_refusals(make_env, make_source):
    source, _ = example(make_source)
    off = {"off": np.float32(0)}
    with pytest.raises(UserError, match="no predict function 'reconstruct'"):
        reconstruction.Evaluator({"source": source}, make_env()).check(off)
    with pytest.raises(UserError, match=r"must give image \(4, 2, 2, 3\), gives \(4,"):
        env = make_env(
            reconstruct=lambda variables, batch: {"image": batch["image"][:, :1]}
        )
        reconstruction.Evaluator({"source": source}, env).check(off)
    with pytest.raises(UserError, match="gives None"):
        env = make_env(reconstruct=lambda variables, batch: {"picture": batch["image"]})
        reconstruction.Evaluator({"source": source}, env).check(off)
    with pytest.raises(UserError, match="NaN or Inf in 4 of 4 rows"):
        run(make_env, source, {"off": np.float32(np.nan)})
    with pytest.raises(UserError, match="alarm is 2"):
        run(make_env, source, off, alarm=2)
    lost, _ = example(make_source, n=1, broken=(0,))
    with pytest.raises(UserError, match="1 records, all of them broken"):
        run(make_env, lost, off)


def test_the_card_defines_its_numbers(make_env, make_source):
    source, _ = example(make_source)
    card = json.loads(json.dumps(run(make_env, source, {"off": np.float32(0)}).card))
    assert set(card["metrics"]) == {
        *("psnr", "mse", "perplexity", "codes", "used", "dead")
    }
    assert card["tokenizer"] is None and card["interval"]["level"] == 0.95


def test_fid_compares_with_the_originals_in_a_runs_features(make_env, make_source):
    """Every channel moved by 0.2 moves means by 0.2 and no covariance."""
    source, images = example(make_source, n=10)

    def features(batch):
        return batch["image"].reshape(len(batch["image"]), -1) / 255.0

    judge = Network(
        **{"name": "runs/judge", "task": "fake", "step": 3, "fingerprint": "abcd"},
        **{"predict": {"features": features}, "tokenizer": None, "batch_size": 4},
        image_cfg=types.SimpleNamespace(evaluate=lambda image: image),
    )
    env = make_env(reconstruct=reconstruct, tokenizer=False)
    env = dataclasses.replace(env, open_run=lambda workdir: judge)
    cfg = {"source": source, "features": "runs/judge", "frechet_resamples": 5}
    evaluator = reconstruction.Evaluator(cfg, env)
    off = {"off": np.float32(51 / 255)}
    evaluator.check(jax.eval_shape(lambda: off))
    got = evaluator.run(off)
    assert got.values["fid"] == pytest.approx(12 * 0.2**2, rel=1e-4)
    assert got.values["fid_lo"] <= got.values["fid"] <= got.values["fid_hi"]
    assert got.card["network"] == {"task": "fake", "step": 3, "fingerprint": "abcd"}
    assert "fid" in got.card["metrics"] and got.card["runs"] == {"features": judge.name}
    rebuilt = np.rint(images + 51.0).clip(0, 255).reshape(10, -1) / 255
    want = frechet.distance(
        *frechet.gaussian(rebuilt), *frechet.gaussian(images.reshape(10, -1) / 255)
    )
    assert got.values["fid"] == pytest.approx(want, rel=1e-4)
