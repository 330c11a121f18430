"""From `config.optim` to an optax chain: optimizer, schedule, masks by path regex.

Paths are '/'-joined, as `mmjax.tree.flatten` prints them; a regex matches anywhere in
the path (`re.search`). The first matching rule wins.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from mmjax import tree
from mmjax.errors import UserError

PyTree = Any
Schedule = Callable[[jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """What an optimizer needs. Defaults are CLIP's ViT values (paper, Table 18)."""

    name: str = "adamw"  # adamw | adam | sgd | adafactor | lion | muon
    lr: float = 5e-4
    schedule: str = "cosine"  # cosine | rsqrt | constant
    warmup: int = 2000
    final_lr: float = 0.0  # cosine ends at final_lr
    b1: float = 0.9
    b2: float = 0.98
    eps: float = 1e-6
    momentum: float = 0.9  # sgd only
    muon_mask: str = r"(qkv|out|fc|proj)/kernel$"  # muon only: the rest has adamw
    weight_decay: float = 0.0  # decoupled; times the learning rate
    decay_mask: str = r"(kernel|embedding)$"  # what weight decay applies to
    clip_norm: float = 0.0  # global gradient norm; 0 is off
    lr_mult: tuple = ()  # ((regex, factor), ...)
    freeze: tuple = ()  # (regex, ...): no update, no optimizer slots
    accum: int = 1  # gradient accumulation slices
    ema: float = 0.0  # decay of the parameter average; 0 is off


def schedule(cfg: OptimConfig, steps: int) -> Schedule:
    """Learning rate as a function of the number of updates done.

    Linear warm-up to `lr`, then cosine to `final_lr` at `steps`; or
    `lr * sqrt(warmup / step)`; or constant. Raises UserError on an unknown name.
    """
    warmup = cfg.warmup
    if warmup >= steps and cfg.schedule == "cosine":
        raise UserError(
            f"config.optim.warmup is {warmup} of {steps} steps: the learning rate "
            f"would never come down; use a warm-up under {steps}"
        )

    def lr(step: jax.Array) -> jax.Array:
        t = jnp.asarray(step, jnp.float32) + 1.0
        ramp = jnp.minimum(1.0, t / max(warmup, 1)) if warmup else 1.0
        if cfg.schedule == "constant":
            return cfg.lr * ramp
        if cfg.schedule == "rsqrt":
            return cfg.lr * ramp * jnp.sqrt(max(warmup, 1) / jnp.maximum(t, warmup))
        done = jnp.clip((t - warmup) / max(steps - warmup, 1), 0.0, 1.0)
        falling = 0.5 * (1 + jnp.cos(jnp.pi * done))
        return ramp * (cfg.final_lr + (cfg.lr - cfg.final_lr) * falling)

    if cfg.schedule not in ("cosine", "rsqrt", "constant"):
        raise UserError(
            f"config.optim.schedule is {cfg.schedule!r}: use cosine, rsqrt or constant"
        )
    return lr


def _muon(cfg: OptimConfig, params: PyTree) -> optax.GradientTransformation:
    """Muon (Jordan et al. 2024) on the matrices of `muon_mask`, Adam on all else.

    Updates have the root mean square of Adam's, 0.2 (Liu et al. 2025, section 2.2), so
    that both share learning rate and decay. The last two axes make the matrix.
    """
    _require_match(params, [cfg.muon_mask], "muon_mask")
    labels = tree.map_with_path(
        lambda path, _: "muon" if re.search(cfg.muon_mask, path) else "adam", params
    )

    def axes(tree_of: PyTree) -> PyTree:
        numbers = optax.contrib.MuonDimensionNumbers
        return jax.tree.map(lambda x: numbers(x.ndim - 2, x.ndim - 1), tree_of)

    even = optax.stateless(
        lambda updates, _: jax.tree.map(
            lambda u: u * 0.2 * max(u.shape[-2:]) ** 0.5, updates
        )
    )
    matrices = optax.contrib.scale_by_muon(weight_dimension_numbers=axes)
    adam = optax.scale_by_adam(cfg.b1, cfg.b2, cfg.eps)
    return optax.partition({"muon": optax.chain(matrices, even), "adam": adam}, labels)


