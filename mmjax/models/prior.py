"""The DALL-E prior: one decoder over text tokens and then image tokens.

Legend: b rows, l text tokens, g side of the image grid, n = g*g image tokens, m of them
given, t tokens of both kinds, w width, v ids. While sampling: p prompts, k candidates
of each, b = p*k.

The sequence is [text_0 .. text_{l-1} | image_0 .. image_{n-1}] and text_0 the start
token: the output at text_{l-1} predicts image_0, that at image_j image_{j+1}, and the
last is not used. Logits of a text position range over text, those of an image position
over image tokens.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mmjax.errors import UserError
from mmjax.nn import cached_attention, divide, grid_masks, neighbours
from mmjax.nn.attention import MAPS
from mmjax.nn.cached_attention import Affine, CachedBlock, DecodeBlock, Memory
from mmjax.nn.dense import Dense
from mmjax.nn.init import normal
from mmjax.nn.norm import LayerNorm
from mmjax.nn.transformer import remat

STD = 0.02
TILE = 128  # image queries a tile: the fastest of 32 to 256 for 256 tokens, on CPU


class Cache(NamedTuple):
    """What decoding keeps of every layer."""

    text: tuple[Memory, ...]  # (p*h, l, d): read only
    image: tuple[Memory, ...]  # (p*k*h, s, d)
    ids: jax.Array  # (p*k, n), the tokens so far


class Prior(nn.Module):
    """A pre-norm transformer decoder (Ramesh et al. 2021, section 2.2).

    A text token is its embedding plus that of its position; where the mask is False,
    one learned for that position stands for the token. An image token is its embedding
    plus that of its place.

    Fields:
      vocab_size, context: text ids, and text positions l, the start token among them.
      image_vocab, grid: image ids, and image tokens a side.
      masks, conv_kernel: see `nn.grid_masks.layer_kinds` and `image_mask`.
      places: what stands for an image token's place: "grid", the sum of a vector of its
        row and one of its column (the paper); "free", a vector of its own (minDALL-E).
      init_style: "mindalle": all kernels and embeddings N(0, 0.02^2); "gpt2": those
        that write to the residual stream smaller by (2 depth)^-1/2.
      text_pads: "predicted" adds an id for every padding position to the text logits,
        vocab_size + position; "ignored" does not.
      neighbours: an image token's vector also holds those of the tokens around the next
        place, linearly (`nn.neighbours`). Not in the paper; small models draw outlines
        after a fraction of the training.
      scan: depth by `nn.scan`, a stack of parameters `blocks`, not `block_0` ...
      remat: see `nn.transformer.remat`.
      dtype: of compute; parameters, softmax, norms and logits are float32.
      attention: the kernel of training and prefill, see `nn.attention_kernels`.
    """

    width: int
    depth: int
    heads: int
    vocab_size: int
    context: int
    image_vocab: int
    grid: int
    masks: str | tuple[str, ...] = "paper"
    conv_kernel: int = grid_masks.CONV_KERNEL
    places: str = "grid"
    mlp_ratio: float = 4.0
    act: str = "gelu"
    init_style: str = "gpt2"
    text_pads: str = "ignored"
    neighbours: bool = False
    scan: bool = False
    remat: str = "none"
    dtype: str = "float32"
    attention: str = "auto"

    def setup(self) -> None:
        _check(self)
        w = self.width

        def table(name: str, rows: int) -> jax.Array:
            return self.param(name, normal(STD), (rows, w), jnp.float32)

        self.text_embedding = table("text_embedding", self.vocab_size)
        self.text_position = table("text_position_embedding", self.context)
        self.text_pad = table("text_pad_embedding", self.context)
        self.image_embedding = table("image_embedding", self.image_vocab)
        if self.places == "free":
            self.place_embedding = table("place_embedding", self.tokens)
        else:
            self.row_embedding = table("row_embedding", self.grid)
            self.column_embedding = table("column_embedding", self.grid)
        if self.neighbours:
            size = len(neighbours.OFFSETS) * w
            self.neighbour_kernel = self.param(
                "neighbour_kernel", normal(size**-0.5), (size, w), jnp.float32
            )
        out_std = STD * (2 * self.depth) ** -0.5
        fields = {
            "heads": self.heads,
            "mlp_ratio": self.mlp_ratio,
            "act": self.act,
            "std": STD,
            "out_std": STD if self.init_style == "mindalle" else out_std,
            "dtype": self.dtype,
            "attention": self.attention,
        }
        # static_argnums counts the module itself
        inner = remat(
            CachedBlock, self.remat, prevent_cse=not self.scan, static_argnums=(2,)
        )
        masks = self.layer_tables(grid_masks.sequence_mask, self.context)
        if self.scan:
            # One program for all layers: its tiles hold what any of them sees.
            masks = [np.any(masks, axis=0)]
        tiles = [grid_masks.tiles(mask_tt, self.context, TILE) for mask_tt in masks]
        if self.scan:
            self.blocks = inner(tiles=tiles[0], **fields)
        else:
            # The activations of the last are needed first: nothing to be saved.
            kinds = [inner] * (self.depth - 1) + [CachedBlock]
            pairs = zip(kinds, tiles, strict=True)
            self.block = [kind(tiles=own, **fields) for kind, own in pairs]
        self.norm_post = LayerNorm(dtype=self.dtype)
        pads = self.context if self.text_pads == "predicted" else 0
        logits = {"dtype": self.dtype, "out_dtype": "float32"}
        self.text_head = Dense(self.vocab_size + pads, False, normal(STD), **logits)
        self.image_head = Dense(self.image_vocab, False, normal(STD), **logits)

    @property
    def tokens(self) -> int:
        """Image tokens n."""
        return self.grid**2

    def layer_tables(self, make: Callable, *args: int) -> list:
        """`make(kind, *args, grid, kernel)` for every layer; equal ones are shared."""
        kinds = grid_masks.layer_kinds(self.masks, self.depth)
        made = {k: make(k, *args, self.grid, self.conv_kernel) for k in set(kinds)}
        return [made[kind] for kind in kinds]

    def _embed_text(self, tokens_bl: jax.Array, mask_bl: jax.Array) -> jax.Array:
        word_blw = self.text_embedding.at[tokens_bl].get(mode="promise_in_bounds")
        word_blw = jnp.where(mask_bl[..., None], word_blw, self.text_pad)
        return word_blw + self.text_position

    def _embed_image(self, image_bm: jax.Array) -> jax.Array:
        m = image_bm.shape[1]
        if self.places == "free":
            place_nw = self.place_embedding
        else:
            place_nw = _grid(self.row_embedding, self.column_embedding)
        id_bmw = self.image_embedding.at[image_bm].get(mode="promise_in_bounds")
        x_bmw = id_bmw + place_nw[:m]
        if self.neighbours:
            around_bmv = neighbours.gather(id_bmw, self.grid).astype(self.dtype)
            x_bmw += around_bmv @ self.neighbour_kernel.astype(self.dtype)
        return x_bmw

    def _embed(
        self, tokens_bl: jax.Array, mask_bl: jax.Array, image_bm: jax.Array
    ) -> jax.Array:
        """Flat (b*t, w), what the first block takes."""
        parts = self._embed_text(tokens_bl, mask_bl), self._embed_image(image_bm)
        x_btw = jnp.concatenate(parts, axis=1)
        return x_btw.reshape(-1, self.width).astype(self.dtype)

    def _blocks(self, x_zw: jax.Array, t: int) -> tuple[jax.Array, list[Memory]]:
        """Output (z, w) of the first t tokens, keys and values of every layer."""
        masks = self.layer_tables(grid_masks.sequence_mask, self.context)

        def cut(tiles: tuple[grid_masks.Tile, ...], mask_tt: np.ndarray) -> list:
            return [jnp.asarray(grid_masks.cut(mask_tt, tile)) for tile in tiles]

        if not self.scan:
            memories = []
            for block, mask_tt in zip(self.block, masks, strict=True):
                x_zw, memory = block(x_zw, t, cut(block.tiles, mask_tt))
                memories.append(memory)
            return x_zw, memories
        # Masks differ from layer to layer, and a scan picks them by number.
        kinds = grid_masks.layer_kinds(self.masks, self.depth)
        names = sorted(set(kinds))
        each = [cut(self.blocks.tiles, masks[kinds.index(name)]) for name in names]
        stacks = [jnp.stack(same) for same in zip(*each, strict=True)]
        which = jnp.asarray([names.index(kind) for kind in kinds])
        run = nn.scan(
            lambda block, x, i: block(x, t, [stack[i] for stack in stacks]),
            variable_axes={"params": 0, MAPS: 0},
            split_rngs={"params": True},
            length=self.depth,
        )
        x_zw, stacked = run(self.blocks, x_zw, which)
        memories = [Memory(k, v) for k, v in zip(*stacked, strict=True)]
        return x_zw, memories

    def __call__(
        self, tokens_bl: jax.Array, mask_bl: jax.Array, image_bn: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Logits of text_1 .. text_{l-1} and of image_0 .. image_{n-1}, float32.

        Args:
          tokens_bl: int32 text ids. mask_bl: bool, False where there is no text.
          image_bn: int32 image ids, row-major.
        """
        self._check_shapes(tokens_bl, mask_bl, image_bn, self.tokens)
        b, context = tokens_bl.shape
        t = context + self.tokens
        x_zw, _ = self._blocks(self._embed(tokens_bl, mask_bl, image_bn), t)
        x_btw = x_zw.reshape(b, t, self.width)
        text_nw = self.norm_post(x_btw[:, : context - 1].reshape(-1, self.width))
        image_nw = self.norm_post(x_btw[:, context - 1 : -1].reshape(-1, self.width))
        text_nv, image_nv = self.text_head(text_nw), self.image_head(image_nw)
        text_bmv = text_nv.reshape(b, context - 1, -1)
        return text_bmv, image_nv.reshape(b, self.tokens, -1)

    def prefill(
        self,
        tokens_pl: jax.Array,
        mask_pl: jax.Array,
        image_pm: jax.Array,
        candidates: int,
    ) -> tuple[jax.Array, Cache]:
        """Logits (p, v) of image token m, and the cache to go on with.

        Args:
          tokens_pl, mask_pl: text, as in a call.
          image_pm: the first m < n image tokens, the same for all candidates.
          candidates: k, how many rows go on from each prompt.
        """
        m = image_pm.shape[1]
        self._check_shapes(tokens_pl, mask_pl, image_pm, min(m, self.tokens - 1))
        p, context = tokens_pl.shape
        t = context + m
        x_zw = self._embed(tokens_pl, mask_pl, image_pm)
        x_zw, memories = self._blocks(x_zw, t)
        plans = self.layer_tables(grid_masks.cache_plan)
        text = [cached_attention.text_memory(memory, context) for memory in memories]
        image = [
            cached_attention.image_memory(memory, context, plan, candidates)
            for memory, plan in zip(memories, plans, strict=True)
        ]
        last_pw = self.norm_post(x_zw.reshape(p, t, -1)[:, -1])
        logits_pv = self.image_head(last_pw)
        ids_pn = jnp.pad(image_pm, ((0, 0), (0, self.tokens - m)))
        ids_bn = jnp.repeat(ids_pn, candidates, axis=0)
        return logits_pv, Cache(tuple(text), tuple(image), ids_bn)

    def _check_shapes(
        self, tokens_bl: jax.Array, mask_bl: jax.Array, image_bm: jax.Array, m: int
    ) -> None:
        b, context = len(tokens_bl), self.context
        text = (b, context)
        want = {"tokens": text, "tokens_mask": text, "image_tokens": (b, m)}
        arrays = tokens_bl, mask_bl, image_bm
        for (name, shape), array in zip(want.items(), arrays, strict=True):
            if array.shape != shape:
                raise UserError(
                    f"{name} is {array.shape}, the prior takes {shape}: it has context "
                    f"{context} and {self.grid} x {self.grid} image tokens"
                )


