"""Whether a grounded word space orders held-out concepts as their images do.

Similarities of pairs of concepts are ranked three times: by the image view, by the text
view's inputs, and by what a map learned with images makes of these. The map sees no
image of the concepts that it is judged on (as Lazaridou et al. 2015 test zero-shot).

Legend: n concepts, p pairs of them, d columns.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from mmjax.evaluators import base
from mmjax.evaluators.common import views
from mmjax.metrics import cca, embeddings

_DEFINITIONS = {
    "words": "Spearman correlation of text and image similarities, over pairs",
    "grounded": "the same of the model's codes of the texts",
    "joined": "the same of both side by side, of length one each",
    "cca": "the same of the texts' canonical components, fitted on train",
    "unpaired": "the same, fitted on training texts with permuted images",
    "gain": "grounded - words, of the same resamples; joined_gain, cca_gain: likewise",
    "cca_over_unpaired": "cca - unpaired",
}
_NAMED = ("text", "image", "components", "reg")


@dataclass(frozen=True)
class Config(base.EvalConfig):
    """train: concepts that CCA is fitted on; source: others, such as whole groups.

    text, image: names of the views.
    components: of the CCA. reg: on the diagonals of its covariances.
    """

    train: Any = None
    text: str = "words"
    image: str = "image"
    components: int = 32
    reg: float = 1e-2

    def __post_init__(self):
        super().__post_init__()
        self.at_least(components=1)
        if self.train is None:
            raise ValueError("'train' is missing; give the training concepts' spec")


class Evaluator(views.Evaluator):
    """Calls predict "views" and "codes": rows by view."""

    config_class = Config
    calls = {"views": None, "codes": None}

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.train = self.open(self.config.train)

    def run(self, variables: base.PyTree) -> base.Result:
        """The values of `_DEFINITIONS`, with intervals over concepts.

        `arrays` holds each space's similarities of the pairs (p,).
        """
        cfg = self.config
        names = cfg.text, cfg.image
        test = self.rows(variables, "views")
        codes = self.rows(variables, "codes")
        train = self.rows(variables, "views", self.train)
        text_nd, image_ne = (self.view(test, name) for name in names)
        pair = [self.view(train, name) for name in names]
        order = np.random.default_rng(cfg.seed).permutation(len(pair[0]))
        spaces = {
            "image": image_ne - pair[1].mean(0),
            "words": text_nd,
            "grounded": self.view(codes, cfg.text),
        }
        sides = [embeddings.unit(spaces[name]) for name in ("words", "grounded")]
        spaces["joined"] = np.concatenate(sides, axis=1)
        for name, image in (("cca", pair[1]), ("unpaired", pair[1][order])):
            fitted = cca.fit((pair[0], image), cfg.components, reg=cfg.reg)
            spaces[name] = (text_nd - fitted.means[0]) @ fitted.weights[0]
        rows = np.triu_indices(len(text_nd), 1)
        arrays = {}
        for name, x in spaces.items():
            unit_nd = embeddings.unit(x, self.where)
            arrays[name] = (unit_nd @ unit_nd.T)[rows]
        ranks = np.stack([stats.rankdata(x) for x in arrays.values()])

        def statistic(weight_n: np.ndarray) -> list[float]:
            weight_p = weight_n[rows[0]] * weight_n[rows[1]]
            centred = ranks - (ranks @ weight_p / weight_p.sum())[:, None]
            image, *others = centred
            scale = [np.sqrt(weight_p @ x**2) for x in centred]
            words, grounded, joined, paired, unpaired = (
                weight_p @ (image * x) / (scale[0] * s)
                for x, s in zip(others, scale[1:], strict=True)
            )
            gains = [x - words for x in (grounded, joined, paired)]
            seen = [words, grounded, joined, paired, unpaired]
            return [*seen, *gains, paired - unpaired]

        keys = ["words", "grounded", "joined", "cca", "unpaired"]
        keys += ["gain", "joined_gain", "cca_gain", "cca_over_unpaired"]
        values = self.intervals(keys, statistic, len(text_nd))
        card = self.card(
            test.counts,
            _DEFINITIONS,
            resampled="concepts, each with its pairs",
            fitted_on=self.train.fingerprint(),
            config={k: getattr(cfg, k) for k in _NAMED},
        )
        return base.Result(values, card, arrays)
