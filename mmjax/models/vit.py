"""Vision transformers of CLIP (Radford et al. 2021) and SigLIP (Zhai et al. 2023)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.errors import UserError
from mmjax.nn.conv import space_to_depth
from mmjax.nn.dense import Dense
from mmjax.nn.init import normal
from mmjax.nn.norm import LayerNorm
from mmjax.nn.transformer import LatentPool, Transformer


class ViT(nn.Module):
    """Patches, class token, learned positions, pre-norm; the class token comes out.

    The patch kernel is (patch * patch * 3, width), rows in (row, column, channel)
    order. `heads` 0 means width / 64 (at least 1). The blocks keep torch's default
    initialisation, as the original's do; class token and positions are N(0, 1/width).

    pool: `token`, as above; or `map`, as in SigLIP: no class token, patches with a
    bias, no norm before the blocks, `LatentPool` after them, and no projection into the
    joint space. There, pixels that do not fill a patch are dropped at the right and the
    bottom (384 px in patches of 14 are 27 a side). eps: of the layer norms.
    """

    width: int = 768
    depth: int = 12
    heads: int = 0
    patch: int = 32
    image_size: int = 224
    mlp_ratio: float = 4.0
    act: str = "gelu"
    pool: str = "token"
    eps: float = 1e-5
    scan: bool = False
    remat: str = "none"
    dtype: str = "float32"
    attention: str = "auto"

    project_bias = False

    @property
    def features(self) -> int:
        return self.width

    @property
    def project(self) -> bool:
        """Whether a projection into the joint space follows."""
        return self.pool == "token"

    def setup(self) -> None:
        if self.pool not in ("token", "map"):
            raise UserError(f"pool is {self.pool!r}: use token or map")
        token = self.pool == "token"
        side, left = divmod(self.image_size, self.patch)
        if left and (token or not side):
            raise UserError(
                f"image_size {self.image_size} must be a multiple of patch "
                f"{self.patch}: use {max(1, side) * self.patch}"
            )
        width = self.width
        init = normal(width**-0.5)
        heads = self.heads or max(1, width // 64)
        self.patches = Dense(width, use_bias=not token, dtype=self.dtype)
        self.position_embedding = self.param(
            "position_embedding", init, (side**2 + token, width), jnp.float32
        )
        if token:
            self.class_token = self.param("class_token", init, (width,), jnp.float32)
            self.norm_pre = LayerNorm(self.eps, self.dtype)
        else:
            self.head = LatentPool(
                heads, self.mlp_ratio, self.act, self.dtype, self.eps
            )
        self.transformer = Transformer(
            self.depth,
            heads,
            mlp_ratio=self.mlp_ratio,
            act=self.act,
            scan=self.scan,
            remat=self.remat,
            dtype=self.dtype,
            eps=self.eps,
            attention=self.attention,
        )
        self.norm_post = LayerNorm(self.eps, self.dtype)

    def _embed(self, x_bhwc: jax.Array) -> jax.Array:
        size = self.image_size // self.patch * self.patch
        x_bhwc = x_bhwc[:, :size, :size].astype(self.dtype)
        x_bhwc = space_to_depth(x_bhwc, self.patch)
        x_btw = self.patches(x_bhwc.reshape(x_bhwc.shape[0], -1, x_bhwc.shape[-1]))
        if self.pool == "map":
            return x_btw + self.position_embedding.astype(self.dtype)
        class_b1w = jnp.broadcast_to(
            self.class_token.astype(self.dtype), (x_btw.shape[0], 1, self.width)
        )
        x_btw = jnp.concatenate([class_b1w, x_btw], axis=1)
        return self.norm_pre(x_btw + self.position_embedding.astype(self.dtype))

    def __call__(
        self,
        x_bhwc: jax.Array,
        *,
        train: bool = False,
        axis: str | None = None,
        with_map: bool = False,
    ) -> jax.Array | tuple[jax.Array, jax.Array]:
        """Features (b, width): the normalised class token, or what the head pools.

        with_map: also the normalised tokens of the patches, (b, h, w, width).
        """
        del train, axis  # no batch statistics, no dropout
        if with_map:
            x_btw, side = self.sequence(x_bhwc), self.image_size // self.patch
            token = self.pool == "token"
            map_bhww = x_btw[:, token:].reshape(-1, side, side, self.width)
            return x_btw[:, 0] if token else self.head(x_btw), map_bhww
        if self.pool == "map":
            return self.head(self.sequence(x_bhwc))
        return self.norm_post(self.transformer(self._embed(x_bhwc), 0))

    def sequence(self, x_bhwc: jax.Array) -> jax.Array:
        """All output tokens (b, t, width), a class token first, normalised."""
        return self.norm_post(self.transformer(self._embed(x_bhwc)))
