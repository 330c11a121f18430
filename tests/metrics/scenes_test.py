"""The oracle's judgement of many pictures: by hand, and in other processes."""

import numpy as np
import pytest

from mmjax.data.shapes import oracle
from mmjax.data.sources import open_source
from mmjax.metrics import scenes


@pytest.fixture(scope="module")
def shown():
    """Pictures, and scenes of which every other one is another picture's."""
    source = open_source("shapes:val?size=32&count=12")
    records = [source[i] for i in range(12)]
    images = np.stack([r["image"] for r in records])
    truths = [records[i - i % 2]["scene"] for i in range(12)]
    return images, truths


@pytest.mark.parametrize("processes", [None, 1, 2])
def test_scores_are_the_oracle_s(shown, processes):
    images, truths = shown
    got = scenes.judge(images, truths, processes=processes)
    assert set(got) == set(oracle.ATTRIBUTES)
    for i in range(12):
        wanted = oracle.score(truths[i], oracle.read(images[i]))
        assert {name: got[name][i] for name in got} == wanted
    assert got["all"][::2].mean() == 1 and got["all"][1::2].mean() < 0.5


def test_none_and_unequal_numbers(shown):
    images, truths = shown
    assert all(v.shape == (0,) for v in scenes.judge(images[:0], []).values())
    with pytest.raises(ValueError, match="12 images and 3 scenes"):
        scenes.judge(images, truths[:3])
