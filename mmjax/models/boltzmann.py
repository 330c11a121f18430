"""Boltzmann machines whose layers two colours suffice for: RBM, DBM, multimodal DBM.

A machine is a graph of layers and the weights between them. Its parameters are

    bias: {layer: (d,)}, weight: {lower: {upper: (d_lower, d_upper)}}

and the energy of the layers' states x is

    E(x) = - sum_a r_a b_a . x_a - sum_(a, c) x_a W_ac x_c + sum_gaussian |x_a|^2 / 2

r is 1, but for the layer above counts of words: there it is their number
(Salakhutdinov and Hinton 2009, Replicated Softmax, eq. 1 to 3). Layers are

    bernoulli: 0 or 1.
    gaussian: numbers of variance 1 given the others.
    softmax: counts of words, whose probability is that of the words in their order.

Layers that no weights join are independent given the others. So those of one colour
are drawn at once, and can be summed over in closed form.

Legend: b rows or chains, d units of a layer, t inverse temperatures.
"""

import dataclasses
import functools
import math
from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp

PyTree = Any
States = Mapping[str, jax.Array]  # layer -> (b, d)
KINDS = ("bernoulli", "gaussian", "softmax")


@dataclasses.dataclass(frozen=True)
class Layer:
    """kind: one of KINDS. words: how many a softmax layer has where none are given."""

    kind: str
    units: int
    words: int = 1


