"""Measures of fused answers by hand, and fits that find what was planted."""

import dataclasses

import numpy as np
import pytest

from mmjax import evaluators
from mmjax.errors import UserError
from mmjax.train import config as config_lib
from mmjax.train import evaluate, setup

COUNT = 24


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """left tells the class of all records, right of three quarters of them."""
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("fusion")
    label = np.arange(COUNT) % 2
    wrong = np.arange(COUNT) % 4 == 0
    sign = 2.0 * label - 1
    arrays = {
        "left": np.stack([sign, 0.1 * rng.normal(size=COUNT)], 1),
        "right": np.stack([np.where(wrong, -sign, sign)] * 2, 1),
    }
    times = np.linspace(0, 1, 6)[:, None]
    for name in ("left", "right"):  # a class rises, the other falls
        slope = arrays[name][:, :1, None] * times + 0.1 * rng.normal(size=(COUNT, 6, 1))
        arrays[f"{name}_series"] = slope
    arrays = {k: v.astype("f4") for k, v in arrays.items()}
    speaker = np.arange(COUNT) // 6
    np.savez(folder / "x.npz", label=label, speaker=speaker, **arrays)
    return f"npz:{folder}/x.npz"


def build(data, evaluator, *, fields="vector", answers=None):
    """An evaluator of a run of `fusion:tiny` on vectors, or on series of 6 steps."""
    config = config_lib.load("fusion:tiny", []).unlock()
    config.task.folds, config.data.train = 1, data
    for name in ("left", "right"):
        form = {"kind": "vector", "width": 2}
        if fields == "series":
            form = {"kind": "sequence", "of": f"{name}_series", "length": 6}
        config.data.fields[name] = form
    env = evaluate.env(setup.build(config))
    called = {"answers": answers}
    env = dataclasses.replace(env, predict=called, raw=called)
    given = {"source": data, "batch_size": 10, "resamples": 50}
    return evaluators.build("x", given | evaluator, env)


def answers(variables, batch):
    """By left where it is given, else by right; one member is always wrong."""
    by_left = batch["left"][:, 0] > 0
    by_right = (batch["right"][:, 0] > 0) & batch["right_present"]
    told = np.where(batch["left_present"], by_left, by_right)
    return np.stack([told, 1 - 1.0 * told], 1)[:, :, None].astype(np.float32)


FUSION = {"type": "fusion", "cluster": "speaker", "missing": (0.5,)}


def test_measures_by_hand(data):
    result = build(data, FUSION, answers=answers).run({})
    values = result.values
    # of two members, one is right where the other is wrong
    assert values["all"] == values["only_right"] == values["none"] == 0.5
    assert values["members_sd"] == 0.5
    assert result.card["counts"] == {
        "examples": COUNT,
        "broken": 0,
        "items": COUNT,
        "clusters": 4,
    }

    def one(variables, batch):
        return answers(variables, batch)[:, :1]

    values = build(data, FUSION | {"noise": (50.0,)}, answers=one).run({}).values
    assert (values["all"], values["only_right"], values["none"]) == (1.0, 0.75, 0.5)
    assert values["shapley_left"] == pytest.approx((0.5 + 0.25) / 2)
    assert values["shapley_right"] == pytest.approx((0.25 + 0.0) / 2)
    assert values["missing_0.5"] == pytest.approx((1 + 1 + 0.75) / 3)
    assert values["noise_left_50"] < 0.8 and values["noise_right_50"] == 1.0
    again = build(data, FUSION | {"noise": (50.0,), "batch_size": 7}, answers=one)
    assert again.run({}).values == values  # noise follows the record
    # each speaker has 6 records, of which 1 or 2 are wrong by right alone
    low, high = values["only_right_lo"], values["only_right_hi"]
    assert 4 / 6 <= low <= 0.75 <= high <= 5 / 6


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"cluster": "video"}, "cluster is 'video', and records have key, label"),
        ({"target": "class"}, "target is 'class', and the task reads left, right"),
        ({"missing": (1.0,)}, "missing is .*use shares from 0 to below 1"),
        ({"noise": (0.0,)}, "noise is .*use more than 0"),
    ],
)
def test_refusals(data, more, message):
    with pytest.raises(UserError, match=message):
        build(data, FUSION | more, answers=answers).run({})


FITS = {"type": "fusion_fits", "cluster": "speaker", "missing": (), "folds": 3}


@pytest.mark.parametrize("fields", ["vector", "series"])
def test_fits_find_what_was_planted(data, fields):
    fits = ("svm", "stacking", "mkl")
    fits += ("hmm", "coupled_hmm") if fields == "series" else ()
    more = {"fits": fits, "states": 2}
    values = build(data, FITS | more, fields=fields).run({}).values
    for fit in fits:
        alone = 0.5 if fit == "mkl" else 0.7  # weights go to the better kernels
        assert values[f"{fit}_only_left"] > 0.95, fit
        assert values[f"{fit}_all"] > (0.7 if "hmm" in fit else 0.95), fit
        assert values[f"{fit}_only_right"] >= alone, fit
        total = values[f"{fit}_shapley_left"] + values[f"{fit}_shapley_right"]
        assert total == pytest.approx(values[f"{fit}_all"] - values[f"{fit}_none"])


def test_fits_of_steps(tmp_path):
    """A class a step, which stays as it is for some steps."""
    rng = np.random.default_rng(1)
    label = np.repeat(rng.integers(2, size=(8, 4)), 3, axis=1)
    x = (label[..., None] + 0.7 * rng.normal(size=(8, 12, 2))).astype("f4")
    arrays = {"left": x[..., :1], "right": x[..., 1:], "label": label.astype("f4")}
    np.savez(tmp_path / "x.npz", **arrays)
    config = config_lib.load("fusion:tiny", []).unlock()
    config.data.train = f"npz:{tmp_path}/x.npz"
    config.task.update(per="step", outputs=2, folds=1)
    for name in arrays:
        config.data.fields[name] = {"kind": "sequence", "length": 12, "width": 1}
    env = evaluate.env(setup.build(config))
    given = FITS | {"source": config.data.train, "batch_size": 4, "cluster": ""}
    made = evaluators.build("x", given | {"fits": ("svm", "hmm")}, env)
    values = made.run({}).values
    # neighbours agree, which the SVM does not see
    assert values["hmm_all"] > values["svm_all"] > values["svm_only_left"] > 0.6
    coupled = evaluators.build("x", given | {"fits": ("coupled_hmm",)}, env)
    with pytest.raises(
        UserError, match="coupled_hmm is of records.*12 labels.*use hmm"
    ):
        coupled.check({})


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"fits": ("svn",)}, "no fit 'svn'; did you mean 'svm'"),
        (
            {"fits": ("hmm",)},
            "series have {'left': 1, 'right': 1} steps, and HMMs take",
        ),
        ({"numbers": True}, "numbers is True and noise .*leave both out"),
    ],
)
def test_fits_that_do_not_fit(data, more, message):
    with pytest.raises(UserError, match=message):
        build(data, FITS | more).check({})


def test_folds_are_of_the_training_records(data):
    config = config_lib.load("fusion:tiny", []).unlock()
    env = evaluate.env(setup.build(config))
    given = {"type": "fusion", "source": config.data.train, "limit": 60}
    with pytest.raises(UserError, match="has 60 records, .*in folds of 64: give its"):
        evaluators.build("x", given, env)
