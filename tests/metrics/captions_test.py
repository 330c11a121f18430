"""Metrics of captions against hand-made counts, and the reference packages."""

import importlib.util
import math

import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.metrics import captions as metrics

REFERENCES = [
    ["the cat is on the mat", "there is a cat on the mat"],
    ["a dog runs through the tall grass", "the brown dog is running outside"],
    ["two boys play soccer", "boys are playing with a ball on a field", "a game"],
]
SAID = ["the the the cat on mat", "a brown dog runs through grass", "two boys"]


def split(texts):
    return [metrics.words(text) for text in texts]


@pytest.fixture(scope="module")
def pairs():
    return split(SAID), [split(group) for group in REFERENCES]


def test_words_are_lower_case_without_punctuation():
    text = "A man's T-shirt reads \"N.Y.C\", doesn't it ?"
    assert metrics.words(text) == [
        *("a", "man", "'s", "t-shirt", "reads", "n.y.c", "doesn", "'t", "it")
    ]


def test_bleu_clips_and_punishes_what_is_short():
    # Papineni et al. 2002, example 2: seven times "the" has two matches of seven.
    counts = metrics.bleu_counts(["the"] * 7, split(REFERENCES[0]))
    assert counts.tolist() == [2, 0, 0, 0, 7, 6, 5, 4, 7, 7]
    assert metrics.bleu(counts, brevity=True)[0] == pytest.approx(100 * 2 / 7)
    short = metrics.bleu_counts(["the", "cat"], split(REFERENCES[0]))
    assert metrics.bleu(short, brevity=False)[:2] == pytest.approx([100, 100])
    with_penalty = metrics.bleu(short, brevity=True)
    assert with_penalty[0] == pytest.approx(100 * math.exp(1 - 6 / 2))
    nothing = metrics.bleu_counts([], split(REFERENCES[0]))
    assert not metrics.bleu(nothing, brevity=True).any()


def test_a_reference_itself_is_perfect(pairs):
    said = [group[0] for group in pairs[1]]
    counts = sum(map(metrics.bleu_counts, said, pairs[1]))
    assert metrics.bleu(counts, brevity=True) == pytest.approx([100] * 4)
    assert [metrics.rouge_l(*pair) for pair in zip(said, pairs[1], strict=True)] == [
        100
    ] * 3
    alone = [[caption] for caption in said]
    assert metrics.cider_d(said, alone) == pytest.approx([10, 10, 10])
    assert metrics.rouge_l([], alone[0]) == 0
    assert metrics.cider_d([[], *said[1:]], alone)[0] == 0


def test_rouge_l_by_hand():
    # common subsequence "a c" of length 2; precision 2/3, recall 2/4
    value = metrics.rouge_l("a b c".split(), ["a d c e".split()])
    precision, recall, beta = 2 / 3, 2 / 4, 1.2
    want = (1 + beta**2) * precision * recall / (recall + beta**2 * precision)
    assert value == pytest.approx(100 * want)


def _needs(package):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")


def test_bleu_is_sacrebleus(pairs):
    _needs("sacrebleu")
    import sacrebleu

    most = max(map(len, REFERENCES))
    columns = [[g[r] if r < len(g) else None for g in REFERENCES] for r in range(most)]
    for order in range(1, 5):
        scorer = sacrebleu.BLEU(
            max_ngram_order=order, tokenize="none", smooth_method="none"
        )
        want = scorer.corpus_score(SAID, columns)
        counts = sum(map(metrics.bleu_counts, *pairs))
        value = metrics.bleu(counts, brevity=True)[order - 1]
        assert value == pytest.approx(want.score, abs=1e-6)
        plain = metrics.bleu(counts, brevity=False)[order - 1]
        assert plain * want.bp == pytest.approx(want.score, abs=1e-6)


def test_all_are_those_of_cocos_server(pairs):
    _needs("pycocoevalcap")
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    groups = {i: [" ".join(r) for r in g] for i, g in enumerate(pairs[1])}
    said = {i: [" ".join(c)] for i, c in enumerate(pairs[0])}
    counts = sum(map(metrics.bleu_counts, *pairs))
    want, _ = Bleu(4).compute_score(groups, said, verbose=0)
    value = metrics.bleu(counts, brevity=True)
    assert value[:2] == pytest.approx(100 * np.array(want[:2]), abs=1e-4)
    _, want = Cider().compute_score(groups, said)
    assert metrics.cider_d(*pairs) == pytest.approx(want, abs=1e-9)
    _, want = Rouge().compute_score(groups, said)
    value = [metrics.rouge_l(*pair) for pair in zip(*pairs, strict=True)]
    assert value == pytest.approx(100 * np.array(want), abs=1e-9)


def test_meteor_says_what_is_missing(pairs, monkeypatch):
    monkeypatch.setenv("PATH", "")  # no Java
    with pytest.raises(UserError, match="METEOR cannot be computed .* leave meteor"):
        metrics.meteor(*pairs)


@pytest.mark.parity
def test_meteor_is_its_authors(pairs):
    _needs("pycocoevalcap")
    said = [group[0] for group in pairs[1]]
    perfect, worse = metrics.meteor(said, pairs[1]), metrics.meteor(*pairs)
    assert (perfect > 99).all() and (worse < perfect).all() and (worse > 0).all()
