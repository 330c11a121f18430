"""Normalisation layers: statistics in float32, output in the compute dtype."""

import flax.linen as nn
import jax
import jax.numpy as jnp


class LayerNorm(nn.Module):
    """LayerNorm over the last axis, float32 inside, eps 1e-5 as in CLIP."""

    eps: float = 1e-5
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        x32 = x.astype(jnp.float32)
        mean = x32.mean(-1, keepdims=True)
        centred = x32 - mean
        var = jnp.square(centred).mean(-1, keepdims=True)
        gain = jax.lax.rsqrt(var + self.eps)
        return (centred * gain * scale + bias).astype(self.dtype)


class BatchNorm(nn.Module):
    """BatchNorm over all axes but the last.

    The statistics are means over rows of x and x^2, so their mean over equal shards is
    that of the whole batch: under pmap pass the mapped axis as `axis`; under jit, where
    arrays are global, pass None. Running averages live in `batch_stats` and move by
    1 - momentum a training call (torch's momentum 0.1); the variance stored is the
    biased one.
    """

    momentum: float = 0.9
    eps: float = 1e-5
    scale_init: float = 1.0
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool, axis: str | None = None
    ) -> jax.Array:
        shape = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.constant(self.scale_init), shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        mean_of = self.variable("batch_stats", "mean", jnp.zeros, shape)
        var_of = self.variable("batch_stats", "var", jnp.ones, shape)
        if train:
            rows = tuple(range(x.ndim - 1))
            x32 = x.astype(jnp.float32)
            mean, square = x32.mean(rows), jnp.square(x32).mean(rows)
            if axis is not None and not self.is_initializing():
                mean, square = jax.lax.pmean((mean, square), axis)
            var = jnp.maximum(square - jnp.square(mean), 0.0)
            if not self.is_initializing():
                keep = self.momentum
                mean_of.value = keep * mean_of.value + (1 - keep) * mean
                var_of.value = keep * var_of.value + (1 - keep) * var
        else:
            mean, var = mean_of.value, var_of.value
        gain = jax.lax.rsqrt(var + self.eps) * scale
        return (x * gain + (bias - mean * gain)).astype(self.dtype)


class GroupNorm(nn.Module):
    """GroupNorm by per-channel sums, which XLA's CPU back-end reduces fastest."""

    groups: int = 8
    eps: float = 1e-5
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x_bhwc: jax.Array) -> jax.Array:
        b, channels = x_bhwc.shape[0], x_bhwc.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        x32 = x_bhwc.astype(jnp.float32)

        def over_group(x_bc: jax.Array) -> jax.Array:
            x_bg = x_bc.reshape(b, self.groups, -1).mean(-1)
            return jnp.repeat(x_bg, channels // self.groups, axis=1)

        rows = tuple(range(1, x_bhwc.ndim - 1))
        mean = over_group(x32.mean(rows))
        var = over_group(jnp.square(x32).mean(rows)) - jnp.square(mean)
        gain = jax.lax.rsqrt(jnp.maximum(var, 0.0) + self.eps) * scale
        shift = bias - mean * gain
        return (x32 * gain[:, None, None] + shift[:, None, None]).astype(self.dtype)
