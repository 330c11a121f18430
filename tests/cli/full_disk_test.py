"""Commands that write, on a disk that takes no more: one sentence, no half file."""

import contextlib
import pathlib
import resource
import sys

import numpy as np
import pytest
from PIL import Image

from mmjax import cli

LEAST = 512  # bytes that a file may have


@contextlib.contextmanager
def small_files():
    """Writes beyond LEAST fail, as they do where a disk is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LEAST, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, tiny_run) -> dict[str, pathlib.Path]:
    folder = tmp_path_factory.mktemp("in")
    (folder / "photos").mkdir()
    rng = np.random.default_rng(0)
    for i in range(4):
        pixels = rng.integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"photos/{i}.png")
    np.save(folder / "a.npy", rng.normal(size=(40, 3)))
    np.save(folder / "b.npy", rng.normal(size=(50, 3)))
    return {"run": tiny_run, "in": folder}


@pytest.mark.skipif(sys.platform != "linux", reason="file sizes are limited by Linux")
@pytest.mark.parametrize(
    "command",
    [
        "data check shapes:val?count=64 --out OUT",
        "embed RUN --images IN/photos --out OUT",
        "index build RUN --source folder:IN/photos?label=none --out OUT",
        "align IN/a.npy IN/b.npy --out OUT.png",
    ],
)
def test_a_disk_that_takes_no_more(command, inputs, tmp_path, capsys):
    words = {"RUN": inputs["run"], "IN": inputs["in"], "OUT": tmp_path / "out"}
    argv = [command.partition(" ")[0]]
    for word in command.split()[1:]:
        for name, path in words.items():
            word = word.replace(name, str(path))
        argv.append(word)
    with small_files():
        code = cli.main(argv)
    said = capsys.readouterr().err
    assert code == 2, said
    assert "the disk is full: make room" in said and "Traceback" not in said
    if "index" not in command:  # which keeps its shards, and goes on from them
        assert not [p for p in tmp_path.rglob("*") if p.is_file()]
