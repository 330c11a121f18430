"""The evaluator of captions on a model that says what it is told to."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from mmjax.errors import UserError
from mmjax.evaluators import captions
from mmjax.metrics import captions as metrics

TEXTS = [
    ["A dog runs .", "a dog is running"],
    ["two men sit", ""],
    ["a red bird flies", "the bird is red"],
    ["a cat sleeps on a mat", "a cat"],
    ["a boy jumps", "the boy jumps high"],
]
SAID = ["a dog runs", "two men", "a bird", "a cat on a mat", "boy jumps high today"]
LENGTH = 6


class Words:
    """Ids are places in a list of words; 0 ends a text."""

    kind, context = "words", LENGTH
    words = ("", *sorted({w for text in SAID for w in text.split()}))

    def encode(self, texts):
        ids = np.zeros((len(texts), LENGTH), np.int32)
        return ids, ids == 0

    def ids(self, text):
        row = [self.words.index(word) for word in text.split()]
        return row + [0] * (LENGTH - len(row))

    def decode(self, row):
        return " ".join(self.words[i] for i in row if i)

    def fingerprint(self):
        return "words"


@pytest.fixture
def parts(make_source, make_env):
    """(source, env): an image's number is its first pixel, and chooses what is said."""
    pixels = np.repeat(np.arange(5)[:, None] * 50, 12, 1)
    source = make_source(pixels, texts=TEXTS)
    table = np.array([Words().ids(text) for text in SAID])

    def number(batch):
        return np.asarray(batch["image"])[:, 0, 0, 0] // 50

    def caption(variables, batch):
        return {"caption": table[number(batch)][:, None], "score": 0 * number(batch)}

    def features(variables, batch):
        return np.eye(5, dtype=np.float32)[number(batch)] + 0.1

    def attention(variables, batch):
        spread = np.full((len(batch["caption"]), LENGTH, 4), 0.1, np.float32)
        spread[:, :, 0] = 0.7
        return spread

    env = make_env({"train": source}, 2, caption=caption)
    env = dataclasses.replace(
        env,
        tokenizer=Words(),
        image_cfg=None,
        predict={"caption": caption, "features": features, "attention": attention},
        raw={"caption": None, "features": None, "attention": None},
    )
    return source, env


def evaluate(parts, **more):
    source, env = parts
    cfg = {"source": source, "resamples": 30} | more
    return captions.Evaluator(cfg, env).run(None)


def test_numbers_are_those_of_the_metrics(parts):
    result = evaluate(parts)
    said = [metrics.words(text) for text in SAID]
    references = [[w for t in group if (w := metrics.words(t))] for group in TEXTS]
    pairs = list(zip(said, references, strict=True))
    summed = sum(metrics.bleu_counts(*pair) for pair in pairs)
    for end, brevity in (("", True), ("_no_penalty", False)):
        for n, want in enumerate(metrics.bleu(summed, brevity=brevity), 1):
            assert result.values[f"bleu{n}{end}"] == pytest.approx(want)
    assert result.values["bleu1"] < result.values["bleu1_no_penalty"]
    rouge = np.mean([metrics.rouge_l(*pair) for pair in pairs])
    assert result.values["rouge_l"] == pytest.approx(rouge)
    assert result.values["cider_d"] == pytest.approx(
        metrics.cider_d(said, references).mean()
    )
    assert result.values["words"] == pytest.approx(np.mean([len(s) for s in said]))
    assert result.values["bleu1_lo"] <= result.values["bleu1"]
    assert result.arrays["caption_model"].tolist() == SAID
    assert result.card["counts"] == {"examples": 5, "broken": 0}


def test_captioners_by_example_and_what_is_drawn(parts, tmp_path):
    result = evaluate(
        parts,
        methods=("model", "nearest", "template"),
        train="train",
        options={"templates": ("a {who}",), "slots": {"who": ("dog", "cat")}},
        metrics=(),
        png=str(tmp_path / "sheet.png"),
        attention=str(tmp_path / "maps"),
        shown=2,
    )
    # each image's nearest example is itself, and its first caption a reference
    assert result.values["nearest/bleu1"] == pytest.approx(100)
    assert result.arrays["caption_template"][[0, 3]].tolist() == ["a dog", "a cat"]
    assert result.card["options"]["slots"] == {"who": ("dog", "cat")}
    assert np.asarray(Image.open(tmp_path / "sheet.png")).std() > 5
    maps = sorted(path.name for path in (tmp_path / "maps").iterdir())
    assert maps == ["0.png", "4.png"]


@pytest.mark.parametrize(
    ("more", "what"),
    [
        ({"methods": ("consensus",)}, "methods are .*consensus.* give train"),
        ({"methods": ("nearst",)}, "no 'nearst'; did you mean 'nearest'"),
        ({"metrics": ("cider",)}, "no 'cider'; did you mean 'cider_d'"),
        ({"options": {"neighbors": 3}}, "neighbors"),
    ],
)
def test_what_is_wrong_is_said(parts, more, what):
    with pytest.raises((UserError, ValueError), match=what):
        evaluate(parts, **more)


def test_an_image_without_a_caption(parts, make_source):
    source = make_source(np.zeros((1, 12)), texts=[["", " . "]])
    with pytest.raises(UserError, match="record 0 of 'fake' has 2 captions, none with"):
        evaluate((source, parts[1]))