def _scaler(cfg: OptimConfig, params: PyTree) -> optax.GradientTransformation:
    """The gradient transformation proper, without learning rate and decay."""
    makers: Mapping[str, Callable[[], optax.GradientTransformation]] = {
        "adamw": lambda: optax.scale_by_adam(cfg.b1, cfg.b2, cfg.eps),
        "adam": lambda: optax.scale_by_adam(cfg.b1, cfg.b2, cfg.eps),
        "lion": lambda: optax.scale_by_lion(cfg.b1, cfg.b2),
        "muon": lambda: _muon(cfg, params),
        "sgd": lambda: optax.trace(cfg.momentum) if cfg.momentum else optax.identity(),
        "adafactor": lambda: optax.chain(
            optax.scale_by_factored_rms(), optax.clip_by_block_rms(1.0)
        ),
    }
    if cfg.name not in makers:
        raise UserError(
            f"config.optim.name is {cfg.name!r}: use one of {', '.join(sorted(makers))}"
        )
    if cfg.name == "adam" and cfg.weight_decay:
        raise UserError(
            f"config.optim.name is adam with weight_decay {cfg.weight_decay}: "
            "adamw is the one that decays"
        )
    return makers[cfg.name]()


def _scale_by_path(rules: tuple) -> optax.GradientTransformation:
    """Multiplies updates by the factor of the first rule that matches their path."""

    def update(updates: PyTree, state: PyTree, params: PyTree = None) -> tuple:
        del params

        def scaled(path: str, u: jax.Array) -> jax.Array:
            for pattern, factor in rules:
                if re.search(pattern, path):
                    return u * factor
            return u

        return tree.map_with_path(scaled, updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def _apart(tx: optax.GradientTransformation) -> optax.GradientTransformation:
    """`tx`, with gradients that the compiler does not join with their other users.

    The logged gradient norm and Adam both square them: joined, XLA's CPU back-end
    writes the squares out and reads them back (3 % of a ViT-B/32 step).
    """

    def update(updates: PyTree, state: PyTree, params: PyTree = None) -> tuple:
        # One barrier each: a common one would hold all gradients until the last.
        updates = jax.tree.map(jax.lax.optimization_barrier, updates)
        return tx.update(updates, state, params)

    return optax.GradientTransformation(tx.init, update)


def _require_match(params: PyTree, patterns: list[str], key: str) -> None:
    paths = list(tree.flatten(params))
    for pattern in patterns:
        if not any(re.search(pattern, path) for path in paths):
            raise UserError(
                f"config.optim.{key}: {pattern!r} matches none of {len(paths)} "
                f"parameters; they begin with {', '.join(paths[:3])}"
            )


def make(
    cfg: OptimConfig, steps: int, params: PyTree, *, couples_rows: bool
) -> tuple[optax.GradientTransformation, Schedule, OptimConfig]:
    """The optimizer of a run.

    Args:
      cfg: `config.optim`.
      steps: length of the run, for the schedule.
      params: parameters (or their shapes): masks are built from their paths.
      couples_rows: the task's, where it offers no `embed`: accumulation would change
        its loss, so is refused.
    """
    if cfg.accum > 1 and couples_rows:
        raise UserError(
            f"config.optim.accum is {cfg.accum}, but this task's loss couples rows: "
            "slices would see fewer negatives; set it to 1 and the batch to what fits, "
            "or give the task `embed` and `loss_of` (mmjax/tasks/base.py)"
        )
    _require_match(params, list(cfg.freeze), "freeze")
    _require_match(params, [rule for rule, _ in cfg.lr_mult], "lr_mult")
    lr = schedule(cfg, steps)
    parts = []
    if cfg.clip_norm:
        parts.append(optax.clip_by_global_norm(cfg.clip_norm))
    parts.append(_scaler(cfg, params))
    if cfg.weight_decay:
        decayed = tree.map_with_path(
            lambda path, _: bool(re.search(cfg.decay_mask, path)), params
        )
        parts.append(optax.add_decayed_weights(cfg.weight_decay, mask=decayed))
    parts.append(optax.scale_by_learning_rate(lr))
    if cfg.lr_mult:
        parts.append(_scale_by_path(cfg.lr_mult))
    tx = optax.chain(*parts)
    if cfg.freeze:
        labels = tree.map_with_path(
            lambda path, _: (
                "frozen" if any(re.search(r, path) for r in cfg.freeze) else "trained"
            ),
            params,
        )
        tx = optax.partition({"trained": tx, "frozen": optax.set_to_zero()}, labels)
    return _apart(tx), lr, cfg
