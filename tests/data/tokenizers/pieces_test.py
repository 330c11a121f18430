"""A tokenizer.json of a public model."""

import numpy as np
import pytest
import tokenizers

from mmjax.data import tokenizers as tokenizers_lib
from mmjax.data.tokenizers import pieces
from mmjax.errors import UserError

VOCAB = ["<pad>", "</s>", "<unk>", "a", "red", "circle", "on", "top"]


def words(post: bool = False) -> str:
    ids = {token: i for i, token in enumerate(VOCAB)}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(ids, unk_token="<unk>"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.add_special_tokens(VOCAB[:3])
    if post:
        made.post_processor = tokenizers.processors.TemplateProcessing(
            single="</s> $A", special_tokens=[("</s>", 1)]
        )
    return made.to_str()


def build(clean="canonical", context=6, **kwargs):
    done = pieces.completed(words(**kwargs), end="</s>", clean=clean)
    return pieces.PieceTokenizer(done, context=context, end=1, pad=0)


def test_rows():
    made = build()
    tokens, mask = made.encode(["A red, circle!", "", "a a a a a a a a"])
    assert tokens.tolist() == [[3, 4, 5, 1, 0, 0], [1, 0, 0, 0, 0, 0], [3] * 5 + [1]]
    assert mask.sum(1).tolist() == [4, 1, 6]
    assert made.count("a a a a a a a a") == 9
    assert made.decode(tokens[0]) == "a red circle"
    assert tokens.dtype == np.int32


def test_cleaning():
    assert build("").encode(["A_red"])[0][0].tolist() == [2, 1, 0, 0, 0, 0]
    # `_` goes in one form and parts words in the other
    assert build("canonical").encode(["top_on"])[0][0].tolist()[0] == 2
    assert build("canonical_").encode(["Top_ON"])[0][0].tolist()[:2] == [7, 6]


def test_marks_that_the_file_makes_are_left():
    assert build(post=True).encode(["a red"])[0][0].tolist() == [1, 3, 4, 0, 0, 0]


def test_saved_and_opened():
    made = build()
    again = tokenizers_lib.from_json(made.to_json())
    assert again.to_json() == made.to_json() and again.vocab_size == len(VOCAB)
    assert (again.encode(["a red"])[0] == made.encode(["a red"])[0]).all()


@pytest.mark.parametrize(
    ("fields", "part"),
    [
        ({"words": "{}"}, "not a tokenizer.json"),
        ({"end": 99}, "end is 99, of 8 ids"),
        ({"context": 2}, "context 2"),
    ],
)
def test_what_is_refused(fields, part):
    given = {"words": words(), "context": 6, "end": 1, "pad": 0} | fields
    with pytest.raises(UserError, match=part):
        pieces.PieceTokenizer(given.pop("words"), **given)
    with pytest.raises(UserError, match="dropout"):
        build().encode(["a"], dropout=0.5)
    with pytest.raises(UserError, match="takes a list"):
        build().encode("a")