class Decoder(NamedTuple):
    """A prior's weights, arranged for `step`."""

    blocks: tuple[DecodeBlock, ...]
    image_embedding: jax.Array  # (v, w)
    place: jax.Array  # (n, w), of rows and columns
    around: jax.Array | None  # (o, v, w), of neighbours
    head: Affine  # (v, w), the last norm inside


def decoder(model: Prior, params: Mapping[str, Any]) -> Decoder:
    """Weights for `step`, in the model's dtype: a copy, made once for many steps."""
    layers = range(model.depth)
    if model.scan:
        each = [jax.tree.map(lambda x, i=i: x[i], params["blocks"]) for i in layers]
    else:
        each = [params[f"block_{i}"] for i in layers]
    if model.places == "free":
        place_nw = params["place_embedding"]
    else:
        place_nw = _grid(params["row_embedding"], params["column_embedding"])
    around = None
    if model.neighbours:
        shape = (-1, model.width, model.width)
        kernel_oww = params["neighbour_kernel"].reshape(shape)
        around = jnp.einsum("vw,owx->ovx", params["image_embedding"], kernel_oww)
    heads, dtype = model.heads, model.dtype
    return Decoder(
        tuple(cached_attention.decode_block(block, heads, dtype) for block in each),
        params["image_embedding"],
        place_nw,
        around,
        cached_attention.affine(params["image_head"], dtype, params["norm_post"]),
    )


