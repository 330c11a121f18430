"""Contrastive language-image pre-training: CLIP, and SigLIP by its loss.

Legend: b rows, h w pixels, l tokens, d joint width.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from mmjax.losses import contrastive, contrastive_tiles
from mmjax.models import presets
from mmjax.state import Ctx, Vars
from mmjax.tasks import base

PyTree = Any
# loss_name: over the (b, b) similarities, and the same in tiles of them
LOSSES = {
    "info_nce": (contrastive.info_nce, contrastive_tiles.info_nce),
    "sigmoid": (contrastive.sigmoid, contrastive_tiles.sigmoid),
}


@dataclasses.dataclass(frozen=True)
class Task:
    """Fields are `config.task`; see `mmjax.models.presets.build` for the sizes."""

    couples_rows = True
    reads = ("image", "tokens")

    preset: str = ""
    image: dict = dataclasses.field(default_factory=dict)
    text: dict = dataclasses.field(default_factory=dict)
    embed_dim: int = 0
    vocab_size: int = 0
    context: int = 0
    image_size: int = 0
    act: str = "quick_gelu"
    scan: bool = False
    remat: str = "none"
    dtype: str = "float32"
    loss_name: str = "info_nce"  # info_nce | sigmoid
    loss_impl: str = "dense"  # dense | chunked | ring: see losses/contrastive_tiles
    loss_block: int = 1024  # columns of a tile, where the loss is chunked or a ring
    max_scale: float = 100.0  # of the logits; 0: no limit, as SigLIP's released models
    equal_captions: str = "negative"  # negative (the paper) | positive
    mean: tuple[float, ...] = presets.CLIP_MEAN
    std: tuple[float, ...] = presets.CLIP_STD

    def __post_init__(self) -> None:
        for key, legal in (
            ("loss_name", tuple(LOSSES)),
            ("loss_impl", ("dense", "chunked", "ring")),
            ("equal_captions", ("negative", "positive")),
        ):
            if getattr(self, key) not in legal:
                raise ValueError(
                    f"{key} is {getattr(self, key)!r}: use {' or '.join(legal)}"
                )
        if self.loss_block < 1:
            raise ValueError(f"loss_block is {self.loss_block}: use 1 or more")

    @functools.cached_property
    def model(self) -> presets.DualEncoder:
        """The Linen module, a pure function of the fields."""
        sigmoid = self.loss_name == "sigmoid"
        return presets.build(
            self.preset,
            image=self.image or None,
            text=self.text or None,
            embed_dim=self.embed_dim,
            vocab_size=self.vocab_size,
            context=self.context,
            image_size=self.image_size,
            act=self.act,
            scan=self.scan,
            remat=self.remat,
            dtype=self.dtype,
            init_scale=math.log(10.0) if sigmoid else math.log(1 / 0.07),
            init_bias=-10.0 if sigmoid else None,
            max_scale=self.max_scale,
        )

    def check(self, spec: base.Spec) -> None:
        """See mmjax.tasks.base.Task."""
        base.check_image(spec, self.model.image.image_size, "image_size")
        text = self.model.text
        context = getattr(text, "context", 0)  # a bag of words has no positions
        base.check_text(spec, vocab_size=text.vocab_size, context=context, exact=False)

    def _pixels(self, batch: Mapping[str, jax.Array]) -> jax.Array:
        """uint8 (b, h, w, 3) to float32, normalised as CLIP does."""
        x_bhw3 = batch["image"].astype(jnp.float32) / 255.0
        return (x_bhw3 - jnp.asarray(self.mean)) / jnp.asarray(self.std)

    def init(self, key: jax.Array, batch: Mapping[str, jax.Array]) -> Vars:
        variables = self.model.init(
            key, self._pixels(batch), batch["tokens"], batch["tokens_mask"]
        )
        return Vars(
            params=variables["params"],
            extra={k: v for k, v in variables.items() if k != "params"},
        )

    def embed(
        self, variables: Vars, batch: Mapping[str, jax.Array], ctx: Ctx
    ) -> tuple[dict[str, jax.Array], PyTree]:
        """Unit rows (b, d) of images and texts, and the new extra."""
        out, extra = self.model.apply(
            {"params": variables.params, **variables.extra},
            self._pixels(batch),
            batch["tokens"],
            batch["tokens_mask"],
            train=ctx.train,
            axis=ctx.axis,
            mutable=list(variables.extra) if ctx.train else [],
        )
        embedded = {
            "image": contrastive.l2_normalize(out.image),
            "text": contrastive.l2_normalize(out.text),
        }
        return embedded, extra if ctx.train else variables.extra

    def loss_of(
        self,
        variables: Vars,
        embedded: Mapping[str, jax.Array],
        batch: Mapping[str, jax.Array],
        ctx: Ctx,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The loss of embedded pairs, and metrics."""
        scale, bias = self.model.apply(
            {"params": variables.params}, method="temperature"
        )
        numbers = (scale, bias) if self.loss_name == "sigmoid" else (scale,)
        pairs = embedded["image"], embedded["text"], batch["tokens"]
        form = self._dense if self.loss_impl == "dense" else self._tiled
        loss, hit_b = form(*pairs, numbers, ctx)
        return loss, {"scale": scale, "batch_accuracy": hit_b.mean()}

    def _dense(
        self,
        image_bd: jax.Array,
        text_bd: jax.Array,
        tokens_bl: jax.Array,
        numbers: tuple[jax.Array, ...],
        ctx: Ctx,
    ) -> tuple[jax.Array, jax.Array]:
        """(loss, whether the nearest text is a positive) from (b, b) similarities."""
        image_bd, text_bd, tokens_bl = ctx.gather((image_bd, text_bd, tokens_bl))
        positives_bb = None
        if self.equal_captions == "positive":
            positives_bb = (tokens_bl[:, None] == tokens_bl[None]).all(-1)
        form, _ = LOSSES[self.loss_name]
        loss = form(image_bd, text_bd, *numbers, positives=positives_bb)
        best_b = jnp.argmax(contrastive.similarity(image_bd, text_bd), axis=1)
        rows_b = jnp.arange(len(best_b))
        hit_b = best_b == rows_b
        if positives_bb is not None:
            hit_b = positives_bb[rows_b, best_b]
        return loss, hit_b

    def _tiled(
        self,
        image_bd: jax.Array,
        text_bd: jax.Array,
        tokens_bl: jax.Array,
        numbers: tuple[jax.Array, ...],
        ctx: Ctx,
    ) -> tuple[jax.Array, jax.Array]:
        """As `_dense`, in tiles; under pmap of this device's rows."""
        _, form = LOSSES[self.loss_name]
        return form(
            image_bd,
            text_bd,
            *numbers,
            keys=tokens_bl if self.equal_captions == "positive" else None,
            block=self.loss_block,
            ring=self.loss_impl == "ring",
            placed=ctx.axis or ctx.rows,
        )

    def loss(
        self, variables: Vars, batch: Mapping[str, jax.Array], ctx: Ctx
    ) -> tuple[jax.Array, tuple[PyTree, dict[str, jax.Array]]]:
        embedded, extra = self.embed(variables, batch, ctx)
        loss, metrics = self.loss_of(variables, embedded, batch, ctx)
        return loss, (extra, metrics)

    def predict(self) -> Mapping[str, Any]:
        def apply(method: str, variables: Vars, *args: jax.Array) -> jax.Array:
            return self.model.apply(
                {"params": variables.params, **variables.extra}, *args, method=method
            )

        def embed_image(variables: Vars, batch: Mapping, ctx: Ctx) -> jax.Array:
            out_bd = apply("encode_image", variables, self._pixels(batch))
            return contrastive.l2_normalize(out_bd)

        def embed_text(variables: Vars, batch: Mapping, ctx: Ctx) -> jax.Array:
            out_bd = apply(
                "encode_text", variables, batch["tokens"], batch["tokens_mask"]
            )
            return contrastive.l2_normalize(out_bd)

        def features(variables: Vars, batch: Mapping, ctx: Ctx) -> jax.Array:
            return apply("image_features", variables, self._pixels(batch))

        def projected(variables: Vars, batch: Mapping, ctx: Ctx) -> jax.Array:
            return apply("encode_image", variables, self._pixels(batch))

        def scale(variables: Vars, batch: Mapping, ctx: Ctx) -> tuple:
            return apply("temperature", variables)

        def loss(variables: Vars, batch: Mapping, ctx: Ctx) -> dict[str, jax.Array]:
            value, (_, metrics) = self.loss(variables, batch, ctx)
            return {"loss": value, **metrics}

        return {
            "embed_image": embed_image,
            "embed_text": embed_text,
            "features": features,
            "projected": projected,
            "scale": scale,
            "loss": loss,
        }
