"""Deep CCA's task: its objectives against numpy, what it learns, what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax import parallel
from mmjax.errors import UserError
from mmjax.losses import cca as losses
from mmjax.nn import activation
from mmjax.state import Ctx
from mmjax.tasks import base
from mmjax.train import config as config_lib
from mmjax.train import init_from, loop, optim, restore, setup, update

VIEWS = ("view_a", "view_b")
MLP = {"kind": "mlp", "hidden": (7,), "act": "cube_root"}
CTX = Ctx(rng=jax.random.key(3), step=jnp.zeros((), jnp.int32), train=True)


def task_of(**more):
    return base.build({"name": "cca", "width": 2, "encoder": MLP, **more})


def batch_of(n=24, seed=0, **widths):
    rng = np.random.default_rng(seed)
    cause = np.tanh(rng.normal(size=(n, 2)))
    widths = widths or {"view_a": 6, "view_b": 5}
    return {
        name: np.float32(
            cause @ np.random.default_rng(i).normal(size=(2, d))
            + 0.1 * rng.normal(size=(n, d))
        )
        for i, (name, d) in enumerate(widths.items())
    }


def inverse(x):
    """Andrew's Newton iterations for y^3 / 3 + y = x, in float64."""
    y = np.asarray(x, np.float64)
    for _ in range(60):
        y = (2 * y**3 / 3 + x) / (y**2 + 1)
    return y


def mlp(params, x):
    x = x @ params["layers_0"]["kernel"] + params["layers_0"]["bias"]
    return inverse(x) @ params["layers_1"]["kernel"] + params["layers_1"]["bias"]


def test_cube_root_is_the_inverse_with_its_slope():
    x = jnp.array([-1e4, -50.0, -1.0, -1e-3, 0.0, 0.2, 3.0, 700.0])
    y = activation.cube_root(x)
    np.testing.assert_allclose(y, inverse(np.asarray(x)), rtol=1e-5, atol=1e-7)
    slope = jax.vmap(jax.grad(activation.cube_root))(x)
    np.testing.assert_allclose(slope, 1 / (np.asarray(y, float) ** 2 + 1), rtol=1e-5)


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"components": 1},
        {"objective": "dccae", "reconstruction": 0.3},
        {"objective": "corrae", "reconstruction": 0.3},
        {"objective": "splitae"},
    ],
    ids=lambda more: "-".join(map(str, more.values())) or "dcca",
)
def test_the_loss_is_the_papers(more):
    task, batch = task_of(**more), batch_of()
    variables = task.init(jax.random.key(0), batch)
    loss, _ = task.loss(variables, batch, CTX)
    p = jax.device_get(variables.params)
    coded = ("view_a", "view_b")[: 1 if more.get("objective") == "splitae" else 2]
    codes = {v: mlp(p[f"encoders_{v}"], batch[v]) for v in coded}
    error = 0.0
    if "objective" in more:
        error = sum(
            np.square(mlp(p[f"decoder_{v}"], codes.get(v, codes["view_a"])) - batch[v])
            .sum(1)
            .mean()
            for v in batch
        )
    if more.get("objective") == "splitae":
        want = error
    else:
        a, b = (x - x.mean(0) for x in codes.values())
        if more.get("objective") == "corrae":
            norms = np.linalg.norm(a, axis=0) * np.linalg.norm(b, axis=0)
            correlation = ((a * b).sum(0) / norms).sum()
        else:
            la, lb = (
                np.linalg.cholesky(x.T @ x / 23 + 1e-4 * np.eye(2)) for x in (a, b)
            )
            t = np.linalg.solve(la, a.T @ b / 23) @ np.linalg.inv(lb).T
            values = np.linalg.svd(t, compute_uv=False)
            correlation = values[: task.components or 2].sum()
        want = task.reconstruction * error - correlation
    assert float(loss) == pytest.approx(want, abs=2e-4)


def test_denoising_restores_each_layers_input_by_tied_weights():
    task, batch = task_of(objective="denoise", noise=1e-9), batch_of()
    variables = task.init(jax.random.key(0), batch)
    loss, grads = jax.value_and_grad(
        lambda p: task.loss(variables._replace(params=p), batch, CTX)[0]
    )(variables.params)
    p, want = jax.device_get(variables.params), 0.0
    for view, x in batch.items():
        first, second = (p[f"encoders_{view}"][f"layers_{i}"] for i in range(2))
        code = inverse(x @ first["kernel"] + first["bias"])
        want += np.square(code @ first["kernel"].T - x).mean(1).mean()
        top = code @ second["kernel"] + second["bias"]
        want += np.square(top @ second["kernel"].T - code).mean(1).mean()
    assert float(loss) == pytest.approx(want, rel=1e-4)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))
    noisy = task_of(objective="denoise", noise=0.5)
    assert float(noisy.loss(variables, batch, CTX)[0]) > want


def test_pretrained_encoders_have_the_names_that_deep_cca_takes():
    batch = batch_of()
    shapes = [
        jax.tree.map(
            jnp.shape,
            {
                k: v
                for k, v in task_of(**more)
                .init(jax.random.key(0), batch)
                .params.items()
                if k.startswith("encoders_")
            },
        )
        for more in ({}, {"objective": "denoise", "noise": 0.1})
    ]
    assert shapes[0] == shapes[1] and len(shapes[0]) == 2


def trained(task, cfg, batch, steps):
    layout = parallel.Layout(parallel.ParallelConfig(), jax.devices()[:1])
    made = update.build(
        task, optim.OptimConfig(**cfg), layout, steps=steps, batch=batch
    )
    state = layout.init(made.init, jax.random.key(0), batch)
    run = layout.compile_step(made.step, state)
    for _ in range(steps):
        state, metrics = run(state, layout.load(batch))
    return state, metrics


