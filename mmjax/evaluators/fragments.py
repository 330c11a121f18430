"""Retrieval between images and captions by scores of their fragments, both ways.

Legend: n images, m captions, b rows of a call.
"""

import numpy as np

from mmjax.data import fields as fields_lib
from mmjax.evaluators import base, retrieval
from mmjax.evaluators.common import forward
from mmjax.metrics import embeddings, ranking

_CODES = ("regions", "regions_mask", "sentence", "sentence_mask")


class Evaluator(retrieval.Evaluator):
    """Calls predict "codes" and "scores"; metrics, intervals and config as retrieval's.

    All captions of an image are encoded by the field `sentence`.
    """

    calls = {"codes": None}
    reads_text = False

    def check(self, vars_abstract: base.PyTree) -> None:
        """See the base."""
        self.output_shapes(vars_abstract)
        self._captions([0])

    def run(self, variables: base.PyTree) -> base.Result:
        """i2t_r1 ... t2i_median_rank, with intervals for the recalls."""

        def keep(outputs: dict, batch: base.Batch, valid_b: np.ndarray) -> dict:
            rows = np.asarray(outputs["codes"]["regions"])[valid_b]
            mask = np.asarray(batch["regions_mask"])[valid_b]
            return {"regions": rows, "regions_mask": mask}

        images = self.collect(variables, keep=keep)
        index_n = images.arrays["index"]
        captions, owner_m = self._captions(index_n)
        encoded = fields_lib.encode(self.env.fields, "sentence", captions)
        texts = {"sentence_mask": encoded["sentence_mask"]}
        given = forward.of_fields(encoded, ["sentence"])
        parts = [
            np.asarray(self.env.predict["codes"](variables, rows)["sentence"])
            for rows in self._blocks(given)
        ]
        texts["sentence"] = np.concatenate(parts)[: len(captions)]
        for name, codes in (("regions", images.arrays), ("sentence", texts)):
            embeddings.check_finite(codes[name], f"{self.where}: codes of {name}")
        scores_nm = self._scores(variables, images.arrays, texts)
        own_p = owner_m, np.arange(len(owner_m))
        ranks = {
            "i2t": ranking.of_scores(scores_nm.copy(), *own_p),
            "t2i": ranking.of_scores(scores_nm.T.copy(), *own_p[::-1]),
        }
        counts = {"images": len(index_n), "captions": len(captions)}
        card = self.card(
            counts | {"broken": images.counts["broken"]},
            retrieval.DEFINITIONS,
            resampled="images, each with its captions; the gallery stays whole",
            template=self.config.template,
            ties=ranking.TIES,
        )
        arrays = {"index": index_n, "caption_image": owner_m}
        arrays |= {f"{way}_rank": rank for way, rank in ranks.items()}
        return base.Result(self._values(ranks, owner_m), card, arrays)

    def _blocks(self, arrays: base.Batch) -> list[dict[str, np.ndarray]]:
        """Rows in blocks of the call's size, the last one filled with the last row."""
        count = len(next(iter(arrays.values())))
        starts = range(0, count, self.size)
        takes = [np.minimum(np.arange(s, s + self.size), count - 1) for s in starts]
        return [{key: value[take] for key, value in arrays.items()} for take in takes]

    def _scores(
        self, variables: base.PyTree, images: base.Batch, texts: base.Batch
    ) -> np.ndarray:
        """(n, m), by blocks of images and of captions."""
        images = {key: images[key] for key in _CODES[:2]}
        columns = self._blocks(texts)
        rows = [
            np.concatenate(
                [self.env.predict["scores"](variables, row | col) for col in columns], 1
            )
            for row in self._blocks(images)
        ]
        scores = np.concatenate(rows)[: len(images["regions"])]
        return scores[:, : len(texts["sentence"])]
