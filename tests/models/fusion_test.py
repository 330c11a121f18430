"""What becomes of series and static fields before a block, against numpy."""

import jax
import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.models import fusion
from mmjax.nn.fusion import Wanted

ROWS, STEPS = 2, 3
MASK = np.array([[True, True, False], [True, True, True]])


def inputs():
    rng = np.random.default_rng(0)
    series, static = rng.normal(size=(ROWS, STEPS, 2)), rng.normal(size=(ROWS, 1, 4))
    masks = {"series": MASK, "static": np.ones((ROWS, 1), bool)}
    return {"series": np.float32(series), "static": np.float32(static)}, masks


def scored(steps, pool="mean"):
    """(parameters, scores) of a linear block over encoded fields."""
    block = fusion.block({"kind": "early", "hidden": ()}, "block")
    model = fusion.Fusion(block, Wanted(2, steps), columns=5, pool=pool)
    labels = STEPS if steps else 1

    def both(given, masks):
        variables = model.init(jax.random.key(0), given, masks, labels)
        return variables, model.apply(variables, given, masks, labels)[0].scores

    variables, scores = jax.device_get(jax.jit(both)(*inputs()))
    return variables["params"], scores


def encoded(p, x):
    return np.maximum(x @ p["kernel"] + p["bias"], 0)


@pytest.mark.parametrize("pool", ["mean", "flat"])
def test_series_of_a_record_become_one_point(pool):
    p, got = scored(steps=False, pool=pool)
    given, _ = inputs()
    x = given["series"] * MASK[..., None]
    if pool == "flat":
        point = encoded(p["in_series"], x.reshape(ROWS, -1))
    else:
        coded = encoded(p["in_series"], x) * MASK[..., None]
        point = coded.sum(1) / MASK.sum(1)[:, None]
    both = np.concatenate([point, encoded(p["in_static"], given["static"][:, 0])], 1)
    head = p["block"]["head"]
    np.testing.assert_allclose(
        got[:, 0], both @ head["kernel"] + head["bias"], atol=1e-5
    )


def test_a_static_field_is_there_at_every_step():
    p, got = scored(steps=True)
    given, _ = inputs()
    x = given["series"] * MASK[..., None]
    coded = encoded(p["in_series"], x) * MASK[..., None]
    still = np.repeat(encoded(p["in_static"], given["static"]), STEPS, axis=1)
    head = p["block"]["head"]
    want = np.concatenate([coded, still], -1) @ head["kernel"] + head["bias"]
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_keys_of_a_block_are_its_own():
    with pytest.raises(UserError, match="x: unknown key 'rank'.*hidden"):
        fusion.block({"kind": "early", "rank": 3}, "x")
