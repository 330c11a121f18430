"""A run goes on with the records it was started with, wherever they lie."""

import pathlib
import shutil

import pytest
from PIL import Image

from mmjax.errors import UserError
from mmjax.train import config as config_lib
from mmjax.train import restore, setup


@pytest.fixture
def home(tmp_path: pathlib.Path) -> pathlib.Path:
    home = tmp_path / "a"
    home.mkdir()
    rows = ["image,caption"]
    for k in range(6):
        Image.new("RGB", (16, 16), (40 * k, 9, 9)).save(home / f"{k}.png")
        rows.append(f"{k}.png,image number {k}")
    (home / "d.csv").write_text("\n".join(rows) + "\n")
    return home


def parts(home: pathlib.Path, *overrides: str) -> setup.Parts:
    train = f"--config.data.train=csv:{home}/d.csv"
    config = config_lib.load("clip:tiny", [train, *overrides])
    tokens = {"kind": "text", "tokenizer": "bytes", "context": 48}
    config.data.fields.tokens = tokens
    config.task.vocab_size, config.task.context, config.evals = 259, 48, {}
    return setup.build(config)


def test_other_records_are_refused_and_moved_ones_are_not(home: pathlib.Path):
    started = parts(home)
    old = {**setup.about(started), "data": restore.data_of(started)}
    assert old["data"]["records"] == 6
    copy = shutil.copytree(home, home.parent / "b")
    restore.check_resume(parts(copy), old)

    lines = (home / "d.csv").read_text().splitlines()
    (home / "d.csv").write_text("\n".join(lines[:4]) + "\n")
    with pytest.raises(
        UserError, match=r"other records.*: 3 \(.*and then 6 \(.*changed"
    ):
        restore.check_resume(parts(home), old)
    restore.check_resume(parts(home, "--config.data.changed=True"), old)

    Image.new("RGB", (16, 16), "blue").save(copy / "2.png")  # the same names
    with pytest.raises(UserError, match=r"other records.*: 6 \(.*and then 6 \("):
        restore.check_resume(parts(copy), old)


def test_a_run_that_kept_no_fingerprint_goes_by_the_name(home: pathlib.Path):
    old = setup.about(parts(home))
    restore.check_resume(parts(home), old)
    copy = shutil.copytree(home, home.parent / "b")
    with pytest.raises(UserError, match=r"config\.data\.train was csv:.*a/d\.csv"):
        restore.check_resume(parts(copy), old)
