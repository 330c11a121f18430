"""The deep autoencoder of Ngiam et al. 2011: one code of several modalities.

Its network is a deep belief net unrolled: `up` weights code, `weight` ones rebuild, and
those of the joint layer do both. Parameters are `mmjax.models.belief`'s, so that a run
of the task boltzmann with kind "dbn" pretrains it: `--config.graft.params=RUN#params`.

Legend: b rows, d units of a layer.
"""

import dataclasses
import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from mmjax import schema
from mmjax.errors import UserError
from mmjax.models import boltzmann, pathway
from mmjax.models.belief import Stack
from mmjax.models.pathway import Pathway
from mmjax.state import Ctx, Vars
from mmjax.tasks import base


@dataclasses.dataclass(frozen=True)
class Task:
    """Fields are `config.task`.

    pathways: by the field's name, see `mmjax.models.pathway.Pathway`. Hidden units are
      sigmoids.
    joint: width of the layer over all pathways.
    inputs: what a training row is coded from, drawn for each row from these sets of
      fields; none is all together and each alone, the paper's thirds. One set of one
      field is its cross-modality learning. What is absent is zeros.
    targets: fields that are rebuilt, whatever is given; none is all.
    scale: standard deviation of initial weights, over 1 / sqrt(units below).
    """

    couples_rows = False
    init_rows = 512

    pathways: dict
    joint: int
    inputs: tuple[tuple[str, ...], ...] = ()
    targets: tuple[str, ...] = ()
    scale: float = 1.0

    def __post_init__(self) -> None:
        base.positive(self, "joint", "scale")
        for key, sets in (("inputs", self.inputs), ("targets", (self.targets,))):
            for name in (name for each in sets for name in each):
                if name not in self.pathways:
                    hint = schema.suggest(name, tuple(self.pathways))
                    raise ValueError(f"{key} has {name!r}, which is no pathway{hint}")
        if any(not given for given in self.inputs):
            raise ValueError(f"inputs is {self.inputs}: a set names one field or more")
        _ = self.model  # its numbers are checked here

    @functools.cached_property
    def parts(self) -> dict[str, Pathway]:
        """Pathways by the name of their field."""
        return pathway.build(self.pathways)

    @functools.cached_property
    def model(self) -> Stack:
        """The layers, a pure function of the fields."""
        deep = any(part.widths for part in self.parts.values())
        return Stack(
            {name: part.layer() for name, part in self.parts.items()},
            {name: part.widths for name, part in self.parts.items()},
            self.joint,
            directed_below=deep,
        )

    @property
    def reads(self) -> tuple[str, ...]:
        """See mmjax.tasks.base.Task."""
        return tuple(self.pathways)

    @property
    def ways(self) -> tuple[tuple[str, ...], ...]:
        """The sets of fields that training rows are coded from."""
        alone = tuple((name,) for name in self.reads)
        return self.inputs or ((self.reads, *alone) if len(alone) > 1 else alone)

    def check(self, spec: base.Spec) -> None:
        """See mmjax.tasks.base.Task."""
        for name, part in self.parts.items():
            part.check(name, spec)
            if part.missing == "infer":
                raise UserError(
                    f"config.task.pathways.{name}.missing is 'infer': what is absent "
                    "is zeros here; use 'zeros', or the task boltzmann"
                )

    def _visible(self, batch: base.Batch, ctx: Ctx) -> dict[str, jax.Array]:
        """States of the fields that the batch has."""
        rows = len(next(batch[name] for name in self.reads if name in batch))
        keys = ctx.example_keys(rows)
        return {
            name: part.states(batch, name, boltzmann.fold_in(keys, number))
            for number, (name, part) in enumerate(self.parts.items())
            if name in batch
        }

    def init(self, key: jax.Array, batch: base.Batch) -> Vars:
        """Visible biases are those of the first rows' means."""
        weights, bits = jax.random.split(key)
        params = self.model.init(weights, scale=self.scale)
        for tree in (params["weight"], params.get("up", {}).get("weight", {})):
            for lower in tree.values():
                lower.update({k: w / len(w) ** 0.5 for k, w in lower.items()})
        visible = self._visible(batch, Ctx(rng=bits, step=jnp.int32(0)))
        params["bias"] |= {
            n: self.model.rate_bias(n, x.mean(0)) for n, x in visible.items()
        }
        return Vars(params)

    def code(self, params: base.PyTree, given: Mapping[str, jax.Array]) -> jax.Array:
        """(b, joint) of visible states; those that are not given are zeros."""
        rows = len(next(iter(given.values())))
        blank = {
            name: jnp.zeros((rows, part.units))
            for name, part in self.parts.items()
            if name not in given
        }
        stack = self.model
        below = stack.infer(params, {**given, **blank})
        (joint,) = boltzmann.means(stack.top, params, below, [stack.features]).values()
        return joint

    def rebuilt(self, params: base.PyTree, code_bd: jax.Array) -> dict[str, jax.Array]:
        """Means of every visible layer (b, units) of a code."""
        stack, means = self.model, {self.model.features: code_bd}
        entries = [stack.entry(name) for name in self.reads]
        means |= boltzmann.means(stack.top, params, means, entries)
        return stack.rebuilt(params, means)

    def _errors(
        self, params: base.PyTree, given: Mapping, whole: Mapping, batch: base.Batch
    ) -> dict[str, jax.Array]:
        """Squared errors a unit (b,) of the targets; 0 of rows that lack the field."""
        rebuilt = self.rebuilt(params, self.code(params, given))
        return {
            name: jnp.square(rebuilt[name] - whole[name]).mean(-1)
            * batch.get(f"{name}_present", 1.0)
            for name in self.targets or self.reads
        }

    def loss(
        self, variables: Vars, batch: base.Batch, ctx: Ctx
    ) -> tuple[jax.Array, tuple[base.PyTree, base.Metrics]]:
        """Squared error of all targets, coded from a set of `ways` drawn a row.

        Metrics: the error of every target.
        """
        whole, ways = self._visible(batch, ctx), self.ways
        keys = ctx.example_keys(len(next(iter(whole.values()))))
        way_b = jax.vmap(
            lambda key: jax.random.randint(
                jax.random.fold_in(key, len(whole)), (), 0, len(ways)
            )
        )(keys)
        given = {}
        for name, x_bd in whole.items():
            kept = jnp.array([name in way for way in ways], jnp.float32)
            given[name] = x_bd * kept[way_b][:, None]
        errors = self._errors(variables.params, given, whole, batch)
        means = {name: error_b.mean() for name, error_b in errors.items()}
        return sum(means.values()), (variables.extra, means)

    def predict(self) -> Mapping[str, base.Predict]:
        """loss; codes: {any fields} to (b, joint); rebuilt and visible.

        rebuilt: {any fields} to (b, units) by field, of all fields; what is absent is
          zeros. visible: {fields} to the same, what `rebuilt` is to be.
        """

        def loss(variables: Vars, batch: base.Batch, ctx: Ctx) -> base.Metrics:
            whole = self._visible(batch, ctx)
            errors = self._errors(variables.params, whole, whole, batch)
            return {"loss": sum(errors.values()), **errors}

        def codes(variables: Vars, batch: base.Batch, ctx: Ctx) -> jax.Array:
            return self.code(variables.params, self._visible(batch, ctx))

        def rebuilt(variables: Vars, batch: base.Batch, ctx: Ctx) -> base.PyTree:
            code_bd = codes(variables, batch, ctx)
            return self.rebuilt(variables.params, code_bd)

        def visible(variables: Vars, batch: base.Batch, ctx: Ctx) -> base.PyTree:
            return self._visible(batch, ctx)

        return {"loss": loss, "codes": codes, "rebuilt": rebuilt, "visible": visible}
