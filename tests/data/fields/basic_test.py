"""Kinds image, index, label, labels, text, texts and tokens."""

import numpy as np
import pytest
from record_source import Records

from mmjax.data import fields
from mmjax.data.fields.base import View
from mmjax.data.records import BrokenRecord
from mmjax.errors import UserError

EVALUATE = View(train=False)


def opened(source, **config):
    built = fields.build({"a": config})
    return fields.open_fields(built, lambda: source, {})


def train(chosen, record, seed=0):
    rng = np.random.default_rng(seed)
    return fields.row(chosen, record, rng, View(train=True))


def test_index_is_the_position():
    chosen = opened(Records([{}] * 5), kind="index")
    row = fields.row(chosen, {}, None, View(train=False, index=3))
    batch = fields.collate(chosen, [row, fields.blank(chosen)])
    assert batch["a"].tolist() == [3, -1]
    assert fields.spec(chosen)["a"]["records"] == 5


def test_image_refuses_what_is_no_image():
    chosen = opened(Records([]), kind="image", of="image", size=4)
    with pytest.raises(BrokenRecord, match=r"RGB, got float64 \(2, 2, 3\)"):
        fields.row(chosen, {"image": np.zeros((2, 2, 3))}, None, EVALUATE)
    with pytest.raises(BrokenRecord, match=r"got uint8 \(2, 2, 4\)"):
        fields.row(chosen, {"image": np.zeros((2, 2, 4), np.uint8)}, None, EVALUATE)


def test_tokens_have_one_length_and_a_vocabulary():
    source = Records([{"a": [1, 2, 3]}])
    chosen = opened(source, kind="tokens", vocab_size=4)
    assert fields.shapes(chosen) == {"a": ((3,), "int32")}
    with pytest.raises(
        UserError, match=r"expected 3 ids, got int64 \(2,\): set length"
    ):
        fields.encode(chosen, "a", [[1, 2]])
    with pytest.raises(UserError, match="ids 1 to 4, of a vocabulary of 4"):
        fields.encode(chosen, "a", [[1, 2, 4]])
    both = chosen | fields.build({"image": {"kind": "image", "flip": True}})
    with pytest.raises(
        UserError, match="image has train_crop resized, train_scale .* and flip True"
    ):
        fields.check(chosen, both, source)


def test_label_has_the_source_class_names():
    chosen = opened(Records([], ("cat", "dog")), kind="label")
    assert fields.spec(chosen)["a"]["class_names"] == ("cat", "dog")
    with pytest.raises(UserError, match="expected the number of a class, got 'cat'"):
        fields.encode(chosen, "a", ["cat"])


def test_labels_by_number_and_name():
    source = Records([{"a": []}], ("cat", "dog", "owl"))
    chosen = opened(source, kind="labels")
    values = [[2, "cat"], [], "dog", 1, np.array([True, False, True])]
    batch = fields.encode(chosen, "a", values)
    assert batch["a"].tolist() == [
        [True, False, True],
        [False, False, False],
        [False, True, False],
        [False, True, False],
        [True, False, True],
    ]
    assert list(fields.choose(chosen, source, ["a"])) == ["a"]  # no class is a value
    assert fields.spec(chosen)["a"]["class_names"] == source.class_names
    for wrong in ([3], [-1], ["horse"], [0.5]):
        with pytest.raises(
            UserError, match="is no class: use a class name or a number"
        ):
            fields.encode(chosen, "a", [wrong])
    with pytest.raises(UserError, match=r"expected bool \(3,\), got \(2,\)"):
        fields.encode(chosen, "a", [np.array([True, False])])


def test_labels_know_how_many_classes_there_are():
    source = Records([{"a": [4]}], ("cat", "dog"))
    chosen = opened(source, kind="labels", classes=5)
    assert fields.encode(chosen, "a", [[4]])["a"].tolist() == [[False] * 4 + [True]]
    assert fields.spec(chosen)["a"]["class_names"] == ()  # those are another value's
    chosen = opened(Records([{"a": [4]}]), kind="labels")
    with pytest.raises(UserError, match="no class names .* set classes to the number"):
        fields.check(chosen, chosen, Records([{"a": [4]}]))


