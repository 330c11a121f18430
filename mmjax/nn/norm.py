"""Normalisation layers: statistics in float32, output in the compute dtype."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def layer_norm(
    x: jax.Array, scale_w: jax.Array, bias_w: jax.Array, eps: float
) -> jax.Array:
    """`(x - mean) / sqrt(var + eps) * scale + bias` over the last axis, in float32.

    The gradient, with y the normalised x and g the gradient of the output times scale,
    is `(g - mean(g) - y mean(g y)) / sqrt(var + eps)` (Ba et al. 2016; the rows' means
    written as products with `scale`). It keeps x and two numbers a row, half of what
    autodiff would, and takes half the time on a CPU. Reverse mode only.
    """
    return _layer_norm_forward(x, scale_w, bias_w, eps)[0]


def _layer_norm_forward(
    x: jax.Array, scale_w: jax.Array, bias_w: jax.Array, eps: float
) -> tuple[jax.Array, tuple]:
    x32 = x.astype(jnp.float32)
    mean = x32.mean(-1, keepdims=True)
    gain = jax.lax.rsqrt(jnp.square(x32 - mean).mean(-1, keepdims=True) + eps)
    return (x32 - mean) * gain * scale_w + bias_w, (x, mean, gain, scale_w)


def _layer_norm_backward(eps: float, kept: tuple, grad: jax.Array) -> tuple:
    del eps
    x, mean, gain, scale_w = kept
    y = (x.astype(jnp.float32) - mean) * gain

    def row_mean(a: jax.Array) -> jax.Array:
        dot = jnp.matmul(a, scale_w, precision=jax.lax.Precision.HIGHEST)
        return dot[..., None] / scale_w.size

    to_x = gain * (grad * scale_w - row_mean(grad) - y * row_mean(grad * y))
    rows = tuple(range(grad.ndim - 1))
    return to_x.astype(x.dtype), (grad * y).sum(rows), grad.sum(rows)


layer_norm.defvjp(_layer_norm_forward, _layer_norm_backward)


class LayerNorm(nn.Module):
    """LayerNorm over the last axis, float32 inside, eps 1e-5 as in CLIP."""

    eps: float = 1e-5
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        return layer_norm(x, scale, bias, self.eps).astype(self.dtype)


MOMENTUM = 0.9  # of the running averages: torch's 0.1 is of the new


class BatchNorm(nn.Module):
    """BatchNorm over all axes but the last.

    The statistics are means over rows of x and x^2, so their mean over equal shards is
    that of the whole batch: under pmap pass the mapped axis as `axis`; under jit, where
    arrays are global, pass None. Running averages live in `batch_stats` and move by
    0.1 a training call; the variance stored is the biased one.
    """

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
                keep = MOMENTUM
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
