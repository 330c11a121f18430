"""BPE-dropout: its two ends, its distribution, and that it repeats."""

import collections
import time

import batch_fields
import numpy as np
import pytest

from mmjax.data import pipeline, tokenizers
from mmjax.data.fields import image, text
from mmjax.data.sources import open_source
from mmjax.data.tokenizers import base, bpe
from mmjax.data.tokenizers import merges as merges_lib
from mmjax.errors import UserError

CAPTIONS = [
    "a red circle left of a blue square",
    "a blue circle above a red square",
    "the red square isn't left of the circle, it's above!",
    "ein großer roter Kreis — 赤い円 🔴",
] * 5


@pytest.fixture(scope="module")
def tokenizer():
    return bpe.train_bpe(CAPTIONS, 560, context=60)


def words_of(tokenizer, caption):
    return merges_lib.words(
        base.clean(caption, lower=True), merges_lib.engine(tokenizer.merges)
    )


def algorithm_1(word, merges, rate, rng):
    """Provilkov et al. 2020, algorithm 1, letter by letter: symbols of one word."""
    symbols = [*word[:-1], word[-1] + merges_lib.END]
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    while True:
        pairs = list(zip(symbols, symbols[1:], strict=False))
        left = [
            (ranks[pair], at)
            for at, pair in enumerate(pairs)
            if pair in ranks and rng.random() >= rate
        ]
        if not left:
            return tuple(symbols)
        at = min(left)[1]
        symbols[at : at + 2] = [symbols[at] + symbols[at + 1]]


@pytest.mark.parametrize("caption", [*CAPTIONS[:4], "", "x" * 500, "\x00 &"])
def test_no_dropout_is_the_tokenizer_itself(tokenizer, caption):
    rng = np.random.default_rng(0)
    ids = merges_lib.Dropout(tokenizer.merges).ids(
        words_of(tokenizer, caption), 0.0, rng
    )
    engine = merges_lib.engine(tokenizer.merges)
    assert ids == engine.encode(base.clean(caption, lower=True)).ids


def test_full_dropout_is_one_id_a_byte(tokenizer):
    for caption in CAPTIONS[:4]:
        words = words_of(tokenizer, caption)
        tokens, mask = tokenizer.encode([caption], dropout=1.0, rng=rng_of(0))
        count = min(sum(map(len, words)), tokenizer.context - 2)
        assert mask.sum() == count + 2
        assert tokens[0][mask[0]][1:-1].max() < merges_lib.BASE
        assert tokens[0, 0] == tokenizer.sot and tokens[0][mask[0]][-1] == tokenizer.eot
        cut = base.clean(caption, lower=True).split()[0]
        assert tokenizer.decode(tokens[0]).startswith(cut)


def rng_of(seed):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_outcomes_are_as_frequent_as_algorithm_1_makes_them(tokenizer, rate):
    merges, draws = tokenizer.merges, 6000
    spelled = merges_lib.vocabulary(merges)
    encoder, rng = merges_lib.Dropout(merges), rng_of(1)
    ours, theirs = collections.Counter(), collections.Counter()
    for _ in range(draws):
        ours[tuple(spelled[i] for i in encoder.ids([b"square"], rate, rng))] += 1
        theirs[algorithm_1("square", merges, rate, rng)] += 1
    assert len(theirs) > 5
    for outcome in ours.keys() | theirs.keys():
        share = (ours[outcome] + theirs[outcome]) / (2 * draws)
        error = (2 * share * (1 - share) / draws) ** 0.5
        assert abs(ours[outcome] - theirs[outcome]) / draws < 5 * error, outcome


