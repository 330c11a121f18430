"""Causality by gradient, padding, what the loss counts, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.state import Ctx
from mmjax.tasks import base

STEPS, HEARD = 6, 12  # of the target and of the source


def make(**more):
    sizes = {"name": "translation", "steps": STEPS, "out": 3, "width": 8, "depth": 1}
    return base.build(sizes | {"reach": 1} | more)


def rows(count=2):
    rng = np.random.default_rng(0)
    source = rng.normal(size=(count, HEARD, 4)).astype(np.float32)
    target = rng.normal(size=(count, STEPS, 3)).astype(np.float32)
    masks = {"source_mask": np.ones((count, HEARD), bool)}
    masks["target_mask"] = np.ones((count, STEPS), bool)
    label = np.arange(count, dtype=np.int32)
    return {"source": source, "target": target, "label": label, **masks}


def ctx():
    return Ctx(rng=jax.random.key(7), step=jnp.int32(0), train=True)


def drawn(task, batch):
    """Variables of which nothing is zero."""
    shapes = jax.eval_shape(task.init, jax.random.key(0), batch)
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), shapes)


def everything(task):
    """f(variables, batch) -> (translated, loss of rows), compiled."""
    made, loss = (task.predict()[name] for name in ("translated", "loss"))
    return jax.jit(lambda v, b: (made(v, b, ctx()), loss(v, b, ctx())["loss"]))


def heard(task, at):
    """Which steps of the source the target's step `at` depends on, (HEARD,) bool."""
    batch = rows()
    variables = drawn(task, batch)

    def made(source):
        given = batch | {"source": source}
        said = task.predict()["translated"](variables, given, ctx())
        return jnp.square(said[:, at]).sum()

    return np.abs(jax.jit(jax.grad(made))(batch["source"])).max((0, 2)) > 0


@pytest.mark.parametrize("kind", ["conv", "lstm"])
def test_a_causal_network_depends_on_no_later_sound(kind):
    depends = heard(make(kind=kind, causal=True), 3)
    assert not depends[8:].any() and depends[6:8].all()
    assert heard(make(kind=kind), 3)[8:9].all()


def test_it_may_wait_for_a_step():
    depends = heard(make(causal=True, lookahead=1), 3)
    assert depends[8:10].all() and not depends[10:].any()


@pytest.mark.parametrize("kind", ["conv", "lstm"])
def test_padding_is_not_heard_and_does_not_count(kind):
    task, batch = make(kind=kind, speakers=2), rows()
    batch["source_mask"][1, 8:] = False
    batch["target_mask"][1, 4:] = False
    variables, run = drawn(task, batch), everything(task)
    want, loss_b = run(variables, batch)
    apart = np.asarray(want) - batch["target"]
    error = [np.square(apart[0]).mean(), np.square(apart[1, :4]).mean()]
    np.testing.assert_allclose(loss_b, error, rtol=1e-5)
    batch["source"][1, 8:] = 5.0
    batch["target"][1, 4:] = 5.0
    got, after_b = run(variables, batch)
    np.testing.assert_array_equal(got[1, :4], want[1, :4])
    np.testing.assert_array_equal(after_b, loss_b)
    other, _ = run(variables, batch | {"label": np.array([1, 1], np.int32)})
    assert np.abs(other[0] - want[0]).max() > 0  # another speaker
    np.testing.assert_array_equal(other[1, :4], want[1, :4])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"kind": "lstmm"}, "kind is 'lstmm'.*lstm"),
        ({"lookahead": 2}, "lookahead is 2 and causal False"),
        ({"lookahead": -1, "causal": True}, "lookahead is -1: use 0 or more"),
        ({"kind": "lstm", "width": 7}, "width is 7, and LSTMs .*: use 8"),
        ({"out": 0}, "out is 0: use more than 0"),
    ],
)
def test_refusals(more, message):
    with pytest.raises(UserError, match=message):
        make(**more)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("source", {"shape": (4,)}, r"source has rows of \(4,\)"),
        ("target", {"shape": (5, 3)}, "target has 5 steps of 3 numbers.*6 of 3"),
        (
            "source",
            {"shape": (14, 4)},
            "source lasts 0.28 s and target 0.24 s.*set source.length to 12",
        ),
        ("label", {"class_names": ("a",) * 3}, "speakers is 2, and the data have 3"),
    ],
)
def test_data_that_do_not_fit(name, change, message):
    spec = {
        "source": {"kind": "sequence", "shape": (HEARD, 4), "rate": 50.0},
        "target": {"kind": "sequence", "shape": (STEPS, 3), "rate": 25.0},
        "label": {"kind": "label", "shape": (), "class_names": ("a", "b")},
    }
    task = make(speakers=2)
    task.check(spec)
    with pytest.raises(UserError, match=message):
        task.check(spec | {name: spec[name] | change})
