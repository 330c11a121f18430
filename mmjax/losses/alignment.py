"""Frames of two series that should find each other, with and without labels.

Legend: b rows, n and m frames, d columns.
"""

import jax
import jax.numpy as jnp


def _squared(x_bnd: jax.Array, y_bmd: jax.Array) -> jax.Array:
    """(b, n, m) of squared distances."""
    norms = jnp.square(x_bnd).sum(-1)[:, :, None] + jnp.square(y_bmd).sum(-1)[:, None]
    return norms - 2 * jnp.einsum("bnd,bmd->bnm", x_bnd, y_bmd)


def _near(
    x_bnd: jax.Array, y_bmd: jax.Array, m_mask_bm: jax.Array, temperature: float
) -> jax.Array:
    """(b, n, m): log softmax over y of minus squared distance / temperature."""
    logits_bnm = -_squared(x_bnd, y_bmd) / temperature
    return jax.nn.log_softmax(jnp.where(m_mask_bm[:, None], logits_bnm, -1e9))


def cycle_back(
    x_bnd: jax.Array,
    y_bmd: jax.Array,
    n_mask_bn: jax.Array,
    m_mask_bm: jax.Array,
    *,
    temperature: float,
    spread: float,
) -> tuple[jax.Array, jax.Array]:
    """Temporal cycle consistency: x by way of y, and how far from itself it lands.

    Cycle-back regression (Dwibedi et al. 2019, equation 5): with the mean mu and
    variance s^2 of the place in x that the soft neighbour of frame i leads back to,
    |i - mu|^2 / s^2 + spread log s. Places are shares of the length, as in the authors'
    code, and s^2 has a floor of 1e-4, the square of a hundredth of the length.

    Args:
      n_mask_bn, m_mask_bm: bool, the frames that count.
      temperature: of both softmaxes.
      spread: weight of log s; 0.001 in the paper.

    Returns:
      Both (b,), means over frames of x: the loss, and |i - mu| as a share of x.
    """
    soft_bnd = jnp.exp(_near(x_bnd, y_bmd, m_mask_bm, temperature)) @ y_bmd
    back_bnn = jnp.exp(_near(soft_bnd, x_bnd, n_mask_bn, temperature))
    count_b1 = jnp.maximum(n_mask_bn.sum(1, keepdims=True), 1)
    place_bn = jnp.arange(x_bnd.shape[1]) / count_b1
    mean_bn = (back_bnn * place_bn[:, None]).sum(-1)
    off_bnn = jnp.square(place_bn[:, None] - mean_bn[..., None])
    variance_bn = jnp.maximum((back_bnn * off_bnn).sum(-1), 1e-4)
    error_bn = jnp.abs(place_bn - mean_bn)
    loss_bn = jnp.square(error_bn) / variance_bn + 0.5 * spread * jnp.log(variance_bn)

    def mean(value_bn: jax.Array) -> jax.Array:
        return jnp.where(n_mask_bn, value_bn, 0).sum(1) / count_b1[:, 0]

    return mean(loss_bn), mean(error_bn)


def at_truth(
    x_bnd: jax.Array,
    y_bmd: jax.Array,
    n_mask_bn: jax.Array,
    m_mask_bm: jax.Array,
    truth_bn: jax.Array,
    *,
    temperature: float,
) -> tuple[jax.Array, jax.Array]:
    """Cross-entropy of each frame's neighbour among y, where its place is known.

    Args:
      truth_bn: places among the frames of y, not rounded: the two frames about one
        share it by their distances.
      temperature: of the softmax over squared distances.

    Returns:
      Both (b,), means over frames of x: nats, and |truth - mean place| in frames of y.
    """
    log_bnm = _near(x_bnd, y_bmd, m_mask_bm, temperature)
    place_m = jnp.arange(y_bmd.shape[1])
    share_bnm = jnp.maximum(1 - jnp.abs(truth_bn[..., None] - place_m), 0)
    loss_bn = -(share_bnm * log_bnm).sum(-1)
    error_bn = jnp.abs((jnp.exp(log_bnm) * place_m).sum(-1) - truth_bn)
    count_b = jnp.maximum(n_mask_bn.sum(1), 1)
    return tuple(
        jnp.where(n_mask_bn, value_bn, 0).sum(1) / count_b
        for value_bn in (loss_bn, error_bn)
    )
