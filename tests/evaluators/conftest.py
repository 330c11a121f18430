"""A source, a tokenizer and a linear model small enough to check by hand.

An image's embedding is its pixels times a matrix; a text's is the sum of its words'
rows of a table.
"""

import dataclasses
import functools

import numpy as np
import pytest

from mmjax.evaluators import Env


@dataclasses.dataclass(frozen=True)
class ImageConfig:
    size: int = 2
    method: str = "bicubic"
    mode: str = "squash"


class Tokenizer:
    """One token a word, by order of first sight; token 0 is padding."""

    kind, context = "words", 4

    def __init__(self):
        self.words = {"": 0}

    def encode(self, texts):
        tokens = np.zeros((len(texts), self.context), np.int32)
        for row, text in zip(tokens, texts, strict=True):
            words = text.split()[: self.context]
            ids = [self.words.setdefault(w, len(self.words)) for w in words]
            row[: len(ids)] = ids
        return tokens, tokens > 0

    def fingerprint(self):
        return "words"


class Source:
    """Records from vectors (n, 12): a 2 x 2 RGB image each."""

    name = "fake"

    def __init__(self, vectors, *, texts=(), labels=None, class_names=(), broken=()):
        self.vectors, self.labels = np.asarray(vectors, np.uint8), labels
        self.class_names, self.broken = tuple(class_names), set(broken)
        self._texts = [list(t) for t in texts] or [[] for _ in vectors]
        self.reads = 0

    def __len__(self):
        return len(self.vectors)

    def __getitem__(self, i):
        self.reads += 1
        image = self.vectors[i].reshape(2, 2, 3)
        record = {"image": image, "text": self._texts[i], "key": str(i)}
        if self.labels is not None:
            record["label"] = int(self.labels[i])
        return record

    def texts(self):
        return (text for listed in self._texts for text in listed)

    def fingerprint(self):
        return "fake-" + str(len(self))


def eval_batches(tokenizer, source, names, *, batch_size):
    """The pipeline's contract: in order, the last batch padded with zeros."""
    inner = source
    while not hasattr(inner, "broken"):  # a subset, or a view of one
        inner = inner.source
    for start in range(0, len(source), batch_size):
        index = np.arange(start, min(start + batch_size, len(source)))
        records = [source[i] for i in index]
        room = batch_size - len(index)

        def padded(values, room=room):
            values = np.asarray(values)
            return np.pad(values, [(0, room)] + [(0, 0)] * (values.ndim - 1))

        batch = {
            "image": padded([r["image"] for r in records]),
            "_mask": padded(np.ones(len(index), np.float32)),
            "_index": padded(index.astype(np.int32)),
            "_broken": padded([int(i in inner.broken) for i in index]),
        }
        if "label" in records[0]:
            batch["label"] = padded(np.asarray([r["label"] for r in records], np.int32))
        if "tokens" in names:
            tokens, mask = tokenizer.encode([r["text"][0] for r in records])
            batch |= {"tokens": padded(tokens), "tokens_mask": padded(mask)}
        yield batch


def embed_image(variables, batch):
    """Pixels times a matrix."""
    flat = batch["image"].reshape(batch["image"].shape[0], -1)
    return flat.astype("float32") @ variables["image"]


def embed_text(variables, batch):
    """Sum over the words of their vectors."""
    one_hot = batch["tokens"][..., None] == np.arange(variables["text"].shape[0])
    one_hot = one_hot & batch["tokens_mask"][..., None]
    return one_hot.astype("float32").sum(1) @ variables["text"]


@pytest.fixture
def make_source():
    return Source


@pytest.fixture
def make_env():
    """make_env(sources={spec: source}, batch_size=4, **more predict functions)."""

    def make(sources=None, batch_size=4, *, tokenizer=True, **more):
        raw = {"embed_image": embed_image, "embed_text": embed_text, **more}
        shapes: dict[str, set] = {}

        def watched(name, function):
            def call(variables, batch):
                sizes = tuple(sorted((k, v.shape) for k, v in batch.items()))
                shapes.setdefault(name, set()).add(sizes)
                return function(variables, batch)

            return call

        words = Tokenizer() if tokenizer else None
        env = Env(
            predict={name: watched(name, f) for name, f in raw.items()},
            raw=raw,
            tokenizer=words,
            image_cfg=ImageConfig(),
            reads=("image", "tokens") if tokenizer else ("image",),
            batch_size=batch_size,
            open_source=lambda spec: (sources or {})[spec],
            eval_batches=functools.partial(eval_batches, words),
        )
        object.__setattr__(env, "shapes", shapes)  # what was called: one compile each
        return env

    return make
