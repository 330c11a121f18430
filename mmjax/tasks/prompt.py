"""Learned context vectors before class names, all else frozen: CoOp (Zhou et al. 2022).

The vectors are rows of the text tower's table, of ids that no class name has: the tower
and its tokenizer stay as they are. Legend: b images, c classes, l tokens, m learned
ids, w width of the table, d embedding.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmjax.errors import UserError
from mmjax.losses import contrastive
from mmjax.nn.init import normal
from mmjax.state import Ctx, Vars
from mmjax.tasks import base as base_lib

PyTree = Any
FROZEN = "base"
_STD = 0.02  # of the first context vectors, as in the paper


@dataclasses.dataclass(frozen=True)
class Task:
    """Fields are `config.task`; `mmjax finetune` fills in the last two.

    Variables: `params/context` (m, w); `extra` and `frozen/base`, those of the base.

    base: the `config.task` of a task that embeds images and texts into one space.
    sentences: for each class its token ids, the marks and the learned ids among them.
    learned: the ids whose rows are learned.
    """

    couples_rows = False
    reads = ("image", "label")

    base: dict
    sentences: tuple[tuple[int, ...], ...]
    learned: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.sentences) < 2 or not self.learned:
            raise ValueError("give sentences of two classes or more, and learned ids")

    @functools.cached_property
    def inner(self) -> base_lib.Task:
        """The task whose text tower reads the sentences."""
        task = base_lib.build(self.base, "config.task.base")
        missing = {"embed_image", "embed_text", "scale"} - set(task.predict())
        if missing:
            raise UserError(
                f"config.task.base.name is {self.base['name']!r}, which has no "
                f"{min(missing)}: learn prompts of a task that embeds images and texts"
            )
        return task

    @property
    def model(self) -> Any:
        """The Linen module of the base."""
        return self.inner.model

    @functools.cached_property
    def _texts(self) -> dict[str, np.ndarray]:
        """`tokens` int32 (c, l) and `tokens_mask`, padded with 0 to the longest."""
        length = np.array([len(ids) for ids in self.sentences])
        mask_cl = np.arange(length.max()) < length[:, None]
        tokens_cl = np.zeros(mask_cl.shape, np.int32)
        tokens_cl[mask_cl] = np.concatenate(self.sentences)
        return {"tokens": tokens_cl, "tokens_mask": mask_cl}

    def check(self, spec: base_lib.Spec) -> None:
        """See mmjax.tasks.base.Task."""
        self.inner.check(spec)
        names, own = len(spec["label"]["class_names"]), len(self.sentences)
        if names not in (0, own):
            raise UserError(
                f"the data have {names} classes, and config.task.sentences {own}: give "
                "the data that the sentences were made for, or start another workdir"
            )

    def init(self, key: jax.Array, batch: base_lib.Batch) -> Vars:
        """See mmjax.tasks.base.Task."""
        made = self.inner.init(key, {**batch, **self._texts})
        shape = len(self.learned), made.params["text"]["token_embedding"].shape[1]
        context_mw = normal(_STD)(jax.random.fold_in(key, 1), shape, jnp.float32)
        frozen = {FROZEN: made.params, **made.frozen}
        return Vars(params={"context": context_mw}, extra=made.extra, frozen=frozen)

    def _with_context(self, variables: Vars, *, learned: bool) -> Vars:
        """The base's variables, with the learned rows or with its own."""
        frozen = dict(variables.frozen)
        params = frozen.pop(FROZEN)
        if learned:
            table_vw, ids_m = params["text"]["token_embedding"], jnp.array(self.learned)
            table_vw = table_vw.at[ids_m].set(variables.params["context"])
            params = {**params, "text": {**params["text"], "token_embedding": table_vw}}
        return Vars(params=params, extra=variables.extra, frozen=frozen)

    def _logits(self, variables: Vars, batch: base_lib.Batch, ctx: Ctx) -> jax.Array:
        """(b, c): scaled cosines of images with the classes' sentences."""
        known = self._with_context(variables, learned=True)
        own, texts = self.inner.predict(), jax.tree.map(jnp.asarray, self._texts)
        image_bd = own["embed_image"](known, batch, ctx)
        text_cd = own["embed_text"](known, texts, ctx)
        scale, _ = own["scale"](known, texts, ctx)
        return scale * contrastive.similarity(image_bd, text_cd)

    def _terms(
        self, variables: Vars, batch: base_lib.Batch, ctx: Ctx
    ) -> dict[str, jax.Array]:
        """Cross-entropy and hits by row, 0 where a row has no class (-1)."""
        logits_bc, label_b = self._logits(variables, batch, ctx), batch["label"]
        log_bc = jax.nn.log_softmax(logits_bc)
        place_b1 = jnp.maximum(label_b, 0)[:, None]
        picked_b = jnp.take_along_axis(log_bc, place_b1, 1, mode="fill")[:, 0]
        known_b = label_b >= 0
        hit_b = (logits_bc.argmax(1) == label_b) & known_b
        loss_b = jnp.where(known_b, -picked_b, 0.0)
        return {"loss": loss_b, "accuracy": hit_b.astype(jnp.float32)}

    def loss(
        self, variables: Vars, batch: base_lib.Batch, ctx: Ctx
    ) -> tuple[jax.Array, tuple[PyTree, base_lib.Metrics]]:
        """See mmjax.tasks.base.Task."""
        terms = self._terms(variables, batch, ctx)
        metrics = {"accuracy": terms["accuracy"].mean()}
        return terms["loss"].mean(), (variables.extra, metrics)

    def predict(self) -> Mapping[str, base_lib.Predict]:
        """Those of the base, whose texts have no learned context; logits and loss."""

        def of(function: base_lib.Predict) -> base_lib.Predict:
            return lambda variables, *rest: function(
                self._with_context(variables, learned=False), *rest
            )

        own = {name: of(function) for name, function in self.inner.predict().items()}
        return own | {"logits": self._logits, "loss": self._terms}
