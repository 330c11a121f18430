"""Sentences with slots, filled with the concepts that detectors see in an image.

Yang et al. 2011 (corpus-guided sentence generation): detectors say what there may be,
and captions which of it goes together. Legend: q queries, n examples, d features, c
concepts of a slot.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmjax import schema
from mmjax.errors import UserError

_SLOT = re.compile(r"\{(\w*)\}")
_LEAST = 1e-3  # probability of a concept, and of a pair of them


def check(sentences: Sequence[str], slots: Mapping[str, Sequence[str]]) -> None:
    """Raises UserError for a sentence without slots, or a slot without concepts."""
    for sentence in sentences:
        names = _SLOT.findall(sentence)
        if not names:
            raise UserError(f"template {sentence!r} has no {{slot}}: name one of slots")
        for name in names:
            if not slots.get(name):
                hint = schema.suggest(name, slots)
                raise UserError(
                    f"template {sentence!r} has the slot {name!r}, and slots has no "
                    f"concepts for it{hint}"
                )


class Filler:
    """A ridge regression for every concept, and how often captions have two of them."""

    def __init__(
        self,
        features_nd: np.ndarray,
        captions: Sequence[Sequence[Sequence[str]]],
        options: Any,
    ):
        self.sentences, self.slots = options.templates, options.slots
        self.mean_d, self.std_d = features_nd.mean(0), features_nd.std(0) + 1e-6
        x_nd = (features_nd - self.mean_d) / self.std_d
        padded = [f" {' '.join(words)} " for group in captions for words in group]
        owner = np.repeat(np.arange(len(captions)), [len(group) for group in captions])
        self.has = {  # slot: bool (captions, c)
            name: np.array([[f" {c} " in text for c in concepts] for text in padded])
            for name, concepts in self.slots.items()
        }
        gram_dd = x_nd.T @ x_nd + options.ridge * np.eye(x_nd.shape[1])
        self.detectors = {}
        for name, has in self.has.items():
            y_nc = np.zeros((len(captions), has.shape[1]))
            np.maximum.at(y_nc, owner, has)
            bias_c = y_nc.mean(0)
            self.detectors[name] = (
                np.linalg.solve(gram_dd, x_nd.T @ (y_nc - bias_c)),
                bias_c,
            )

    def see(self, query_qd: np.ndarray) -> dict[str, np.ndarray]:
        """Log-probabilities of the concepts of each slot, (q, c)."""
        x_qd = (query_qd - self.mean_d) / self.std_d
        return {
            name: np.log(np.clip(x_qd @ kernel_dc + bias_c, _LEAST, 1.0))
            for name, (kernel_dc, bias_c) in self.detectors.items()
        }

    def say(self, query_qd: np.ndarray) -> list[str]:
        """The sentence whose slots score best, by the mean of what is added up."""
        seen = self.see(query_qd)
        options = [self._fill(sentence, seen) for sentence in self.sentences]
        best_q = np.argmax([score_q for score_q, _ in options], axis=0)
        return [options[best][1][q] for q, best in enumerate(best_q)]

    def _fill(
        self, sentence: str, seen: Mapping[str, np.ndarray]
    ) -> tuple[np.ndarray, list[str]]:
        """Scores (q,) and sentences: the best path over the slots (Viterbi)."""
        names = _SLOT.findall(sentence)
        score_qc, came = seen[names[0]], []
        for before, name in zip(names, names[1:], strict=False):
            step_qbc = score_qc[:, :, None] + self._together(before, name)
            came.append(step_qbc.argmax(1))
            score_qc = step_qbc.max(1) + seen[name]
        at_q, rows_q = score_qc.argmax(1), np.arange(len(score_qc))
        picks = [at_q]
        for came_qc in reversed(came):
            picks.append(came_qc[rows_q, picks[-1]])
        filled = []
        for numbers in zip(*reversed(picks), strict=True):
            words = iter(self.slots[n][i] for n, i in zip(names, numbers, strict=True))
            text = _SLOT.sub(lambda _: next(words), sentence)  # noqa: B023
            filled.append(re.sub(r"\ba(?= [aeiou])", "an", text))
        return score_qc.max(1) / (2 * len(names) - 1), filled

    def _together(self, before: str, name: str) -> np.ndarray:
        """Log-probability of each concept in a caption that has another, (b, c)."""
        first, second = self.has[before].astype(float), self.has[name].astype(float)
        share = (first.T @ second) / np.maximum(first.sum(0)[:, None], 1.0)
        return np.log(np.maximum(share, _LEAST))
