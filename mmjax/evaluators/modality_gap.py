"""How far apart images and texts lie in the space that they share.

Liang et al. 2022, section 2: the gap is the difference of the means of unit embeddings
of pairs. Legend: n pairs, d embedding.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmjax import schema
from mmjax.errors import UserError
from mmjax.evaluators.base import Env, EvalConfig, PyTree, Result
from mmjax.evaluators.common import forward, result_card
from mmjax.evaluators.common.subset import open_view
from mmjax.metrics import bootstrap
from mmjax.report import figures


@dataclass(frozen=True)
class Config(EvalConfig):
    """Nothing of its own: the source holds pairs, the first caption is taken."""


class Evaluator:
    """Calls predict "embed_image" and "embed_text"; the source needs captions."""

    def __init__(self, cfg: Mapping[str, Any], env: Env, where: str = "modality_gap"):
        self.config = schema.from_mapping(Config, cfg, where)
        self._env, self._where = env, where
        self._size = self.config.batch_size or env.batch_size
        self._source = open_view(self.config.source, self.config.limit, env.open_source)
        forward.require_tokenizer(env, where)

    def check(self, vars_abstract: PyTree) -> None:
        """See Evaluator.check of the base."""
        env = self._env
        batch = forward.peek(env, self._source, env.tokenizer, self._size, self._where)
        forward.check_pair(env, vars_abstract, batch, self._size, self._where)

    def run(self, variables: PyTree) -> Result:
        """gap, pair (mean cosine of pairs), image and text (of two of a kind), other
        (of an image and another's text).

        `arrays` holds index (n,) and the plane of most variance of both kinds
        together, image_xy and text_xy (n, 2).
        """
        image_nd, text_nd, index_n, broken = self._pairs(variables)
        names = ["gap", "pair", "image", "text", "other"]
        draw = {"resamples": self.config.resamples, "seed": self.config.seed}

        def statistics(weight_n):
            return _statistics(image_nd, text_nd, weight_n)

        values = bootstrap.with_interval(names, statistics, len(index_n), **draw)
        image_xy, text_xy = plane(image_nd, text_nd)
        arrays = {"index": index_n, "image_xy": image_xy, "text_xy": text_xy}
        note = result_card.write(
            self.config,
            self._env,
            self._source,
            kind="modality_gap",
            counts={"examples": len(index_n), "broken": broken},
            interval=bootstrap.describe("pairs", **draw),
            metrics={
                "gap": "length of the difference of the two means",
                "pair": "mean cosine of an image and its first caption",
                "image": "mean cosine of two images",
                "text": "mean cosine of two captions",
                "other": "mean cosine of an image and another's caption",
            },
            task={},
            text=True,
        )
        return Result(values, note, arrays)

    def _pairs(
        self, variables: PyTree
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
        env, broken, found = self._env, 0, []
        batches = env.eval_batches(
            self._source, env.tokenizer, env.image_cfg, batch_size=self._size
        )
        for batch in batches:
            valid_b = forward.valid_rows(batch)
            broken += forward.broken_rows(batch)
            texts = {k: batch[k] for k in ("tokens", "tokens_mask")}
            image_bd = env.predict["embed_image"](variables, forward.image_batch(batch))
            text_bd = env.predict["embed_text"](variables, texts)
            found.append(
                (
                    forward.unit(image_bd, "embed_image", self._where)[valid_b],
                    forward.unit(text_bd, "embed_text", self._where)[valid_b],
                    np.asarray(batch["_index"])[valid_b],
                )
            )
        image_nd, text_nd, index_n = (
            np.concatenate(x) for x in zip(*found, strict=True)
        )
        if len(index_n) < 2:
            raise UserError(
                f"{self._where}: {len(index_n)} pairs ({broken} broken): give 2 or more"
            )
        return image_nd, text_nd, index_n, broken


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
    made, axes = figures.one(title, width=5, height=4)
    image_xy, text_xy = arrays["image_xy"], arrays["text_xy"]
    shown = np.linspace(0, len(image_xy) - 1, min(len(image_xy), 250)).astype(int)
    for i in shown:
        axes.plot(
            *np.stack((image_xy[i], text_xy[i])).T, color="#bbbbbb", lw=0.3, zorder=1
        )
    for xy, label in ((image_xy, "images"), (text_xy, "texts")):
        axes.scatter(*xy[shown].T, s=5, label=label, zorder=2)
    axes.set(xlabel="first principal axis", ylabel="second")
    axes.text(
        0.03,
        0.03,
        f"gap {values['gap']:.3f}, cosine of pairs {values['pair']:.3f}",
        transform=axes.transAxes,
        fontsize=8,
    )
    axes.legend(fontsize=8)
    return made
