"""From `config.optim` to an optax chain: optimizer, schedule, masks by path regex.

Paths are '/'-joined, as `mmjax.tree.flatten` prints them; a regex matches anywhere in
the path (`re.search`). The first matching rule wins.

`config.optim.groups.NAME` gives the parameters that its `match` finds an optimizer of
their own, with its own slots, schedule and gradient norm. `every` and `offset` say at
which steps it runs; at all others its parameters and slots stay as they are. A zero
gradient would not do that: Adam moves on from its momentum, and weight decay decays.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from mmjax import schema, tree
from mmjax.errors import UserError
from mmjax.train import layers

PyTree = Any
Schedule = Callable[[jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class Rule:
    """What an optimizer needs. Defaults are CLIP's ViT values (paper, Table 18)."""

    name: str = "adamw"  # adamw | adam | sgd | adafactor | lion | muon | lbfgs
    lr: float = 5e-4
    schedule: str = "cosine"  # cosine | rsqrt | constant
    warmup: int | float = 2000  # updates; below 1, a share of all of them
    final_lr: float = 0.0  # what cosine comes down to
    decay_steps: int = 0  # when it gets there, and stays; 0: at the end of the run
    b1: float = 0.9
    b2: float = 0.98
    eps: float = 1e-6
    momentum: float = 0.9  # sgd only
    muon_mask: str = r"(qkv|out|fc|proj)/kernel$"  # muon only: the rest has adamw
    weight_decay: float = 0.0  # decoupled; times the learning rate
    decay_mask: str = r"(kernel|embedding)$"  # what weight decay applies to
    clip_norm: float = 0.0  # global gradient norm; 0 is off
    lr_mult: tuple[tuple[str, float], ...] = ()  # ((regex, factor), ...)
    layer_decay: float = 1.0  # of lr, from a numbered layer to the one below it
    freeze: tuple[str, ...] = ()  # regexes: no update, no optimizer slots

    def __post_init__(self) -> None:
        schema.at_least(0, self, "lr", "warmup", "final_lr", "b1", "b2", "eps")
        schema.at_least(0, self, "momentum", "weight_decay", "clip_norm")
        if self.warmup >= 1 and self.warmup % 1:
            raise ValueError(
                f"warmup is {self.warmup}: use a number of updates, or a share below 1"
            )
        schema.under(1, self, "b1", "b2", "momentum")
        if not 0 < self.layer_decay <= 1:
            raise ValueError(
                f"layer_decay is {self.layer_decay}: use more than 0, up to 1"
            )
        for pattern, factor in self.lr_mult:
            if not 0 <= factor < math.inf:
                raise ValueError(f"lr_mult of {pattern!r} is {factor}: use 0 or more")
        patterns = (self.muon_mask, self.decay_mask, *self.freeze)
        for pattern in (*patterns, *(pattern for pattern, _ in self.lr_mult)):
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is no regex: {error}") from error


@dataclasses.dataclass(frozen=True)
class OptimConfig(Rule):
    """`config.optim`: the rule of parameters in no group, and what all share."""

    accum: int = 1  # gradient accumulation slices
    ema: float = 0.0  # decay of the parameter average; 0 is off
    groups: Mapping[str, Mapping] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        schema.at_least(1, self, "accum")
        schema.at_least(0, self, "ema")
        schema.under(1, self, "ema")


