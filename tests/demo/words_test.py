"""Names of numbers and what they mean."""

import numpy as np
import pytest

from mmjax.cli import demo
from mmjax.metrics import judges
from mmjax.report import numbers
from mmjax_demo import judge, words

NBSP = "\N{NO-BREAK SPACE}"


def test_whatever_the_demo_writes_is_described():
    names = [*judge._RENAMED, *(name for _, name, _ in demo._ROWS), "psnr", "minutes"]
    names += ["oracle_unseen_k8", "minutes_tokens", "cores", "devices"]
    assert [n for n in names if words.meaning(n).group == numbers.OTHER] == []


def test_whatever_the_judges_say_is_described():
    rng, draw = np.random.default_rng(0), {"resamples": 2, "seed": 0}
    image = rng.integers(0, 256, (3, 2, 4, 4, 3), np.uint8)
    first = {"": np.zeros((1, 1), int), "_best2": np.ones((1, 1), int)}
    cosine, logits = rng.random((3, 2)), rng.random((3, 2, 5))
    found = judges.copies(image, image[:, 0], image[:, 1], **draw)
    for part in (
        judges.fid(logits, logits[:, 0], first, **draw),
        judges.inception_score(logits, first, **draw),
    ):
        found |= {f"clip_{k}": v for k, v in part.items()}
    scored = judges.clip_score(cosine, first, **draw)
    found |= {f"val_{k}": v for k, v in scored.items()}
    found |= {f"unseen_oracle_{name}_k64": 0.5 for name in judges.ORDER}
    shown = words.figures(found)
    assert len(found) > 2 * len(shown)  # intervals are not rows of their own
    assert [f.name for f in shown if f.meaning.group == numbers.OTHER] == []


def test_patterns_fill_their_words():
    found = words.meaning("unseen_oracle_colour_k64")
    assert found.label == "Right colour, best of 64"
    assert words.SPLITS["unseen"] in found.text
    assert words.meaning("val_oracle_all_k1").label == "All right, first try"
    assert words.meaning("oracle_k16").label.endswith("best of 16")
    unknown = words.meaning("my_number")
    assert (unknown.label, unknown.text, unknown.kind) == ("my number", "", "number")


def test_no_text_has_unfilled_braces():
    names = ["oracle_k8", "minutes_clip", "val_clip_score_best8", "val_clip_score"]
    names += ["val_oracle_size_k8", "val_oracle_all_k8", "oracle_unseen_k8"]
    for name in names:
        found = words.meaning(name)
        assert "{" not in found.label + found.text


def test_intervals_join_their_number():
    a, b, c = numbers.figures(
        {"x": 0.5, "x_lo": 0.4, "x_hi": 0.6, "y_lo": 1.0, "z": 2.0, "z_hi": 3.0},
    )[:3]
    assert (a.name, a.value, a.low, a.high) == ("x", 0.5, 0.4, 0.6)
    assert (b.name, b.low) == ("y_lo", None)  # there is no y
    assert (c.name, c.high) == ("z", None)  # half an interval is none
    assert [f.name for f in numbers.figures({"z": 2.0, "z_hi": 3.0})] == ["z", "z_hi"]


@pytest.mark.parametrize(
    "value, kind, said",
    [
        (0.76649, "share", "76.6 %"),
        (1, "share", "100.0 %"),
        (27.849, "dB", "27.8 dB"),
        (1.6251, "nats", "1.63 nats"),
        (12.75, "minutes", "12.8 min"),
        (1234567, "number", "1,234,567"),
        (0.0312749, "number", "0.03127"),
        (float("nan"), "share", "nan"),
        ("cpu", "number", "cpu"),
        (True, "share", "True"),
        (None, "number", "None"),
    ],
)
def test_spelling(value, kind, said):
    assert numbers.spell(value, kind) == said.replace(" ", NBSP)


def test_spelling_without_the_unit():
    assert numbers.spell(0.5, "share", unit=False) == "50.0"
    assert numbers.spell(3, "minutes", unit=False) == "3"
