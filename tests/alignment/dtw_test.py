"""DTW and soft-DTW against all monotone paths, a plain double loop, and differences."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax import alignment
from mmjax.alignment import Band, grid, paths, soft
from mmjax.errors import UserError


def monotone(n, m, legal=lambda i, j: True):
    """All paths from (0, 0) to (n - 1, m - 1)."""

    @functools.cache
    def onward(i, j):
        if not legal(i, j) or i >= n or j >= m:
            return []
        if (i, j) == (n - 1, m - 1):
            return [[(i, j)]]
        steps = ((i + 1, j), (i, j + 1), (i + 1, j + 1))
        return [[(i, j), *rest] for step in steps for rest in onward(*step)]

    return onward(0, 0)


def costs(x, y):
    return np.square(x[:, None] - y[None]).sum(-1)


def plain(x, y):
    """The recursion by two loops."""
    table = np.full((len(x) + 1, len(y) + 1), np.inf)
    table[0, 0] = 0
    for i, j in np.ndindex(len(x), len(y)):
        before = min(table[i, j], table[i, j + 1], table[i + 1, j])
        table[i + 1, j + 1] = np.square(x[i] - y[j]).sum() + before
    return table[-1, -1]


@pytest.fixture(scope="module")
def curves():
    rng = np.random.default_rng(0)
    return [rng.normal(size=(n, 3)).cumsum(0) for n in (5, 6, 17, 23, 40)]


@pytest.mark.parametrize(
    "band", [None, Band("sakoe_chiba", 2), Band("itakura", 2.5)], ids=str
)
def test_the_best_of_all_paths(curves, band):
    x, y = curves[:2]
    low, high = (band or Band("sakoe_chiba", 99)).columns(np.arange(5), 5, 6, np)
    every = monotone(5, 6, lambda i, j: i < 5 and low[i] <= j <= high[i])
    cost = costs(x, y)
    values = [sum(cost[cell] for cell in path) for path in every]
    found = alignment.dtw(x, y, band=band)
    assert found.cost == pytest.approx(min(values), rel=1e-6)
    best = every[int(np.argmin(values))]
    assert [tuple(cell) for cell in found.path] == best
    if band:
        assert len(every) < len(monotone(5, 6))


def test_many_of_unlike_lengths_are_each_alone(curves):
    pairs = [(curves[2], curves[3]), (curves[4], curves[0]), (curves[1], curves[1])]
    found = alignment.dtw_many(*zip(*pairs, strict=True))
    for (x, y), each in zip(pairs, found, strict=True):
        assert each.cost == pytest.approx(plain(x, y), rel=1e-5, abs=1e-9)
        assert costs(x, y)[tuple(each.path.T)].sum() == pytest.approx(
            each.cost, rel=1e-5, abs=1e-9
        )
        steps = np.diff(each.path, axis=0)
        assert set(map(tuple, steps)) <= {(0, 1), (1, 0), (1, 1)}
        assert (each.path[[0, -1]] == [[0, 0], [len(x) - 1, len(y) - 1]]).all()
    assert found[2].cost == 0 and (np.diff(found[2].path) == 0).all()


@pytest.mark.parametrize(("begin", "end"), [(False, True), (True, False), (True, True)])
def test_open_ends_are_the_best_window(curves, begin, end):
    x, y = curves[0], curves[2]
    windows = {
        (a, b): plain(x, y[a : b + 1])
        for a in (range(len(y)) if begin else (0,))
        for b in (range(a, len(y)) if end else (len(y) - 1,))
    }
    found = alignment.dtw(x, y, open_begin=begin, open_end=end)
    assert found.cost == pytest.approx(min(windows.values()), rel=1e-5)
    place = found.path[0, 1], found.path[-1, 1]
    assert windows[place] == pytest.approx(min(windows.values()), rel=1e-5)


@pytest.mark.parametrize("gamma", [0.1, 10.0])
def test_soft_minimum_of_all_paths(curves, gamma):
    x, y = curves[:2]
    cost, every = costs(x, y), monotone(5, 6)
    values = np.array([sum(cost[cell] for cell in path) for path in every])
    least = values.min()
    weights = np.exp(-(values - least) / gamma)
    expected = np.zeros(cost.shape)
    for weight, path in zip(weights / weights.sum(), every, strict=True):
        expected[tuple(np.transpose(path))] += weight
    with jax.enable_x64(True):
        n_1, m_1 = jnp.asarray([5]), jnp.asarray([6])
        value, e_nm1 = jax.value_and_grad(
            lambda c: soft.of_cost(c, n_1, m_1, jnp.asarray(gamma)).sum()
        )(jnp.asarray(cost)[..., None])
    want = least - gamma * np.log(weights.sum())
    assert float(value) == pytest.approx(want, rel=1e-12)
    np.testing.assert_allclose(e_nm1[..., 0], expected, atol=1e-12)


def test_gradient_is_that_of_differences_and_ignores_padding(curves):
    """Of a padded batch, in float64, in both arguments."""
    xs = [curves[0], curves[1][:4]]
    ys = [curves[1], curves[0][:3]]
    rng = np.random.default_rng(1)
    with jax.enable_x64(True):
        x, y = (jnp.asarray(rng.normal(size=(2, n, 3))) for n in (5, 6))
        for row in range(2):
            x = x.at[row, : len(xs[row])].set(xs[row])
            y = y.at[row, : len(ys[row])].set(ys[row])
        n_b, m_b = jnp.asarray([5, 4]), jnp.asarray([6, 3])

        def total(x, y):
            return alignment.soft_dtw(x, y, n_b, m_b, gamma=0.7).sum()

        got = jax.jit(jax.grad(total, (0, 1)))(x, y)
        run = jax.jit(total)
        for at, array in enumerate((x, y)):
            for index in np.ndindex(array.shape):
                step = jnp.zeros(array.shape).at[index].set(1e-5)
                both = [
                    (x, y)[:at] + (array + s * step,) + (x, y)[at + 1 :]
                    for s in (1, -1)
                ]
                slope = (run(*both[0]) - run(*both[1])) / 2e-5
                assert float(got[at][index]) == pytest.approx(
                    float(slope), rel=1e-6, abs=1e-7
                )
        assert not got[0][1, 4:].any() and not got[1][1, 3:].any()


def test_soft_dtw_tends_to_dtw_and_its_divergence_vanishes(curves):
    x, y = (jnp.asarray(c[None], jnp.float32) for c in curves[2:4])
    hard = alignment.dtw(*curves[2:4]).cost
    assert float(alignment.soft_dtw(x, y, gamma=1e-3)[0]) == pytest.approx(
        hard, rel=1e-3
    )
    values = alignment.soft_dtw_divergence(x, y, gamma=1.0)
    assert float(values[0]) > 0
    assert float(alignment.soft_dtw_divergence(x, x)[0]) == pytest.approx(0, abs=1e-4)
    band = Band("sakoe_chiba", 7)
    inside = alignment.soft_dtw(x, y, gamma=1e-3, band=band)
    assert float(inside[0]) == pytest.approx(
        alignment.dtw(*curves[2:4], band=band).cost, rel=1e-3
    )
    grads = jax.grad(lambda x: alignment.soft_dtw(x, y, band=band).sum())(x)
    assert np.isfinite(grads).all()


def test_skewing_is_undone():
    cost = jnp.arange(4.0 * 3 * 2).reshape(4, 3, 2)
    skewed = grid.skewed(cost)
    assert skewed.shape == (4, 6, 2) and skewed[3, 3 + 1, 1] == cost[3, 1, 1]
    np.testing.assert_array_equal(grid.straight(skewed), cost)


def test_derivative_is_blind_to_offsets(curves):
    x = curves[3]
    slopes = alignment.derivative(np.arange(5.0) * 2)
    np.testing.assert_allclose(slopes, 2.0)
    assert alignment.ddtw(x, x + 7).cost == pytest.approx(0, abs=1e-8)
    assert alignment.dtw(x, x + 7).cost > 100


def test_a_query_is_found_where_it_was_put():
    rng = np.random.default_rng(2)
    series = rng.normal(size=(300, 2)).cumsum(0) * 0.3
    query = series[100:130][::2] + 0.01 * rng.normal(size=(15, 2))
    series[200:230] = series[100:130] + 0.3
    first, second, third = alignment.search(query, series, top=3)
    assert (first.start, first.end) == pytest.approx((100, 129), abs=4)
    assert (second.start, second.end) == pytest.approx((200, 229), abs=4)
    assert first.cost < second.cost < third.cost
    assert first.cost == pytest.approx(
        plain(query, series[first.start : first.end + 1]), rel=1e-4
    )
    spans = sorted((each.start, each.end) for each in (first, second, third))
    assert all(a[1] < b[0] for a, b in zip(spans, spans[1:], strict=False))


X = np.random.default_rng(3).normal(size=(12, 2))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: alignment.dtw(X, X[:, :1]), "x has 2 columns and y 1.*ctw"),
        (
            lambda: alignment.dtw(X, np.where(X == X[3, 0], np.nan, X)),
            "y has NaN.*1 of 12 frames, first in frame 3",
        ),
        (lambda: alignment.dtw(X[:0], X), r"x is float64 \(0, 2\)"),
        (lambda: alignment.dtw_many([X], [X, X]), "1 sequences x and 2 y"),
        (
            lambda: alignment.dtw(X, X, band=Band("sakoe_chiba", 12)),
            "12 and 12 frames are shorter than a band of radius 12: use a radius of 11",
        ),
        (
            lambda: alignment.dtw(X, X[:8], band=Band("sakoe_chiba", 3)),
            "no path.*12 and 8.*radius 3: use 4",
        ),
        (
            lambda: alignment.dtw(X, X[:4], band=Band("itakura", 2)),
            "slope 2: use more than 3.00",
        ),
        (lambda: alignment.dtw(X, X, band=Band("itakura", 2), open_end=True), "band"),
        (lambda: Band("sakoe", 3), "band 'sakoe'"),
        (lambda: Band("itakura", 1), "slope 1: use 1 or more|slope"),
        (lambda: alignment.ddtw(X[:2], X), "has 2 frames: give 3"),
        (lambda: alignment.search(X, X[:5]), "12 frames and the series 5"),
        (lambda: alignment.search(X[:3], X, top=0), "top is 0"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(UserError, match=message):
        call()


def test_no_path_is_a_cost_that_says_so():
    cost, ends = jnp.zeros((3, 6, 1)), (jnp.asarray([3]), jnp.asarray([6]))
    outside = paths.accumulate(cost, *ends, band=Band("sakoe_chiba", 1))[0]
    assert float(outside[0]) >= grid.BIG


def test_large_batches_are_each_pair_alone():
    """Parts and lanes, 128 pairs of unlike lengths, against one at a time."""
    rng = np.random.default_rng(4)
    x, y = (jnp.asarray(rng.normal(size=(128, n, 2)), jnp.float32) for n in (4, 6))
    n_b, m_b = (jnp.asarray(rng.integers(2, top, 128)) for top in (5, 7))

    def both(x, y, n_b, m_b):
        def total(x):
            value_b = alignment.soft_dtw(x, y, n_b, m_b, gamma=0.5)
            return value_b.sum(), value_b

        grads, value_b = jax.grad(total, has_aux=True)(x)
        return value_b, grads, alignment.dtw_cost(x, y, n_b, m_b)

    alone = jax.lax.map(
        lambda row: jax.tree.map(lambda a: a[0], both(*(a[None] for a in row))),
        (x, y, n_b, m_b),
    )
    for many, one in zip(jax.jit(both)(x, y, n_b, m_b), alone, strict=True):
        np.testing.assert_allclose(many, one, rtol=1e-4, atol=1e-5)
