"""How close captions are to people's: BLEU, ROUGE-L, CIDEr-D, METEOR.

All of lower-case words without punctuation (`words`). Numbers are sums over images
before they are divided, or means over images, so that images can be resampled.

Legend: i images, n = 1..4 the length of n-grams.
"""

import collections
import math
import re
import shutil
from collections.abc import Sequence

import numpy as np

from mmjax.errors import UserError

ORDERS = 4
_WORD = re.compile(r"\w+(?:[-.]\w+)*|'\w+")
Words = Sequence[str]
Grams = collections.Counter


def words(caption: str) -> list[str]:
    """A caption's words, as the tokenizer of kind `words` splits it."""
    return _WORD.findall(caption.lower())


def grams(sentence: Words) -> list[Grams]:
    """Counts of the n-grams of a sentence, for every n."""
    return [
        collections.Counter(
            tuple(sentence[i : i + n]) for i in range(len(sentence) - n + 1)
        )
        for n in range(1, ORDERS + 1)
    ]


def bleu_counts(candidate: Words, references: Sequence[Words]) -> np.ndarray:
    """(10,) of an image: clipped matches by n, n-grams by n, its length, the closest
    reference's (the shorter of two that are as close)."""
    most: list[Grams] = [collections.Counter() for _ in range(ORDERS)]
    for reference in references:
        for n, counts in enumerate(grams(reference)):
            most[n] |= counts
    own = grams(candidate)
    matches = [sum((own[n] & most[n]).values()) for n in range(ORDERS)]
    totals = [sum(counts.values()) for counts in own]
    length = len(candidate)
    closest = min((abs(len(r) - length), len(r)) for r in references)[1]
    return np.array([*matches, *totals, length, closest], float)


def bleu(counts: np.ndarray, *, brevity: bool) -> np.ndarray:
    """BLEU-1 to BLEU-4 of a corpus, in percent, from its images' summed counts (10,).

    Papineni et al. 2002. brevity: whether candidates that are shorter than their
    references are punished. Xu et al. 2015 print BLEU without.
    """
    matches, totals, (length, closest) = counts[:4], counts[4:8], counts[8:]
    with np.errstate(divide="ignore", invalid="ignore"):
        mean_log = np.cumsum(np.log(matches / totals)) / np.arange(1, ORDERS + 1)
        short = min(0.0, 1 - closest / length) if brevity else 0.0
    return np.nan_to_num(100 * np.exp(mean_log + short))


def rouge_l(candidate: Words, references: Sequence[Words], beta: float = 1.2) -> float:
    """ROUGE-L in percent: F of the longest common subsequence, as COCO's server has it.

    Precision and recall are the best of all references, each by itself.
    """
    if not candidate:
        return 0.0
    common = [(_common(candidate, r), len(r)) for r in references]
    precision = max(c for c, _ in common) / len(candidate)
    recall = max(c / max(length, 1) for c, length in common)
    below = recall + beta**2 * precision
    return 100 * (1 + beta**2) * precision * recall / below if below else 0.0


def _common(a: Words, b: Words) -> int:
    """Length of the longest common subsequence."""
    best = [0] * (len(b) + 1)
    for x in a:
        before = 0
        for j, y in enumerate(b, 1):
            before, best[j] = (
                best[j],
                before + 1 if x == y else max(best[j], best[j - 1]),
            )
    return best[-1]


def cider_d(
    candidates: Sequence[Words],
    references: Sequence[Sequence[Words]],
    *,
    corpus: Sequence[Sequence[Words]] | None = None,
    sigma: float = 6.0,
) -> np.ndarray:
    """CIDEr-D of every image (i,), times 10 as COCO's server gives it.

    Vedantam et al. 2015, section 6: cosines of tf-idf vectors of n-grams, clipped to
    the reference's counts, times a Gaussian of the difference in length. Images that
    are one alone have 0: nothing is rare among them.

    corpus: the references that n-grams are rare or frequent in, by image; the images'
      own where it is None.
    """
    sets = references if corpus is None else corpus
    seen: Grams = collections.Counter()
    for group in sets:
        seen.update({g for reference in group for n in grams(reference) for g in n})
    log_images = math.log(len(sets))

    def vector(sentence: Words) -> tuple[list[dict], list[float], int]:
        weighed = [
            {g: c * (log_images - math.log(max(seen[g], 1))) for g, c in n.items()}
            for n in grams(sentence)
        ]
        norms = [math.sqrt(sum(x * x for x in n.values())) for n in weighed]
        return weighed, norms, max(len(sentence) - 1, 0)  # COCO's: of bigrams

    scores = np.zeros(len(candidates))
    for i, (candidate, group) in enumerate(zip(candidates, references, strict=True)):
        own, own_norms, length = vector(candidate)
        for theirs, norms, other in map(vector, group):
            near = math.exp(-((length - other) ** 2) / (2 * sigma**2))
            for n in range(ORDERS):
                if own_norms[n] and norms[n]:
                    hits = (
                        min(x, theirs[n].get(g, 0.0)) * theirs[n].get(g, 0.0)
                        for g, x in own[n].items()
                    )
                    scores[i] += near * sum(hits) / (own_norms[n] * norms[n])
        scores[i] *= 10 / (ORDERS * len(group))
    return scores


def meteor(
    candidates: Sequence[Words], references: Sequence[Sequence[Words]]
) -> np.ndarray:
    """METEOR 1.5 of every image, in percent, by its authors' program (i,).

    Raises:
      UserError: the package pycocoevalcap, which brings it, or Java is not there.
    """
    try:
        from pycocoevalcap.meteor.meteor import Meteor
    except ImportError:
        Meteor = None
    if Meteor is None or not shutil.which("java"):
        missing = "Java" if Meteor else "the package pycocoevalcap"
        raise UserError(
            f"METEOR cannot be computed without {missing}: install mmjax[captions] and "
            "Java, or leave meteor out of metrics"
        )
    scorer = Meteor()  # ends its process when it is let go
    sentences = {i: [" ".join(c)] for i, c in enumerate(candidates)}
    groups = {i: [" ".join(r) for r in g] for i, g in enumerate(references)}
    _, scores = scorer.compute_score(groups, sentences)
    return 100 * np.asarray(scores)
