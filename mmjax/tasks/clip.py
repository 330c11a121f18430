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

from mmjax import schema
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


# Fields that `presets.build` takes as they are.
_SIZES = ("embed_dim", "vocab_size", "context", "image_size", "act", "scan", "remat")
_SIZES += ("dtype", "attention", "max_scale")


@dataclasses.dataclass(frozen=True)
class Task(base.Normalised):
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
    attention: str = "auto"  # the kernel: see nn/attention_kernels
    loss_name: str = "info_nce"  # info_nce | sigmoid
    loss_impl: str = "dense"  # dense | chunked | ring: see losses/contrastive_tiles
    loss_block: int = 1024  # columns of a tile, where the loss is chunked or a ring
    max_scale: float = 100.0  # of the logits; 0: no limit, as SigLIP's released models
    equal_captions: str = "negative"  # negative (the paper) | positive
    mean: tuple[float, ...] = presets.CLIP_MEAN
    std: tuple[float, ...] = presets.CLIP_STD

    def __post_init__(self) -> None:
        for key, legal in (
            ("loss_name", LOSSES),
            ("loss_impl", ("dense", "chunked", "ring")),
            ("equal_captions", ("negative", "positive")),
        ):
            if (value := getattr(self, key)) not in legal:
                raise ValueError(f"{key} is {value!r}: use {' or '.join(legal)}")
        schema.at_least(1, self, "loss_block")

    @functools.cached_property
    def model(self) -> presets.DualEncoder:
        """The Linen module, a pure function of the fields."""
        sigmoid = self.loss_name == "sigmoid"
        return presets.build(
            self.preset,
            image=self.image or None,
            text=self.text or None,
            **{key: getattr(self, key) for key in _SIZES},
            init_scale=math.log(10.0) if sigmoid else math.log(1 / 0.07),
            init_bias=-10.0 if sigmoid else None,
        )

    def check(self, spec: base.Spec) -> None:
        """See mmjax.tasks.base.Task."""
        base.check_image(spec, self.model.image.image_size, "image_size")
        base.check_tower(spec, self.model.text)

    def init(self, key: jax.Array, batch: base.Batch) -> Vars:
        """See mmjax.tasks.base.Task."""
        return base.split(self.model.init(key, *self._inputs(batch)))

    def _inputs(self, batch: base.Batch) -> tuple[jax.Array, ...]:
        return self._pixels(batch), batch["tokens"], batch["tokens_mask"]

    def embed(
        self, variables: Vars, batch: Mapping[str, jax.Array], ctx: Ctx
    ) -> tuple[dict[str, jax.Array], PyTree]:
        """Unit rows (b, d) of images and texts, and the new extra."""
        out, extra = self._train(variables, ctx, *self._inputs(batch))
        rows = {"image": out.image, "text": out.text}
        return jax.tree.map(contrastive.l2_normalize, rows), extra

    def loss_of(
        self,
        variables: Vars,
        embedded: Mapping[str, jax.Array],
        batch: Mapping[str, jax.Array],
        ctx: Ctx,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The loss of embedded pairs, and metrics."""
        image_bd, text_bd = embedded["image"], embedded["text"]
        scale, bias = self._apply(variables, method="temperature")
        numbers = (scale, bias) if self.loss_name == "sigmoid" else (scale,)
        same = self.equal_captions == "positive"
        dense, tiled = LOSSES[self.loss_name]
        if self.loss_impl != "dense":
            loss, hit_b = tiled(
                image_bd,
                text_bd,
                *numbers,
                keys=batch["tokens"] if same else None,
                block=self.loss_block,
                ring=self.loss_impl == "ring",
                placed=ctx.axis or ctx.rows,
            )
            return loss, {"scale": scale, "batch_accuracy": hit_b.mean()}
        pairs = image_bd, text_bd, batch["tokens"]
        image_bd, text_bd, tokens_bl = ctx.gather(pairs)
        positives_bb = None
        if same:
            positives_bb = (tokens_bl[:, None] == tokens_bl[None]).all(-1)
        loss = dense(image_bd, text_bd, *numbers, positives=positives_bb)
        best_b = jnp.argmax(contrastive.similarity(image_bd, text_bd), axis=1)
        rows_b = jnp.arange(len(best_b))
        hit_b = positives_bb[rows_b, best_b] if same else best_b == rows_b
        return loss, {"scale": scale, "batch_accuracy": hit_b.mean()}

    loss = base.embedded_loss

    def classifier(self, classes: int) -> tuple[dict[str, Any], tuple[str, str]]:
        """`config.task` of a linear head on the image tower; that tower's names.

        These are its name among the classifier's variables, and among these.
        """
        tower = dict(self.image or presets.preset(self.preset).image)
        fields = dataclasses.fields(presets.IMAGE_KINDS[tower["kind"]])
        shared = {field.name for field in fields} & {"act", "scan", "remat", "dtype"}
        task = {key: getattr(self, key) for key in ("act", "mean", "std", "dtype")}
        task |= {"name": "classifier", "classes": classes, "linear": True}
        task["image_size"] = self.model.image.image_size
        task["image"] = {key: getattr(self, key) for key in sorted(shared)} | tower
        return task, ("tower", "image")

    def predict(self) -> Mapping[str, base.Predict]:
        """Unit rows (b, d): embed_image, embed_text; others as the model's.

        attention_maps: of the towers whose input the batch has, as in base.
        """
        unit = contrastive.l2_normalize

        def image(batch: base.Batch) -> tuple[jax.Array]:
            return (self._pixels(batch),)

        def text(batch: base.Batch) -> tuple[jax.Array, jax.Array]:
            return batch["tokens"], batch["tokens_mask"]

        return {
            "embed_image": self._call("encode_image", image, unit),
            "embed_text": self._call("encode_text", text, unit),
            "features": self._call("image_features", image),
            "feature_map": self._call("feature_map", image),
            "projected": self._call("encode_image", image),
            "scale": self._call("temperature", lambda batch: ()),
            "loss": base.evaluated(self),
            "attention_maps": self._maps,
        }

    def _maps(self, variables: Vars, batch: base.Batch, ctx: Ctx) -> PyTree:
        def look(model: Any) -> None:
            if "image" in batch:
                model.encode_image(self._pixels(batch))
            if "tokens" in batch:
                model.encode_text(batch["tokens"], batch["tokens_mask"])

        call = functools.partial(self._apply, variables, method=look)
        return base.attention_maps(call)
