"""How far raters agree beyond chance: Krippendorff's alpha for names.

Legend: u units (what is rated), c categories.
"""

import numpy as np

from mmjax.errors import UserError


def krippendorff(counts_uc: np.ndarray, weights_u: np.ndarray | None = None) -> float:
    """Alpha = 1 - observed / expected disagreement, all differences equally large.

    Krippendorff 2011, "Computing Krippendorff's alpha-reliability", section C (nominal
    data, any number of observers, missing values): each unit adds its pairs of values
    to the matrix of coincidences o, divided by the number of its values less one. It is
    1 where all agree and 0 where they agree as often as chance, and negative below.

    Args:
      counts_uc: How many raters gave unit u the category c; units with fewer than two
        values say nothing and are left out.
      weights_u: How often each unit counts, for a bootstrap.

    Returns:
      NaN where no two values differ: alpha is undefined without variation.
    """
    counts_uc = np.asarray(counts_uc, np.float64)
    if counts_uc.ndim != 2 or (counts_uc < 0).any():
        raise UserError(f"counts are {counts_uc.shape}: give a row of counts a unit")
    many_u = counts_uc.sum(1)
    share_u = np.where(many_u > 1, 1 / np.maximum(many_u - 1, 1), 0)
    if weights_u is not None:
        share_u = share_u * weights_u
    pairs_cc = (counts_uc * share_u[:, None]).T @ counts_uc
    coincidences_cc = pairs_cc - np.diag(share_u @ counts_uc)
    total_c = coincidences_cc.sum(0)
    total = total_c.sum()
    expected = total**2 - total_c @ total_c
    if total <= 1 or expected <= 1e-9 * total**2:
        return float("nan")
    observed = total - np.trace(coincidences_cc)
    return float(1 - (total - 1) * observed / expected)


def raw(counts_uc: np.ndarray) -> float:
    """Share of pairs of raters of one unit that gave the same category; NaN of none."""
    counts_uc = np.asarray(counts_uc, np.float64)
    pairs_u = counts_uc.sum(1) * (counts_uc.sum(1) - 1)
    same = (counts_uc * (counts_uc - 1)).sum()
    return float(same / pairs_u.sum()) if pairs_u.sum() else float("nan")
