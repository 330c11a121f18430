"""Vision transformer of CLIP (Radford et al. 2021, 2.4; Dosovitskiy et al. 2020)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.errors import UserError
from mmjax.nn.conv import space_to_depth
from mmjax.nn.dense import Dense
from mmjax.nn.init import normal
from mmjax.nn.norm import LayerNorm
from mmjax.nn.transformer import Transformer


class ViT(nn.Module):
    """Patches, class token, learned positions, pre-norm; the class token comes out.

    The patch kernel is (patch * patch * 3, width), rows in (row, column, channel)
    order. `heads` 0 means width / 64 (at least 1). The blocks keep torch's default
    initialisation, as the original's do; class token and positions are N(0, 1/width).
    """

    width: int = 768
    depth: int = 12
    heads: int = 0
    patch: int = 32
    image_size: int = 224
    mlp_ratio: float = 4.0
    act: str = "gelu"
    scan: bool = False
    remat: str = "none"
    dtype: str = "float32"

    project_bias = False

    @property
    def features(self) -> int:
        return self.width

    def setup(self) -> None:
        side, left = divmod(self.image_size, self.patch)
        if left:
            raise UserError(
                f"image_size {self.image_size} must be a multiple of patch "
                f"{self.patch}: use {max(1, side) * self.patch}"
            )
        width = self.width
        init = normal(width**-0.5)
        self.patches = Dense(width, use_bias=False, dtype=self.dtype)
        self.class_token = self.param("class_token", init, (width,), jnp.float32)
        self.position_embedding = self.param(
            "position_embedding", init, (side**2 + 1, width), jnp.float32
        )
        self.norm_pre = LayerNorm(dtype=self.dtype)
        self.transformer = Transformer(
            self.depth,
            self.heads or max(1, width // 64),
            mlp_ratio=self.mlp_ratio,
            act=self.act,
            scan=self.scan,
            remat=self.remat,
            dtype=self.dtype,
        )
        self.norm_post = LayerNorm(dtype=self.dtype)

    def _embed(self, x_bhwc: jax.Array) -> jax.Array:
        x_bhwc = space_to_depth(x_bhwc.astype(self.dtype), self.patch)
        x_btw = self.patches(x_bhwc.reshape(x_bhwc.shape[0], -1, x_bhwc.shape[-1]))
        class_b1w = jnp.broadcast_to(
            self.class_token.astype(self.dtype), (x_btw.shape[0], 1, self.width)
        )
        x_btw = jnp.concatenate([class_b1w, x_btw], axis=1)
        return self.norm_pre(x_btw + self.position_embedding.astype(self.dtype))

    def __call__(
        self, x_bhwc: jax.Array, *, train: bool = False, axis: str | None = None
    ) -> jax.Array:
        """Features (b, width): the normalised class token."""
        del train, axis  # no batch statistics, no dropout
        return self.norm_post(self.transformer(self._embed(x_bhwc), 0))

    def sequence(self, x_bhwc: jax.Array) -> jax.Array:
        """All output tokens (b, 1 + patches, width), class token first, normalised."""
        return self.norm_post(self.transformer(self._embed(x_bhwc)))
