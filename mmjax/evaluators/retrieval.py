"""Retrieval between images and their captions, both ways, several captions an image.

Karpathy & Fei-Fei 2015, section 4.1, metrics as CLIP reports them (Radford et al. 2021,
appendix E.1). Legend: n images, m captions, p matching pairs, d embedding.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from mmjax import schema
from mmjax.data.prompts import SLOT
from mmjax.errors import UserError
from mmjax.evaluators.base import Env, EvalConfig, PyTree, Result
from mmjax.evaluators.common import forward, result_card
from mmjax.evaluators.common.subset import open_view
from mmjax.metrics import bootstrap, ranking

TOP = (1, 5, 10)
_DEFINITIONS = {
    "i2t_r@k": "share of images with one of their captions among the k best",
    "t2i_r@k": "share of captions with their image among the k best",
    "median_rank": "median over queries of the best right answer's rank, from 1",
}


@dataclass(frozen=True)
class Config(EvalConfig):
    """template: a sentence around every caption; CLIP prepends "a photo of ".

    matches: what a right answer is, and so how metrics are called.
      own: an image and the captions it came with: `i2t_r1`, `t2i_r1`, ...
      equal: also the word-for-word same caption of another image, which nothing could
        tell from its own: `i2t_equal_r1`, ... For data with few distinct captions.
    """

    template: str = SLOT
    matches: Literal["own", "equal"] = "own"

    def __post_init__(self):
        super().__post_init__()
        if SLOT not in self.template:
            raise ValueError(f"template {self.template!r} has no {SLOT}")


class Evaluator:
    """Calls predict "embed_image" and "embed_text"; the source needs captions."""

    def __init__(self, cfg: Mapping[str, Any], env: Env, where: str = "retrieval"):
        self.config = schema.from_mapping(Config, cfg, where)
        self._env, self._where = env, where
        self._size = self.config.batch_size or env.batch_size
        self._source = open_view(self.config.source, self.config.limit, env.open_source)
        forward.require_tokenizer(env, where)

    def check(self, vars_abstract: PyTree) -> None:
        """See Evaluator.check of the base."""
        batch = forward.peek(self._env, self._source, None, self._size, self._where)
        self._captions([0])
        forward.check_pair(self._env, vars_abstract, batch, self._size, self._where)

    def run(self, variables: PyTree) -> Result:
        """i2t_r1 ... t2i_median_rank, with intervals for the recalls.

        `arrays` holds index and i2t_rank per image, and per caption t2i_rank and the
        position of its image; ranks count from 0.
        """
        index_n, image_nd, broken = self._embed_images(variables)
        if not index_n.size:
            raise UserError(f"{self._where}: {broken} records, all of them broken")
        captions, owner_m = self._captions(index_n)
        text_md, cut = self._embed_captions(variables, captions)
        ranks = both_ways(image_nd, text_md, self._pairs(captions, owner_m))
        values = self._values(ranks, owner_m)
        counts = {
            "images": len(index_n),
            "captions": len(captions),
            "distinct_captions": len(set(captions)),
            "captions_fill_context": cut,
            "broken": broken,
        }
        arrays = {
            "index": index_n,
            "i2t_rank": ranks["i2t"],
            "t2i_rank": ranks["t2i"],
            "caption_image": owner_m,
        }
        return Result(values, self._card(counts, captions), arrays)

    def _embed_images(self, variables: PyTree) -> tuple[np.ndarray, np.ndarray, int]:
        env, broken = self._env, 0
        index, rows = [], []
        batches = env.eval_batches(
            self._source, None, env.image_cfg, batch_size=self._size
        )
        for batch in batches:
            valid_b = forward.valid_rows(batch)
            broken += forward.broken_rows(batch)
            rows_bd = env.predict["embed_image"](variables, forward.image_batch(batch))
            rows_bd = np.asarray(rows_bd)[valid_b]
            rows.append(forward.unit(rows_bd, "embed_image", self._where))
            index.append(np.asarray(batch["_index"])[valid_b])
        return np.concatenate(index), np.concatenate(rows), broken

    def _captions(self, index_n: Sequence[int]) -> tuple[list[str], np.ndarray]:
        """All captions of the images, and the position of each one's image."""
        captions, owners = [], []
        for position, index in enumerate(index_n):
            listed = self._source.captions(int(index))
            if not listed:
                raise UserError(
                    f"{self._where}: record {index} of {self._source.name!r} has no "
                    "caption; a labelled set gets them from its spec's template= option"
                )
            captions += [self.config.template.replace(SLOT, text) for text in listed]
            owners += [position] * len(listed)
        return captions, np.asarray(owners)

    def _embed_captions(
        self, variables: PyTree, captions: list[str]
    ) -> tuple[np.ndarray, int]:
        """(m, d), each distinct text embedded once; and how many fill the context."""
        distinct = {text: i for i, text in enumerate(dict.fromkeys(captions))}
        encoded = forward.encode(self._env, list(distinct), self._where)
        args = self._env, variables, encoded, self._size, self._where
        rows_ud = np.concatenate(list(forward.embed_texts(*args)))
        which_m = np.asarray([distinct[text] for text in captions])
        cut = int(encoded["tokens_mask"].all(1)[which_m].sum())
        return rows_ud[which_m], cut

    def _pairs(
        self, captions: list[str], owner_m: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Matching (image, caption) positions."""
        if self.config.matches == "own":
            return owner_m, np.arange(len(captions))
        _, text_m = np.unique(captions, return_inverse=True)
        groups = np.split(
            np.argsort(text_m, kind="stable"), np.cumsum(np.bincount(text_m))[:-1]
        )
        images_p = np.concatenate([np.repeat(owner_m[g], len(g)) for g in groups])
        captions_p = np.concatenate([np.tile(g, len(g)) for g in groups])
        pairs = np.unique(np.stack([images_p, captions_p], 1), axis=0)
        return pairs[:, 0], pairs[:, 1]

    def _values(self, ranks: dict, owner_m: np.ndarray) -> dict[str, float]:
        """Resampled images take their captions along: those are not independent."""
        middle = "" if self.config.matches == "own" else "equal_"
        hits = {way: np.stack([rank < k for k in TOP]) for way, rank in ranks.items()}

        def recalls(weight_n):
            weight_m = weight_n[owner_m]
            i2t_k = hits["i2t"] @ weight_n / weight_n.sum()
            return np.append(i2t_k, hits["t2i"] @ weight_m / weight_m.sum())

        names = [f"{way}_{middle}r{k}" for way in ("i2t", "t2i") for k in TOP]
        draw = {"resamples": self.config.resamples, "seed": self.config.seed}
        count = len(ranks["i2t"])
        values = bootstrap.with_interval(names, recalls, count, **draw)
        for way, rank in ranks.items():
            values[f"{way}_{middle}median_rank"] = float(np.median(rank)) + 1
        return values

    def _card(self, counts: dict, captions: list[str]) -> dict[str, Any]:
        draw = {"resamples": self.config.resamples, "seed": self.config.seed}
        unit = "images, each with its captions; the gallery stays whole"
        return result_card.write(
            self.config,
            self._env,
            self._source,
            kind="retrieval",
            counts=counts,
            interval=bootstrap.describe(unit, **draw),
            metrics=_DEFINITIONS,
            task={
                "template": self.config.template,
                "matches": self.config.matches,
                "captions": result_card.listing(captions),
                "ties": ranking.TIES,
            },
            text=True,
        )


def both_ways(
    image_nd: np.ndarray, text_md: np.ndarray, pairs: tuple[np.ndarray, np.ndarray]
) -> dict[str, np.ndarray]:
    """Ranks (from 0) of the best match: `i2t` of every image, `t2i` of every caption.

    Args:
      pairs: matching (image, caption) positions, sorted by image.
    """
    images_p, captions_p = pairs
    by_caption = np.argsort(captions_p, kind="stable")
    reverse = captions_p[by_caption], images_p[by_caption]
    return {
        "i2t": ranking.ranks(image_nd, text_md, images_p, captions_p),
        "t2i": ranking.ranks(text_md, image_nd, *reverse),
    }
