"""Retrieval between images and their captions, both ways, several captions an image.

Karpathy & Fei-Fei 2015, section 4.1, metrics as CLIP reports them (Radford et al. 2021,
appendix E.1). Legend: n images, m captions, p matching pairs, d embedding.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mmjax.data.prompts import SLOT
from mmjax.evaluators import base
from mmjax.evaluators.common import forward, result_card
from mmjax.metrics import embeddings, ranking

TOP = (1, 5, 10)
DEFINITIONS = {
    "i2t_r@k": "share of images with one of their captions among the k best",
    "t2i_r@k": "share of captions with their image among the k best",
    "median_rank": "median over queries of the best right answer's rank, from 1",
}


@dataclass(frozen=True)
class Config(base.TemplateConfig):
    """matches: what a right answer is, and so how metrics are called.

    own: an image and the captions it came with: `i2t_r1`, `t2i_r1`, ...
    equal: also the word-for-word same caption of another image, which nothing could
      tell from its own: `i2t_equal_r1`, ... For data with few distinct captions.
    """

    matches: Literal["own", "equal"] = "own"


class Evaluator(base.Evaluator):
    """Calls predict "embed_image" and "embed_text"; the source needs captions."""

    config_class = Config
    calls = {"embed_image": forward.IMAGE, "embed_text": forward.TEXT}
    reads_text = True

    def check(self, vars_abstract: base.PyTree) -> None:
        """See the base."""
        shapes = self.output_shapes(vars_abstract)
        self._captions([0])
        self.check_rows(shapes)

    def run(self, variables: base.PyTree) -> base.Result:
        """i2t_r1 ... t2i_median_rank, with intervals for the recalls.

        `arrays` holds index and i2t_rank per image, and per caption t2i_rank and the
        position of its image; ranks count from 0.
        """
        images = self.collect(variables, "embed_image")
        index_n = images.arrays["index"]
        image_nd = embeddings.unit(images.arrays["embed_image"])
        captions, owner_m = self._captions(index_n)
        # each distinct text is embedded once
        texts = {text: i for i, text in enumerate(dict.fromkeys(captions))}
        which_m = np.asarray([texts[text] for text in captions])
        encoded = self.encode(list(texts))
        text_md = np.concatenate(list(self.embed_texts(variables, encoded)))[which_m]
        # matching positions, sorted by image; then by caption
        images_p, captions_p = self._pairs(which_m, owner_m)
        order = np.argsort(captions_p, kind="stable")
        reverse = captions_p[order], images_p[order]
        ranks = {
            "i2t": ranking.ranks(image_nd, text_md, images_p, captions_p),
            "t2i": ranking.ranks(text_md, image_nd, *reverse),
        }
        counts = {
            "images": len(index_n),
            "captions": len(captions),
            "distinct_captions": len(texts),
            "captions_fill_context": int(encoded["tokens_mask"].all(1)[which_m].sum()),
            "broken": images.counts["broken"],
        }
        card = self.card(
            counts,
            DEFINITIONS,
            resampled="images, each with its captions; the gallery stays whole",
            template=self.config.template,
            matches=self.config.matches,
            captions=result_card.listing(captions),
            ties=ranking.TIES,
        )
        arrays = {"index": index_n, "caption_image": owner_m}
        arrays |= {f"{way}_rank": rank for way, rank in ranks.items()}
        return base.Result(self._values(ranks, owner_m), card, arrays)

    def _captions(self, index_n: Sequence[int]) -> tuple[list[str], np.ndarray]:
        """All captions of the images, and the position of each one's image."""
        captions, owners = [], []
        for position, index in enumerate(index_n):
            listed = self.source.captions(int(index))
            if not listed:
                raise self.error(
                    f"record {index} of {self.source.name!r} has no caption; a "
                    "labelled set gets them from its spec's template= option"
                )
            captions += [self.config.template.replace(SLOT, text) for text in listed]
            owners += [position] * len(listed)
        return captions, np.asarray(owners)

    def _pairs(
        self, text_m: np.ndarray, owner_m: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Matching (image, caption) positions; text_m numbers the distinct texts."""
        if self.config.matches == "own":
            return owner_m, np.arange(len(owner_m))
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
        values = self.intervals(names, recalls, len(ranks["i2t"]))
        for way, rank in ranks.items():
            values[f"{way}_{middle}median_rank"] = float(np.median(rank)) + 1
        return values
