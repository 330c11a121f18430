"""Judges on pictures whose worth is known."""

import numpy as np
import pytest

from mmjax.data.sources import open_source
from mmjax.metrics import frechet, judges

DRAW = {"resamples": 200, "seed": 0}
P, K = 6, 4


def fid(a_nd, b_nd):
    return frechet.distance(*frechet.gaussian(a_nd), *frechet.gaussian(b_nd))


@pytest.fixture(scope="module")
def source():
    return open_source("shapes:val?size=32&count=12")


def test_picks_are_all_and_the_best_of_each_pool():
    cosines = np.array([[0.1, 0.9, 0.2, 0.95], [0.5, 0.4, 0.3, 0.2]])
    got = judges.picks(4, cosines, (1, 2, 4))
    assert {k: v.tolist() for k, v in got.items()} == {
        "": [[0, 1, 2, 3]],
        "_best1": [[0], [0]],
        "_best2": [[1], [0]],
        "_best4": [[3], [0]],
    }
    assert list(judges.picks(3)) == [""]


def test_new_and_seen_prompts_are_told_apart():
    right_pn = np.array([[1, 1], [0, 1], [0, 0], [0, 0]])
    new_p = np.array([True, False, True, False])
    columns = {"right_{}": right_pn, "best_{}": right_pn[:, 1:]}
    got = judges.by_novelty(columns, new_p, **DRAW)
    assert got["prompts_new"] == 2
    assert got["right_new"] == 0.5 and got["right_seen"] == 0.25
    assert got["best_new"] == 0.5 and got["best_seen"] == 0.5
    assert got["right_new_lo"] <= 0.5 <= got["right_new_hi"]
    alone = judges.by_novelty(columns, ~np.zeros(4, bool), **DRAW)
    assert "right_seen" not in alone and alone["right_new"] == 3 / 8


def test_oracle_of_right_and_wrong_candidates(source):
    records = [source[i] for i in range(P)]
    images = np.zeros((P, K, 32, 32, 3), np.uint8)  # black, without an object
    cosines = np.zeros((P, K))
    for p, record in enumerate(records):
        images[p, p % K] = record["image"]
        cosines[p, p % K] = 1
    chosen = judges.picks(K, cosines, (1, 2, 4))
    scenes_p = [r["scene"] for r in records]
    values, right_pk = judges.oracle(images, scenes_p, chosen, **DRAW)
    assert right_pk.shape == (P, K) and right_pk.sum() == P
    assert (right_pk.argmax(1) == np.arange(P) % K).all()
    assert values["oracle_all"] == values["oracle_shape"] == 1 / K
    assert values["oracle_all_best4"] == 1
    assert values["oracle_all_best1"] == pytest.approx(2 / P)  # prompts 0 and 4
    assert values["oracle_all_best2"] == pytest.approx(4 / P)  # 0, 1, 4, 5
    black = np.mean([s.background == "black" for s in scenes_p])
    assert values["oracle_background"] == pytest.approx((1 + 3 * black) / 4)
    assert next(iter(values)) == "oracle_all"
    for name in ("oracle_all", "oracle_all_best2"):
        assert values[f"{name}_lo"] <= values[name] <= values[f"{name}_hi"]
    # all candidates of every prompt are right equally often: nothing to resample
    assert values["oracle_all_lo"] == values["oracle_all_hi"] == 1 / K


def test_clip_score_is_never_negative():
    cosines = np.array([[0.2, -0.4], [0.1, 0.3]])
    values = judges.clip_score(cosines, judges.picks(2, cosines, (2,)), **DRAW)
    assert values["clip_score"] == pytest.approx((20 + 0 + 10 + 30) / 4)
    assert values["clip_score_best2"] == pytest.approx(25)
    cosines[0, 1] = -np.inf  # an embedding that is not finite
    assert judges.clip_score(cosines, judges.picks(2), **DRAW)["clip_score"] == 15


def test_classifier_leaves_out_what_has_no_label():
    logits = np.eye(3)[np.array([[0, 0], [1, 2], [2, 2]])]
    label = np.array([0, 2, -1])
    values = judges.classifier(logits, label, judges.picks(2), **DRAW)
    assert values["classifier_accuracy"] == pytest.approx(0.75)


def test_fid_of_all_and_of_picks():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(20, 3, 5))
    real = rng.normal(size=(50, 5))
    cosines = rng.normal(size=(20, 3))
    chosen = judges.picks(3, cosines, (2,))
    values = judges.fid(features, real, chosen, **DRAW)
    assert values["fid"] == pytest.approx(fid(features.reshape(60, 5), real))
    best = cosines[:, :2].argmax(1)
    assert values["fid_best2"] == pytest.approx(
        fid(features[np.arange(20), best], real)
    )
    same = judges.fid(real[:, None], real, judges.picks(1), **DRAW)
    assert same["fid"] == pytest.approx(0, abs=1e-9)
    logits = 50 * np.eye(4)[rng.integers(0, 4, (20, 3))]
    score = judges.inception_score(logits, chosen, **DRAW)
    assert 3.5 < score["inception_score"] <= 4.0001
    assert set(score) == {
        f"inception_score{s}{b}" for s in ("", "_best2") for b in ("", "_lo", "_hi")
    }


def test_copies_are_seen_and_strangers_are_not(source):
    train = np.stack(
        [open_source("shapes:train?size=32")[i]["image"] for i in range(80)]
    )
    held_out = np.stack([source[i]["image"] for i in range(12)])
    learned_by_heart = train[: P * K].reshape(P, K, 32, 32, 3)
    values = judges.copies(learned_by_heart, train, held_out, **DRAW)
    assert values["copies"] == values["near"] == 1 and values["nearest"] == 0
    assert values["nearest_real"] > 0.03
    fresh = np.stack(
        [open_source("shapes:val?seed=5")[i]["image"] for i in range(P * K)]
    )
    values = judges.copies(fresh.reshape(P, K, 32, 32, 3), train, held_out, **DRAW)
    assert values["copies"] == 0 and values["near"] < 0.2
    assert values["nearest"] == pytest.approx(values["nearest_real"], rel=0.3)


def test_intervals_resample_prompts_and_not_pictures():
    # of 50 prompts half are always right: candidates add nothing to what is known
    right = np.repeat(np.arange(50) % 2 == 0, 1)[:, None]
    one = judges.means({"x": right}, resamples=2000, seed=0)
    many = judges.means({"x": np.repeat(right, 64, axis=1)}, resamples=2000, seed=0)
    assert many == one and one["x"] == 0.5
    assert one["x_hi"] - one["x_lo"] == pytest.approx(2 * 1.96 * 0.5 / 50**0.5, rel=0.1)
