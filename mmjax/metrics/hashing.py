"""Cross-modal hashing in closed form: linear maps of two views to the same bits.

    hashed = hashing.cca_itq((a_nd, b_ne), 64)  # or hashing.scm(views, 64, label_nc)
    a_nk, b_nk = hashed.bits((more_a_nd, more_b_ne))
    distance_qg = hashing.hamming(hashing.packed(a_nk), hashing.packed(b_nk))

Legend: n rows, d e columns of a view, k bits, c classes, q queries, g gallery.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from mmjax.errors import UserError
from mmjax.metrics import cca

BYTE = 8
_CELLS = 1 << 22  # words of codes compared at a time
_ROUNDS = 50  # of Gong et al. 2013


@dataclasses.dataclass(frozen=True)
class Hashed:
    """A linear map of every view; a bit is the sign of a column."""

    means: tuple[np.ndarray, ...]  # (d,) of every view
    weights: tuple[np.ndarray, ...]  # (d, k)

    def outputs(self, views: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Every view's rows before their signs are taken, float64 (n, k)."""
        parts = zip(views, self.means, self.weights, strict=True)
        return [(np.asarray(x, np.float64) - mean) @ w for x, mean, w in parts]

    def bits(self, views: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The codes of every view's rows, bool (n, k)."""
        return [x > 0 for x in self.outputs(views)]


def check_bits(bits: int, width: int = 0) -> None:
    """Raises UserError unless `bits` fill bytes and are no more than `width` columns.

    width: columns that the bits come from; 0 is no limit.
    """
    most = width // BYTE * BYTE if width else bits
    if bits < BYTE or bits % BYTE or bits > most:
        below, above = max(bits // BYTE * BYTE, BYTE), -(-bits // BYTE) * BYTE
        fix = f"use {below} or {max(above, BYTE)}"
        if width and max(below, above) > most:
            fix = f"use {min(below, most)}" if most else "use wider embeddings"
        of = f" of rows with {width} columns" if width else ""
        raise UserError(
            f"{bits} hash bits{of}: bits are a multiple of {BYTE}"
            + (f", and no more than the {width} columns" if width else "")
            + f"; {fix}"
        )


def itq(x_nk: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """The rotation (k, k) that brings centred rows near corners of a cube.

    Iterative quantisation (Gong et al. 2013, section 2.2): in turn B = sign(X R), and
    the R that minimises |B - X R|, from a random rotation.
    """
    k = x_nk.shape[1]
    start = np.random.default_rng(seed).normal(size=(k, k))
    rotation_kk = np.linalg.qr(start)[0]
    for _ in range(_ROUNDS):
        corner_nk = np.where(x_nk @ rotation_kk > 0, 1.0, -1.0)
        left_kk, _, right_kk = np.linalg.svd(x_nk.T @ corner_nk)
        rotation_kk = left_kk @ right_kk
    return rotation_kk


def pca_itq(x_nd: np.ndarray, bits: int, *, seed: int = 0) -> Hashed:
    """Principal components of one view, rotated by `itq` (Gong et al. 2013).

    Raises:
      UserError: see `check_bits`.
    """
    check_bits(bits, x_nd.shape[1])
    x_nd = np.asarray(x_nd, np.float64)
    mean_d = x_nd.mean(0)
    centred_nd = x_nd - mean_d
    vectors_dd = np.linalg.eigh(centred_nd.T @ centred_nd)[1]
    weights_dk = vectors_dd[:, ::-1][:, :bits]
    rotation_kk = itq(centred_nd @ weights_dk, seed=seed)
    return Hashed((mean_d,), (weights_dk @ rotation_kk,))


def cca_itq(
    views: Sequence[np.ndarray], bits: int, *, reg: float = 1e-4, seed: int = 0
) -> Hashed:
    """Canonical components of two views, under one rotation (Gong et al. 2013).

    Components are scaled by their correlations, so that those of noise have no part in
    the rotation; it is fitted on both views' rows, one under the other.

    Raises:
      UserError: see `check_bits` and `cca.fit`.
    """
    check_bits(bits, min(x.shape[1] for x in views))
    fitted = cca.fit(views, bits, reg=reg)
    scaled = Hashed(
        fitted.means, tuple(w * fitted.correlations for w in fitted.weights)
    )
    rotation_kk = itq(np.concatenate(scaled.outputs(views)), seed=seed)
    return Hashed(fitted.means, tuple(w @ rotation_kk for w in scaled.weights))


def scm(
    views: Sequence[np.ndarray],
    bits: int,
    label_nc: np.ndarray,
    *,
    reg: float = 1e-4,
) -> Hashed:
    """Semantic correlation maximisation, one bit after the other (Zhang and Li 2014).

    Each bit is the leading canonical direction of the residue X' R Y, where R starts
    as k S, S = 2 L L' - 1 with rows of L of length one, and loses every bit's
    sign(X w) sign(Y v)' (their algorithm 2). Similarities are never written out.

    Args:
      label_nc: classes of the rows, one or more.
      reg: on the diagonals of the covariances.

    Raises:
      UserError: see `check_bits` and `cca.fit`.
    """
    check_bits(bits)
    (a_nd, b_ne), means, halves = cca.whitened(views, 1, reg)
    norm_n1 = np.linalg.norm(label_nc, axis=1, keepdims=True)
    unit_nc = label_nc / np.maximum(norm_n1, 1e-12)
    # the rows are centred, so the -1 of S adds nothing
    residue_de = 2 * bits * (a_nd.T @ unit_nc) @ (unit_nc.T @ b_ne)
    columns = []
    for _ in range(bits):
        white_de = halves[0].T @ residue_de @ halves[1]
        right_e = np.linalg.eigh(white_de.T @ white_de)[1][
            :, -1
        ]  # SVD may not converge
        left_d = white_de @ right_e
        left_d /= max(np.linalg.norm(left_d), 1e-12)
        columns.append((halves[0] @ left_d, halves[1] @ right_e))
        first_n, second_n = (
            np.where(x @ w > 0, 1.0, -1.0)
            for x, w in zip((a_nd, b_ne), columns[-1], strict=True)
        )
        residue_de -= np.outer(a_nd.T @ first_n, second_n @ b_ne)
    weights = tuple(np.stack(part, 1) for part in zip(*columns, strict=True))
    return Hashed(tuple(means), weights)


def packed(bits_nk: np.ndarray) -> np.ndarray:
    """Bits (n, k) as bytes, uint8 (n, k / 8)."""
    check_bits(bits_nk.shape[1])
    return np.packbits(bits_nk, axis=1)


def hamming(query_qw: np.ndarray, gallery_gw: np.ndarray) -> np.ndarray:
    """How many bits differ, uint16 (q, g), of packed codes uint8 (., k / 8)."""
    out = np.empty((len(query_qw), len(gallery_gw)), np.uint16)
    step = max(1, _CELLS // max(1, gallery_gw.size))
    for start in range(0, len(query_qw), step):
        apart = query_qw[start : start + step, None] ^ gallery_gw
        out[start : start + step] = np.bitwise_count(apart).sum(-1, dtype=np.uint16)
    return out