@dataclasses.dataclass(frozen=True, eq=False)
class Machine:
    """layers by name, visible ones first; edges as (lower, upper).

    doubled: layers whose input from others counts twice, as in the pretraining of a
      layer that will have neighbours on both sides (Salakhutdinov and Hinton 2009,
      Deep Boltzmann Machines, 2.3).
    whole: the machine that this is a part of, whose colours it keeps.
    """

    layers: Mapping[str, Layer]
    edges: tuple[tuple[str, str], ...]
    doubled: frozenset[str] = frozenset()
    whole: "Machine | None" = None

    @functools.cached_property
    def colours(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The layers that edges join, in two sets without an edge inside.

        The first holds the first layer.
        """
        joined = {layer for edge in self.edges for layer in edge}
        if self.whole:
            whole = self.whole.colours
            return tuple(tuple(n for n in side if n in joined) for side in whole)
        colour: dict[str, int] = {}
        for start in self.layers:
            spread = [] if start in colour else [start]
            colour.setdefault(start, 0)
            while spread:
                layer = spread.pop()
                for other in self.neighbours(layer):
                    if other not in colour:
                        colour[other] = 1 - colour[layer]
                        spread.append(other)
                    elif colour[other] == colour[layer]:
                        raise ValueError(f"{layer} and {other} need a third colour")
        return tuple(
            tuple(n for n in self.layers if n in joined and colour[n] == side)
            for side in (0, 1)
        )

    def neighbours(self, layer: str) -> list[str]:
        """The layers that weights join to this one."""
        return [b if a == layer else a for a, b in self.edges if layer in (a, b)]

    def hidden(self, visible: Collection[str]) -> list[str]:
        """The joined layers that are not among `visible`."""
        joined = [*self.colours[0], *self.colours[1]]
        return [name for name in self.layers if name in joined and name not in visible]

    def counted(self, layer: str) -> str:
        """The softmax layer that is all there is below this one, or ''."""
        below = [a for a, b in self.edges if b == layer]
        only = len(below) == 1 and self.layers[below[0]].kind == "softmax"
        return below[0] if only else ""

    def part(
        self, edges: tuple[tuple[str, str], ...], doubled: Collection[str] = ()
    ) -> "Machine":
        """The same layers with some of the edges."""
        return Machine(self.layers, edges, frozenset(doubled), self)


fold_in = jax.vmap(jax.random.fold_in, (0, None))  # keys (b,) with one number


def init(machine: Machine, key: jax.Array, *, scale: float = 0.01) -> PyTree:
    """Weights N(0, scale^2), biases 0 (Hinton 2010, A Practical Guide, 8)."""
    params = {"bias": {n: jnp.zeros(s.units) for n, s in machine.layers.items()}}
    weight: dict[str, dict[str, jax.Array]] = {}
    for number, (a, b) in enumerate(machine.edges):
        shape = machine.layers[a].units, machine.layers[b].units
        drawn = scale * jax.random.normal(jax.random.fold_in(key, number), shape)
        weight.setdefault(a, {})[b] = drawn
    return params | {"weight": weight}


def repeats(machine: Machine, states: States, layer: str) -> jax.Array | float:
    """How often a layer's bias counts: once, or (b, 1) once a word below it."""
    below = machine.counted(layer)
    if not below:
        return 1.0
    if below in states:
        return states[below].sum(-1, keepdims=True)
    return float(machine.layers[below].words)


def inputs(machine: Machine, params: PyTree, states: States, layer: str) -> jax.Array:
    """(b, d) natural parameters of a layer given its neighbours among `states`."""
    theta = repeats(machine, states, layer) * params["bias"][layer]
    twice = 2.0 if layer in machine.doubled else 1.0
    for a, b in machine.edges:
        if b == layer and a in states:
            theta = theta + twice * (states[a] @ params["weight"][a][b])
        elif a == layer and b in states:
            theta = theta + twice * (states[b] @ params["weight"][a][b].T)
    return theta


def mean(layer: Layer, theta: jax.Array) -> jax.Array:
    """The mean (b, d) given natural parameters."""
    if layer.kind == "bernoulli":
        return jax.nn.sigmoid(theta)
    if layer.kind == "gaussian":
        return theta
    return layer.words * jax.nn.softmax(theta)


def draw(layer: Layer, theta: jax.Array, uniform: jax.Array) -> jax.Array:
    """A sample (b, d) from `uniform`, see `noise`; theta (d,) is that of all rows."""
    theta = jnp.broadcast_to(theta, (len(uniform), layer.units))
    if layer.kind == "bernoulli":
        return (uniform < jax.nn.sigmoid(theta)).astype(jnp.float32)
    if layer.kind == "gaussian":
        tiny = jnp.finfo(jnp.float32).tiny  # 0 would give minus infinity
        return theta + jax.scipy.special.ndtri(jnp.maximum(uniform, tiny))
    up_to_bd = jnp.cumsum(jax.nn.softmax(theta), -1)
    word_bw = (up_to_bd[:, None] <= uniform[:, :, None]).sum(-1)
    word_bw = jnp.minimum(word_bw, layer.units - 1)
    return jax.nn.one_hot(word_bw, layer.units).sum(1)


def noise(
    machine: Machine, keys: jax.Array, names: Collection[str]
) -> dict[str, jax.Array]:
    """Numbers in [0, 1) that samples of layers are made of, each row by its key (b,).

    They are drawn at once: random bits are most of what a small machine compiles.
    """
    layers = {n: machine.layers[n] for n in names}
    sizes = [a.words if a.kind == "softmax" else a.units for a in layers.values()]
    drawn = jax.vmap(lambda key: jax.random.uniform(key, (sum(sizes),)))(keys)
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes) - 1)]
    return dict(zip(layers, jnp.split(drawn, ends, axis=1), strict=True))


def log_partition(layer: Layer, theta: jax.Array) -> jax.Array:
    """(b,) ln of the sum, or integral, over a layer's states given its input."""
    if layer.kind == "bernoulli":
        return jax.nn.softplus(theta).sum(-1)
    if layer.kind == "gaussian":
        return (0.5 * theta**2 + 0.5 * math.log(2 * math.pi)).sum(-1)
    return layer.words * jax.nn.logsumexp(theta, -1)


