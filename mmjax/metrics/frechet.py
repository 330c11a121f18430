"""Distances between sets of images in the features of a network.

Frechet distance (FID): Heusel et al. 2017, equation 6. Inception score: Salimans et al.
2016, section 4. Both were defined with one ImageNet network; with any other they are
other numbers, so a result says which network it used.

Legend: n images, d features, c classes.
"""

import numpy as np
from scipy import special

from mmjax.errors import UserError
from mmjax.metrics import bootstrap


def gaussian(
    features_nd: np.ndarray, weights_n: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Mean (d,) and covariance (d, d) of rows, float64.

    weights_n: how often each row counts; the covariance divides by their sum less 1.

    Raises:
      UserError: fewer than two rows, or a feature that is not finite.
    """
    features_nd = np.asarray(features_nd, np.float64)
    if features_nd.ndim != 2 or len(features_nd) < 2:
        raise UserError(f"features are {features_nd.shape}: give two rows or more")
    bad = int((~np.isfinite(features_nd)).any(1).sum())
    if bad:
        raise UserError(f"{bad} of {len(features_nd)} rows of features are not finite")
    weights_n = np.ones(len(features_nd)) if weights_n is None else weights_n
    total = weights_n.sum()
    mean_d = weights_n @ features_nd / total
    centred_nd = (features_nd - mean_d) * np.sqrt(weights_n)[:, None]
    return mean_d, centred_nd.T @ centred_nd / (total - 1)


def distance(
    mean_a_d: np.ndarray,
    cov_a_dd: np.ndarray,
    mean_b_d: np.ndarray,
    cov_b_dd: np.ndarray,
) -> float:
    """Squared Frechet distance of two Gaussians.

    |mean_a - mean_b|^2 + tr(A + B - 2 (A B)^1/2). With factors A = F F', B = G G' the
    trace of the root is the sum of the singular values of F' G: no root of a product
    that is not symmetric, and covariances of low rank (fewer images than features)
    are as good as any.
    """
    root = np.linalg.svd(_factor(cov_a_dd).T @ _factor(cov_b_dd), compute_uv=False)
    apart = float(np.sum((mean_a_d - mean_b_d) ** 2))
    traces = float(np.trace(cov_a_dd) + np.trace(cov_b_dd))
    return max(0.0, apart + traces - 2 * float(root.sum()))


def _factor(cov_dd: np.ndarray) -> np.ndarray:
    """F (d, d) with F F' = cov; eigenvalues that rounding made negative are 0."""
    values_d, vectors_dd = np.linalg.eigh(cov_dd)
    return vectors_dd * np.sqrt(values_d.clip(0))


def resampled(
    features_nd: np.ndarray, mean_d: np.ndarray, cov_dd: np.ndarray
) -> bootstrap.Statistic:
    """weights (n,) -> squared distance of weighted rows to a Gaussian, for bootstraps.

    One decomposition a call, of the product itself as (n, n) or (d, d), whichever is
    smaller: cheaper than `distance`, and good to about 1e-6 of the variance.
    """
    features_nd = np.asarray(features_nd, np.float64) - mean_d
    turned_nd, trace_b = features_nd @ _factor(cov_dd), float(np.trace(cov_dd))

    def statistic(weights_n: np.ndarray) -> float:
        drawn = weights_n > 0
        weight_n, total = weights_n[drawn], weights_n.sum()
        rows_nd, turned = features_nd[drawn], turned_nd[drawn]
        apart_d = weight_n @ rows_nd / total
        squares = weight_n @ np.einsum("nd,nd->n", rows_nd, rows_nd)
        trace_a = (squares - total * apart_d @ apart_d) / (total - 1)
        centred = turned - weight_n @ turned / total
        centred *= np.sqrt(weight_n / (total - 1))[:, None]
        wide = len(centred) < centred.shape[1]
        product = centred @ centred.T if wide else centred.T @ centred
        root = np.sqrt(np.linalg.eigvalsh(product).clip(0)).sum()
        return float(max(0.0, apart_d @ apart_d + trace_a + trace_b - 2 * root))

    return statistic


def inception_score(chances_nc: np.ndarray) -> bootstrap.Statistic:
    """weights (n,) -> exp of the mean KL(p(class | image) || p(class)), for bootstraps.

    It is 1 at worst, c at best. p(class) is the mean of p(class | image), chances_nc,
    so that the KL is the entropy of the mean less the mean entropy. In one part, not
    the ten of the original, whose parts' sizes change the number.
    """
    chances_nc = np.asarray(chances_nc, np.float64)
    entropy_n = special.entr(chances_nc).sum(1)

    def statistic(weights_n: np.ndarray) -> float:
        share_n = weights_n / weights_n.sum()
        whole = special.entr(share_n @ chances_nc).sum()
        return float(np.exp(whole - share_n @ entropy_n))

    return statistic


def with_interval(
    name: str, value: float, statistic: bootstrap.Statistic, n: int, **draw: int
) -> dict[str, float]:
    """{name: value, name_lo: ..., name_hi: ...}, for statistics that n itself biases.

    A resample holds some images twice and others not at all, which moves these
    statistics like a smaller n does. The interval is the middle 95 % of the resampled
    values, moved so that their mean is the value: their spread, without that shift.
    """
    drawn = bootstrap.resampled(statistic, n, **draw)
    low, high = np.percentile(drawn, bootstrap.ENDS) - np.mean(drawn) + value
    return {name: value, f"{name}_lo": float(low), f"{name}_hi": float(high)}


INTERVAL = (
    "fid and inception_score: percentile bootstrap, moved so that the resampled mean "
    "is the value, for resampling repeats images, which biases both"
)
