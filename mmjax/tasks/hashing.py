"""Deep cross-modal hashing (DCMH; Jiang and Li 2017): two views, the same bits.

Legend: b rows, d columns of a view, k bits.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp

from mmjax import schema
from mmjax.losses import hashing as losses
from mmjax.models import multi_view
from mmjax.state import Ctx, Vars
from mmjax.tasks import base

PyTree = Any
BYTE = 8


@dataclasses.dataclass(frozen=True)
class Task:
    """Fields are `config.task`.

    bits: of a code, a multiple of 8.
    views: names of the two fields that are hashed.
    encoder, encoders: as those of the task cca.
    similar: which rows are similar: "label", those that share a class (of a field
      `label` or `labels`), or "pair", each row's two views alone.
    quantisation: weight of the outputs' squared distance from their common bits.
    balance: weight of the squared means of the outputs.
    """

    couples_rows = True

    bits: int
    views: tuple[str, ...] = ("view_a", "view_b")
    encoder: dict = dataclasses.field(default_factory=dict)
    encoders: dict = dataclasses.field(default_factory=dict)
    similar: Literal["label", "pair"] = "label"
    quantisation: float = 1.0
    balance: float = 1.0

    def __post_init__(self) -> None:
        if self.bits < BYTE or self.bits % BYTE:
            near = max(self.bits // BYTE * BYTE, BYTE)
            raise ValueError(
                f"bits is {self.bits}: codes fill bytes, use {near} or {near + BYTE}"
            )
        if len(set(self.views)) != 2 or len(self.views) != 2:
            raise ValueError(f"views are {self.views}: name two fields")
        for view in self.encoders:
            if view not in self.views:
                hint = schema.suggest(view, self.views)
                raise ValueError(f"encoders has {view!r}, which is no view{hint}")
        schema.at_least(0, self, "quantisation", "balance")

    @property
    def reads(self) -> tuple[str, ...]:
        """See mmjax.tasks.base.Task."""
        classes = ("label|labels",) if self.similar == "label" else ()
        return (*self.views, *classes)

    @functools.cached_property
    def model(self) -> multi_view.MultiView:
        """The Linen module, a pure function of the fields."""
        modules = multi_view.encoders(
            self.views, self.encoder, self.encoders, self.bits
        )
        return multi_view.MultiView(encoders=modules, decoded={})

    def check(self, spec: base.Spec) -> None:
        """See mmjax.tasks.base.Task."""
        multi_view.check_views(spec, self.views, self.model.encoders)

    def _views(self, batch: base.Batch) -> dict[str, jax.Array]:
        return multi_view.whole(batch, self.views, "hashing")

    def init(self, key: jax.Array, batch: base.Batch) -> Vars:
        """See mmjax.tasks.base.Task."""
        return base.split(self.model.init(key, self._views(batch)))

    def embed(
        self, variables: Vars, batch: base.Batch, ctx: Ctx
    ) -> tuple[dict[str, jax.Array], PyTree]:
        """Outputs (b, k) by view, whose signs are the bits; the extra."""
        codes, _ = self.model.apply({"params": variables.params}, self._views(batch))
        return codes, variables.extra

    def loss_of(
        self,
        variables: Vars,
        embedded: Mapping[str, jax.Array],
        batch: base.Batch,
        ctx: Ctx,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The loss of outputs, and its parts before weighting."""
        a_bk, b_bk = (ctx.gather(embedded[view]) for view in self.views)
        parts = {
            "likelihood": losses.pairwise_likelihood(
                a_bk, b_bk, self._similar(batch, len(a_bk), ctx)
            ),
            "quantisation": losses.quantisation(a_bk, b_bk),
            "imbalance": losses.imbalance(a_bk, b_bk),
        }
        loss = parts["likelihood"] + self.quantisation * parts["quantisation"]
        return loss + self.balance * parts["imbalance"], parts

    def _similar(self, batch: base.Batch, count: int, ctx: Ctx) -> jax.Array:
        """Which rows are similar, bool (b, b); without a class, to itself alone."""
        own_bb = jnp.eye(count, dtype=bool)
        if self.similar == "pair":
            return own_bb
        if "labels" in batch:
            class_bc = ctx.gather(batch["labels"]).astype(jnp.float32)
            return own_bb | (class_bc @ class_bc.T > 0)
        label_b = ctx.gather(batch["label"])
        return own_bb | ((label_b[:, None] == label_b) & (label_b >= 0))

    loss = base.embedded_loss

    def predict(self) -> Mapping[str, base.Predict]:
        """codes: outputs (b, k) by view; views: the inputs (b, d)."""

        def codes(variables: Vars, batch: base.Batch, ctx: Ctx) -> PyTree:
            params = {"params": variables.params}
            return self.model.apply(params, self._views(batch), method="encode")

        def views(variables: Vars, batch: base.Batch, ctx: Ctx) -> PyTree:
            return multi_view.flat(self._views(batch))

        return {"codes": codes, "views": views, "loss": base.evaluated(self)}
