"""Has a generator learned its training images by heart? Nearest neighbours say.

Legend: n images looked at, m training images, d numbers of an image.
"""

import numpy as np

from mmjax.errors import UserError

NEAR = 0.05  # the share of held-out images that counts as near
SAME = 2 / 255  # root mean square difference of images that look the same
_CELLS = 1 << 22  # distances held at a time


def nearest(
    query_nd: np.ndarray, gallery_md: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Distance (n,) float64 and position (n,) of each row's nearest row of a gallery.

    The distance is the root of the mean squared difference: of pixels in [0, 1], a
    share of the whole range. Equal distances fall to the first.

    Raises:
      UserError: the widths differ, or the gallery is empty.
    """
    fits = query_nd.ndim == gallery_md.ndim == 2 and len(gallery_md)
    if not fits or query_nd.shape[1] != gallery_md.shape[1]:
        raise UserError(
            f"neighbours of rows {query_nd.shape} among {gallery_md.shape}: give two "
            "matrices of one width"
        )
    middle_d = gallery_md.mean(0, dtype=np.float64).astype(np.float32)
    gallery_md = gallery_md.astype(np.float32) - middle_d
    query_nd = query_nd.astype(np.float32) - middle_d
    norm_m = np.einsum("md,md->m", gallery_md, gallery_md)
    # Equal rows differ by it, as the product's columns are summed in other orders.
    rounding = 16 * np.finfo(np.float32).eps * norm_m.max()
    step = max(1, _CELLS // len(gallery_md))
    index_n = np.empty(len(query_nd), np.int64)
    distance_n = np.empty(len(query_nd))
    for start in range(0, len(query_nd), step):
        rows_sd = query_nd[start : start + step]
        score_sm = norm_m - 2 * rows_sd @ gallery_md.T
        best_s = (score_sm <= score_sm.min(1, keepdims=True) + rounding).argmax(1)
        index_n[start : start + step] = best_s
        # again from the difference: a copy is at 0 and not at the product's rounding
        apart_sd = (rows_sd - gallery_md[best_s]).astype(np.float64)
        distance_n[start : start + step] = np.sqrt(np.mean(apart_sd**2, axis=1))
    return distance_n, index_n


def pixels(images_nhwc: np.ndarray) -> np.ndarray:
    """uint8 images (n, h, w, 3) as float32 rows (n, d) in [0, 1]."""
    return images_nhwc.reshape(len(images_nhwc), -1).astype(np.float32) / 255


def near_limit(held_out_n: np.ndarray) -> float:
    """The distance that a share NEAR of held-out real images do not exceed."""
    return float(np.quantile(held_out_n, NEAR))


METRICS = {
    "nearest": "mean distance to the nearest training image: root mean square "
    "difference of pixels in [0, 1]",
    "nearest_real": "the same of the held-out real images",
    "near": f"share nearer than the nearest {NEAR:.0%} of the held-out real images, "
    f"about {NEAR} where nothing is copied",
    "copies": f"share at {SAME:.4f} or less, which looks the same",
}
