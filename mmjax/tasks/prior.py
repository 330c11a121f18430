"""Stage 2 of DALL-E: a prior over text and image tokens, images by a frozen stage 1.

Legend: b rows, l text tokens, n image tokens, v ids. While sampling: p prompts, k
candidates of each.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mmjax.errors import UserError
from mmjax.losses import tokens as losses
from mmjax.models import image_tokenizer, prior
from mmjax.models.prior import Prior
from mmjax.nn import grid_masks
from mmjax.sampling import autoregressive, candidates
from mmjax.sampling.autoregressive import Sampling
from mmjax.state import Ctx, Vars
from mmjax.tasks import base
from mmjax.tasks.base import pixels

PyTree = Any
Metrics = dict[str, jax.Array]
Batch = Mapping[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Task:
    """Fields are `config.task`; those of the model as in `mmjax.models.prior.Prior`.

    stage1: the image tokenizer, as `mmjax.models.image_tokenizer.build` takes it. Its
      weights are `frozen/tokenizer`, random until another run's are put there.
    image_vocab, grid: 0 means the tokenizer's; other numbers must be the same as its.
    text_weight: of the text's cross-entropy; the image's has the rest.
    text_pads: "ignored": padding is read and never predicted. "predicted": it is, as
      an id of its own for every position.
    caption_dropout: share of training rows whose text is all padding but for the start
      token, for guidance. They have no text loss, and do not count in its mean.
    sampling: of predict "sample"; see `mmjax.sampling.autoregressive.Sampling`.
    """

    couples_rows = False
    reads = ("image|image_tokens", "tokens")

    stage1: dict
    width: int
    depth: int
    heads: int
    vocab_size: int
    context: int
    image_vocab: int = 0
    grid: int = 0
    masks: str | tuple[str, ...] = "paper"
    conv_kernel: int = grid_masks.CONV_KERNEL
    places: str = "grid"
    mlp_ratio: float = 4.0
    act: str = "gelu"
    init_style: str = "gpt2"
    neighbours: bool = False
    scan: bool = False
    remat: str = "none"
    dtype: str = "float32"
    attention: str = "auto"
    text_weight: float = 1 / 8
    text_pads: str = "ignored"
    caption_dropout: float = 0.0
    sampling: Sampling = Sampling()

    def __post_init__(self) -> None:
        for key in ("text_weight", "caption_dropout"):
            if not 0 <= getattr(self, key) <= 1:
                raise ValueError(f"{key} is {getattr(self, key)}: use 0 to 1")
        for key, size in self._codes().items():
            if getattr(self, key) not in (0, size):
                raise ValueError(
                    f"{key} is {getattr(self, key)}, and stage1 has {size}: set {key} "
                    "to that, or to 0 for whatever stage1 has"
                )

    @functools.cached_property
    def tokenizer(self) -> nn.Module:
        """The image tokenizer's Linen module."""
        return image_tokenizer.build(self.stage1, "config.task.stage1")

    @functools.cached_property
    def model(self) -> Prior:
        """The prior's Linen module, a pure function of the fields."""
        names = {field.name for field in dataclasses.fields(Prior)} - {"parent", "name"}
        numbers = {key: getattr(self, key) for key in names}
        return Prior(**numbers | self._codes())

    def _codes(self) -> dict[str, int]:
        return {"image_vocab": self.tokenizer.vocab_size, "grid": self.tokenizer.grid}

    def check(self, spec: base.Spec) -> None:
        """See mmjax.tasks.base.Task."""
        base.check_image(spec, self.tokenizer.image_size, "stage1.image_size")
        words = {"vocab_size": self.vocab_size, "context": self.context}
        base.check_text(spec, **words, exact=True)

    def init(self, key: jax.Array, batch: Batch) -> Vars:
        """See mmjax.tasks.base.Task."""
        size, n = self.tokenizer.image_size, self.model.tokens
        of_model, of_tokenizer = jax.random.split(key)
        one = jnp.zeros((1, n), jnp.int32)
        variables = self.model.init(
            of_model, batch["tokens"][:1], batch["tokens_mask"][:1], one
        )
        stage1 = self.tokenizer.init(of_tokenizer, jnp.zeros((1, size, size, 3)))
        return Vars(params=variables["params"], frozen={"tokenizer": dict(stage1)})

    def _image_tokens(self, variables: Vars, batch: Batch) -> jax.Array:
        """int32 (b, n): the batch's own, or the frozen encoder's of its images."""
        if "image_tokens" in batch:
            return batch["image_tokens"].astype(jnp.int32)
        return self._stage1(variables, "encode_tokens", pixels(batch))

    def _stage1(self, variables: Vars, method: str, *args: jax.Array) -> jax.Array:
        return self.tokenizer.apply(variables.frozen["tokenizer"], *args, method=method)

    def _nll(
        self, variables: Vars, batch: Batch, dropped_b: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Nats of text_1 .. (b, l-1), which of them count, nats of the image (b, n)."""
        tokens_bl, mask_bl = batch["tokens"], batch["tokens_mask"]
        seen_bl = mask_bl if dropped_b is None else _without_text(mask_bl, dropped_b)
        image_bn = self._image_tokens(variables, batch)
        text_bmv, image_bnv = self.model.apply(
            {"params": variables.params}, tokens_bl, seen_bl, image_bn
        )
        targets_bm, counted_bm = tokens_bl[:, 1:], mask_bl[:, 1:]
        if self.text_pads == "predicted":
            pad_m = self.vocab_size + jnp.arange(1, self.context)
            targets_bm = jnp.where(counted_bm, targets_bm, pad_m)
            counted_bm = jnp.ones_like(counted_bm)
        if dropped_b is not None:
            counted_bm &= ~dropped_b[:, None]
        text_bm = losses.nll(text_bmv, targets_bm)
        return text_bm, counted_bm, losses.nll(image_bnv, image_bn)

    def _per_row(
        self,
        variables: Vars,
        batch: Batch,
        dropped_b: jax.Array | None = None,
        share: jax.Array | float = 1.0,
    ) -> Metrics:
        text_bm, counted_bm, image_bn = self._nll(variables, batch, dropped_b)
        text_b, image_b = losses.row_mean(text_bm, counted_bm), image_bn.mean(-1)
        # so that means over rows are those over the rows that have text
        text_b = text_b / share
        loss_b = losses.text_and_image(text_b, image_b, text_weight=self.text_weight)
        return {"loss": loss_b, "text_nats": text_b, "image_nats": image_b}

    def _dropped(self, rows: int, ctx: Ctx) -> jax.Array | None:
        """Which rows lose their caption, (b,)."""
        if not (ctx.train and self.caption_dropout):
            return None
        draw = jax.vmap(jax.random.bernoulli, (0, None))
        return draw(ctx.example_keys(rows), self.caption_dropout)

    def _with_text(self, mask_bl: jax.Array, ctx: Ctx) -> jax.Array:
        """Which rows have text to predict, float32 (b,)."""
        dropped_b = self._dropped(len(mask_bl), ctx)
        some_b = mask_bl[:, 1:].any(-1)
        if self.text_pads == "predicted":
            some_b = jnp.ones_like(some_b)
        return (some_b if dropped_b is None else some_b & ~dropped_b).astype("float32")

    def loss(
        self, variables: Vars, batch: Batch, ctx: Ctx
    ) -> tuple[jax.Array, tuple[PyTree, Metrics]]:
        """Weighted mean nats of text and image tokens.

        Those of the text are a mean over the rows of the step that have text and were
        not dropped; those of the image over all.
        """
        if "text_share" in batch:
            share = batch["text_share"]
        else:
            share = ctx.mean(self._with_text(batch["tokens_mask"], ctx).mean())
        share = jnp.where(share > 0, share, 1.0)  # none at all: no text loss
        dropped_b = self._dropped(len(batch["tokens"]), ctx)
        rows = self._per_row(variables, batch, dropped_b, share)
        means = jax.tree.map(jnp.mean, rows)
        return means.pop("loss"), (variables.extra, means)

    def prepare(self, variables: Vars, slices: PyTree, ctx: Ctx) -> tuple[Vars, PyTree]:
        """Every slice knows the share of the step's rows that have text."""
        mask_abl = slices["tokens_mask"]
        accum = len(mask_abl)

        def of_slice(number: jax.Array, mask_bl: jax.Array) -> jax.Array:
            return self._with_text(mask_bl, ctx.replace(offset=number, stride=accum))

        some_ab = jax.vmap(of_slice)(jnp.arange(accum), mask_abl)
        share_a = jnp.full(accum, ctx.mean(some_ab.mean()))
        return variables, {**slices, "text_share": share_a}

    def observe(self, variables: Vars, batch: Batch, ctx: Ctx) -> tuple:
        """See mmjax.tasks.base.Task."""
        loss, (_, metrics) = self.loss(variables, batch, ctx)
        return loss, ({}, {}), metrics

    def settle(
        self, variables: Vars, means: Metrics, rows: PyTree, ctx: Ctx
    ) -> tuple[PyTree, Metrics]:
        """See mmjax.tasks.base.Task."""
        return variables.extra, {}

    def completion(self, rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The rows of "complete" with the given rows of pixels alone, on the host."""
        known_pss, side = rows["known"], self.tokenizer.image_size
        patch = side // self.tokenizer.grid
        height = int(known_pss[0].any(axis=1).sum())
        top_s1 = (np.arange(side) < height)[:, None]
        whole = height % patch == 0 and 0 < height < side
        if not whole or (known_pss != top_s1).any():
            raise UserError(
                f"{height} of {side} rows of pixels are known: a prior goes on from "
                f"whole rows of tokens, so give the same top {patch}, {2 * patch}, ... "
                f"or {side - patch} rows of pixels of every image"
            )
        return rows | {key: rows[key][:, :height] for key in ("image", "known")}

    def _complete(
        self, variables: Vars, batch: Batch, ctx: Ctx
    ) -> dict[str, jax.Array]:
        """See `predict`."""
        seen_phs3, side = batch["image"], self.tokenizer.image_size
        below = side - seen_phs3.shape[1]
        # The encoder's tokens look beyond their own patch: each column goes on with
        # its last pixel, so that they see nothing of what is to be drawn.
        image = jnp.pad(seen_phs3, ((0, 0), (0, below), (0, 0), (0, 0)), mode="edge")
        ids_pn = self._image_tokens(variables, {"image": image})
        given = self.model.tokens * seen_phs3.shape[1] // side
        return self._draw(variables, batch, ids_pn[:, :given])

    def _sample(self, variables: Vars, batch: Batch, ctx: Ctx) -> dict[str, jax.Array]:
        """See `predict`."""
        nothing_pm = jnp.zeros((len(batch["seed"]), 0), jnp.int32)
        return self._draw(variables, batch, nothing_pm)

    def _draw(
        self, variables: Vars, batch: Batch, prefix_pm: jax.Array
    ) -> dict[str, jax.Array]:
        """k images for each prompt, whose first m tokens are given."""
        options = self.sampling
        model = self.model.clone(dtype=options.dtype)
        weights = prior.decoder(model, variables.params)
        tokens_pl, mask_pl = batch["tokens"], batch["tokens_mask"]
        p, k = batch["candidate"].shape
        text = tokens_pl, mask_pl, prefix_pm
        if options.guided:
            bare_pl = _without_text(mask_pl, jnp.ones(p, bool))
            other = tokens_pl, bare_pl, prefix_pm
            text = tuple(
                jnp.concatenate(pair) for pair in zip(text, other, strict=True)
            )
        first_pv, cache = model.apply(
            {"params": variables.params}, *text, k, method="prefill"
        )

        def step(cache: PyTree, ids_b: jax.Array, index: jax.Array) -> tuple:
            return prior.step(model, weights, ids_b, index, cache)

        ids_bm, log_prob_b = autoregressive.generate(
            first_pv,
            step,
            cache,
            candidates.row_keys(batch["seed"], batch["candidate"]),
            start=prefix_pm.shape[1],
            length=model.tokens,
            options=options,
        )
        ids_bn = jnp.concatenate([jnp.repeat(prefix_pm, k, axis=0), ids_bm], axis=1)
        x_bhw3 = self._stage1(variables, "decode_tokens", ids_bn)
        image_bhw3 = base.eight_bit(x_bhw3)
        return {
            "image_tokens": ids_bn.reshape(p, k, -1),
            "log_prob": log_prob_b.reshape(p, k),
            "image": image_bhw3.reshape(p, k, *image_bhw3.shape[1:]),
        }

    def predict(self) -> Mapping[str, Any]:
        """What its evaluators, samplers and readers call.

        sample: {tokens (p, l), tokens_mask (p, l), seed uint32 (p,), candidate int32
          (p, k)} to {image_tokens (p, k, n), log_prob (p, k): of the tokens drawn under
          what they were drawn from, image uint8 (p, k, s, s, 3)}.
        complete: the same, of rows with the top of an image, as `completion` cuts it:
          image uint8 (p, h, s, 3), known bool (p, h, s).
        encode: {image uint8 (b, s, s, 3)} to {image_tokens (b, n)}, by stage 1.
        elbo_terms: nats per row, summed: `text_nll` of the text after its start token,
          `image_nll` of the image tokens given the text; of a batch with images also
          `reconstruction`, of the pixels given the tokens, by stage 1's own density.
        image_log_prob: log p(image tokens | text), (b,).
        token_log_prob: of each image token given the text and those before, (b, n).
        attention_maps: of text and image tokens, as in base.
        """

        def loss(variables: Vars, batch: Batch, ctx: Ctx) -> Metrics:
            return self._per_row(variables, batch)

        def elbo_terms(variables: Vars, batch: Batch, ctx: Ctx) -> Metrics:
            text_bm, counted_bm, image_bn = self._nll(variables, batch)
            text_b = jnp.where(counted_bm, text_bm, 0.0).sum(-1)
            terms = {"text_nll": text_b, "image_nll": image_bn.sum(-1)}
            if "image" in batch:
                ids_bn = self._image_tokens(variables, batch)
                x_bhw3 = pixels(batch)
                terms["reconstruction"] = self._stage1(variables, "nll", x_bhw3, ids_bn)
            return terms

        def encode(variables: Vars, batch: Batch, ctx: Ctx) -> Metrics:
            return {"image_tokens": self._image_tokens(variables, batch)}

        def image_log_prob(variables: Vars, batch: Batch, ctx: Ctx) -> jax.Array:
            return token_log_prob(variables, batch, ctx).sum(-1)

        def token_log_prob(variables: Vars, batch: Batch, ctx: Ctx) -> jax.Array:
            return -self._nll(variables, batch)[2]

        def attention_maps(variables: Vars, batch: Batch, ctx: Ctx) -> PyTree:
            ids_bn = self._image_tokens(variables, batch)
            given = {"params": variables.params}, batch["tokens"], batch["tokens_mask"]
            return base.attention_maps(
                functools.partial(self.model.apply, *given, ids_bn)
            )

        return {
            "loss": loss,
            "encode": encode,
            "sample": self._sample,
            "complete": self._complete,
            "elbo_terms": elbo_terms,
            "image_log_prob": image_log_prob,
            "token_log_prob": token_log_prob,
            "attention_maps": attention_maps,
        }


def _without_text(mask_bl: jax.Array, dropped_b: jax.Array) -> jax.Array:
    """The mask with only the start token left in the rows that are dropped."""
    start_l = jnp.arange(mask_bl.shape[1]) == 0
    return mask_bl & (start_l | ~dropped_b[:, None])
