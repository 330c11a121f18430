"""Layers by their definitions, in numpy: what models are compared with."""

import jax
import numpy as np


def filled(module, *args):
    """Random parameters, none of them at a norm's 1 or a bias' 0."""
    shapes = jax.eval_shape(module.init, jax.random.key(0), *args)
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda x: rng.normal(size=x.shape, scale=0.4).astype(np.float32), shapes
    )


def group_norm(x_hwc, p, groups, eps=1e-6):
    """(x - mean) / sqrt(var + eps) of every group of channels, scaled."""
    y_hwc = np.empty_like(x_hwc)
    for part in np.split(np.arange(x_hwc.shape[-1]), groups):
        one = x_hwc[..., part]
        y_hwc[..., part] = (one - one.mean()) / np.sqrt(one.var() + eps)
    return y_hwc * p["scale"] + p["bias"]


def conv(x_hwc, p, stride=1, before=1):
    """By its definition; `before` rows and columns of zeros, one behind."""
    kernel = p["kernel"]
    k = len(kernel)
    x = np.pad(x_hwc, ((before, 1), (before, 1), (0, 0)))
    rows, columns = ((n - k) // stride + 1 for n in x.shape[:2])
    y = np.empty((rows, columns, kernel.shape[-1]))
    for i in range(rows):
        for j in range(columns):
            window = x[i * stride : i * stride + k, j * stride : j * stride + k]
            y[i, j] = np.einsum("abc,abcf->f", window, kernel)
    return y + p.get("bias", 0.0)


def silu(x):
    return x / (1 + np.exp(-x))


def dense(x, p):
    return x @ p["kernel"] + p.get("bias", 0.0)


def attend(q_td, k_ld, v_ld):
    """One head: softmax of scaled products, times the values."""
    logits_tl = q_td @ k_ld.T / np.sqrt(q_td.shape[-1])
    weights_tl = np.exp(logits_tl - logits_tl.max(-1, keepdims=True))
    return weights_tl / weights_tl.sum(-1, keepdims=True) @ v_ld