def test_full_batch_lbfgs_finds_the_common_cause_of_three_views():
    widths = {"a": 6, "b": 5, "c": 4}
    task = task_of(views=tuple(widths), reg=1e-3)
    cfg = {"name": "lbfgs", "lr": 1.0, "schedule": "constant", "warmup": 0}
    state, metrics = trained(task, cfg, batch_of(200, **widths), 40)
    assert float(metrics["correlation"]) > 1.8  # of 2
    codes = task.predict()["codes"](state.vars, batch_of(200, 1, **widths), CTX)
    held_out = losses.total_correlation(list(codes.values()), reg=1e-3)
    assert float(held_out) > 1.6


def test_images_have_conv_towers():
    rng = np.random.default_rng(0)
    batch = {
        "photo": rng.integers(0, 255, (8, 8, 8, 3), dtype=np.uint8),
        "half": rng.uniform(size=(8, 8 * 4)).astype(np.float32),
    }
    conv = {"kind": "conv", "width": 4, "depths": (1,), "groups": 2}
    task = base.build(
        {
            "name": "cca",
            "width": 2,
            "views": ("photo", "half"),
            "encoder": MLP,  # whose keys are no tower's
            "encoders": {"photo": conv, "half": {**conv, "shape": (8, 4, 1)}},
        }
    )
    spec = {
        k: {"kind": "x", "shape": v.shape[1:], "dtype": v.dtype}
        for k, v in batch.items()
    }
    task.check(spec)
    loss, _ = task.loss(task.init(jax.random.key(0), batch), batch, CTX)
    assert -2 <= float(loss) < 0
    with pytest.raises(UserError, match="photo is .*its encoder takes images"):
        task.check(spec | {"photo": spec["half"]})


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"objective": "dcae"}, "objective is 'dcae'.*dccae"),
        ({"views": ("a",)}, "two fields or more"),
        ({"views": ("a", "a")}, "two fields or more"),
        ({"objective": "dccae"}, "reconstruction is 0.0 .*more than 0"),
        ({"noise": 0.1}, "noise is 0.1 and objective 'dcca': set noise to 0"),
        ({"components": 3}, "components is 3 and width 2: use 1 to 2"),
        ({"encoders": {"view_c": {}}}, "'view_c', which is no view"),
        ({"encoder": {"hiden": (3,)}}, "no key 'hiden'; did you mean 'hidden'"),
        ({"encoder": {"act": "sigmod"}}, "act is 'sigmod'"),
        ({"reg": -1.0}, "reg"),
    ],
)
def test_config_errors_say_what_to_change(more, message):
    with pytest.raises(UserError, match=message):
        task_of(**more).init(jax.random.key(0), batch_of())


def test_a_batch_no_larger_than_the_codes_ends_before_it_is_compiled():
    task, batch = task_of(width=6), batch_of(6)
    variables = jax.eval_shape(task.init, jax.random.key(0), batch)
    with pytest.raises(UserError, match=r"6 rows and codes of 6.*batch_size above 6"):
        jax.eval_shape(task.loss, variables, batch, CTX)


def test_a_view_that_records_may_lack_has_no_rule():
    batch = batch_of() | {"view_b_present": np.ones(24, bool)}
    with pytest.raises(UserError, match="view_b is optional.*set optional to False"):
        jax.eval_shape(task_of().init, jax.random.key(0), batch)
    spec = {"kind": "text", "shape": (4,), "dtype": "int32"}
    with pytest.raises(UserError, match="view_a is int32.*use kind vector"):
        task_of().check({"view_a": spec, "view_b": spec})


def test_pretrained_layers_are_grafted(tmp_path):
    halves = "shapes:train?size=16&objects=1&count=32"
    given = [f"data.train={halves}", "batch_size=32", "task.reconstruction=0.0"]
    given = [f"--config.{text}" for text in given]
    first = [*given, "--config.task.objective=denoise", "--config.task.noise=0.1"]
    config = config_lib.load("cca:tiny", [*first, "--config.steps=2"])
    config.evals = {}
    loop.run(config, tmp_path / "denoise")
    learned = restore.restore(tmp_path / "denoise")[1].vars.params
    places = {f"encoders_{view}": str(tmp_path / "denoise") for view in VIEWS}
    second = [f"graft.{place}={run}" for place, run in places.items()]
    second += ["optim.name=lbfgs", "optim.lr=1.0", "optim.schedule=constant"]
    second += ["optim.warmup=0", "task.objective=dcca"]
    given += [f"--config.{text}" for text in second]
    parts = setup.build(config_lib.load("cca:tiny", given))
    fresh = parts.layout.init(parts.update.init, jax.random.key(0), parts.sample())
    state = init_from.init_from(parts, fresh)
    for view in VIEWS:
        jax.tree.map(
            np.testing.assert_array_equal,
            state.vars.params[f"encoders_{view}"],
            learned[f"encoders_{view}"],
        )


def test_slices_of_a_batch_have_the_covariances_of_the_whole():
    task = task_of(objective="dccae", reconstruction=0.1)
    cfg = {"name": "sgd", "lr": 0.1, "schedule": "constant", "warmup": 0}
    batch = batch_of(24)
    whole, sliced = (
        trained(task, {**cfg, "accum": accum}, batch, 2) for accum in (1, 4)
    )
    assert float(whole[1]["loss"]) == pytest.approx(float(sliced[1]["loss"]), abs=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5),
        whole[0].vars.params,
        sliced[0].vars.params,
    )
