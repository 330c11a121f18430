"""Stacks of layers over several modalities: RBM, DBM and DBN by one description.

Every modality has a pathway of layers, and one layer may join their tops (Srivastava
and Salakhutdinov 2012). A deep Boltzmann machine ("dbm") is one machine. Of a deep
belief net ("dbn") only the topmost layers are a machine, `top`; below it weights point
down, `directed`, and have a copy that points up to infer by (Hinton et al. 2006).

Parameters are those of `mmjax.models.boltzmann`, and for directed layers also
`up`: {bias: {upper: (d,)}, weight: {lower: {upper: ...}}}.

Legend: b rows, d units of a layer.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from mmjax.models import boltzmann
from mmjax.models.boltzmann import Layer, Machine, States

PyTree = Any
JOINT = "joint"


@dataclasses.dataclass(frozen=True, eq=False)
class Stack:
    """visible: the layer of every modality by name; widths: of the layers above each.

    joint: width of the layer over all; 0 is none, for one modality alone.
    directed_below: whether all but the topmost weights point down: a DBN.
    """

    visible: Mapping[str, Layer]
    widths: Mapping[str, tuple[int, ...]]
    joint: int = 0
    directed_below: bool = False

    def __post_init__(self) -> None:
        if not self.visible:
            raise ValueError("pathways is empty: name a field, with units and widths")
        for name, widths in self.widths.items():
            if not widths and not self.joint:
                raise ValueError(
                    f"pathways.{name}.widths is empty and joint 0: give widths=(500,), "
                    "or joint"
                )
        if len(self.visible) > 1 and not self.joint:
            raise ValueError(
                f"joint is 0 and there are {len(self.visible)} pathways: give the "
                "width of the layer that joins them"
            )
        if self.directed_below and len(self.levels) == 1:
            raise ValueError(
                "kind is 'dbn' with one level of weights, which is an RBM: set kind to "
                "'dbm', or give more widths"
            )

    def tower(self, name: str) -> list[str]:
        """A modality's layers, from the visible one up."""
        return [name, *(f"{name}{i + 1}" for i in range(len(self.widths[name])))]

    @functools.cached_property
    def levels(self) -> tuple[tuple[tuple[str, str], ...], ...]:
        """Edges (lower, upper), level by level from the bottom; the joint layer's last.

        Each level is an RBM of its own in greedy pretraining.
        """
        towers = [self.tower(name) for name in self.visible]
        deepest = max(len(tower) for tower in towers)
        pairs = [
            tuple((t[i], t[i + 1]) for t in towers if i + 1 < len(t))
            for i in range(deepest - 1)
        ]
        if self.joint:
            pairs.append(tuple((tower[-1], JOINT) for tower in towers))
        return tuple(pairs)

    @functools.cached_property
    def machine(self) -> Machine:
        """All layers and weights, whichever way they point."""
        layers = dict(self.visible)
        for level in range(max(len(w) for w in self.widths.values())):
            for name, widths in self.widths.items():
                if level < len(widths):
                    layers[f"{name}{level + 1}"] = Layer("bernoulli", widths[level])
        if self.joint:
            layers[JOINT] = Layer("bernoulli", self.joint)
        edges = tuple(edge for level in self.levels for edge in level)
        return Machine(layers, edges)

    @functools.cached_property
    def directed(self) -> Machine:
        """The weights that point down; none in a DBM."""
        edges = tuple(e for level in self.levels[:-1] for e in level)
        return self.machine.part(edges if self.directed_below else ())

    @functools.cached_property
    def top(self) -> Machine:
        """What has an energy: all of a DBM, the topmost RBM of a DBN."""
        edges = self.levels[-1] if self.directed_below else self.machine.edges
        return self.machine.part(edges)

    @functools.cached_property
    def stages(self) -> tuple[Machine, ...]:
        """The RBM of each level as greedy pretraining has it."""
        doubled = () if self.directed_below else boltzmann.between(self.machine)
        return tuple(self.machine.part(level, doubled) for level in self.levels)

    def entry(self, name: str) -> str:
        """The layer by which a modality enters `top`."""
        if not self.directed_below:
            return name
        return self.tower(name)[-1 if self.joint else -2]

    @property
    def features(self) -> str:
        """The topmost layer."""
        return self.levels[-1][0][1]

    def init(self, key: jax.Array, *, scale: float) -> PyTree:
        """Small random weights; those that point up equal those that point down."""
        params = boltzmann.init(self.machine, key, scale=scale)
        if not self.directed.edges:
            return params
        up: dict[str, Any] = {"bias": {}, "weight": {}}
        for a, b in self.directed.edges:
            up["bias"][b] = params["bias"][b]
            up["weight"][a] = {b: params["weight"][a][b]}
        return params | {"up": jax.tree.map(jnp.copy, up)}

    def rates(self, known: States) -> States:
        """Starting means of the layers whose means annealing starts from."""
        entries = {self.entry(name): name for name in self.visible}
        half = {
            n: jnp.full(self.machine.layers[n].units, 0.5)
            for n in entries
            if n not in known
        }
        return {**known, **half}

    def rate_bias(self, name: str, rate_d: jax.Array) -> jax.Array:
        """The bias of a layer with these means, kept away from 0 and 1."""
        layer = self.machine.layers[name]
        if layer.kind == "gaussian":
            return rate_d
        if layer.kind == "softmax":
            return jnp.log(rate_d / layer.words + 0.01 / layer.units)
        safe_d = jnp.clip(rate_d, 0.01, 0.99)
        return jnp.log(safe_d) - jnp.log1p(-safe_d)

    def upward(
        self, params: PyTree, visible: States, trusted: States, rates: States
    ) -> dict[str, jax.Array]:
        """Means of all layers by one pass upwards, as pretraining infers them.

        Rows that are not `trusted` (bool (b,) by modality) take the means in `rates`.
        """
        for name, row_b in trusted.items():
            x_bd = jnp.where(row_b[:, None], visible[name], rates[name])
            visible = {**visible, name: x_bd}
        doubled = () if self.directed_below else boltzmann.between(self.machine)
        rule = self.machine.part(self.machine.edges, doubled)
        return boltzmann.upward(rule, self.recognition(params), visible)

    def rebuilt(self, params: PyTree, means: States) -> dict[str, jax.Array]:
        """Means of the visible layers given those of `top`, downwards."""
        states = dict(means)
        for a, b in reversed(self.directed.edges):
            states |= self._one(params, {b: states[b]}, a, None)
        states |= boltzmann.means(self.top, params, states, self._within({}))
        return {name: states[name] for name in self.visible}

    def recognition(self, params: PyTree) -> PyTree:
        """Parameters by which states are inferred from those below."""
        up = params.get("up", {"bias": {}, "weight": {}})
        return {
            "bias": {**params["bias"], **up["bias"]},
            "weight": {**params["weight"], **up["weight"]},
        }

    def infer(
        self, params: PyTree, visible: States, keys: jax.Array | None = None
    ) -> dict[str, jax.Array]:
        """Visible states and those of the layers below `top`, from the bottom up.

        keys: one a row, for samples; None gives means.
        """
        rule, states = self.recognition(params), dict(visible)
        uniform = self._noise(keys)
        for a, b in self.directed.edges:
            if a in states:
                states |= self._one(rule, {a: states[a]}, b, uniform)
        return states

    def generate(
        self, params: PyTree, states: States, keys: jax.Array
    ) -> dict[str, jax.Array]:
        """Samples of the layers below `top` given its states; means of visible ones."""
        states, uniform = dict(states), self._noise(keys)
        for a, b in reversed(self.directed.edges):
            own = None if a in self.visible else uniform
            states |= self._one(params, {b: states[b]}, a, own)
        return states

    def _noise(self, keys: jax.Array | None) -> States | None:
        hidden = self.directed.hidden(self.visible)
        if keys is None or not hidden:
            return None
        return boltzmann.noise(self.machine, keys, hidden)

    def _one(
        self, params: PyTree, given: States, name: str, uniform: States | None
    ) -> States:
        if uniform is None:
            return boltzmann.means(self.directed, params, given, [name])
        return boltzmann.draws(self.directed, params, given, [name], uniform)

    def surprise(
        self, params: PyTree, states: States, *, up: bool
    ) -> jax.Array | float:
        """(b,) -ln p of directed layers given those above, or, `up`, those below."""
        rule, total = self.recognition(params) if up else params, 0.0
        for a, b in self.directed.edges:
            given, name = (a, b) if up else (b, a)
            layer, x = self.machine.layers[name], states[name]
            theta = boltzmann.inputs(self.directed, rule, {given: states[given]}, name)
            total = total + boltzmann.log_partition(layer, theta) - (x * theta).sum(-1)
            if layer.kind == "gaussian":
                total = total + 0.5 * jnp.square(x).sum(-1)
        return total

    def posterior(
        self,
        params: PyTree,
        visible: States,
        *,
        sweeps: int,
        keys: jax.Array | None = None,
        trusted: Mapping[str, jax.Array] | None = None,
    ) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
        """(states below `top` and visible ones, means of all layers of `top`).

        trusted: bool (b,) by modality: rows that have it; see `boltzmann.mean_field`.
        """
        below = self.infer(params, visible, keys)
        known = {n: below[n] for n in self._entered(visible)}
        trusted = {self.entry(n): row_b for n, row_b in (trusted or {}).items()}
        means = boltzmann.mean_field(
            self.top, params, known, sweeps=sweeps, trusted=trusted
        )
        return below, means

    def _entered(self, visible: States) -> list[str]:
        return [self.entry(name) for name in self.visible if name in visible]

    def bound(
        self, params: PyTree, visible: States, keys: jax.Array, *, sweeps: int
    ) -> jax.Array:
        """(b,) lower bound of ln p(visible) + ln Z of `top`; exact for an RBM.

        Of a DBN it is an estimate by one sample of the layers below `top`: ln p(v | h)
        + ln p*(h) - ln q(h | v).
        """
        below = self.infer(params, visible, keys)
        known = {n: below[n] for n in self._entered(visible)}
        score = boltzmann.bound(self.top, params, known, sweeps=sweeps)
        score = score - self.surprise(params, below, up=False)
        return score + self.surprise(params, below, up=True)

    def sample(
        self, params: PyTree, known: States, keys: jax.Array, *, sweeps: int
    ) -> dict[str, jax.Array]:
        """Means of the visible layers that are not `known`, after Gibbs sampling.

        Known ones are clamped; a DBN clamps the layers by which they enter `top`.
        """
        start, chain, down = (boltzmann.fold_in(keys, i) for i in range(3))
        below = self.infer(params, known, start)
        clamped = {n: below[n] for n in self._entered(known)}
        blank = jax.tree.map(jnp.zeros_like, params)
        empty = [n for n in self.top.colours[1] if n not in clamped]
        uniform = boltzmann.noise(self.top, start, empty)
        states = boltzmann.draws(self.top, blank, {}, empty, uniform) | clamped
        states = boltzmann.gibbs(
            self.top, params, states, chain, sweeps=sweeps, clamped=tuple(clamped)
        )
        out = self.generate(params, states, down)
        out |= boltzmann.means(self.top, params, states, self._within(known))
        return {n: out[n] for n in self.visible if n not in known}

    def _within(self, known: States) -> list[str]:
        """Visible layers of `top` that are not known."""
        joined = {*self.top.colours[0], *self.top.colours[1]}
        return [n for n in self.visible if n in joined and n not in known]