def test_text_draws_a_caption_in_training():
    source = Records([{"text": ["aa", "bb", "cc"]}])
    chosen = opened(source, kind="text", context=4)
    rows = [train(chosen, source[0], seed)["a"] for seed in range(20)]
    assert set(rows) == {"aa", "bb", "cc"}
    assert fields.row(chosen, source[0], None, EVALUATE)["a"] == "aa"
    with pytest.raises(UserError, match="expected text, got int 3"):
        fields.encode(chosen, "a", [["aa", 3]])
    assert fields.spec(chosen)["a"]["vocab_size"] == chosen["a"].encoder.vocab_size


@pytest.mark.parametrize("of", ["text", "name"])
def test_a_tokenizer_learns_from_the_value_it_reads(of):
    words = [["red star", "red star"], ["red star"]]
    source = Records([{of: words[0], "x": ["zzz"]}, None, {of: words[1]}, {of: []}])
    chosen = opened(source, kind="text", of=of, tokenizer="bpe", context=9)
    encoder = chosen["a"].encoder
    assert max(encoder.count(text) for text in (*words[0], *words[1])) == 4
    assert encoder.count("zzz") == 5


def test_merge_dropout_is_in_training_alone():
    source = Records([{"text": ["red star", "blue star", "red moon"]}])
    options = {"kind": "text", "tokenizer": "bpe", "context": 12, "dropout": 0.5}
    chosen = opened(source, **options)
    rows = [train(chosen, {"text": "red star"}, seed) for seed in range(20)]
    rows.append(fields.row(chosen, {"text": "red star"}, None, EVALUATE))
    batch = fields.collate(chosen, rows)
    lengths = batch["a_mask"].sum(1)
    assert lengths[-1] == lengths.min() and len(set(lengths)) > 2


def test_texts_fill_slots():
    source = Records([{}])
    chosen = opened(source, kind="texts", count=3, context=5)
    batch = fields.encode(chosen, "a", [["ab", "c"], "def"])
    assert batch["a"].shape == (2, 3, 5) and batch["a_mask"].dtype == bool
    assert batch["a_mask"].sum(-1).tolist() == [[4, 3, 0], [5, 0, 0]]
    tokens, mask = chosen["a"].encoder.encode(["ab", "c", "def"])
    slots = batch["a_mask"].any(-1)
    np.testing.assert_array_equal(batch["a"][slots], tokens)
    np.testing.assert_array_equal(batch["a_mask"][slots], mask)
    assert (batch["a"][~slots] == 0).all()
    with pytest.raises(UserError, match="4 texts, and count 3: set count to 4, or cut"):
        fields.encode(chosen, "a", [list("abcd")])
    with pytest.raises(UserError, match="expected text, got float 0.5"):
        fields.encode(chosen, "a", [["a", 0.5]])
    with pytest.raises(UserError, match="count is 0: use"):
        fields.build({"a": {"kind": "texts", "count": 0}})


def test_texts_are_cut_where_asked():
    record = {"a": list("abcdef")}
    chosen = opened(Records([record]), kind="texts", count=2, cut=True, context=4)
    assert fields.row(chosen, record, None, EVALUATE)["a"] == ["a", "b"]
    drawn = {tuple(train(chosen, record, seed)["a"]) for seed in range(200)}
    assert len(drawn) == 15 and all(a < b for a, b in drawn)  # all pairs, in order


def test_texts_take_merge_dropout():
    source = Records([{"a": ["red star", "blue star"]}])
    options = {"tokenizer": "bpe", "context": 12, "dropout": 0.5}
    chosen = opened(source, kind="texts", count=3, **options)
    rows = [train(chosen, source[0], seed) for seed in range(20)]
    batch = fields.collate(chosen, [*rows, fields.blank(chosen)])
    assert len(set(batch["a_mask"][:20, 0].sum(1))) > 1
    assert not batch["a_mask"][:, 2].any() and not batch["a_mask"][20].any()
