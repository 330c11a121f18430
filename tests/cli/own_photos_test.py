"""One's own photos: one command to a run that is trained, evaluated and reported."""

import csv
import json
import pathlib
import tarfile

import pytest
from PIL import Image

from mmjax import cli
from mmjax.data.sources import open_source
from mmjax.errors import UserError
from mmjax.train import config as config_lib
from mmjax.train import setup

# The preset as it is, but for the size of its networks and the time it takes.
SMALL = ["image_size=16", "image.width=8", "text.width=16", "text.depth=1"]
SMALL = [*(f"task.{text}" for text in (*SMALL, "text.heads=2", "embed_dim=8"))]
SMALL += ["data.fields.image.size=16", "steps=4"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> pathlib.Path:
    """50 captioned images as a folder, a table and a tar, in one place."""
    home = tmp_path_factory.mktemp("own")
    (home / "photos").mkdir()
    source, rows = open_source("shapes:val?size=16&count=50&objects=1"), []
    with tarfile.open(home / "photos.tar", "w") as tar:
        for i in range(50):
            image, text = home / f"photos/{i:02}.jpg", home / f"photos/{i:02}.txt"
            Image.fromarray(source[i]["image"]).save(image)
            text.write_text(source[i]["text"][0])
            rows.append((f"photos/{i:02}.jpg", source[i]["text"][0]))
            tar.add(image, image.name)
            tar.add(text, text.name)
    with (home / "photos.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", "caption"), *rows])
    return home


@pytest.mark.parametrize(
    "spec", ["folder:photos", "csv:photos.csv", "webdataset:photos.tar"]
)
def test_one_command(spec, photos, monkeypatch, capsys, caplog, tmp_path):
    monkeypatch.chdir(photos)
    run = tmp_path / "run"
    argv = ["train", "--config", "clip:own", "--workdir", str(run)]
    argv += [f"--config.data.train={spec}", *(f"--config.{text}" for text in SMALL)]
    assert cli.main(argv) == 0
    out, err = capsys.readouterr()
    assert out.startswith("held_out\n  i2t_equal_r1 ") and "95 % interval" in out
    config = json.loads((run / "run.json").read_text())["config"]
    kind, _, name = spec.partition(":")
    assert config["data"]["train"] == f"{kind}:{photos}/{name}?part=train"
    held_out = json.loads((run / "cards/held_out.json").read_text())["counts"]["images"]
    records = 50 - held_out
    assert 5 <= held_out <= 15
    opening = iter(err.splitlines())
    for begins in (
        "devices     4 cpu (jit, data 4, fsdp 1, tensor 1)",
        "parameters  ",
        f"data        {records} records of {kind}:",
        f"steps       4 of 4, 64 records each: {256 / records:.3g} epochs",
        "compiling",
        "step 4/4 loss ",
    ):
        assert any(line.startswith(begins) for line in opening), begins
    assert f"--config.batch_size={records // 4 * 4} is the largest" in caplog.text
    assert f"results  {run}/cards" in out and f" inspect {run}" in out
    assert f" zeroshot {run} PHOTO.jpg --labels" in out and " sample " not in out
    page = _report(run, capsys)
    assert "clip: run: loss" in page and "held_out/i2t_equal_r1" in page
    assert page.count("share of images with one of their captions among the k") == 4
    if kind != "folder":
        return  # the rest does not depend on where the images came from
    monkeypatch.chdir(tmp_path)
    assert len(open_source(config["evals"]["held_out"]["source"])) == held_out
    again = f"--config.data.train=folder:{photos}/photos"
    assert cli.main([again if spec in word else word for word in argv]) == 0
    said, err = capsys.readouterr()
    assert said == out and "step 4 of 4 is done already" in err
    assert "compiling" not in err


def _report(run, capsys) -> str:
    """The page of `mmjax report`."""
    assert cli.main(["report", str(run)]) == 0
    assert capsys.readouterr().out == f"{run}/report.html\n"
    return (run / "report.html").read_text()


def test_images_without_captions(photos, tmp_path):
    (tmp_path / "bare").mkdir()
    for k in range(50):
        image = (photos / f"photos/{k:02}.jpg").read_bytes()
        (tmp_path / f"bare/{k:02}.jpg").write_bytes(image)
    bare = [f"--config.data.train=folder:{tmp_path}/bare"]
    with pytest.raises(UserError, match=r"no captions to train on.*name.txt beside"):
        setup.build(config_lib.load("clip:own", bare))
    parts = setup.build(config_lib.load("vqvae:own", bare))
    assert set(parts.batch_fields) == {"image"} and len(parts.source) > 30
