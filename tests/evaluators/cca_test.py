"""The evaluator of views against its closed forms, on a run's own data door."""

import jax
import numpy as np
import pytest

from mmjax import evaluators
from mmjax.errors import UserError
from mmjax.metrics import cca, linear_svm
from mmjax.train import config as config_lib
from mmjax.train import evaluate, setup


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(env, variables, arrays by part, spec of a part): three classes in two views."""
    folder = tmp_path_factory.mktemp("views")
    arrays = {}
    mix = [np.random.default_rng(i).normal(size=(3, d)) for i, d in enumerate((5, 4))]
    for part, n in (("train", 150), ("test", 90)):
        rng = np.random.default_rng(n)
        label = np.arange(n) % 3
        cause = 2 * np.eye(3)[label] + 0.3 * rng.normal(size=(n, 3))
        views = [cause @ m + 0.3 * rng.normal(size=(n, m.shape[1])) for m in mix]
        a, b = (np.float32(x) for x in views)
        arrays[part] = {"view_a": a, "view_b": b, "label": label}
        names = np.array(["x", "y", "z"])
        np.savez(folder / f"{part}.npz", **arrays[part], class_names=names)
    given = [f"data.train=npz:{folder}/train.npz", "task.width=2"]
    config = config_lib.load("cca:tiny", [f"--config.{text}" for text in given])
    for view, width in (("view_a", 5), ("view_b", 4)):
        config.data.fields[view] = {"kind": "vector", "width": width}
    config.evals = {}
    parts = setup.build(config)
    variables = parts.task.init(jax.random.key(0), parts.example())
    env = evaluate.env(parts)
    return env, variables, arrays, lambda part: f"npz:{folder}/{part}.npz"


def evaluated(run, **cfg):
    env, variables, _, spec = run
    cfg = {"type": "cca", "source": spec("test"), "train": spec("train"), **cfg}
    evaluator = evaluators.build("x", {"resamples": 20, **cfg}, env, "config.evals.x")
    evaluator.check(
        jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), variables)
    )
    return evaluator.run(variables)


def pair(run, part):
    return [run[2][part][f"view_{v}"] for v in "ab"]


def test_inputs_are_judged_by_a_fit_on_train_alone(run):
    got = evaluated(run, features="views", components=3, repeats=4)
    fitted = cca.fit(pair(run, "train"), 3)
    want = fitted.held_out(pair(run, "test"))
    np.testing.assert_allclose(got.arrays["correlations"], want, atol=1e-5)
    values = got.values
    assert values["correlation"] == pytest.approx(want.sum(), abs=1e-5)
    assert values["correlation_lo"] <= want.sum() <= values["correlation_hi"]
    assert values["train_correlation"] == pytest.approx(
        fitted.held_out(pair(run, "train")).sum(), abs=1e-5
    )
    null = cca.null(pair(run, "train"), pair(run, "test"), 3, repeats=4)
    np.testing.assert_allclose(got.arrays["null"], null, atol=1e-4)
    assert values["p"] == 0.2 and values["null_max"] < values["correlation"]
    # partners are nearest more often than the 1 in 90 of chance
    assert values["a2b_r10"] > 0.3 and values["b2a_r10"] > 0.3


def test_classes_from_the_first_views_components(run, monkeypatch):
    how = {"components": 2, "repeats": 0, "clusters": "kmeans"}
    got = evaluated(run, features="views", svm=(0.1,), **how).values
    assert got["svm_error"] < 0.05 and got["clustering"] > 0.95 and got["nmi"] > 0.8
    assert got["svm_error_lo"] <= got["svm_error"] <= got["svm_error_hi"]
    val = {"svm": (0.01, 1.0), "val": run[3]("train")}
    fit = linear_svm.fit  # of the smaller C, to other classes: val refuses it
    monkeypatch.setattr(
        linear_svm,
        "fit",
        lambda x, y, *, c, **how: fit(x, y if c == 1 else y.max() - y, c=c),
    )
    assert evaluated(run, features="views", **how, **val).values["svm_c"] == 1.0


def test_codes_and_columns_as_they_are(run):
    got = evaluated(run, components=2)
    assert 0 < got.values["correlation"] <= 2 and len(got.arrays["null"]) == 5
    raw = evaluated(run, features="views", project=False, svm=(1.0,)).values
    assert "correlation" not in raw and raw["svm_error"] < 0.05


@pytest.mark.parametrize("kernel", ["fourier", "nystroem"])
def test_kernels_are_cca_of_features(run, kernel):
    how = {"kernel_width": 40, "kernel_scales": (3.0, 4.0), "reg": (1e-4,)}
    got = evaluated(
        run, features="views", kernel=kernel, components=2, repeats=0, **how
    )
    train, test, make = pair(run, "train"), pair(run, "test"), getattr(cca, kernel)
    maps = [
        make(x, width=40, scale=s, seed=i)
        for i, (x, s) in enumerate(zip(train, (3.0, 4.0), strict=True))
    ]
    mapped = [[m(x) for m, x in zip(maps, part, strict=True)] for part in (train, test)]
    want = cca.fit(mapped[0], 2).held_out(mapped[1]).sum()
    assert got.values["correlation"] == pytest.approx(want, abs=1e-4)


@pytest.mark.parametrize(
    ("cfg", "message"),
    [
        ({"train": None}, "'train' is missing"),
        ({"svm": (0.1, 1.0)}, "2 values of C, and 'val' is missing"),
        ({"kernel": "fourier"}, "set both or neither"),
        ({"components": 3}, "3 components of views that have .* columns: use 1 to 2"),
        ({"reg": (0.1, 0.1, 0.1)}, "reg has 3 values of 2 views: give 2"),
        (
            {"kernel": "fourier", "kernel_scales": (1.0, 1.0, 1.0)},
            "kernel_scales has 3",
        ),
        ({"kernel": "nystroem", "kernel_scales": (1.0,)}, "1000 Nystroem features"),
        ({"reg": (0.0,), "limit": 50, "features": "views"}, None),
    ],
)
def test_bad_input_says_what_to_change(run, cfg, message):
    if message is None:
        assert evaluated(run, **cfg).values["correlation"] > 0
        return
    with pytest.raises(UserError, match=message):
        evaluated(run, **cfg)
