"""Boltzmann machines over any fields: RBM, DBM, DBN and their multimodal forms.

    pathways = dict(image=dict(visible="bernoulli", units=784, widths=(500,)))

is an RBM; two widths make a DBM or DBN, and `joint` a layer over several pathways
(Srivastava and Salakhutdinov 2012). Gradients are contrastive divergence's: statistics
given the data minus those of Gibbs chains, through the loop's `grads`.

Legend: b rows, c chains, d units of a layer, t inverse temperatures, p k candidates.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp

from mmjax import schema
from mmjax.errors import UserError
from mmjax.models import boltzmann, pathway
from mmjax.models.belief import Stack
from mmjax.models.boltzmann import Machine, States
from mmjax.models.pathway import Pathway
from mmjax.sampling import candidates
from mmjax.state import Ctx, Vars
from mmjax.tasks import base

PyTree = Any
_RATE = 0.001  # least weight of a batch in the running means of layers


@dataclasses.dataclass(frozen=True)
class Sampling:
    """sweeps: of Gibbs sampling, before the means of what is not given are taken."""

    sweeps: int = 200

    def __post_init__(self) -> None:
        schema.at_least(1, self, "sweeps")


@dataclasses.dataclass(frozen=True)
class Task:
    """Fields are `config.task`.

    pathways: by the field's name, see `mmjax.models.pathway.Pathway`.
    joint: width of the layer over all pathways; 0 is none, for one pathway alone.
    kind: "dbm" (all weights are undirected; with one layer an RBM) or "dbn".
    pretrain: steps of greedy training of each level's RBM, one after the other; 0
      trains the whole from the start. Use an optimizer without momentum over levels:
      what momentum is left moves a level after its turn.
    persistent: whether chains go on from step to step (PCD, Tieleman 2008) or begin at
      the data (CD).
    chains: how many persistent ones.
    sweeps: of Gibbs sampling a step, k of CD-k.
    moved: whether every device moves its share of the chains ("split") or all of them
      ("all"), without communication. The numbers are the same.
    mean_field: sweeps of a DBM's posterior.
    fast: learning rate of fast weights (Tieleman and Hinton 2009); 0 has none.
      fast_decay: what remains of them after a step.
    sparsity: weight of the distance of hidden units' mean activity to `target`
      (Hinton 2010, 11); activity is averaged with `decay`.
    scale: standard deviation of initial weights.
    """

    couples_rows = False
    init_rows = 512

    pathways: dict
    joint: int = 0
    kind: Literal["dbm", "dbn"] = "dbm"
    pretrain: int = 0
    persistent: bool = True
    chains: int = 100
    sweeps: int = 1
    moved: Literal["split", "all"] = "split"
    mean_field: int = 10
    fast: float = 0.0
    fast_decay: float = 0.95
    sparsity: float = 0.0
    target: float = 0.1
    decay: float = 0.9
    scale: float = 0.01
    sampling: Sampling = Sampling()

    def __post_init__(self) -> None:
        base.positive(self, "chains", "sweeps", "scale")
        schema.under(1, self, "fast_decay", "decay", "target")
        directed = self.model.directed.edges
        for name, part in self.parts.items():
            if part.missing == "infer" and directed:
                raise ValueError(
                    f"pathways.{name}.missing is 'infer' and kind 'dbn': set missing "
                    "to 'zeros', or kind to 'dbm'"
                )
        if self.pretrain and len(self.model.levels) == 1:
            raise ValueError(
                f"pretrain is {self.pretrain}, and an RBM has one level: set it to 0"
            )

    @functools.cached_property
    def parts(self) -> dict[str, Pathway]:
        """Pathways by the name of their field."""
        return pathway.build(self.pathways)

    @functools.cached_property
    def model(self) -> Stack:
        """The machine, a pure function of the fields."""
        return Stack(
            {name: part.layer() for name, part in self.parts.items()},
            {name: part.widths for name, part in self.parts.items()},
            self.joint,
            self.kind == "dbn",
        )

    @property
    def reads(self) -> tuple[str, ...]:
        """See mmjax.tasks.base.Task."""
        return tuple(self.pathways)

    def check(self, spec: base.Spec) -> None:
        """See mmjax.tasks.base.Task."""
        for name, part in self.parts.items():
            part.check(name, spec)

    def visible(self, batch: base.Batch, keys: jax.Array) -> dict[str, jax.Array]:
        """States of the visible layers that the batch has fields of; keys (b,)."""
        return {
            name: part.states(batch, name, boltzmann.fold_in(keys, number))
            for number, (name, part) in enumerate(self.parts.items())
            if name in batch
        }

    def _trusted(self, batch: base.Batch) -> dict[str, jax.Array]:
        return {
            name: batch[f"{name}_present"]
            for name, part in self.parts.items()
            if part.missing == "infer" and f"{name}_present" in batch
        }

    def _keys(self, ctx: Ctx, purpose: int, rows: int) -> jax.Array:
        """A key a row of the batch, others for every purpose."""
        rng = jax.random.fold_in(ctx.rng, purpose)
        return ctx.replace(rng=rng).example_keys(rows)

    def init(self, key: jax.Array, batch: base.Batch) -> Vars:
        """Visible biases are those of the first rows' means (Hinton 2010, 8.1)."""
        weights, chains, bits = jax.random.split(key, 3)
        params = self.model.init(weights, scale=self.scale)
        blank = jax.tree.map(jnp.zeros_like, params)
        bits = jax.random.split(bits, len(batch[self.reads[0]]))
        visible = self.visible(batch, bits)
        rates = self.model.rates({n: x.mean(0) for n, x in visible.items()})
        params["bias"] |= {n: self.model.rate_bias(n, rates[n]) for n in visible}
        extra: dict[str, PyTree] = {"rates": rates}
        if self.persistent:
            keys, machine = jax.random.split(chains, self.chains), self.model.machine
            names = machine.colours[1]
            uniform = boltzmann.noise(machine, keys, names)
            extra["chains"] = boltzmann.draws(machine, blank, {}, names, uniform)
        if self.fast:
            extra["fast"] = blank
        if self.sparsity:
            hidden = self.model.machine.hidden(visible)
            extra["activity"] = {
                n: jnp.full_like(params["bias"][n], self.target) for n in hidden
            }
        return Vars(params, extra)

    def grads(
        self, variables: Vars, batch: base.Batch, ctx: Ctx
    ) -> tuple[PyTree, PyTree, base.Metrics]:
        """See mmjax.tasks.base.Task; `loss` is the energy of data less that of chains.

        It has no least value: the chains follow the model.
        """
        visible, trusted = self._given(batch, ctx), self._trusted(batch)
        if not self.pretrain:
            return self._whole(variables, visible, trusted, ctx)
        count = len(self.model.levels)
        turn = jnp.minimum(ctx.step // self.pretrain, count)
        branches = [functools.partial(self._level, i) for i in range(count)]
        branches.append(self._whole)
        return jax.lax.switch(turn, branches, variables, visible, trusted, ctx)

    def _level(
        self, number: int, variables: Vars, visible: States, trusted: States, ctx: Ctx
    ) -> tuple:
        """Greedy training: the RBM of a level, on means from below."""
        machine, params = self.model.stages[number], variables.params
        rates = variables.extra["rates"]
        known = self.model.upward(params, visible, trusted, rates)
        joined = {*machine.colours[0], *machine.colours[1]}
        data = {n: known[n] for n in known if n in joined}
        chain, _, extra = self._move(machine, variables, data, ctx)
        grads, extra, metrics = self._learn(machine, params, data, chain, extra, ctx)
        if "up" in grads:  # what points up stays equal to what points down
            for a, b in self.model.levels[number]:
                if a in grads["up"]["weight"]:
                    grads["up"]["weight"][a] = {b: grads["weight"][a][b]}
                    grads["up"]["bias"][b] = grads["bias"][b]
        return grads, self._averaged(extra, known, ctx), metrics

    def _whole(
        self, variables: Vars, visible: States, trusted: States, ctx: Ctx
    ) -> tuple:
        """All layers: mean field and Gibbs, and above directed layers up-down."""
        stack, params = self.model, variables.params
        keys = self._keys(ctx, 1, len(visible[self.reads[0]]))
        below, data = stack.posterior(
            params, visible, sweeps=self.mean_field, keys=keys, trusted=trusted
        )
        chain, drawn, extra = self._move(stack.top, variables, data, ctx)
        keys = self._keys(self._chain_ctx(ctx), 3, len(drawn[stack.features]))
        dreams = stack.generate(params, drawn, keys)

        def more(params: PyTree) -> jax.Array:
            wake = jnp.mean(stack.surprise(params, below, up=False))
            return wake + jnp.mean(stack.surprise(params, dreams, up=True))

        grads, extra, metrics = self._learn(
            stack.top, params, data, chain, extra, ctx, more
        )
        return grads, self._averaged(extra, below | data, ctx), metrics

    def _given(self, batch: base.Batch, ctx: Ctx) -> dict[str, jax.Array]:
        missing = [name for name in self.reads if name not in batch]
        if missing:
            raise UserError(f"the records have no {missing[0]}, which the task reads")
        return self.visible(batch, self._keys(ctx, 0, len(batch[self.reads[0]])))

    def _chain_ctx(self, ctx: Ctx) -> Ctx:
        """By which the chains that this device moves are numbered."""
        alike = self.persistent and self.moved == "all"
        return ctx.replace(axis=None) if alike else ctx

    def _move(
        self, machine: Machine, variables: Vars, data: States, ctx: Ctx
    ) -> tuple[States, States, dict[str, PyTree]]:
        """Chains after Gibbs sampling of a machine.

        Returns their states with means of the second colour, their states, new extra.
        """
        params, extra, own = variables.params, dict(variables.extra), ctx
        if self.fast:
            params = jax.tree.map(jnp.add, params, extra["fast"])
        first, second = machine.colours
        if self.persistent:
            own = self._chain_ctx(ctx)
            try:
                states = own.mine({n: extra["chains"][n] for n in second})
            except UserError as error:
                raise UserError(f"config.task.chains: {error}") from error
            keys = self._keys(own, 2, len(states[second[0]]))
        else:
            keys = self._keys(ctx, 2, len(data[first[0]]))
            given = {n: data[n] for n in first}
            begin = boltzmann.fold_in(keys, self.sweeps)
            uniform = boltzmann.noise(machine, begin, second)
            states = boltzmann.draws(machine, params, given, second, uniform)
        drawn = boltzmann.gibbs(machine, params, states, keys, sweeps=self.sweeps)
        chain = drawn | boltzmann.means(machine, params, drawn, second)
        if self.persistent:
            moved = {n: own.gather(drawn[n]) for n in second}
            extra["chains"] = extra["chains"] | moved
        return chain, drawn, extra

    def _learn(
        self,
        machine: Machine,
        params: PyTree,
        data: States,
        chain: States,
        extra: dict[str, PyTree],
        ctx: Ctx,
        more: Callable[[PyTree], jax.Array] = lambda params: 0.0,
    ) -> tuple[PyTree, dict[str, PyTree], base.Metrics]:
        """(gradients, new extra, metrics): energy of the data less that of chains.

        Both are of states that do not follow the parameters. `more` is added to it.
        """
        far = {}
        if self.sparsity:
            names = [n for n in extra["activity"] if n in data]
            now = {n: ctx.mean(data[n].mean(0)) for n in names}
            old = extra["activity"]
            new = {n: old[n] + (1 - self.decay) * (now[n] - old[n]) for n in names}
            extra["activity"] = old | new
            far = {n: new[n] - self.target for n in names}

        def objective(params: PyTree) -> tuple[jax.Array, tuple]:
            of_data = boltzmann.free_energy(machine, params, data).mean()
            of_chain = boltzmann.free_energy(machine, params, chain).mean()
            total = of_data - of_chain + more(params)
            for name, far_d in far.items():
                theta_bd = boltzmann.inputs(machine, params, data, name)
                total += self.sparsity * (far_d * theta_bd.mean(0)).sum()
            return total, (of_data, of_chain)

        value, grads = jax.value_and_grad(objective, has_aux=True)(params)
        loss, (of_data, of_chain) = value
        if self.fast:
            extra["fast"] = jax.tree.map(
                lambda f, g: self.fast_decay * f - self.fast * g, extra["fast"], grads
            )
        return grads, extra, dict(loss=loss, data_energy=of_data, chain_energy=of_chain)

    def _averaged(self, extra: dict[str, PyTree], states: States, ctx: Ctx) -> PyTree:
        """`extra` with running means of the layers that annealing starts from."""
        weight = jnp.maximum(1.0 / (1.0 + ctx.step), _RATE)
        rates = {
            n: old + weight * (states[n].mean(0) - old)
            for n, old in extra["rates"].items()
        }
        return extra | {"rates": rates}

    def predict(self) -> Mapping[str, base.Predict]:
        """loss, features (b, d), log_score (b,), log_partition (p,), sample, filters.

        log_score: {fields} to a lower bound of ln p(row) + ln Z, exact for an RBM.
        log_partition: {seed uint32 (p,), betas (p, t)} to ln weights of annealed runs.
        sample: {any fields, seed, candidate (p, k)} to the means of the other fields,
          (p, k, d), of an image uint8 (p, k, s, s, 3).
        filters: {unit int (p,)} to image (p, s, s, 3) of weights, grey where 0.
        """
        return {
            "loss": self._reconstruction,
            "features": self._features,
            "log_score": self._log_score,
            "log_partition": self._log_partition,
            "sample": self._sample,
            "filters": self._filters,
        }

    def _inferred(self, variables: Vars, batch: base.Batch, ctx: Ctx) -> tuple:
        rows = len(next(batch[name] for name in self.reads if name in batch))
        visible = self.visible(batch, self._keys(ctx, 0, rows))
        _, means = self.model.posterior(
            variables.params,
            visible,
            sweeps=self.mean_field,
            trusted=self._trusted(batch),
        )
        return visible, means

    def _features(self, variables: Vars, batch: base.Batch, ctx: Ctx) -> jax.Array:
        """Means of the topmost layer; fields that the batch lacks are inferred."""
        return self._inferred(variables, batch, ctx)[1][self.model.features]

    def _reconstruction(
        self, variables: Vars, batch: base.Batch, ctx: Ctx
    ) -> base.Metrics:
        """Squared errors (b,) a unit of the visible layers given the posterior."""
        visible, means = self._inferred(variables, batch, ctx)
        rebuilt = self.model.rebuilt(variables.params, means)
        errors = {n: jnp.square(rebuilt[n] - visible[n]).mean(-1) for n in visible}
        return {"loss": sum(errors.values()) / len(errors), **errors}

    def _log_score(self, variables: Vars, batch: base.Batch, ctx: Ctx) -> jax.Array:
        visible = self._given(batch, ctx)
        keys = self._keys(ctx, 1, len(visible[self.reads[0]]))
        return self.model.bound(variables.params, visible, keys, sweeps=self.mean_field)

    def _log_partition(self, variables: Vars, batch: base.Batch, ctx: Ctx) -> jax.Array:
        machine, rates = self.model.top, variables.extra["rates"].items()
        bias = {n: self.model.rate_bias(n, rate_d) for n, rate_d in rates}
        start = boltzmann.base_rates(machine, variables.params, bias)
        keys = jax.vmap(jax.random.key)(batch["seed"])
        return boltzmann.annealed(
            machine, variables.params, start, keys, batch["betas"][0]
        )

    def _sample(self, variables: Vars, batch: base.Batch, ctx: Ctx) -> PyTree:
        p, k = batch["candidate"].shape
        keys = candidates.row_keys(batch["seed"], batch["candidate"])
        known = self.visible(batch, self._keys(ctx, 0, p))
        known = {n: jnp.repeat(x, k, axis=0) for n, x in known.items()}
        means = self.model.sample(
            variables.params, known, keys, sweeps=self.sampling.sweeps
        )
        out = {}
        for name, x in means.items():
            part = self.parts[name]
            x = base.eight_bit(part.image(x)) if part.channels else x
            out[name] = x.reshape(p, k, *x.shape[1:])
        return out

    def _filters(self, variables: Vars, batch: base.Batch, ctx: Ctx) -> PyTree:
        named = [n for n in self.reads if self.parts[n].channels]
        if not named:
            raise UserError("no pathway is of images, whose filters could be shown")
        (weight_du,) = variables.params["weight"][named[0]].values()
        return {"image": self.parts[named[0]].filters(weight_du, batch["unit"])}
