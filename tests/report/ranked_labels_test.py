"""The picture exists, is as large as its content, and shows the right bar green."""

import numpy as np
import pytest
from PIL import Image

from mmjax.errors import UserError
from mmjax.report import ranked_labels

GREEN, RED = (46, 139, 87), (192, 80, 77)


def count(path, colour):
    return int((np.asarray(Image.open(path).convert("RGB")) == colour).all(-1).sum())


def draw(path, n=4, **more):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (8, 8 + i, 3), np.uint8) for i in range(n)]
    scores = np.tile([0.1, 0.6, 0.1, 0.05, 0.05, 0.1], (n, 1))
    return ranked_labels.ranked(path, images, list("abcdef"), scores, **more)


def test_bars_are_as_long_as_their_scores(tmp_path):
    right = count(draw(tmp_path / "new" / "a.png", truth=["b"] * 4), GREEN)
    half = count(draw(tmp_path / "b.png", truth=[1, 1, 0, 0]), GREEN)
    wrong = draw(tmp_path / "c.png", truth=[0, 0, 0, 0])
    assert 0.5 * right < half < 0.7 * right  # bars .6 .6 .1 .1, and text
    assert count(wrong, RED) > 0.8 * right
    assert count(wrong, GREEN) < 0.35 * right
    beyond = draw(tmp_path / "d.png", truth=[4] * 4, top=2)
    assert count(beyond, GREEN) > 0


def test_any_number_of_images_and_odd_labels(tmp_path):
    for n in (1, 3, 7):
        one = draw(tmp_path / f"{n}.png", n, title="t", captions=["$x" * 40] * n)
        assert Image.open(one).size[0] == 572 * min(3, -(-n // 3))
    image = np.zeros((300, 100, 3), np.uint8)
    labels = ["cost $5 to $6", "x" * 99]
    ranked_labels.ranked(tmp_path / "odd.png", [image], labels, [[0.5, 0.5]])


def test_refusals(tmp_path):
    image = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(UserError, match=r"needs scores of shape \(1, 2\), got \(2,\)"):
        ranked_labels.ranked(tmp_path / "a.png", [image], ["a", "b"], np.ones(2))
    with pytest.raises(UserError, match="'c' is not among"):
        ranked_labels.ranked(tmp_path / "a.png", [image], ["a"], [[1]], truth=["c"])
    with pytest.raises(UserError, match="2 captions for 1 images"):
        ranked_labels.ranked(
            tmp_path / "a.png", [image], ["a"], [[1]], captions=["", ""]
        )
