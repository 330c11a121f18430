"""Charts: where points lie, and what is drawn of bad numbers."""

import re

import numpy as np
import pytest

from mmjax.report import charts
from mmjax.report.charts import Axis, Series

LABELS = {"alt": "a chart", "x_label": "x", "y_label": "y"}


def points(svg: str, style: str) -> list[np.ndarray]:
    """(n, 2) corners of every path of a class."""
    paths = re.findall(rf'<path class="{style}[^"]*" d="M([^"Z]*)Z?"', svg)
    return [np.array([xy.split(",") for xy in p.split("L")], float) for p in paths]


def test_shares_lie_between_none_and_all():
    svg = charts.lines(
        [Series("a", [1, 8, 64], [0.0, 0.25, 1.0])],
        x_ticks=[1, 8, 64],
        share=True,
        **LABELS,
    )
    (xy,) = points(svg, "line")
    x, y = xy.T
    assert x[1] - x[0] == pytest.approx(x[2] - x[1], abs=0.11)  # equal ratios
    share = (y[0] - y) / (y[0] - y[2])
    np.testing.assert_allclose(share, [0, 0.25, 1], atol=0.001)
    assert svg.count("<circle") == 3 and "25 %" in svg
    assert "a, 8: 25.0 %" in svg


def test_bands_hold_their_line():
    svg = charts.lines(
        [Series("a", [0, 1, 2], [2, 3, 4], [1, 2, 3.5], [3, 4, 4.5])], **LABELS
    )
    (line,), (band,) = points(svg, "line"), points(svg, "band")
    upper, lower = band[:3], band[3:][::-1]
    np.testing.assert_array_equal(upper[:, 0], line[:, 0])
    assert np.all(upper[:, 1] < line[:, 1]) and np.all(line[:, 1] < lower[:, 1])


def test_a_wide_range_is_drawn_on_a_log_axis():
    wide = charts.lines([Series("a", [0, 1, 2], [1, 10, 100])], **LABELS)
    y = points(wide, "line")[0][:, 1]
    assert y[0] - y[1] == pytest.approx(y[1] - y[2], abs=0.11)
    narrow = charts.lines([Series("a", [0, 1, 2], [1, 2, 3])], **LABELS)
    y = points(narrow, "line")[0][:, 1]
    assert y[0] - y[1] == pytest.approx(y[1] - y[2], abs=0.11)


def test_numbers_that_are_not_finite_are_left_out():
    nan, inf = float("nan"), float("inf")
    svg = charts.lines([Series("a", [0, 1, 2, 3], [1, nan, inf, 2])], **LABELS)
    assert len(points(svg, "line")[0]) == 2
    assert charts.lines([Series("a", [0], [nan])], **LABELS) == ""
    assert charts.lines([], **LABELS) == ""


def test_a_series_keeps_its_colour_where_another_is_missing():
    svg = charts.lines([Series("a", [], []), Series("b", [0, 1], [1, 2])], **LABELS)
    assert 'class="line s1"' in svg and 'class="line s0"' not in svg
    assert charts.legend(["a", "b"]).count("key s1") == 1


def test_one_point_is_a_dot_and_equal_points_a_level():
    assert "<circle" in charts.lines([Series("a", [5], [2.0])], **LABELS)
    flat = charts.lines([Series("a", [0, 1], [0, 0])], from_zero=True, **LABELS)
    y = points(flat, "line")[0][:, 1]
    assert y[0] == y[1]


def test_long_runs_are_thinned_and_keep_their_ends():
    n = 5003
    svg = charts.lines([Series("a", range(n), np.arange(n).tolist())], **LABELS)
    (xy,) = points(svg, "line")
    assert len(xy) <= 402
    right = charts.lines([Series("a", [0, n - 1], [0, n - 1])], **LABELS)
    np.testing.assert_array_equal(xy[[0, -1]], points(right, "line")[0])


def test_step_heights_are_counts():
    svg = charts.steps([0, 1, 2, 4], [Series("a", (), [1, 4, 2])], **LABELS)
    (xy,) = points(svg, "area")
    ground = xy[0, 1]
    heights = ground - xy[1:-1:2, 1]
    np.testing.assert_allclose(heights / heights[0], [1, 4, 2], rtol=0.01)
    widths = xy[2:-1:2, 0] - xy[1:-1:2, 0]
    np.testing.assert_allclose(widths / widths[0], [1, 1, 2], rtol=0.01)
    assert charts.steps([0, 1], [Series("a", (), [0])], **LABELS) == ""
    assert charts.steps([0], [], **LABELS) == ""


def test_codes_never_used_lie_on_the_ground_of_a_log_axis():
    svg = charts.steps([0, 1, 2], [Series("a", (), [100, 0])], log_y=True, **LABELS)
    (xy,) = points(svg, "area")
    assert xy[-2, 1] == xy[0, 1] > xy[1, 1]


@pytest.mark.parametrize(
    "low, high", [(0, 1), (0, 1800), (0.006, 0.35), (-3, 7), (2.1, 2.2), (0, 3e-6)]
)
def test_ticks_are_round_and_within(low, high):
    found = Axis(low, high, 0, 100).ticks()
    assert 2 <= len(found) <= 8
    assert all(low - 1e-9 <= v <= high + 1e-9 for v in found)
    gaps = np.diff(found)
    np.testing.assert_allclose(gaps, gaps[0])
    digits = f"{gaps[0]:.6e}".split("e")[0].rstrip("0").rstrip(".")
    assert digits in ("1", "2", "2.5", "5")


@pytest.mark.parametrize("low, high", [(0.006, 0.35), (0.5, 4000), (1e-6, 1e6)])
def test_log_ticks_are_within(low, high):
    found = Axis(low, high, 0, 100, log=True).ticks()
    assert 2 <= len(found) <= 8
    assert all(low <= v <= high for v in found)


def test_an_axis_holds_what_lies_beyond_it():
    axis = Axis(1, 3, 100, 0)
    assert [axis.at(v) for v in (-5, 1, 2, 3, 9)] == [100, 100, 50, 0, 0]


@pytest.mark.parametrize(
    "value, said",
    [
        (0, "0"),
        (1500, "1500"),
        (12000, "12k"),
        (2.5e6, "2.5M"),
        (3e9, "3G"),
        (0.05, "0.05"),
        (2e-5, "2e-05"),
    ],
)
def test_short_numbers(value, said):
    assert charts.short(value) == said


def test_text_is_escaped():
    labels = {"alt": 'a "<b>"', "x_label": "<x>", "y_label": "y & z"}
    svg = charts.lines(
        [Series("<i>", [1, 2], [1, 2])], x_ticks=[1, 2], **labels
    ) + charts.legend(["<u>"])
    assert not re.search(r"<[bxiu]>", svg)
    assert "y &amp; z" in svg and "&quot;&lt;b&gt;&quot;" in svg
