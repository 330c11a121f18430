"""Word vectors of a corpus whose answer is known, and the field that uses them."""

import numpy as np
import pytest

from mmjax.data import fields, word_vectors
from mmjax.data.fields import base
from mmjax.errors import UserError

ANIMALS, TOOLS = ["cat", "dog", "horse"], ["saw", "hammer", "drill"]


def corpus(n=400, seed=0):
    rng = np.random.default_rng(seed)
    near = {"animal": (ANIMALS, ["eats", "runs", "sleeps"])}
    near["tool"] = (TOOLS, ["cuts", "metal", "wood"])
    texts = []
    for _ in range(n):
        first, second = near[("animal", "tool")[int(rng.integers(2))]]
        texts.append(
            f"The {rng.choice(first)} {rng.choice(second)} {rng.choice(second)}."
        )
    return texts


def test_words_of_equal_company_are_near():
    fitted = word_vectors.fit(corpus(), width=4)
    rows = {
        word: row for word, row in zip(fitted.words, fitted.vectors_vd, strict=True)
    }
    inside = rows["cat"] @ rows["dog"], rows["saw"] @ rows["drill"]
    across = [rows[a] @ rows[b] for a in ANIMALS for b in TOOLS]
    assert min(inside) > 0.8 > 0.5 > max(across)
    assert fitted.words[0] == "the" and fitted.shares_v[0] == pytest.approx(0.25)


def test_information_is_its_definition():
    texts = ["a b c", "a b", "c d a"]
    ids = [np.array(["abcd".index(w) for w in text.split()]) for text in texts]
    met = word_vectors._met(ids, 1, 4).toarray()
    want = np.zeros((4, 4))
    for i in ids:
        for x, y in zip(i[:-1], i[1:], strict=True):
            want[x, y] += 1
            want[y, x] += 1
    np.testing.assert_array_equal(met, want)
    context = want.sum(0) ** 0.75
    with np.errstate(divide="ignore"):
        score = np.log(want / np.outer(want.sum(1), context / context.sum()))
    got = word_vectors._information(word_vectors._met(ids, 1, 4)).toarray()
    np.testing.assert_allclose(got, np.maximum(score, 0), atol=1e-12)


def test_the_field_reads_texts_and_travels(tmp_path):
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(f'{{"text": "{text}"}}\n' for text in corpus()))
    spec = f"jsonl:{path}?image=none"
    one = fields.build({"name": {"kind": "words", "width": 4, "corpus": spec}})
    opened = fields.open_fields(one, lambda: None, {})
    rows = fields.encode(opened, "name", ["a cat", "dog", "drill", "zebra"])["name"]
    assert rows.dtype == np.float32 and not rows[3].any()
    np.testing.assert_allclose(np.linalg.norm(rows[:3], axis=1), 1, atol=1e-6)
    assert rows[0] @ rows[1] > rows[0] @ rows[2]
    again = fields.open_fields(one, lambda: None, fields.save(opened))
    same = fields.encode(again, "name", ["a cat", "dog", "drill", "zebra"])["name"]
    np.testing.assert_array_equal(rows, same)
    texts = {"text": ["cat", "drill"]}
    first, view = opened["name"], base.View(train=False)
    np.testing.assert_array_equal(first.row("name", texts, None, view)["name"], rows[0])
    every = first.bound(every=True).row("name", texts, None, view)["name"]
    assert 0 < every @ rows[2] < 1 and 0 < every @ rows[0] < 1


def test_bad_input():
    with pytest.raises(
        UserError, match="13 words occur 3 times or more, and width is 64"
    ):
        word_vectors.fit(corpus(), width=64)
    with pytest.raises(UserError, match="width"):
        fields.build({"name": {"kind": "words", "width": 0}})