def free_energy(machine: Machine, params: PyTree, states: States) -> jax.Array:
    """(b,) -ln of exp(-E) summed over all joined layers that `states` leave out.

    Of all states it is the energy. No two of the others may be neighbours. A machine
    with `doubled` layers has no energy, and this is that of its weights alone.
    """
    total = 0.0
    for name in (*machine.colours[0], *machine.colours[1]):
        layer = machine.layers[name]
        if name not in states:
            total = total - log_partition(layer, inputs(machine, params, states, name))
            continue
        x = states[name]
        bias = (x * params["bias"][name]).sum(-1, keepdims=True)
        total = total - (repeats(machine, states, name) * bias)[..., 0]
        if layer.kind == "gaussian":
            total = total + 0.5 * jnp.square(x).sum(-1)
    for a, b in machine.edges:
        if a in states and b in states:
            pulled = states[a] @ params["weight"][a][b]
            total = total - (pulled * states[b]).sum(-1)
    return total


def means(
    machine: Machine, params: PyTree, states: States, names: Collection[str]
) -> dict[str, jax.Array]:
    """The means of layers given the states of all their neighbours."""
    return {
        n: mean(machine.layers[n], inputs(machine, params, states, n)) for n in names
    }


def draws(
    machine: Machine,
    params: PyTree,
    states: States,
    names: Collection[str],
    uniform: States,
) -> dict[str, jax.Array]:
    """Samples of layers given the states of all their neighbours, see `noise`."""
    theta = {n: inputs(machine, params, states, n) for n in names}
    return {n: draw(machine.layers[n], theta[n], uniform[n]) for n in names}


def gibbs(
    machine: Machine,
    params: PyTree,
    states: States,
    keys: jax.Array,
    *,
    sweeps: int,
    clamped: Collection[str] = (),
) -> dict[str, jax.Array]:
    """States after block Gibbs sampling: a sweep draws both colours, the first first.

    Args:
      states: Of all joined layers of the second colour, and of what is clamped.
      keys: One a chain, (b,).
      clamped: Layers that stay as they are.

    Returns all joined layers. The first colour was drawn before the second.
    """
    free = [[n for n in side if n not in clamped] for side in machine.colours]

    def sweep(number: jax.Array | int, states: States) -> dict[str, jax.Array]:
        uniform = noise(machine, fold_in(keys, number), [*free[0], *free[1]])
        for names in free:
            states = {**states, **draws(machine, params, states, names, uniform)}
        return states

    if sweeps == 1:
        return sweep(0, states)
    blank = {n: jnp.zeros((len(keys), machine.layers[n].units)) for n in free[0]}
    return jax.lax.fori_loop(0, sweeps, sweep, blank | dict(states))


def upward(machine: Machine, params: PyTree, known: States) -> dict[str, jax.Array]:
    """`known`, and the means of the other layers given those below, one by one."""
    states, rows = dict(known), len(next(iter(known.values())))
    for name in machine.hidden(known):
        mean_bd = means(machine, params, states, [name])[name]
        shape = rows, machine.layers[name].units  # without a layer below, one row
        states[name] = jnp.broadcast_to(mean_bd, shape)
    return states


def between(machine: Machine) -> frozenset[str]:
    """The layers with neighbours both above and below."""
    return frozenset(a for a, _ in machine.edges) & {b for _, b in machine.edges}


def mean_field(
    machine: Machine,
    params: PyTree,
    known: States,
    *,
    sweeps: int,
    trusted: Mapping[str, jax.Array] | None = None,
) -> dict[str, jax.Array]:
    """Means of all layers under the factorial posterior, by `sweeps` of updates.

    It starts from one pass upwards in which layers with neighbours above take their
    input twice, as pretraining has it. Then one colour follows the other.

    Args:
      known: States of layers that are given.
      trusted: bool (b,) by layer: rows where what is known is so; elsewhere the layer
        is inferred as well.
    """
    trusted, fresh = trusted or {}, machine.part(machine.edges, between(machine))
    for name, row_b in trusted.items():
        known = {**known, name: jnp.where(row_b[:, None], known[name], 0.0)}
    free = [
        [n for n in side if n not in known or n in trusted] for side in machine.colours
    ]

    def sweep(number: jax.Array, states: States) -> States:
        for names in free:
            new = means(machine, params, states, names)
            for name in trusted.keys() & new.keys():
                row_b1 = trusted[name][:, None]
                new[name] = jnp.where(row_b1, known[name], new[name])
            states = {**states, **new}
        return states

    unknown = {name for names in free for name in names}
    if not any(a in unknown and b in unknown for a, b in machine.edges):
        sweeps = 0  # the pass upwards is the posterior already
    return jax.lax.fori_loop(0, sweeps, sweep, upward(fresh, params, known))


