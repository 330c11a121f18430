"""A coordinated space: its loss in parts, a bridge without pairs, what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.losses import contrastive
from mmjax.losses import coordinated as losses
from mmjax.state import Ctx, Vars
from mmjax.tasks import base

CTX = Ctx(rng=jax.random.key(3), step=jnp.zeros((), jnp.int32), train=True)
VIEWS = ("image", "english", "german")


def task_of(**more):
    given = {"name": "coordinated", "width": 4, "views": VIEWS}
    return base.build({**given, "encoder": {"hidden": ()}, **more})


def batch_of(n=24, seed=0):
    """Images with English, then English with German: no row has both other views."""
    rng = np.random.default_rng(seed)
    cause = rng.normal(size=(n, 4))
    batch = {
        view: np.float32(cause @ np.random.default_rng(i).normal(size=(4, 5 + i)))
        for i, view in enumerate(VIEWS)
    }
    first = np.arange(n) < n // 2
    present = {"image": first, "english": first | True, "german": ~first}
    for view, present_n in present.items():
        batch[view][~present_n] = 0.0
        batch[f"{view}_present"] = present_n
    return batch


def linear(variables, batch, view):
    kernel = variables.params[f"encoders_{view}"]["layers_0"]["kernel"]
    return contrastive.l2_normalize(batch[view] @ kernel)


def test_the_loss_is_the_sum_of_its_links():
    task, batch = (
        task_of(links=(("image", "english"), ("german", "english"))),
        batch_of(),
    )
    variables = task.init(jax.random.key(0), batch)
    loss, (_, metrics) = task.loss(variables, batch, CTX)
    rows = {view: linear(variables, batch, view) for view in VIEWS}
    want = {
        f"{view}_english": losses.info_nce(
            rows[view], rows["english"], batch[f"{view}_present"], 10.0
        )
        for view in ("image", "german")
    }
    assert metrics.keys() == want.keys()
    for name, value in want.items():
        assert float(metrics[name]) == pytest.approx(float(value), abs=1e-5)
    assert float(loss) == pytest.approx(float(sum(want.values())), abs=1e-5)


def test_devise_ranks_fixed_vectors():
    batch = {k: v for k, v in batch_of().items() if k in ("image", "english")}
    given = {"views": ("image", "english"), "encoders": {"english": {"kind": "fixed"}}}
    task = task_of(width=6, objective="hinge_rank", margin=0.2, **given)
    variables = task.init(jax.random.key(0), batch)
    assert list(variables.params) == ["encoders_image"]
    loss, _ = task.loss(variables, batch, CTX)
    a = linear(variables, batch, "image")
    b = contrastive.l2_normalize(batch["english"])
    want = losses.hinge_rank(a, b, np.ones(24, bool), 0.2)
    assert float(loss) == pytest.approx(float(want), abs=1e-5)
    both = task_of(width=6, objective="hinge_rank", margin=0.2, both=True, **given)
    want += losses.hinge_rank(b, a, np.ones(24, bool), 0.2)
    assert float(both.loss(variables, batch, CTX)[0]) == pytest.approx(
        float(want), 1e-4
    )
    codes = task.predict()["codes"](variables, batch, CTX)
    np.testing.assert_allclose(codes["english"], b, atol=1e-6)


def test_english_bridges_images_and_german():
    task, batch = task_of(), batch_of(96)
    params = task.init(jax.random.key(0), batch).params

    @jax.jit
    def step(params):
        grads = jax.grad(lambda p: task.loss(Vars(params=p), batch, CTX)[0])(params)
        return jax.tree.map(lambda p, g: p - 0.5 * g, params, grads)

    for _ in range(150):
        params = step(params)
    test = {k: v for k, v in batch_of(200, 1).items() if "_present" not in k}
    rng = np.random.default_rng(1)
    cause = rng.normal(size=(200, 4))  # whole this time
    for i, view in enumerate(VIEWS):
        test[view] = np.float32(
            cause @ np.random.default_rng(i).normal(size=(4, 5 + i))
        )
    codes = task.predict()["codes"](Vars(params=params), test, CTX)
    scores = codes["german"] @ codes["image"].T
    hit = (scores.argmax(1) == np.arange(200)).mean()
    assert hit > 10 / 200  # ten times chance, and no row had both


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"views": ("image",)}, "two fields or more"),
        ({"links": (("image", "englsh"),)}, "'englsh', no view; did you mean"),
        ({"encoders": {"germa": {}}}, "'germa', no view"),
        ({"scale": 0.0}, "scale is 0.0: use more than 0"),
        ({"objective": "hinge"}, "objective"),
        ({"encoders": {v: {"kind": "fixed"} for v in VIEWS}}, "every view is fixed"),
    ],
)
def test_config_errors_say_what_to_change(more, message):
    with pytest.raises(UserError, match=message):
        task_of(**more)


def test_a_fixed_view_has_the_spaces_width():
    task = task_of(encoders={"german": {"kind": "fixed"}})
    row = {"kind": "vector", "shape": (7,), "dtype": "float32"}
    with pytest.raises(UserError, match=r"german has shape \(7,\).*width is 4: set it"):
        task.check(dict.fromkeys(VIEWS, row))
