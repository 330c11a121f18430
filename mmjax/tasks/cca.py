"""Deep CCA and its relatives: codes of two views or more that say the same.

Legend: b rows, d columns of a view, k columns of its code.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax

from mmjax import schema
from mmjax.losses import cca as losses
from mmjax.models import multi_view
from mmjax.state import Ctx, Vars
from mmjax.tasks import base

PyTree = Any
OBJECTIVES = ("dcca", "dccae", "corrae", "splitae", "denoise")
_CORRELATED = ("dcca", "dccae")


@dataclasses.dataclass(frozen=True)
class Task:
    """Fields are `config.task`.

    views: names of the fields that are views, two or more.
    width: columns of every code.
    encoder: of all views: `kind` "mlp" with `hidden`, `act`, `out_act`, or a tower of
      images; encoders: view -> keys that differ from it.
    objective: dcca (Andrew et al. 2013; of three views or more, Benton et al. 2017),
      dccae, corrae, splitae (Wang et al. 2015), or denoise, which pretrains encoders
      layer by layer for a run that takes them with `config.graft`.
    components: of dcca and dccae, how many correlations count; 0 is all.
    reg: on the diagonals of the covariances.
    reconstruction: of dccae and corrae, the weight of the squared error of all views.
    noise: of denoise, the standard deviation on the input of every layer.
    """

    couples_rows = True

    width: int
    views: tuple[str, ...] = ("view_a", "view_b")
    encoder: dict = dataclasses.field(default_factory=dict)
    encoders: dict = dataclasses.field(default_factory=dict)
    objective: str = "dcca"
    components: int = 0
    reg: float = 1e-4
    reconstruction: float = 0.0
    noise: float = 0.0

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            hint = schema.suggest(self.objective, OBJECTIVES)
            raise ValueError(
                f"objective is {self.objective!r}{hint}: use {' or '.join(OBJECTIVES)}"
            )
        if len(set(self.views)) < 2 or len(set(self.views)) < len(self.views):
            raise ValueError(f"views are {self.views}: name two fields or more")
        if self.objective == "corrae" and len(self.views) > 2:
            raise ValueError(
                f"objective is corrae and views are {self.views}: it is of two views, "
                "use dccae"
            )
        for view in self.encoders:
            if view not in self.views:
                hint = schema.suggest(view, self.views)
                raise ValueError(f"encoders has {view!r}, which is no view{hint}")
        schema.at_least(0, self, "reg", "reconstruction", "noise")
        for key, needed in (
            ("reconstruction", ("dccae", "corrae")),
            ("noise", ("denoise",)),
        ):
            wanted = self.objective in needed
            if wanted != (getattr(self, key) > 0):
                fix = "more than 0" if wanted else "0"
                raise ValueError(
                    f"{key} is {getattr(self, key)} and objective {self.objective!r}: "
                    f"set {key} to {fix}"
                )
        if self.components > self.width:
            raise ValueError(
                f"components is {self.components} and width {self.width}: use 1 to "
                f"{self.width}, or 0 for all"
            )
        if self.objective == "denoise":
            for view, module in self.model.encoders.items():
                if not isinstance(module, multi_view.Mlp):
                    raise ValueError(
                        f"objective is denoise, and the encoder of {view} is no mlp: "
                        "it pretrains dense layers"
                    )

    @property
    def reads(self) -> tuple[str, ...]:
        """See mmjax.tasks.base.Task."""
        return tuple(self.views)

    def _encoder(self, view: str) -> dict[str, Any]:
        """The keys of a view's encoder; one of another kind shares none."""
        own, kind = self.encoders.get(view, {}), self.encoder.get("kind", "mlp")
        return {**(self.encoder if own.get("kind", kind) == kind else {}), **own}

    @functools.cached_property
    def model(self) -> multi_view.MultiView:
        """The Linen module, a pure function of the fields."""
        given = {view: self._encoder(view) for view in self.views}
        coded = self.views[:1] if self.objective == "splitae" else self.views
        decoded = () if self.objective in ("dcca", "denoise") else self.views
        default = multi_view.Mlp.hidden
        return multi_view.MultiView(
            encoders={
                view: multi_view.encoder(
                    given[view], self.width, f"config.task.encoder of {view}"
                )
                for view in coded
            },
            decoded={
                view: tuple(given[view].get("hidden", default))[::-1]
                for view in decoded
            },
            act=self.encoder.get("act", "sigmoid"),
        )

    def check(self, spec: base.Spec) -> None:
        """See mmjax.tasks.base.Task."""
        multi_view.check_views(spec, self.views, self.model.encoders)

    def _views(self, batch: base.Batch) -> dict[str, jax.Array]:
        """Every view as float32; images in [0, 1]."""
        return multi_view.whole(batch, self.views, f"objective {self.objective!r}")

    def init(self, key: jax.Array, batch: base.Batch) -> Vars:
        """See mmjax.tasks.base.Task."""
        views = self._views(batch)
        if self.objective != "denoise":
            return base.split(self.model.init(key, views))
        keys_b = jax.random.split(key, len(next(iter(views.values()))))
        return base.split(self.model.init(key, views, keys_b, 0.0, method="denoise"))

    def embed(
        self, variables: Vars, batch: base.Batch, ctx: Ctx
    ) -> tuple[dict[str, PyTree], PyTree]:
        """Codes (b, k) by view and every row's squared error (b,); the extra."""
        views, how = self._views(batch), {}
        args = (views,)
        if self.objective == "denoise":
            how = {"method": "denoise"}
            rows = len(next(iter(views.values())))
            args += (ctx.example_keys(rows), self.noise)
        whole = {"params": variables.params, **variables.extra}
        codes, error_b = self.model.apply(whole, *args, **how)
        return {"codes": codes, "error": error_b}, variables.extra

    def loss_of(
        self,
        variables: Vars,
        embedded: Mapping[str, PyTree],
        batch: base.Batch,
        ctx: Ctx,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The loss of codes, and its parts before weighting."""
        error = embedded["error"].mean()
        if self.objective in ("splitae", "denoise"):
            return error, {}
        codes = list(ctx.gather(embedded["codes"]).values())
        if self.objective in _CORRELATED:
            correlation = losses.total_correlation(
                codes, k=self.components, reg=self.reg
            )
        else:
            correlation = losses.matched_correlation(*codes)
        metrics = {"correlation": correlation}
        if self.reconstruction:
            metrics["reconstruction"] = error
        return self.reconstruction * error - correlation, metrics

    loss = base.embedded_loss

    def predict(self) -> Mapping[str, base.Predict]:
        """codes: (b, k) by view that has an encoder; views: the inputs (b, d)."""

        def codes(variables: Vars, batch: base.Batch, ctx: Ctx) -> PyTree:
            params = {"params": variables.params}
            return self.model.apply(params, self._views(batch), method="encode")

        def views(variables: Vars, batch: base.Batch, ctx: Ctx) -> PyTree:
            return multi_view.flat(self._views(batch))

        return {"codes": codes, "views": views, "loss": base.evaluated(self)}
