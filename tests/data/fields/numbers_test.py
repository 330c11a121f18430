"""Kinds vector, latents and sequence."""

import json

import numpy as np
import pytest
from record_source import Columns, Records, of

from mmjax.data import fields
from mmjax.data.fields.base import View
from mmjax.errors import UserError


def opened(source, **config):
    built = fields.build({"a": config})
    return fields.open_fields(built, lambda: source, {})


def mixed(rows=500, width=4):
    """Correlated rows of unlike scales, far from 0."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(rows, width)) @ rng.normal(size=(width, width))
    return rows * 10.0 ** np.arange(width) + 1000


@pytest.mark.parametrize("kind", ["vector", "sequence", "audio"])
def test_tasks_are_told_of_a_value_that_no_record_has(kind):
    config = {"kind": kind, "optional": True}
    config |= {"length": 3, "width": 2} if kind == "sequence" else {}
    lacking = opened(Records([{}, {"b": [1]}]), **config)
    assert fields.spec(lacking)["a"]["absent"]
    values = {"audio": np.ones(16_000), "sequence": np.ones((3, 2))}
    for value in (values.get(kind, np.ones(2)), "x"):  # the last is a broken record
        has = opened(Records([{}, {"a": value}]), **config, of="a")
        assert "absent" not in fields.spec(has)["a"]
    assert "absent" not in fields.spec(fields.build({"a": config}))["a"]  # not known


def test_vector_takes_its_width_from_the_records():
    source = Records([None, {}, {"a": [1, 2, 3]}])
    chosen = opened(source, kind="vector")
    assert fields.shapes(chosen) == {"a": ((3,), "float32")}
    with pytest.raises(UserError, match="expected 3 numbers, got 2: set width to 2"):
        fields.encode(chosen, "a", [[1, 2]])
    with pytest.raises(UserError, match=r"'a' of shape \(width,\), got \(1, 3\)"):
        fields.encode(chosen, "a", [[[1, 2, 3]]])
    with pytest.raises(UserError, match="expected numbers, got <U1"):
        fields.encode(chosen, "a", ["x"])
    with pytest.raises(UserError, match="width is -1"):
        fields.build({"a": {"kind": "vector", "width": -1}})
    assert fields.encode(chosen, "a", [np.array([True, False, True])])["a"].sum() == 2


def test_a_view_of_a_source_without_columns_is_read_record_by_record():
    source = Records([{"a": [1.0, 2.0, 3.0]}, {"a": [3.0, 2.0, 1.0]}])
    source.columns = None  # as views of sources say it
    chosen = opened(source, kind="vector", normalize="standard")
    assert fields.encode(chosen, "a", [[2, 2, 2]])["a"].tolist() == [[0, 0, 0]]


def test_vector_puts_values_side_by_side():
    record = {"h": 1.5, "w": np.int32(2), "more": [3.0, 4.0]}
    source = Records([record, {"h": 1.0}])
    chosen = opened(source, kind="vector", of="h,more,w")
    row = fields.row(chosen, record, None, View(train=False))
    assert row["a"]["a"].tolist() == [1.5, 3, 4, 2]
    with pytest.raises(fields.BrokenRecord, match="it has no 'h,more,w'"):
        fields.row(chosen, source[1], None, View(train=False))
    # from outside: all of them at once
    assert fields.encode(chosen, "a", [[1, 2, 3, 4]])["a"].tolist() == [[1, 2, 3, 4]]


@pytest.mark.parametrize("source", [Columns(a=mixed()), of("a", mixed())])
@pytest.mark.parametrize("normalize", ["standard", "whiten"])
def test_normalize(source, normalize):
    chosen = opened(source, kind="vector", normalize=normalize)
    rows = np.float64(fields.encode(chosen, "a", mixed())["a"])
    covariance = rows.T @ rows / len(rows)
    np.testing.assert_allclose(rows.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(covariance.diagonal(), 1, atol=1e-3)
    apart = covariance - np.diag(covariance.diagonal())
    assert (np.abs(apart).max() < 1e-3) == (normalize == "whiten")
    standard = (mixed() - mixed().mean(0)) / mixed().std(0)
    if normalize == "standard":
        np.testing.assert_allclose(rows, standard, atol=1e-3)
    else:  # ZCA-cor: C^(-1/2) of the correlations
        values, vectors = np.linalg.eigh(np.corrcoef(mixed().T))
        root = vectors @ np.diag(values**-0.5) @ vectors.T
        np.testing.assert_allclose(rows, standard @ root, atol=1e-2)


@pytest.mark.parametrize("normalize", ["standard", "whiten"])
def test_what_does_not_vary_becomes_zero(normalize):
    rows = mixed(50, 2)
    constant = np.full((50, 1), 1 / 3)
    rows = np.concatenate([rows, constant, rows[:, :1] * 2], axis=1)
    chosen = opened(of("a", rows), kind="vector", normalize=normalize)
    out = fields.encode(chosen, "a", rows + [0, 0, 5, 0])["a"]
    assert (out[:, 2] == 0).all() and np.abs(out).max() < 20
    rank = np.linalg.matrix_rank(out, tol=0.1)
    assert rank == 2 and np.isfinite(out).all()


def test_values_far_from_zero_still_vary():
    """A time stamp of 1e6 with a deviation of 1."""
    rows = 1e6 + np.random.default_rng(0).normal(size=(1000, 1))
    chosen = opened(of("a", rows), kind="vector", normalize="standard")
    assert fields.encode(chosen, "a", rows)["a"].std() == pytest.approx(1, abs=0.01)


def test_statistics_of_what_is_not_finite():
    with pytest.raises(UserError, match="'a' in listed has values that are not finite"):
        opened(of("a", [[1, np.nan], [0, 1]]), kind="vector", normalize="whiten")


def test_statistics_pass_over_what_is_broken():
    source = Records([None, {"a": [1.0]}, {"a": [1.0, 2.0]}, {}, {"a": [3.0]}])
    chosen = opened(source, kind="vector", normalize="standard")
    assert chosen["a"].mean == 2 and chosen["a"].scale == 1


def test_latents():
    latents = mixed(120, 3).reshape(10, 3, 4, 3)
    chosen = opened(of("a", latents.astype(np.float16)), kind="latents")
    assert fields.shapes(chosen) == {"a": ((3, 4, 3), "float32")}
    with pytest.raises(UserError, match=r"shape \(3, 4, 3\), got \(4, 3\): set shape"):
        fields.encode(chosen, "a", [latents[0, 0]])
    given = fields.build({"a": {"kind": "latents", "shape": [3, 4, 3]}})
    assert fields.shapes(given) == fields.shapes(chosen)
    chosen = opened(of("a", latents), kind="latents", normalize="standard")
    out = fields.encode(chosen, "a", latents)["a"]
    np.testing.assert_allclose(out.std((0, 1, 2)), 1, atol=1e-4)  # by channel


def test_sequence_pads_and_masks():
    chosen = opened(of("a", [np.ones((3, 2))]), kind="sequence", length=5, rate=50.0)
    batch = fields.encode(chosen, "a", [np.ones((3, 2)), np.ones((5, 2))])
    assert batch["a"].shape == (2, 5, 2)
    assert batch["a_mask"].sum(1).tolist() == [3, 5]
    assert (batch["a"].sum(-1) == 2 * batch["a_mask"]).all()
    assert fields.spec(chosen)["a"]["rate"] == 50
    with pytest.raises(UserError, match="7 steps, and length 5: set length to 7, or "):
        fields.encode(chosen, "a", [np.ones((7, 2))])
    with pytest.raises(UserError, match=r"'a' of shape \(n, width\), got \(\)"):
        fields.encode(chosen, "a", [3.0])
    with pytest.raises(UserError, match="expected 2 numbers, got 1"):
        fields.encode(chosen, "a", [[1.0, 2.0]])
    with pytest.raises(UserError, match="expected numbers: .*inhomogeneous"):
        fields.encode(chosen, "a", [[[1.0], [2.0, 3.0]]])
    with pytest.raises(UserError, match="length is 0"):
        fields.build({"a": {"kind": "sequence", "length": 0}})


def test_windows_are_drawn_in_training_and_the_centre_in_evaluation():
    record = {"a": np.arange(10.0)}
    options = {"kind": "sequence", "length": 4, "windows": True}
    chosen = opened(Records([record]), **options)
    row = fields.row(chosen, record, None, View(train=False))["a"]
    assert row["a"].ravel().tolist() == [3, 4, 5, 6] and row["a_mask"].all()
    rng = np.random.default_rng(0)
    rows = [fields.row(chosen, record, rng, View(train=True)) for _ in range(100)]
    batch = fields.collate(chosen, rows)
    assert set(batch["a"][:, 0, 0]) == set(range(7))
    assert (np.diff(batch["a"][..., 0], axis=1) == 1).all()


def test_sequences_side_by_side_normalised():
    rng = np.random.default_rng(0)
    lengths = [3, 6, 4]
    records = [
        {"x": rng.normal(5, 2, n), "y": rng.normal(size=(n, 2))} for n in lengths
    ]
    options = {"of": "x,y", "normalize": "standard", "length": 8}
    chosen = opened(Records(records), kind="sequence", **options)
    rows = [fields.row(chosen, r, None, View(train=False)) for r in records]
    batch = fields.collate(chosen, rows)
    steps = batch["a"][batch["a_mask"]]
    assert steps.shape == (13, 3) and (batch["a"][~batch["a_mask"]] == 0).all()
    np.testing.assert_allclose(steps.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(steps.std(0), 1, atol=1e-5)
    wrong = {"x": np.zeros(3), "y": np.zeros((4, 2))}
    with pytest.raises(fields.BrokenRecord, match="x, y have 3, 4 steps"):
        fields.row(chosen, wrong, None, View(train=False))


@pytest.mark.parametrize("normalize", ["pca", "whiten"])
def test_principal_components_go_back(normalize):
    rng = np.random.default_rng(0)
    mix = np.array([[3.0, 0, 1], [0, 1, 0.5]])  # of rank 2
    values = (rng.normal(size=(500, 4, 2)) @ mix + 5).astype(np.float32)
    records = of("a", values)
    field = opened(
        records, kind="sequence", length=4, normalize=normalize, components=2
    )["a"]
    (shape, _) = field.shapes("a")["a"]
    assert shape == (4, 2)
    rows = np.stack([field.row("a", r, None, None)["a"] for r in records])
    flat = rows.reshape(-1, 2)
    spread = np.cov(flat.T, bias=True)
    wanted = np.linalg.eigvalsh(np.cov(values.reshape(-1, 3).T))[:0:-1]
    wanted = np.ones(2) if normalize == "whiten" else wanted / wanted.mean()
    np.testing.assert_allclose(spread, np.diag(wanted), atol=1e-4)
    # the first one is the direction of most variance
    want = np.linalg.svd(values.reshape(-1, 3) - values.mean((0, 1)))[2][0]
    found = field.scale[:, 0] / np.linalg.norm(field.scale[:, 0])
    np.testing.assert_allclose(abs(found @ want), 1, atol=1e-6)
    np.testing.assert_allclose(field.raw(rows), values, atol=1e-3)
    again = field.restored(json.loads(json.dumps(field.saved())))
    np.testing.assert_array_equal(again.normal(values[0]), field.normal(values[0]))


@pytest.mark.parametrize("normalize", ["standard", "whiten"])
def test_raw_is_what_was_normalised(normalize):
    values = np.random.default_rng(0).normal(3, 2, size=(50, 3)).astype(np.float32)
    field = opened(of("a", values), kind="vector", normalize=normalize)["a"]
    np.testing.assert_allclose(field.raw(field.normal(values)), values, atol=1e-4)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"normalize": "pca"}, "principal components need normalize 'pca'"),
        ({"normalize": "standard", "components": 2}, "principal components need"),
        ({"components": 2}, "principal components need normalize"),
        ({"normalize": "pca", "components": 4}, "components is 4, and 'a' has 3"),
    ],
)
def test_components_that_are_not_there(more, message):
    with pytest.raises(UserError, match=message):
        opened(of("a", np.eye(3)), kind="vector", **more)
