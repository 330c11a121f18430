"""Filters as a sheet of images."""

import numpy as np
import pytest
from PIL import Image

from mmjax import evaluators
from mmjax.errors import UserError


def test_units_are_drawn_in_rows(make_env, make_source, tmp_path):
    def filters(variables, batch):
        shade_p = np.asarray(batch["unit"], np.float32) / 40
        return {
            "image": np.ones((1, 4, 4, 3), np.float32) * shade_p[:, None, None, None]
        }

    cfg = {"type": "filters", "source": "fake", "units": 30}
    cfg["png"] = str(tmp_path / "filters.png")
    env = make_env({"fake": make_source(np.zeros((1, 12)))}, filters=filters)
    evaluator = evaluators.build("test", cfg, env)
    evaluator.check({})
    assert evaluator.run({}).values["contrast"] == pytest.approx(0, abs=1e-6)
    with Image.open(tmp_path / "filters.png") as sheet:
        width, height = sheet.size
    assert width > 20 * 64 and 2 * 64 < height < 3 * 64


def test_a_task_without_filters_says_so(make_env, make_source):
    env = make_env({"fake": make_source(np.zeros((1, 12)))})
    cfg = {"type": "filters", "source": "fake"}
    with pytest.raises(UserError, match="no predict function 'filters'"):
        evaluators.build("test", cfg, env).check({})
