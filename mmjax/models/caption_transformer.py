"""A transformer that says what an image shows (Vaswani et al. 2017; CoCa's head).

Legend: b rows, m words, n cells, d columns of a cell, w width, v ids. While decoding: p
images, k rows of each, b = p*k.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.models.text import embed
from mmjax.nn import decoding, divide
from mmjax.nn.attention import CrossAttention
from mmjax.nn.dense import Dense
from mmjax.nn.init import normal
from mmjax.nn.keep import keep
from mmjax.nn.norm import LayerNorm


class CaptionTransformer(nn.Module):
    """Blocks of causal attention and attention to the cells of the image.

    The head is the table of words itself.

    context: the most words that are read.
    queries: learned queries that pool the cells first, CoCa's generative pooler (Yu et
      al. 2022, section 3.2); 0 reads the cells as they are.
    dropout: share of a word's vector and of what each branch adds that is 0.
    """

    vocab_size: int
    context: int
    width: int = 256
    depth: int = 3
    heads: int = 4
    mlp_ratio: float = 4.0
    act: str = "gelu"
    queries: int = 0
    dropout: float = 0.0
    dtype: str = "float32"

    attends = True

    def setup(self) -> None:
        divide.check("width", self.width, self.heads, "heads")
        w = self.width
        tables = {"token": (self.vocab_size, 0.02), "position": (self.context, 0.01)}
        self.table_vw, self.position_mw = (
            self.param(f"{name}_embedding", normal(std), (rows, w))
            for name, (rows, std) in tables.items()
        )
        self.norm_cells = LayerNorm(dtype=self.dtype)
        self.cells = Dense(w, dtype=self.dtype)
        if self.queries:
            self.query = self.param("query", normal(0.02), (self.queries, w))
            self.pool = CrossAttention(self.heads, dtype=self.dtype)
        self.block = [
            decoding.CaptionBlock(self.heads, self.mlp_ratio, self.act, self.dtype)
            for _ in range(self.depth)
        ]
        self.norm = LayerNorm(dtype=self.dtype)

    def _cells(self, cells_bnd: jax.Array) -> jax.Array:
        """What the blocks read of the images, (b, n, w)."""
        cells_bnw = self.cells(self.norm_cells(cells_bnd))
        if not self.queries:
            return cells_bnw
        query_zw = jnp.tile(self.query.astype(self.dtype), (len(cells_bnw), 1))
        return self.pool(query_zw, cells_bnw).reshape(-1, self.queries, self.width)

    def __call__(
        self, cells_bnd: jax.Array, ids_bm: jax.Array, keys_b: jax.Array | None = None
    ) -> tuple[jax.Array, None]:
        """See `mmjax.models.caption.Captioner`."""
        (b, m), cells_bnw = ids_bm.shape, self._cells(cells_bnd)
        x_bmw = embed(self.table_vw, ids_bm) + self.position_mw[:m]
        ones_bmw = jnp.ones(x_bmw.shape, self.dtype)

        def kept(salt: int) -> jax.Array:
            drawn_bmw = keep(ones_bmw, self.dropout, keys_b, salt=salt)
            return drawn_bmw.reshape(b * m, -1)

        x_zw = x_bmw.astype(self.dtype).reshape(b * m, -1) * kept(0)
        for i, block in enumerate(self.block):
            x_zw = block(x_zw, m, cells_bnw, [kept(3 * i + j) for j in (1, 2, 3)])
        return self._logits(x_zw).reshape(b, m, -1), None

    def _logits(self, x_zw: jax.Array) -> jax.Array:
        x_zw, table_vw = self.norm(x_zw), self.table_vw.astype(self.dtype)
        return jnp.matmul(x_zw, table_vw.T, preferred_element_type=jnp.float32)

    def begin(self, cells_pnd: jax.Array, rows: int = 1) -> tuple[Any, Any]:
        """Keys and values of cells by block, and empty caches of `rows` rows each."""
        cells_pnw, params = self._cells(cells_pnd), self.variables["params"]
        memory = [
            decoding.cell_memory(params[f"block_{i}"], cells_pnw, self.heads)
            for i in range(self.depth)
        ]
        shape = rows * len(cells_pnw), self.heads, self.context, -1
        zeros = jnp.zeros((shape[0], self.context * self.width), self.dtype)
        zeros = zeros.reshape(shape)
        return memory, [decoding.Cache(zeros, zeros)] * self.depth

    def step(
        self, memory: Any, state: Any, ids_b: jax.Array, index: jax.Array
    ) -> tuple[jax.Array, Any, jax.Array]:
        """See `mmjax.models.caption.Captioner`.

        What was looked at is the last block's attention, the mean over heads, to the
        cells, or to the queries that pool them.
        """
        params, how = self.variables["params"], {"heads": self.heads, "act": self.act}
        x_bw = self.table_vw[ids_b] + self.position_mw[index]
        x_bw, caches = x_bw.astype(self.dtype), []
        for i, (cells, cache) in enumerate(zip(memory, state, strict=True)):
            block = params[f"block_{i}"]
            x_bw, cache, seen_bn = decoding.decode(
                block, x_bw, cache, cells, index, **how
            )
            caches.append(cache)
        return self._logits(x_bw), caches, seen_bn