@dataclasses.dataclass(frozen=True, kw_only=True)
class GroupConfig(Rule):
    """`config.optim.groups.NAME`; keys of Rule left out are those of `config.optim`.

    Schedule, warm-up and clipping count the updates of the group and see its gradients.
    """

    match: str  # regex: the parameters of the group
    every: int = 1  # updated at steps where (step - offset) % every == 0
    offset: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        schema.at_least(1, self, "every")
        if not 0 <= self.offset < self.every:
            raise ValueError(
                f"offset is {self.offset} and every {self.every}: use an offset from 0 "
                f"to {self.every - 1}, or a larger every"
            )

    def due(self, step: jax.Array) -> jax.Array:
        """Whether the group is updated at a step, counted from 0."""
        return (step - self.offset) % self.every == 0

    def done(self, step: jax.Array) -> jax.Array:
        """Updates of the group before its newest one, at `step` or earlier."""
        return jnp.maximum((step - self.offset) // self.every, 0)


def schedule(cfg: Rule, steps: int, where: str = "config.optim") -> Schedule:
    """Learning rate as a function of the number of updates done.

    Linear warm-up to `lr`, then cosine to `final_lr` once `decay_steps` updates are
    done (all of them by default, so that the last is still above it); or
    `lr * sqrt(warmup / step)`; or constant. Raises UserError on an unknown name.
    """
    warmup, end = cfg.warmup, cfg.decay_steps or steps
    warmup = round(warmup * end) if warmup < 1 else int(warmup)
    if warmup >= end and cfg.schedule == "cosine":
        raise UserError(
            f"{where}.warmup is {warmup} of {end} steps: the learning rate "
            f"would never come down; use a warm-up under {end}"
        )

    def lr(step: jax.Array) -> jax.Array:
        before = jnp.asarray(step, jnp.float32)
        t = before + 1.0
        ramp = jnp.minimum(1.0, t / max(warmup, 1)) if warmup else 1.0
        if cfg.schedule == "constant":
            return cfg.lr * ramp
        if cfg.schedule == "rsqrt":
            return cfg.lr * ramp * jnp.sqrt(max(warmup, 1) / jnp.maximum(t, warmup))
        done = jnp.clip((before - warmup) / (end - warmup), 0.0, 1.0)
        falling = 0.5 * (1 + jnp.cos(jnp.pi * done))
        return ramp * (cfg.final_lr + (cfg.lr - cfg.final_lr) * falling)

    if cfg.schedule not in ("cosine", "rsqrt", "constant"):
        raise UserError(
            f"{where}.schedule is {cfg.schedule!r}: use cosine, rsqrt or constant"
        )
    return lr


def _muon(cfg: Rule, params: PyTree) -> optax.GradientTransformation:
    """Muon (Jordan et al. 2024) on the matrices of `muon_mask`, Adam on all else.

    Updates have the root mean square of Adam's, 0.2 (Liu et al. 2025, section 2.2), so
    that both share learning rate and decay. The last two axes make the matrix.
    """
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


def _scaler(cfg: Rule, params: PyTree, where: str) -> optax.GradientTransformation:
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
    if cfg.name == "lbfgs":
        raise UserError(
            f"{where}.name is lbfgs, whose line search moves all parameters at once: "
            f"use one of {', '.join(sorted(makers))} in a group"
        )
    if cfg.name not in makers:
        legal = ", ".join(sorted([*makers, "lbfgs"]))
        raise UserError(f"{where}.name is {cfg.name!r}: use one of {legal}")
    if cfg.name == "adam" and cfg.weight_decay:
        raise UserError(
            f"{where}.name is adam with weight_decay {cfg.weight_decay}: "
            "adamw is the one that decays"
        )
    return makers[cfg.name]()


# What L-BFGS needs of the other keys of `config.optim`, and why.
_LBFGS: Mapping[str, tuple[Any, str]] = {
    "lr": (1.0, "its line search finds the length of every step"),
    "schedule": ("constant", "its line search finds the length of every step"),
    "warmup": (0, "its line search finds the length of every step"),
    "accum": (1, "its line search evaluates the loss of the whole batch"),
    "clip_norm": (0.0, "it learns the curvature from gradients as they are"),
    "weight_decay": (0.0, "its line search sees the loss alone: put decay there"),
    "lr_mult": ((), "a scaled direction may not go downhill"),
    "layer_decay": (1.0, "a scaled direction may not go downhill"),
    "freeze": ((), "its line search moves all parameters at once"),
    "groups": ({}, "its line search moves all parameters at once"),
}


def _lbfgs(cfg: OptimConfig, params: PyTree) -> optax.GradientTransformation:
    for key, (legal, reason) in _LBFGS.items():
        if getattr(cfg, key) != legal:
            raise UserError(
                f"config.optim.{key} is {getattr(cfg, key)!r}, but config.optim.name "
                f"is lbfgs: {reason}; set it to {legal!r}"
            )
    if not jax.tree.leaves(params):
        raise UserError(
            "config.optim.name is lbfgs, but this task has no parameters: use sgd"
        )
    tx = optax.lbfgs()

    def init(params: PyTree) -> PyTree:
        # Its counters start as Python numbers: the second step would compile again.
        return jax.tree.map(lambda x: x.astype(x.dtype), tx.init(params))

    return optax.GradientTransformationExtraArgs(init, tx.update)


def _scale_by_path(rules: tuple) -> optax.GradientTransformation:
    """Multiplies updates by the factor of the first rule that matches their path."""

    def scaled(path: str, update: jax.Array) -> jax.Array:
        factors = (factor for pattern, factor in rules if re.search(pattern, path))
        factor = next(factors, None)
        return update if factor is None else update * factor

    return optax.stateless(lambda updates, _: tree.map_with_path(scaled, updates))


def _apart(
    tx: optax.GradientTransformationExtraArgs,
) -> optax.GradientTransformationExtraArgs:
    """`tx`, with gradients that the compiler does not join with their other users.

    The logged gradient norm and Adam both square them: joined, XLA's CPU back-end
    writes the squares out and reads them back (3 % of a ViT-B/32 step).
    """

    def update(
        updates: PyTree, state: PyTree, params: PyTree = None, **extra: Any
    ) -> tuple:
        # One barrier each: a common one would hold all gradients until the last.
        updates = jax.tree.map(jax.lax.optimization_barrier, updates)
        return tx.update(updates, state, params, **extra)

    return optax.GradientTransformationExtraArgs(tx.init, update)


def _require_match(
    cfg: Rule, paths: list[str], where: str, *, written: Iterable[str]
) -> None:
    """Raises UserError where a regex of the keys `written` at `where` has no match."""
    patterns = {
        "match": (getattr(cfg, "match", ""),),
        "freeze": cfg.freeze,
        "lr_mult": tuple(rule for rule, _ in cfg.lr_mult),
        "muon_mask": (cfg.muon_mask,),
    }
    if cfg.name == "muon":
        written = (*written, "muon_mask")
    for key in filter(patterns.get, written):
        for pattern in patterns[key]:
            if not any(re.search(pattern, path) for path in paths):
                raise UserError(
                    f"{where}.{key}: {pattern!r} matches none of {len(paths)} "
                    f"parameters; they begin with {', '.join(paths[:3])}"
                )


def _chain(
    cfg: Rule, lr: Schedule, params: PyTree, where: str
) -> optax.GradientTransformation:
    """The optimizer of one rule. Masks are built from all parameters."""
    parts = []
    if cfg.clip_norm:
        parts.append(optax.clip_by_global_norm(cfg.clip_norm))
    parts.append(_scaler(cfg, params, where))
    if cfg.weight_decay:
        decayed = tree.mask(params, cfg.decay_mask)
        parts.append(optax.add_decayed_weights(cfg.weight_decay, mask=decayed))
    parts.append(optax.scale_by_learning_rate(lr))
    if cfg.lr_mult:
        parts.append(_scale_by_path(cfg.lr_mult))
    if cfg.layer_decay != 1:
        parts.append(layers.decayed(params, cfg.layer_decay, where))
    tx = optax.chain(*parts)
    if cfg.freeze:
        labels = jax.tree.map(
            lambda frozen: "frozen" if frozen else "trained",
            tree.mask(params, cfg.freeze),
        )
        tx = optax.partition({"trained": tx, "frozen": optax.set_to_zero()}, labels)
    return tx


def _groups(
    cfg: OptimConfig, paths: list[str]
) -> tuple[dict[str, GroupConfig], dict[str, str]]:
    """Groups by name, and the names of groups by the paths of their parameters."""
    inherited = {f.name: getattr(cfg, f.name) for f in dataclasses.fields(Rule)}
    groups: dict[str, GroupConfig] = {}
    owners: dict[str, str] = {}
    for name, given in cfg.groups.items():
        where = f"config.optim.groups.{name}"
        group = schema.from_mapping(GroupConfig, {**inherited, **given}, where)
        _require_match(group, paths, where, written=("match",))
        own = [path for path in paths if re.search(group.match, path)]
        for path in own:
            if path in owners:
                other = owners[path]
                raise UserError(
                    f"config.optim.groups: {path} is matched by {other} "
                    f"({groups[other].match!r}) and by {name} ({group.match!r}); "
                    "narrow one of the two, a parameter is in one group"
                )
            owners[path] = name
        _require_match(group, own, where, written=given)
        groups[name] = group
    return groups, owners


def make(
    cfg: OptimConfig, steps: int, params: PyTree, *, couples_rows: bool
) -> tuple[optax.GradientTransformationExtraArgs, dict[str, Schedule], OptimConfig]:
    """The optimizer of a run, its learning rates by logged name, and its config.

    Learning rates are functions of the step, counted from 0.

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
            "slices would not see each other; set it to 1 and the batch to what fits, "
            "or give the task `embed` and `loss_of` (mmjax/tasks/base.py)"
        )
    if cfg.name == "lbfgs":
        return _apart(_lbfgs(cfg, params)), {"lr": schedule(cfg, steps)}, cfg
    paths = list(tree.flatten(params))
    groups, owners = _groups(cfg, paths)
    _require_match(cfg, paths, "config.optim", written=("freeze", "lr_mult"))
    rates = {"lr": schedule(cfg, steps)}
    rest = _chain(cfg, rates["lr"], params, "config.optim")
    if not groups:
        return _apart(optax.with_extra_args_support(rest)), rates, cfg
    chains = {"": rest}
    for name, group in groups.items():
        where = f"config.optim.groups.{name}"
        updates = -((group.offset - steps) // group.every)
        own = schedule(group, updates, where)
        rates[f"lr/{name}"] = lambda step, own=own, group=group: own(group.done(step))
        chain = _chain(group, own, params, where)
        once = group.every == 1
        chains[name] = chain if once else optax.conditionally_mask(chain, group.due)
    labels = tree.map_with_path(lambda path, _: owners.get(path, ""), params)
    return _apart(optax.partition(chains, labels)), rates, cfg
