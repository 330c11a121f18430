"""`mmjax ask` of a run of a few steps."""

import re

import numpy as np
import pytest
from PIL import Image

from mmjax import cli
from mmjax.train import config as config_lib
from mmjax.train import loop


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """(a run of one step, an image)."""
    folder = tmp_path_factory.mktemp("vqa")
    config = config_lib.load("configs/vqa.py:tiny", ["--config.steps=1"])
    config.evals = type(config.evals)()
    loop.run(config, folder / "run")
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3))
    Image.fromarray(pixels.astype(np.uint8)).save(folder / "photo.png")
    return str(folder / "run"), str(folder / "photo.png")


def test_answers_and_their_chances(asked, capsys):
    assert cli.main(["ask", *asked, "a red circle?", "--top", "64"]) == 0
    lines = capsys.readouterr().out.splitlines()
    chances = [float(re.match(r" *([\d.]+) %  \w+", line)[1]) for line in lines]
    assert len(chances) == 64 and chances == sorted(chances, reverse=True)
    assert sum(chances) == pytest.approx(100, abs=3.3)
    assert cli.main(["ask", *asked, "what " * 40]) == 3


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["?"], "the question '?' has no words: ask one"),
        (["red?", "--top", "0"], "--top is 0: use 1 or more"),
    ],
)
def test_bad_input(asked, more, message, capsys):
    assert cli.main(["ask", *asked, *more]) == 2
    assert message in capsys.readouterr().err