def step(
    model: Prior, weights: Decoder, ids_b: jax.Array, index: jax.Array, cache: Cache
) -> tuple[jax.Array, Cache]:
    """Logits (b, v) of image token index + 1, given that number `index` is `ids_b`.

    Args:
      model: the module, for its numbers. weights: from `decoder`.
      ids_b: int32, the rows of a prompt next to each other.
      index: int32 (), from m on, one call after the other.
      cache: from `Prior.prefill`, or the call before.
    """
    x_bw = weights.image_embedding[ids_b] + weights.place[index]
    ids_bn = cache.ids.at[:, index].set(ids_b)
    if weights.around is not None:
        x_bw += neighbours.lookup(weights.around, ids_bn, index, model.grid)
    x_wb, image = x_bw.astype(model.dtype).T, []
    plans = model.layer_tables(grid_masks.cache_plan)
    layers = zip(weights.blocks, plans, cache.text, cache.image, strict=True)
    for block, plan, text, own in layers:
        x_wb, own = cached_attention.decode(
            block, x_wb, text, own, plan, index, heads=model.heads, act=model.act
        )
        image.append(own)
    logits_bv = weights.head(cached_attention.normalize(x_wb), "float32").T
    return logits_bv, cache._replace(image=tuple(image), ids=ids_bn)


def _grid(row_gw: jax.Array, column_gw: jax.Array) -> jax.Array:
    """Vectors of all places, (g*g, w), row-major."""
    return (row_gw[:, None] + column_gw).reshape(-1, row_gw.shape[1])


def _check(model: Prior) -> None:
    """Raises UserError for numbers that make no model."""
    for name, legal in (
        ("init_style", ("mindalle", "gpt2")),
        ("places", ("grid", "free")),
        ("text_pads", ("ignored", "predicted")),
    ):
        if (value := getattr(model, name)) not in legal:
            raise UserError(f"{name} is {value!r}: use {' or '.join(legal)}")
    divide.check("width", model.width, model.heads, "heads")
    if model.context < 2:
        raise UserError(
            f"context {model.context} has no room for text after the start token: "
            "use 2 or more"
        )