def test_equal_seeds_give_equal_ids_whatever_came_before(tokenizer):
    first = tokenizer.encode(CAPTIONS, dropout=0.3, rng=rng_of(5))
    fresh = tokenizers.from_json(tokenizer.to_json())  # nothing remembered yet
    for other in (tokenizer, fresh):
        again = other.encode(CAPTIONS, dropout=0.3, rng=rng_of(5))
        np.testing.assert_array_equal(first, again)
    assert not np.array_equal(
        first[0], tokenizer.encode(CAPTIONS, dropout=0.3, rng=rng_of(6))[0]
    )
    small = merges_lib.Dropout(tokenizer.merges)
    small._KEPT = 3  # forgets all the time
    words = words_of(tokenizer, CAPTIONS[2])
    whole = merges_lib.Dropout(tokenizer.merges)
    assert small.ids(words, 0.5, rng_of(2)) == whole.ids(words, 0.5, rng_of(2))


def test_ids_spell_the_caption_whatever_is_dropped(tokenizer):
    plain = [tokenizer.decode(row) for row in tokenizer.encode(CAPTIONS[:2])[0]]
    for rate in (0.1, 0.7):
        rows, _ = tokenizer.encode(CAPTIONS[:2], dropout=rate, rng=rng_of(0))
        assert [tokenizer.decode(row) for row in rows] == plain


def test_a_word_without_end_takes_no_time(tokenizer):
    encoder = merges_lib.Dropout(tokenizer.merges)
    start = time.perf_counter()
    ids = encoder.ids([b"circle" * 5000], 0.1, rng_of(0))
    assert time.perf_counter() - start < 2
    assert 5000 < len(ids) < 30_000


def test_rates_and_kinds_are_checked():
    for rate in (-0.1, 1.5):
        with pytest.raises(UserError, match="use 0 to 1"):
            text.Field(tokenizer="bpe", dropout=rate)
    for kind in ("bytes", "pieces"):
        with pytest.raises(UserError, match=f"kind '{kind}' has none"):
            text.Field(tokenizer=kind, dropout=0.1)
    byte = tokenizers.build({"kind": "bytes"})
    with pytest.raises(UserError, match="kind 'bytes' has none"):
        byte.encode(["a"], dropout=0.1, rng=rng_of(0))


def rows(tokenizer, count=3, dropout=0.0, **options):
    source = open_source("shapes:train?size=16&count=40")
    cfg = image.Field(size=16, train_scale=(1.0, 1.0))
    options = {"batch_size": 8, "seed": 3, "threads": 0} | options
    running = pipeline.TrainIterator(
        source,
        batch_fields.of(source, tokenizer, cfg, tokenizer="bpe", dropout=dropout),
        **options,
    )
    try:
        batches = [next(running) for _ in range(count)]
    finally:
        running.close()
    return {k: np.concatenate([b[k] for b in batches]) for k in batches[0]}


def test_training_rows_drop_by_their_own_generator():
    source = open_source("shapes:train?size=16&count=40")
    tokenizer = bpe.train_bpe(source.texts(), 600, context=40)
    plain, first = rows(tokenizer), rows(tokenizer, dropout=0.3)
    for options in ({"threads": 2}, {"batch_size": 24, "count": 1}, {"workers": 1}):
        again = rows(tokenizer, dropout=0.3, **options)
        np.testing.assert_array_equal(first["tokens"], again["tokens"])
        np.testing.assert_array_equal(first["tokens_mask"], again["tokens_mask"])
    # the same captions of the same records, in more pieces
    np.testing.assert_array_equal(plain["image"], first["image"])
    for a, b in zip(plain["tokens"], first["tokens"], strict=True):
        assert tokenizer.decode(a).startswith(tokenizer.decode(b))
    assert first["tokens_mask"].sum() > 1.1 * plain["tokens_mask"].sum()


def test_evaluation_never_drops():
    source = open_source("shapes:val?size=16&count=8")
    tokenizer = bpe.train_bpe(source.texts(), 600, context=40)
    cfg = image.Field(size=16)
    [batch] = pipeline.eval_batches(
        source, batch_fields.of(source, tokenizer, cfg), batch_size=8
    )
    texts = [source[i]["text"][0] for i in range(8)]
    np.testing.assert_array_equal(batch["tokens"], tokenizer.encode(texts)[0])
