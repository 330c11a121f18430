"""Losses of deep CCA: how much networks' outputs for views of the same rows correlate.

Every row sees all others, so under data parallelism the caller gathers the rows first:
covariances are those of the global batch. All is float32.

Legend: b rows, d e columns of a view, v views, k components.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from mmjax.errors import UserError


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def trace_norm(t_de: jax.Array, k: int) -> jax.Array:
    """The sum of the k largest singular values (eigenvalues, of a matrix >= 0).

    Its gradient is U_k V_k' (Andrew et al. 2013, equation 12, for T itself). Singular
    vectors have no derivative where values repeat; their product needs none.
    """
    return jnp.linalg.svd(t_de, compute_uv=False)[:k].sum()


def _forward(t_de: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    u_dk, s_k, vt_ke = jnp.linalg.svd(t_de, full_matrices=False)
    uv_de = jnp.matmul(u_dk[:, :k], vt_ke[:k], precision=jax.lax.Precision.HIGHEST)
    return s_k[:k].sum(), uv_de


trace_norm.defvjp(_forward, lambda k, uv_de, grad: (grad * uv_de,))


def total_correlation(
    views: Sequence[jax.Array], *, k: int = 0, reg: float = 1e-4
) -> jax.Array:
    """The sum of the k largest canonical correlations, a scalar.

    Two views: the trace norm of T = L_a^-1 C_ab L_b^-T, where C_aa + reg I = L_a L_a'
    (Andrew et al. 2013, equation 10, with Cholesky factors in place of roots, which
    leaves T's singular values as they are). More views: (sum of the k largest
    eigenvalues of the block matrix of all T - k) / (v - 1), which is MAXVAR and the
    objective of deep generalised CCA (Benton et al. 2017), and the same of two views.

    Args:
      views: (b, d) each; covariances divide by b - 1.
      k: 0 is as many as the narrowest view has columns.

    Raises:
      UserError: as many rows as a view has columns, or fewer, which correlate totally
        whatever they are; more components than a view has columns.
    """
    narrow, wide = (f(x.shape[1] for x in views) for f in (min, max))
    rows = len(views[0])
    if rows <= wide:
        raise UserError(
            f"a batch of {rows} rows and codes of {wide} columns: rows that are no "
            f"more than the columns correlate totally; use a batch_size above {wide}, "
            "better 10 times as many, or narrower codes"
        )
    if not 0 <= k <= narrow:
        raise UserError(f"{k} components of codes of {narrow}: use 1 to {narrow}")
    k = k or narrow
    white = [_white(x, reg) for x in views]
    if len(views) == 2:
        return trace_norm(_matmul(white[0].T, white[1]), k)
    joint = jnp.concatenate(white, axis=1)
    blocks = _matmul(joint.T, joint)
    starts = jnp.repeat(
        jnp.arange(len(views)),
        jnp.array([x.shape[1] for x in views]),
        total_repeat_length=len(blocks),
    )
    own = starts[:, None] == starts[None]
    blocks = jnp.where(own, jnp.eye(len(blocks)), blocks)
    return (trace_norm(blocks, k) - k) / (len(views) - 1)


def _matmul(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def _centred(x_bd: jax.Array) -> jax.Array:
    x_bd = x_bd.astype(jnp.float32)
    return x_bd - x_bd.mean(0)


def _white(x_bd: jax.Array, reg: float) -> jax.Array:
    """Rows whose inner products are T's blocks: X_c L^-T / sqrt(b - 1)."""
    x_bd = _centred(x_bd) / (len(x_bd) - 1) ** 0.5
    covariance_dd = _matmul(x_bd.T, x_bd) + reg * jnp.eye(x_bd.shape[1])
    lower_dd = jnp.linalg.cholesky(covariance_dd)
    return jax.scipy.linalg.solve_triangular(lower_dd, x_bd.T, lower=True).T


def matched_correlation(a_bd: jax.Array, b_bd: jax.Array) -> jax.Array:
    """The sum of the correlations of equal columns, a scalar.

    CorrAE's term (Wang et al. 2015, equation 5): deep CCA without the constraint that
    columns of one view be uncorrelated. A constant column counts 0.
    """
    a_bd, b_bd = _centred(a_bd), _centred(b_bd)
    squares_d = jnp.square(a_bd).sum(0) * jnp.square(b_bd).sum(0)
    return ((a_bd * b_bd).sum(0) * jax.lax.rsqrt(squares_d + 1e-12)).sum()
