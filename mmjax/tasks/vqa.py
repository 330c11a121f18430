"""Visual question answering as classification over answers (Antol et al. 2015).

Legend: b rows, n images of a row, h w pixels, l tokens, a answers.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from mmjax.errors import UserError
from mmjax.losses import tokens as losses
from mmjax.models import vqa
from mmjax.state import Ctx, Vars
from mmjax.tasks import base

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Task(base.Normalised):
    """Fields are `config.task`; the data have questions as `tokens`, answers as labels.

    answers: how many there are. A question whose answer is none of them (-1) counts as
      a row of loss 0, and is answered wrongly.
    image: the tower, `kind` "conv_pool" (easy-VQA's), "conv", "resnet" or "vit" and its
      fields. The field `image` is of kind image, or of kind video where rows have
      several images, whose order then has no part in the answer.
    question: the tower, `kind` "cbow" (bag of words), "lstm" or "transformer".
    join: "product" (elementwise), "concat" or "attention", see `models.vqa.Answerer`.
    width: of both projections and of the hidden layer.
    """

    couples_rows = False
    reads = ("image", "tokens", "label")

    answers: int
    image_size: int
    vocab_size: int
    context: int
    image: dict = dataclasses.field(default_factory=lambda: {"kind": "conv_pool"})
    question: dict = dataclasses.field(
        default_factory=lambda: {"kind": "cbow", "width": 32}
    )
    join: str = "product"
    width: int = 32
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.25, 0.25, 0.25)

    def __post_init__(self) -> None:
        if self.answers < 2:
            raise ValueError(f"answers is {self.answers}: give 2 or more")
        if self.join not in vqa.JOINS:
            raise ValueError(f"join is {self.join!r}: use {', '.join(vqa.JOINS)}")

    @functools.cached_property
    def model(self) -> vqa.Answerer:
        """The Linen module, a pure function of the fields."""
        names = ("answers", "image_size", "vocab_size", "context", "width", "join")
        numbers = {name: getattr(self, name) for name in names}
        return vqa.build(self.image, self.question, **numbers)

    def check(self, spec: base.Spec) -> None:
        """See mmjax.tasks.base.Task."""
        side = spec["image"]["shape"][-2]
        if side != self.image_size:
            raise UserError(
                f"config.data.fields.image.size is {side}, and the model takes images "
                f"of {self.image_size}: set config.task.image_size to {side}, or the "
                "field's size"
            )
        base.check_tower(spec, self.model.question)
        names = len(spec["label"].get("class_names", ()))
        if names > self.answers:
            raise UserError(
                f"config.task.answers is {self.answers}, and the data have {names}: "
                f"set it to {names}, or give the source a shorter list of answers"
            )

    def init(self, key: jax.Array, batch: base.Batch) -> Vars:
        """See mmjax.tasks.base.Task."""
        return base.split(self.model.init(key, *self._inputs(batch)))

    def _inputs(self, batch: base.Batch) -> tuple[jax.Array | None, ...]:
        masks = batch["tokens_mask"], batch.get("image_mask")
        return self._pixels(batch), batch["tokens"], *masks

    def bounded(self, params: PyTree) -> PyTree:
        """No parameter has bounds."""
        return params

    def _terms(
        self, logits_ba: jax.Array, label_b: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Cross-entropy in nats and hits, both (b,), 0 where there is no answer."""
        known_b = label_b >= 0
        loss_b = losses.nll(logits_ba, jnp.maximum(label_b, 0))
        hit_b = (logits_ba.argmax(1) == label_b) & known_b
        return jnp.where(known_b, loss_b, 0.0), hit_b.astype(jnp.float32)

    def loss(
        self, variables: Vars, batch: base.Batch, ctx: Ctx
    ) -> tuple[jax.Array, tuple[PyTree, base.Metrics]]:
        """Mean cross-entropy over all rows, and the share of right answers."""
        logits_ba, extra = self._train(variables, ctx, *self._inputs(batch))
        loss_b, hit_b = self._terms(logits_ba, batch["label"])
        return loss_b.mean(), (extra, {"accuracy": hit_b.mean()})

    def predict(self) -> Mapping[str, base.Predict]:
        """logits (b, a), and per row loss (b,) and accuracy (b,)."""
        logits = self._call("__call__", self._inputs)

        def loss(variables: Vars, batch: base.Batch, ctx: Ctx) -> base.Metrics:
            loss_b, hit_b = self._terms(logits(variables, batch, ctx), batch["label"])
            return {"loss": loss_b, "accuracy": hit_b}

        return {"logits": logits, "loss": loss}
