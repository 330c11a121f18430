"""How far apart images and texts lie in the space that they share.

Liang et al. 2022, section 2: the gap is the difference of the means of unit embeddings
of pairs. Legend: n pairs, d embedding.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mmjax.evaluators import base
from mmjax.evaluators.common import forward
from mmjax.metrics import embeddings
from mmjax.report import figures

Config = base.EvalConfig  # the source holds pairs; each image's first caption is taken
_DEFINITIONS = {
    "gap": "length of the difference of the two means",
    "pair": "mean cosine of an image and its first caption",
    "image": "mean cosine of two images",
    "text": "mean cosine of two captions",
    "other": "mean cosine of an image and another's caption",
}


class Evaluator(base.Evaluator):
    """Calls predict "embed_image" and "embed_text"; the source needs captions."""

    calls = {"embed_image": forward.IMAGE, "embed_text": forward.TEXT}
    reads_text = captions = True

    def run(self, variables: base.PyTree) -> base.Result:
        """The numbers of `_DEFINITIONS`, with intervals over pairs.

        `arrays` holds index (n,) and the plane of most variance of both kinds
        together, image_xy and text_xy (n, 2).
        """
        rows = self.collect(variables)
        index_n = rows.arrays["index"]
        if len(index_n) < 2:
            broken = rows.counts["broken"]
            raise self.error(f"{len(index_n)} pairs ({broken} broken): give 2 or more")
        pair = [embeddings.unit(rows.arrays[name]) for name in self.calls]
        values = self.intervals(
            list(_DEFINITIONS),
            lambda weight_n: _statistics(*pair, weight_n),
            len(index_n),
        )
        image_xy, text_xy = plane(*pair)
        arrays = {"index": index_n, "image_xy": image_xy, "text_xy": text_xy}
        card = self.card(rows.counts, _DEFINITIONS, resampled="pairs")
        return base.Result(values, card, arrays)


def _statistics(
    image_nd: np.ndarray, text_nd: np.ndarray, weight_n: np.ndarray
) -> np.ndarray:
    """gap, pair, image, text, other, of weighted pairs; a pair is not its own other."""
    n, square = weight_n.sum(), weight_n @ weight_n
    image_d, text_d = weight_n @ image_nd, weight_n @ text_nd
    cosine_n = np.einsum("nd,nd->n", image_nd, text_nd)
    own = weight_n**2 @ cosine_n
    two = max(n * n - square, 1e-12)
    return np.array(
        [
            np.linalg.norm(image_d - text_d) / n,
            weight_n @ cosine_n / n,
            (image_d @ image_d - square) / two,
            (text_d @ text_d - square) / two,
            (image_d @ text_d - own) / two,
        ]
    )


def plane(image_nd: np.ndarray, text_nd: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both kinds (n, 2) on the two principal axes of their union."""
    both = np.concatenate([image_nd, text_nd])
    both = both - both.mean(0)
    _, _, axes = np.linalg.svd(both, full_matrices=False)
    first = axes[:2]
    # The sign of an axis is arbitrary: the largest entry is made positive.
    sign = np.sign(first[np.arange(len(first)), np.abs(first).argmax(1)])
    xy = both @ (first * sign[:, None]).T
    return xy[: len(image_nd)], xy[len(image_nd) :]


def figure(values: Mapping[str, float], arrays: Mapping, title: str) -> Any:
    """Images and texts on their plane, pairs joined."""
    figure, axes = figures.one(title, width=5, height=4)
    image_xy, text_xy = arrays["image_xy"], arrays["text_xy"]
    shown = np.linspace(0, len(image_xy) - 1, min(len(image_xy), 250)).astype(int)
    pairs_2n2 = np.stack((image_xy[shown], text_xy[shown]))
    axes.plot(*np.moveaxis(pairs_2n2, 2, 0), color="#bbbbbb", lw=0.3, zorder=1)
    for xy, label in ((image_xy, "images"), (text_xy, "texts")):
        axes.scatter(*xy[shown].T, s=5, label=label, zorder=2)
    axes.set(xlabel="first principal axis", ylabel="second")
    text = f"gap {values['gap']:.3f}, cosine of pairs {values['pair']:.3f}"
    axes.text(0.03, 0.03, text, transform=axes.transAxes, fontsize=8)
    axes.legend(fontsize=8)
    return figure
