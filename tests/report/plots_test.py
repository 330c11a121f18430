"""Figures: what is drawn where, read back from the axes."""

import pytest

from mmjax.errors import UserError
from mmjax.report import plots


def values(name, value):
    return {name: value, f"{name}_lo": value - 0.1, f"{name}_hi": value + 0.05}


def test_few_shot(tmp_path):
    result = values("shot_1", 0.2) | values("shot_16", 0.4) | values("shot_full", 0.6)
    zero = values("zero_shot", 0.3) | values("zero_shot_worth", 4.0)
    result |= zero | {"zero_shot_worth_bound": 0.0, "shots_full": 100.0}
    figure = plots.few_shot({"a": result, "b": result}, title="t")
    for axes in figure.axes:
        curve = axes.lines[0]
        assert curve.get_xdata() == pytest.approx([1, 16, 100])
        assert curve.get_ydata() == pytest.approx([20, 40, 60])
        assert "worth 4" in axes.get_xlabel()
    figure.savefig(tmp_path / "x.png", dpi=80)
    with pytest.raises(UserError, match="no shot_1"):
        plots.few_shot({"a": zero})
    with pytest.raises(UserError, match="one result or more"):
        plots.few_shot({})
