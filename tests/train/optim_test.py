"""Optimizer chains against the formulas, and masks by path."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmjax import schema
from mmjax.errors import UserError
from mmjax.train import optim

PARAMS = {
    "a": {"kernel": jnp.full((4, 4), 2.0), "bias": jnp.full((4,), 2.0)},
    "b": {"kernel": jnp.full((4,), 2.0)},
}
FLAT = {"schedule": "constant", "warmup": 0, "lr": 0.1}


def make(config, steps, params, **more):
    cfg = schema.from_mapping(optim.OptimConfig, config, "config.optim")
    return optim.make(cfg, steps, params, **more)


def _one(config: dict, grad: float = 1.0) -> dict:
    """Parameters after one update with every gradient equal to `grad`."""
    tx, _, _ = make(optim.OptimConfig(**config), 10, PARAMS, couples_rows=False)
    grads = jax.tree.map(lambda x: jnp.full_like(x, grad), PARAMS)
    updates, _ = tx.update(grads, tx.init(PARAMS), PARAMS)
    return optax.apply_updates(PARAMS, updates)


def test_adamw_first_step_and_decay_mask():
    new = _one(FLAT | {"name": "adamw", "eps": 0.0, "weight_decay": 0.5})
    # Adam's first step is the sign of the gradient; decay adds 0.5 * 2 on kernels.
    np.testing.assert_allclose(new["a"]["kernel"], 2 - 0.1 * (1 + 1), rtol=1e-6)
    np.testing.assert_allclose(new["a"]["bias"], 2 - 0.1, rtol=1e-6)


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd", "adafactor", "lion", "muon"])
def test_every_optimizer_goes_downhill(name: str):
    new = _one(FLAT | {"name": name, "muon_mask": "^a/kernel$"})
    assert all(bool((x < 2).all()) for x in jax.tree.leaves(new))


def test_muon_turns_matrices_orthogonal_and_leaves_the_rest_to_adam():
    rng = np.random.default_rng(0)
    params = {
        "fc": {"kernel": jnp.zeros((4, 16)), "bias": jnp.zeros(16)},
        "stack": {"out": {"kernel": jnp.zeros((3, 8, 8))}},
        "embedding": jnp.zeros((5, 8)),
    }
    grads = jax.tree.map(
        lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32), params
    )
    same = FLAT | {"lr": 1.0, "eps": 1e-8}

    def first(name: str) -> dict:
        config = optim.OptimConfig(**same, name=name)
        tx, _, _ = make(config, 10, params, couples_rows=False)
        return tx.update(grads, tx.init(params), params)[0]

    muon, adam = first("muon"), first("adamw")
    for got, grad in (
        (muon["fc"]["kernel"], grads["fc"]["kernel"]),
        (muon["stack"]["out"]["kernel"][1], grads["stack"]["out"]["kernel"][1]),
    ):
        u, s, vt = np.linalg.svd(np.asarray(got) / (0.2 * max(got.shape) ** 0.5))
        assert (s > 0.6).all() and (s < 1.3).all()  # five Newton-Schulz steps: near 1
        signs = np.sign(np.diag(u.T @ np.asarray(grad) @ vt[: len(s)].T))
        np.testing.assert_array_equal(signs, -1)  # downhill in every direction
    np.testing.assert_array_equal(muon["embedding"], adam["embedding"])
    np.testing.assert_array_equal(muon["fc"]["bias"], adam["fc"]["bias"])
    with pytest.raises(UserError, match="muon_mask"):
        _one(same | {"name": "muon"})


def test_freeze_and_lr_mult():
    sgd = FLAT | {"name": "sgd", "momentum": 0.0}
    new = _one(sgd | {"freeze": ("^b/",), "lr_mult": (("bias$", 0.5),)})
    np.testing.assert_allclose(new["b"]["kernel"], 2.0)
    np.testing.assert_allclose(new["a"]["bias"], 2 - 0.05, rtol=1e-6)
    np.testing.assert_allclose(new["a"]["kernel"], 2 - 0.1, rtol=1e-6)


def test_frozen_parameters_have_no_slots():
    config = optim.OptimConfig(**FLAT, freeze=("^a/",))
    tx, _, _ = make(config, 10, PARAMS, couples_rows=False)
    slots = [x.shape for x in jax.tree.leaves(tx.init(PARAMS)) if x.ndim]
    assert slots == [(4,), (4,)]  # both moments of b/kernel


def test_clip_is_global():
    new = _one(FLAT | {"name": "sgd", "momentum": 0.0, "clip_norm": 1.0}, grad=10.0)
    moved = jax.tree.leaves(jax.tree.map(lambda a, b: a - b, PARAMS, new))
    norm = np.sqrt(sum(float((x**2).sum()) for x in moved))
    assert norm == pytest.approx(0.1, rel=1e-4)


def test_schedules():
    cfg = optim.OptimConfig(lr=1.0, warmup=10, final_lr=0.1)
    lr = optim.schedule(cfg, 110)
    assert float(lr(0)) == pytest.approx(0.1)
    assert float(lr(9)) == pytest.approx(1.0)
    assert float(lr(10)) == pytest.approx(1.0)
    assert float(lr(60)) == pytest.approx(0.55, abs=1e-6)
    last = 0.1 + 0.9 * 0.5 * (1 + np.cos(np.pi * 99 / 100))
    assert float(lr(109)) == pytest.approx(last) and last > 0.1002
    assert float(lr(110)) == pytest.approx(0.1)
    early = optim.schedule(optim.OptimConfig(warmup=0, decay_steps=50, lr=1.0), 200)
    assert [float(early(n)) for n in (0, 25)] == pytest.approx([1.0, 0.5])
    assert float(early(50)) == float(early(199)) == 0.0
    rsqrt = optim.schedule(optim.OptimConfig(lr=1.0, warmup=4, schedule="rsqrt"), 100)
    assert float(rsqrt(15)) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("config", "what"),
    [
        ({"lrr": 1.0}, "did you mean 'lr'"),
        ({"lr": "fast"}, "expected float"),
        ({"name": "adagrad", "warmup": 1}, "use one of"),
        ({"accum": 2, "warmup": 1}, "couples rows"),
        ({"freeze": ("nothing",), "warmup": 1}, "matches none"),
        ({"warmup": 10}, "never come down"),
        ({"schedule": "stairs", "warmup": 1}, "cosine, rsqrt or constant"),
        ({"lr": -1.0}, "optim: lr is -1.0: use 0 or more"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"eps": float("inf")}, "eps is inf"),
        ({"b1": 1.0}, "b1 is 1.0: use less than 1"),
        ({"b2": 2.0}, "b2 is 2.0: use less than 1"),
        ({"momentum": -0.1}, "momentum is -0.1"),
        ({"warmup": -5}, "warmup is -5"),
        ({"final_lr": -1.0}, "final_lr is -1.0"),
        ({"weight_decay": -0.1}, "weight_decay is -0.1"),
        ({"clip_norm": -1.0}, "clip_norm is -1.0"),
        ({"accum": 0}, "accum is 0: use 1 or more"),
        ({"ema": 2.0}, "ema is 2.0: use less than 1"),
        ({"ema": -0.5}, "ema is -0.5"),
        ({"lr_mult": (("bias", -1.0),)}, "lr_mult of 'bias' is -1.0"),
        ({"lr_mult": ("bias",)}, "expected tuple"),
        ({"freeze": ("(",)}, r"'\(' is no regex"),
        ({"decay_mask": "["}, r"'\[' is no regex"),
        ({"groups": {"a": {"match": "^a/", "b2": 2.0}}}, r"groups.a: b2 is 2.0"),
    ],
)
def test_bad_configs(config: dict, what: str):
    with pytest.raises(UserError, match=what):
        make(config, 10, PARAMS, couples_rows=True)


GROUPS = {"a": {"match": "^a/", "every": 2, "offset": 1, "lr": 0.2}}
HARD = FLAT | {"name": "adamw", "weight_decay": 0.1, "clip_norm": 1.0}


def _walk(config: dict, grads: list, steps: int = 8) -> list:
    """Parameters and slots after each update."""
    tx, _, _ = make(config, steps, PARAMS, couples_rows=False)
    params, slots, seen = PARAMS, tx.init(PARAMS), []
    update = jax.jit(tx.update)
    for grad in grads:
        given = jax.tree.map(lambda x, g=grad: jnp.full_like(x, g), PARAMS)
        updates, slots = update(given, slots, params)
        params = optax.apply_updates(params, updates)
        seen.append((params, slots))
    return seen


def _same(a, b) -> bool:
    equal = jax.tree.map(lambda x, y: bool((x == y).all()), a, b)
    return all(jax.tree.leaves(equal))


def test_a_paused_group_does_not_move_at_all():
    """Neither by momentum, nor by decay; and its slots stay as they are."""
    seen = _walk(HARD | {"groups": GROUPS}, [1.0, -2.0, 3.0, 1.0, 0.5])
    before = PARAMS
    for number, (params, _) in enumerate(seen):
        assert _same(params["a"], before["a"]) == (number % 2 == 0)
        assert not _same(params["b"], before["b"])
        before = params
    slots = [s.inner_states["a"].inner_state.inner_state for _, s in seen]
    assert _same(slots[1], slots[2]) and not _same(slots[2], slots[3])


def test_a_group_is_an_optimizer_of_its_own():
    """Clip norm, moments, decay and schedule: of its gradients, at its own updates."""
    grads = [1.0, -2.0, 3.0, 1.0, 0.5, -1.0]
    cosine = HARD | {"schedule": "cosine", "warmup": 1}
    group = {"match": "^a/", "every": 2, "offset": 1, "lr": 0.2, "clip_norm": 0.5}
    both = _walk(cosine | {"groups": {"a": group}}, grads, 6)
    own = {"lr": 0.2, "clip_norm": 0.5, "freeze": ("^b/",)}
    alone = _walk(cosine | own, grads[1::2], 3)  # three updates of its own
    for (params, _), (want, _) in zip(both[1::2], alone, strict=True):
        assert _same(params["a"], want["a"])
    rest = _walk(cosine | {"freeze": ("^a/",)}, grads, 6)
    for (params, _), (want, _) in zip(both, rest, strict=True):
        assert _same(params["b"], want["b"])


def test_groups_take_other_optimizers_and_freeze():
    config = FLAT | {"name": "adamw", "eps": 0.0}
    sgd = {"match": "^b/", "name": "sgd", "momentum": 0.0, "lr": 1.0}
    new = _one(config | {"freeze": ("bias$",), "groups": {"b": sgd}}, grad=0.5)
    np.testing.assert_allclose(new["b"]["kernel"], 2 - 0.5)
    np.testing.assert_allclose(new["a"]["kernel"], 2 - 0.1, rtol=1e-6)
    np.testing.assert_array_equal(new["a"]["bias"], 2.0)


def test_rates_are_those_of_the_newest_update():
    warm = {"warmup": 2, "schedule": "constant", "lr": 1.0}
    group = {"match": "^a/", "every": 3, "offset": 1, "lr": 0.5}
    config = warm | {"groups": {"player": group}}
    _, rates, _ = make(config, 9, PARAMS, couples_rows=False)
    assert rates.keys() == {"lr", "lr/player"}
    assert [float(rates["lr"](s)) for s in range(3)] == [0.5, 1.0, 1.0]
    own = [float(rates["lr/player"](s)) for s in range(6)]
    assert own == [0.25, 0.25, 0.25, 0.25, 0.5, 0.5]


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"x": {"match": "^a/"}, "y": {"match": "bias"}}, "a/bias.*x .*'bias'"),
        ({"x": {"match": "^c/"}}, r"groups\.x\.match: '\^c/' matches none of 3"),
        ({"x": {"match": "^a/", "every": 0}}, r"groups\.x: every is 0: use 1"),
        ({"x": {"match": "^a/", "every": 2, "offset": 2}}, "offset is 2 and every 2"),
        ({"x": {"match": "^a/", "offset": -1}}, "offset is -1 and every 1"),
        ({"x": {"match": "^a/", "evry": 2}}, "did you mean 'every'"),
        ({"x": {"match": "^a/", "accum": 2}}, "unknown key 'accum'"),
        ({"x": {"every": 2}}, "'match' is missing"),
        ({"x": 3}, r"groups\.x: expected"),
        ({"x": {"match": "^a/", "freeze": ("^b/",)}}, r"groups\.x\.freeze.*none of 2"),
        ({"x": {"match": "^a/", "name": "lbfgs"}}, r"groups\.x\.name is lbfgs"),
        (
            {"x": {"match": "^a/", "every": 5, "schedule": "cosine", "warmup": 2}},
            r"groups\.x\.warmup is 2 of 2 steps",
        ),
    ],
)
def test_bad_groups(groups: dict, message: str):
    with pytest.raises(UserError, match=message):
        make(FLAT | {"groups": groups}, 10, PARAMS, couples_rows=False)


LBFGS = {"name": "lbfgs", "lr": 1.0, "warmup": 0, "schedule": "constant"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"lr": 0.5},
        {"schedule": "cosine"},
        {"warmup": 3},
        {"accum": 2},
        {"clip_norm": 1.0},
        {"weight_decay": 0.1},
        {"lr_mult": (("bias$", 0.5),)},
        {"freeze": ("^a/",)},
        {"groups": {"a": {"match": "^a/"}}},
    ],
)
def test_lbfgs_refuses_what_it_cannot_honour(wrong: dict):
    make(LBFGS, 10, PARAMS, couples_rows=False)
    (key,) = wrong
    with pytest.raises(UserError, match=rf"config\.optim\.{key} is .*lbfgs: .*set it"):
        make(LBFGS | wrong, 10, PARAMS, couples_rows=False)
