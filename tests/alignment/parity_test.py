"""DTW and soft-DTW against tslearn and dtaidistance, where they are installed."""

import numpy as np
import pytest

from mmjax import alignment
from mmjax.alignment import Band

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def pair():
    rng = np.random.default_rng(0)
    return [rng.normal(size=(n, 4)).cumsum(0) for n in (37, 52)]


def test_tslearn(pair):
    metrics = pytest.importorskip("tslearn.metrics")
    path, distance = metrics.dtw_path(*pair)
    found = alignment.dtw(*pair)
    assert found.cost == pytest.approx(distance**2, rel=1e-5)
    np.testing.assert_array_equal(found.path, path)
    value, expected = alignment.expected(*pair, gamma=2.0)
    soft = metrics.SoftDTW(metrics.SquaredEuclidean(*pair), gamma=2.0)
    assert value == pytest.approx(soft.compute(), rel=1e-5)
    np.testing.assert_allclose(expected, soft.grad(), atol=1e-3)
    path, distance = metrics.dtw_subsequence_path(pair[0][5:20], pair[1])
    match = alignment.search(pair[0][5:20], pair[1])[0]
    assert match.cost == pytest.approx(distance**2, rel=1e-5)
    assert (match.start, match.end) == (path[0][1], path[-1][1])


def test_dtaidistance(pair):
    dtw_ndim = pytest.importorskip("dtaidistance.dtw_ndim")
    distance = dtw_ndim.distance(*pair)
    assert alignment.dtw(*pair).cost == pytest.approx(distance**2, rel=1e-5)
    equal = pair[0], pair[1][:37]
    distance = dtw_ndim.distance(*equal, window=6)  # |i - j| < 6
    found = alignment.dtw(*equal, band=Band("sakoe_chiba", 5))
    assert found.cost == pytest.approx(distance**2, rel=1e-5)
