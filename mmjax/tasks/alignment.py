"""Learned alignment in time: two towers that bring frames of two series together.

Legend: b rows, n and m frames of the first and second series, d embedding.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from mmjax import alignment, schema
from mmjax.errors import UserError
from mmjax.losses import alignment as losses
from mmjax.models.frame_tower import FrameTower, FrameTowers
from mmjax.state import Ctx, Vars
from mmjax.tasks import base

PyTree = Any
NAMES = ("first", "second")


@dataclasses.dataclass(frozen=True)
class Task:
    """Fields are `config.task`.

    embed_dim: columns of the common space, in which frames have length 1.
    first, second: width, depth and reach of each tower, see `FrameTower`.
    loss_name: "tcc", temporal cycle consistency (Dwibedi et al. 2019), or "soft_dtw":
      softplus of how much less the soft-DTW of a pair (Cuturi and Blondel 2017) is than
      that of its first series with the next row's second, per frame; or "clock", where
      series come with a `truth` such as a common clock: cross-entropy of each frame's
      neighbour. The first two need no truth, and tcc has none of direction: where views
      are unlike, backwards is as consistent as forwards.
    temperature: of tcc's and clock's softmaxes over squared distances, 0 to 4.
    spread: weight of the log of tcc's standard deviation; 0.001 in the paper.
    gamma: of soft-DTW, in squared distances.
    margin: by which "soft_dtw" wants a pair to be nearer, in squared distances a frame.
    """

    couples_rows = True
    reads = (*NAMES, "truth?")

    embed_dim: int = 32
    first: dict = dataclasses.field(default_factory=dict)
    second: dict = dataclasses.field(default_factory=dict)
    loss_name: str = "tcc"
    temperature: float = 0.1
    spread: float = 0.001
    gamma: float = 0.1
    margin: float = 0.2

    def __post_init__(self) -> None:
        if self.loss_name not in ("tcc", "soft_dtw", "clock"):
            raise ValueError(
                f"loss_name is {self.loss_name!r}: use tcc, soft_dtw or clock"
            )
        base.positive(self, "embed_dim", "temperature", "gamma")
        if self.spread < 0 or self.margin < 0:
            values = f"spread is {self.spread} and margin {self.margin}"
            raise ValueError(f"{values}: use 0 or more")

    @functools.cached_property
    def model(self) -> FrameTowers:
        """The Linen module, a pure function of the fields."""
        built = {}
        for name in NAMES:
            keys = {"embed_dim": self.embed_dim, **getattr(self, name)}
            built[name] = schema.from_mapping(FrameTower, keys, f"config.task.{name}")
        return FrameTowers(**built)

    def check(self, spec: base.Spec) -> None:
        """See mmjax.tasks.base.Task."""
        for name in NAMES:
            shape = spec[name]["shape"]
            if len(shape) != 2 or shape[0] < 3:
                raise UserError(
                    f"config.data.fields.{name} has rows of {shape}: give a kind with "
                    "(frames, columns) and 3 frames or more, such as sequence"
                )
        if self.loss_name == "clock" and "truth" not in spec:
            raise UserError(
                "config.task.loss_name is clock, and the data have no truth: add the "
                "field truth, or use tcc or soft_dtw"
            )

    def init(self, key: jax.Array, batch: base.Batch) -> Vars:
        """See mmjax.tasks.base.Task."""
        return base.split(self.model.init(key, *self._inputs(batch)))

    def _inputs(self, batch: base.Batch) -> list[jax.Array]:
        return [batch[key] for name in NAMES for key in (name, f"{name}_mask")]

    def _embed(self, variables: Vars, batch: base.Batch) -> dict[str, jax.Array]:
        rows = self.model.apply({"params": variables.params}, *self._inputs(batch))
        return dict(zip(NAMES, rows, strict=True))

    def embed(
        self, variables: Vars, batch: base.Batch, ctx: Ctx
    ) -> tuple[dict[str, jax.Array], PyTree]:
        """Unit frames (b, n, d) and (b, m, d), and the extra as it is."""
        return self._embed(variables, batch), variables.extra

    def loss_of(
        self,
        variables: Vars,
        embedded: Mapping[str, jax.Array],
        batch: base.Batch,
        ctx: Ctx,
    ) -> tuple[jax.Array, base.Metrics]:
        """The mean over rows, and metrics."""
        x_bnd, y_bmd = (embedded[name] for name in NAMES)
        n_mask_bn, m_mask_bm = (batch[f"{name}_mask"] for name in NAMES)
        if self.loss_name == "tcc":
            how = {"temperature": self.temperature, "spread": self.spread}
            one = losses.cycle_back(x_bnd, y_bmd, n_mask_bn, m_mask_bm, **how)
            two = losses.cycle_back(y_bmd, x_bnd, m_mask_bm, n_mask_bn, **how)
            loss_b, error_b = (0.5 * (a + b) for a, b in zip(one, two, strict=True))
            return loss_b.mean(), {"cycle_error": error_b.mean()}
        if self.loss_name == "clock":
            loss_b, error_b = losses.at_truth(
                *(x_bnd, y_bmd, n_mask_bn, m_mask_bm, batch["truth"][..., 0]),
                temperature=self.temperature,
            )
            return loss_b.mean(), {"frame_error": error_b.mean()}

        def apart(y_bmd: jax.Array, m_mask_bm: jax.Array) -> jax.Array:
            n_b, m_b = (jnp.maximum(k.sum(1), 1) for k in (n_mask_bn, m_mask_bm))
            value_b = alignment.soft_dtw(x_bnd, y_bmd, n_b, m_b, gamma=self.gamma)
            return value_b / jnp.maximum(n_b, m_b)

        others = ctx.gather((y_bmd, m_mask_bm))
        others = ctx.mine(jax.tree.map(lambda x: jnp.roll(x, -1, axis=0), others))
        gap_b = apart(*others) - apart(y_bmd, m_mask_bm)
        nearer_b = (gap_b > 0).astype(jnp.float32)
        loss_b = jax.nn.softplus((self.margin - gap_b) / self.gamma)
        return loss_b.mean(), {"nearer": nearer_b.mean()}

    loss = base.embedded_loss

    def predict(self) -> Mapping[str, base.Predict]:
        """frames: {first (b, n, d), second (b, m, d)}, unit frames; and loss."""

        def frames(variables: Vars, batch: base.Batch, ctx: Ctx) -> dict:
            return self._embed(variables, batch)

        return {"frames": frames, "loss": base.evaluated(self)}
