"""`mmjax caption`: a trained run, images of every kind, and what it refuses."""

import re

import numpy as np
import pytest
from PIL import Image

from mmjax import cli


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The tiny run after a step, and images beside it."""
    folder = tmp_path_factory.mktemp("caption")
    args = [
        "train",
        "--config",
        "configs/caption.py:tiny",
        "--workdir",
        f"{folder}/run",
    ]
    assert cli.main(args) == 0
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        pixels = rng.integers(0, 255, (20, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    (folder / "bad.png").write_bytes(b"no image")
    return folder


def test_a_line_an_image(run, tmp_path, capsys):
    maps = tmp_path / "maps"
    argv = ["caption", f"{run}/run", f"{run}/a.png", f"{run}/b.png"]
    assert cli.main([*argv, "--attention", str(maps)]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith(f"{run}/a.png\t") and out[1].startswith(f"{run}/b.png\t")
    assert sorted(path.name for path in maps.iterdir()) == ["a.png", "b.png"]
    assert np.asarray(Image.open(maps / "a.png")).std() > 5


def test_one_bad_image_ends_nothing_and_beams_are_listed(run, capsys):
    argv = ["caption", f"{run}/run", f"{run}/bad.png", f"{run}/a.png", "--set", "k=2"]
    assert cli.main([*argv, "--all"]) == 3
    shown = capsys.readouterr()
    lines = shown.out.splitlines()
    assert len(lines) == 3 and lines[0].startswith(f"{run}/a.png\t")
    scores = [float(line.split()[0]) for line in lines[1:]]
    assert scores == sorted(scores, reverse=True)
    assert lines[1][11:].strip() == lines[0].partition("\t")[2]


@pytest.mark.parametrize(
    ("more", "what"),
    [
        (["--set", "k=500"], "k is 500 beams, and the vocabulary has .* ids"),
        (["--set", "beams=5"], "sampling: unknown key 'beams'"),
        (["--set", "top_p"], "give it as --set KEY=VALUE"),
    ],
)
def test_options_that_do_not_fit(run, more, what, capsys):
    assert cli.main(["caption", f"{run}/run", f"{run}/a.png", *more]) == 2
    assert re.search(what, capsys.readouterr().err)


def test_images_that_cannot_be_read_at_all(run, capsys):
    assert cli.main(["caption", f"{run}/run", f"{run}/bad.png"]) == 2
    assert "cannot read image" in capsys.readouterr().err
