"""A coordinated space of views: an encoder each, and rows that belong together near.

DeViSE (Frome et al. 2013) is an image and the fixed word vector of its label, by the
hinge rank loss. With views that some records lack, one view bridges the others: images
have English captions, English captions have German ones, and German captions then find
images (Rajendran et al. 2016).

Legend: b rows, d width of the space.
"""

import dataclasses
import functools
import itertools
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp

from mmjax import schema
from mmjax.errors import UserError
from mmjax.losses import contrastive
from mmjax.losses import coordinated as losses
from mmjax.models import multi_view
from mmjax.state import Ctx, Vars
from mmjax.tasks import base

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Task:
    """Fields are `config.task`.

    views: names of the fields, two or more; fields may be optional.
    width: columns of the space.
    encoder, encoders: as those of the task cca; kind "fixed" takes a view's `width`
      numbers as they are.
    links: pairs of views that are brought together, (a, b); empty is all pairs.
    objective: "info_nce", or "hinge_rank" of a link's first view towards its second.
    scale: of info_nce, the inverse temperature. margin: of hinge_rank.
    both: of hinge_rank, whether the second view also ranks the first.
    """

    couples_rows = True

    width: int
    views: tuple[str, ...] = ("view_a", "view_b")
    encoder: dict = dataclasses.field(default_factory=dict)
    encoders: dict = dataclasses.field(default_factory=dict)
    links: tuple[tuple[str, str], ...] = ()
    objective: Literal["info_nce", "hinge_rank"] = "info_nce"
    scale: float = 10.0
    margin: float = 0.1
    both: bool = False

    def __post_init__(self) -> None:
        if len(set(self.views)) < 2 or len(set(self.views)) < len(self.views):
            raise ValueError(f"views are {self.views}: name two fields or more")
        for view in (*self.encoders, *itertools.chain(*self.links)):
            if view not in self.views:
                hint = schema.suggest(view, self.views)
                raise ValueError(f"encoders and links have {view!r}, no view{hint}")
        base.positive(self, "scale", "margin")
        if set(self._fixed) >= set(self.views):
            raise ValueError("every view is fixed: give one an encoder that learns")

    @property
    def reads(self) -> tuple[str, ...]:
        """See mmjax.tasks.base.Task."""
        return tuple(self.views)

    @property
    def _fixed(self) -> tuple[str, ...]:
        return tuple(
            view for view, own in self.encoders.items() if own.get("kind") == "fixed"
        )

    @functools.cached_property
    def model(self) -> multi_view.MultiView:
        """The Linen module of the views that are not fixed."""
        learned = [view for view in self.views if view not in self._fixed]
        modules = multi_view.encoders(learned, self.encoder, self.encoders, self.width)
        return multi_view.MultiView(encoders=modules, decoded={})

    def check(self, spec: base.Spec) -> None:
        """See mmjax.tasks.base.Task."""
        multi_view.check_views(spec, self.views, self.model.encoders)
        for view in self._fixed:
            shape = tuple(spec[view]["shape"])
            if shape not in ((0,), (self.width,)):  # (0,) is not known yet
                raise UserError(
                    f"config.data.fields.{view} has shape {shape} and is fixed, and "
                    f"config.task.width is {self.width}: set it to {shape[0]}, or give "
                    "the view an encoder"
                )

    def init(self, key: jax.Array, batch: base.Batch) -> Vars:
        """See mmjax.tasks.base.Task."""
        return base.split(self.model.init(key, multi_view.numbers(batch, self.views)))

    def _codes(self, variables: Vars, batch: base.Batch) -> dict[str, jax.Array]:
        rows = multi_view.numbers(batch, self.views)
        learned = self.model.apply({"params": variables.params}, rows, method="encode")
        rows = rows | learned
        return {view: contrastive.l2_normalize(rows[view]) for view in self.views}

    def embed(
        self, variables: Vars, batch: base.Batch, ctx: Ctx
    ) -> tuple[dict[str, jax.Array], PyTree]:
        """Unit rows (b, d) of every view, and the extra."""
        return self._codes(variables, batch), variables.extra

    def loss_of(
        self,
        variables: Vars,
        embedded: Mapping[str, jax.Array],
        batch: base.Batch,
        ctx: Ctx,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The sum of all links' losses, and each by its name."""
        codes = ctx.gather(dict(embedded))
        everyone_b = jnp.ones(len(next(iter(codes.values()))), bool)
        present = {
            view: ctx.gather(batch[f"{view}_present"])
            if f"{view}_present" in batch
            else everyone_b
            for view in self.views
        }
        metrics = {}
        for a, b in self.links or itertools.combinations(self.views, 2):
            both_b = present[a] & present[b]
            pair = codes[a], codes[b]
            if self.objective == "info_nce":
                loss = losses.info_nce(*pair, both_b, self.scale)
            else:
                loss = losses.hinge_rank(*pair, both_b, self.margin)
                if self.both:
                    loss += losses.hinge_rank(*pair[::-1], both_b, self.margin)
            metrics[f"{a}_{b}"] = loss
        return sum(metrics.values()), metrics

    loss = base.embedded_loss

    def predict(self) -> Mapping[str, base.Predict]:
        """codes: unit rows (b, d) by view; views: the inputs (b, e).

        Both also give NAME_present, bool (b,), of views that records may lack.
        """

        def given(batch: base.Batch) -> dict[str, jax.Array]:
            keys = (f"{view}_present" for view in self.views)
            return {key: batch[key] for key in keys if key in batch}

        def codes(variables: Vars, batch: base.Batch, ctx: Ctx) -> PyTree:
            return self._codes(variables, batch) | given(batch)

        def views(variables: Vars, batch: base.Batch, ctx: Ctx) -> PyTree:
            rows = multi_view.numbers(batch, self.views)
            return multi_view.flat(rows) | given(batch)

        return {"codes": codes, "views": views, "loss": base.evaluated(self)}
