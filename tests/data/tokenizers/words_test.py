"""The vocabulary of whole words."""

import pickle

import pytest

from mmjax.data import fields, tokenizers
from mmjax.errors import UserError

TEXTS = ["A dog, a Dog.", "a man's dog", "a cat"]


def build(**more):
    spec = {"kind": "words", "context": 8, "min_count": 2} | more
    return tokenizers.build(spec, texts=TEXTS)


def test_words_that_are_seen_often_enough():
    tokenizer = build()
    assert tokenizer.words == ("a", "dog")
    assert (tokenizer.vocab_size, tokenizer.sot, tokenizer.eot) == (6, 4, 5)
    tokens, mask = tokenizer.encode(["A DOG, a cat!", ""])
    assert tokens.tolist() == [[4, 2, 3, 2, 1, 5, 0, 0], [4, 5, 0, 0, 0, 0, 0, 0]]
    assert mask.sum(1).tolist() == [6, 2]
    assert tokenizer.decode(tokens[0]) == "a dog a <unk>"
    assert tokenizer.count("a dog") == 4
    every = build(min_count=1)
    assert every.words == ("a", "dog", "'s", "cat", "man")
    assert every.decode(every.encode(["a man's dog"])[0][0]) == "a man 's dog"
    assert build(min_count=1, vocab_size=6).words == ("a", "dog")


def test_it_travels(tmp_path):
    tokenizer = build()
    again = tokenizers.from_json(tokenizer.to_json())
    assert again.words == tokenizer.words
    assert again.fingerprint() == tokenizer.fingerprint()
    assert pickle.loads(pickle.dumps(again)).encode(["a dog"])[0][0, 1] == 2
    (tmp_path / "words.json").write_text(tokenizer.to_json())
    spec = {"kind": "words", "path": str(tmp_path / "words.json")}
    assert tokenizers.build(spec).words == tokenizer.words


def test_what_is_wrong_is_said():
    with pytest.raises(UserError, match="min_count is 9, and .* occurs 4 times: use 4"):
        build(min_count=9)
    with pytest.raises(UserError, match="use 1 or less"):
        tokenizers.build({"kind": "words"}, texts=[])
    with pytest.raises(UserError, match="a word is twice"):
        tokenizers.from_json(build().to_json().replace('"dog"', '"a"'))
    tokens = {"kind": "text", "tokenizer": "bytes", "min_count": 3}
    with pytest.raises(UserError, match="min_count is 3, and tokenizer 'bytes'"):
        fields.build({"tokens": tokens})
    with pytest.raises(UserError, match="no merges, and kind 'words'|has none"):
        fields.build({"tokens": {"kind": "text", "tokenizer": "words", "dropout": 0.1}})
