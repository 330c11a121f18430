"""Clusters of features beside classes: spectral clustering, accuracy and NMI.

Legend: n rows, d features, k clusters.
"""

import numpy as np
from scipy import cluster, optimize, sparse

from mmjax.errors import UserError

_ROWS = 1024  # whose distances to all are held at a time


def kmeans(
    x_nd: np.ndarray, k: int, *, restarts: int = 10, seed: int = 0
) -> np.ndarray:
    """The cluster of every row, int (n,): the best of `restarts` from k-means++."""
    x_nd, best = np.asarray(x_nd, np.float64), (np.inf, None)
    if k > len(x_nd):
        raise UserError(f"{k} clusters of {len(x_nd)} rows: use {len(x_nd)} or fewer")
    for i in range(restarts):
        rng = np.random.default_rng([seed, i])
        centres_kd, id_n = cluster.vq.kmeans2(
            x_nd, k, iter=50, minit="++", missing="warn", seed=rng
        )
        cost = np.square(x_nd - centres_kd[id_n]).sum()
        best = min(best, (cost, id_n), key=lambda pair: pair[0])
    return best[1]


def spectral(
    x_nd: np.ndarray, k: int, *, neighbours: int = 5, seed: int = 0
) -> np.ndarray:
    """Spectral clustering (Ng et al. 2001) of the graph of nearest neighbours, (n,).

    Two rows are joined, with weight 1, where one is among the other's `neighbours`
    nearest; k-means runs on unit rows of the k first eigenvectors of D^-1/2 W D^-1/2.
    """
    n = len(x_nd)
    if n <= max(k, neighbours):
        raise UserError(
            f"{n} rows for {k} clusters by {neighbours} neighbours: give more than "
            f"{max(k, neighbours)} rows"
        )
    near_nm = _nearest(np.asarray(x_nd, np.float64), neighbours)
    rows = np.repeat(np.arange(n), neighbours)
    graph = sparse.csr_array((np.ones(rows.size), (rows, near_nm.ravel())), (n, n))
    graph = graph.maximum(graph.T)
    scale = sparse.diags_array(1 / np.sqrt(graph.sum(1)))
    start = np.random.default_rng(seed).normal(size=n)
    _, vectors_nk = sparse.linalg.eigsh(scale @ graph @ scale, k, which="LA", v0=start)
    norm_n1 = np.linalg.norm(vectors_nk, axis=1, keepdims=True)
    return kmeans(vectors_nk / np.maximum(norm_n1, 1e-12), k, seed=seed)


def _nearest(x_nd: np.ndarray, m: int) -> np.ndarray:
    """The m rows nearest to each, itself left out, (n, m), in no order."""
    half_n, parts = np.square(x_nd).sum(1) / 2, []
    for start in range(0, len(x_nd), _ROWS):
        apart_rn = half_n - x_nd[start : start + _ROWS] @ x_nd.T
        own_r = np.arange(len(apart_rn))
        apart_rn[own_r, start + own_r] = np.inf
        parts.append(np.argpartition(apart_rn, m - 1, axis=1)[:, :m])
    return np.concatenate(parts)


def scores(id_n: np.ndarray, label_n: np.ndarray) -> tuple[float, float]:
    """(accuracy under the best one-to-one naming of clusters, NMI).

    NMI is the mutual information over the larger of the two entropies, as Cai et al.
    2005 normalise it, and 0 where both are 0.
    """
    id_n = np.unique(id_n, return_inverse=True)[1]
    label_n = np.unique(label_n, return_inverse=True)[1]
    count = np.zeros((id_n.max() + 1, label_n.max() + 1))
    np.add.at(count, (id_n, label_n), 1)
    rows, columns = optimize.linear_sum_assignment(-count)
    joint = count / count.sum()
    a, b = joint.sum(1, keepdims=True), joint.sum(0, keepdims=True)
    seen = joint > 0
    information = (joint[seen] * np.log(joint[seen] / (a * b)[seen])).sum()
    entropy = max(-(p * np.log(p)).sum() for p in (a, b))
    nmi = information / entropy if entropy > 0 else 0.0
    return float(joint[rows, columns].sum()), float(nmi)