def entropy(mean_bd: jax.Array) -> jax.Array:
    """(b,) nats of independent bits of these means."""
    xlogy = jax.scipy.special.xlogy
    return -(xlogy(mean_bd, mean_bd) + xlogy(1 - mean_bd, 1 - mean_bd)).sum(-1)


def bound(
    machine: Machine, params: PyTree, visible: States, *, sweeps: int
) -> jax.Array:
    """(b,) lower bound of ln p(visible) + ln Z by mean field; exact for an RBM."""
    states = mean_field(machine, params, visible, sweeps=sweeps)
    hidden = machine.hidden(visible)
    return sum(entropy(states[n]) for n in hidden) - free_energy(
        machine, params, states
    )


def base_rates(machine: Machine, params: PyTree, bias: Mapping[str, Any]) -> PyTree:
    """The parameters that annealing starts from: no weights, and biases by layer."""
    zeros = jax.tree.map(jnp.zeros_like, params)
    return {**zeros, "bias": {**zeros["bias"], **bias}}


def annealed(
    machine: Machine, params: PyTree, base: PyTree, keys: jax.Array, betas: jax.Array
) -> jax.Array:
    """(b,) ln importance weights, whose mean weight estimates Z (Neal 2001).

    Natural parameters go from those of `base`, which has no weights and whose Z is
    known, to `params` (Salakhutdinov and Murray 2008). The state is the colour with
    fewer units: the other is summed over.

    Args:
      keys: One a run, (b,).
      betas: (t,) rising from 0 to 1.
    """
    sizes = [sum(machine.layers[n].units for n in side) for side in machine.colours]
    few = int(sizes[1] < sizes[0])
    state, rest = machine.colours[few], machine.colours[1 - few]
    flat = {n: inputs(machine, base, {}, n) for n in (*state, *rest)}
    bias = {n: repeats(machine, {}, n) * params["bias"][n] for n in state}

    def blend(beta: jax.Array, theta: Mapping[str, jax.Array]) -> States:
        return {n: flat[n] + beta * (theta[n] - flat[n]) for n in theta}

    def score(beta: jax.Array, states: States, theta: States) -> jax.Array:
        """(b,) minus the free energy, but for what all temperatures have in common."""
        linear = sum((states[n] * v).sum(-1) for n, v in blend(beta, bias).items())
        return linear + sum(
            log_partition(machine.layers[n], v) for n, v in blend(beta, theta).items()
        )

    def drawn(theta: Mapping[str, jax.Array], uniform: States) -> States:
        return {n: draw(machine.layers[n], theta[n], uniform[n]) for n in theta}

    def step(carry: tuple, this: tuple) -> tuple:
        (states, log_w_b), (number, before, after) = carry, this
        theta = {n: inputs(machine, params, states, n) for n in rest}
        more_b = score(after, states, theta) - score(before, states, theta)
        own = noise(machine, fold_in(keys, number), [*state, *rest])
        others = drawn(blend(after, theta), own)
        theta = {n: inputs(machine, params, others, n) for n in state}
        return (drawn(blend(after, theta), own), log_w_b + more_b), None

    known = sum(log_partition(machine.layers[n], flat[n]) for n in flat)
    states = drawn({n: flat[n] for n in state}, noise(machine, keys, state))
    steps = jnp.arange(1, len(betas)), betas[:-1], betas[1:]
    (_, log_w_b), _ = jax.lax.scan(step, (states, jnp.full(len(keys), known)), steps)
    return log_w_b
