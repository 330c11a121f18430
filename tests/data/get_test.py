"""Public sets, as their makers pack them, become the files that configs read."""

import json
import pathlib

import numpy as np
import pytest
from PIL import Image

from mmjax import cli
from mmjax.data import get
from mmjax.data.sources import open_source
from mmjax.errors import UserError


def image(path: pathlib.Path, value: int, size: tuple[int, int] = (40, 30)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, 2 * value, 250)).save(path)


@pytest.fixture
def flickr8k(tmp_path) -> pathlib.Path:
    home, lines = tmp_path / "down", []
    names = ["1000268201_693b08cb0e.jpg", "b.jpg", "c.jpg"]
    for k, name in enumerate(names):
        image(home / "Flicker8k_Dataset" / name, 40 * k)
        lines += [f"{name}#{i}\tcaption {i} of {k} .\n" for i in range(5)]
    (home / "Flickr8k.token.txt").write_text("".join(lines))
    for name, split in zip(names, ("train", "dev", "test"), strict=True):
        (home / f"Flickr_8k.{split}Images.txt").write_text(f"{name}\n")
    return home


def test_flickr8k(flickr8k, tmp_path, capsys):
    out = tmp_path / "data"
    argv = ["data", "get", "flickr8k", "--from", str(flickr8k), "--out", str(out)]
    assert cli.main(argv) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == f"{out}/flickr8k/flickr8k-train-128-00000.tar"
    record = open_source(f"webdataset:{out}/flickr8k/flickr8k-dev-128-*.tar")[0]
    assert record["image"].shape == (128, 128, 3) and len(record["text"]) == 5
    assert abs(record["image"].astype(int) - (40, 80, 250)).max() < 6
    (flickr8k / "Flicker8k_Dataset" / "b.jpg").unlink()
    with pytest.raises(UserError, match="is not flickr8k as .*b.jpg"):
        get.get("flickr8k", flickr8k, out)


def test_cifar10(tmp_path, monkeypatch):
    monkeypatch.setattr(get, "_ROWS", 20)
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 256, (6, 20, get._CIFAR), np.uint8)
    rows[:, :, 0] = np.arange(20) % 10
    for k, name in enumerate(get._BATCHES):
        rows[k].tofile(tmp_path / name)
    classes = ["airplane", "car", *"abcdefgh"]
    (tmp_path / "batches.meta.txt").write_text("\n".join([*classes, ""]))
    train, test = get.get("cifar10", tmp_path, tmp_path / "out")
    source = open_source(f"npz:{train}?template=a {{}}")
    assert len(source) == 100 and len(open_source(f"npz:{test}")) == 20
    planes = rows[0, 1, 1:].reshape(3, 32, 32)
    np.testing.assert_array_equal(source[1]["image"], planes.transpose(1, 2, 0))
    assert source[1]["label"] == 1 and source[1]["text"] == ["a car"]
    rows[0, :19].tofile(tmp_path / "data_batch_1.bin")
    with pytest.raises(UserError, match=r"have \[58387, 61460\] bytes, and not 61460"):
        get.get("cifar10", tmp_path, tmp_path / "out")


def test_gtsrb(tmp_path):
    for label in range(43):
        for track in range(32 if label == 5 else 2):
            for frame in (0, 15, 29):
                name = f"GTSRB/{label:05d}/{track:05d}_{frame:05d}.ppm"
                if label == 5 or track == 0 or frame == 15:
                    image(tmp_path / name, label)
    (made,) = get.get("gtsrb", tmp_path, tmp_path / "out")
    source = open_source(f"npz:{made}")
    assert len(source) == 42 * 3 + 30 and source[0]["image"].shape == (32, 32, 3)
    assert source.class_names[14] == "stop" and source[-1]["label"] == 42
    held = np.load(made)["name"]
    first = ["00000/00000_00015.ppm", "00000/00001_00015.ppm", "00000/00000_00029.ppm"]
    assert held[:3].tolist() == first
    part = open_source(f"npz:{made}?group=_&part=held_out")  # as configs/clip.py:gtsrb
    assert 0 < len(part) < len(source)


def test_easy_vqa(tmp_path):
    for k in range(12):
        image(tmp_path / f"data/train/images/{k}.png", k)
    asked = [["what is it?", "circle", 11], ["is it red?", "no", 0]]
    (tmp_path / "data/train/questions.json").write_text(json.dumps(asked))
    (tmp_path / "data/answers.txt").write_text("circle\nno\n")
    images, questions, answers = get.get("easy_vqa", tmp_path, tmp_path / "out")
    assert answers.read_text() == "circle\nno\n"
    source = open_source(
        {"kind": "vqa", "path": str(questions), "images": f"npz:{images}"}
        | {"question": "question", "answer": "answer", "image": "image"}
    )
    assert source[0]["image"][0, 0].tolist() == [11, 22, 250]


def test_mnist_is_the_public_one(bundle, tmp_path):
    files = bundle / "tfds_manual" / "mnist"
    get.get("mnist", files, tmp_path)
    assert len(open_source(f"mnist:{tmp_path}/tfds_manual/mnist?split=test")) == 10_000
    changed = tmp_path / "changed"
    changed.mkdir()
    for path in files.iterdir():
        data = path.read_bytes() + b"x" * (path.name == "t10k-labels-idx1-ubyte.gz")
        (changed / path.name).write_bytes(data)
    with pytest.raises(UserError, match=r"t10k-labels.*has another sha256"):
        get.get("mnist", changed, tmp_path)


def test_what_is_not_there(tmp_path, capsys):
    assert cli.main(["data", "get"]) == 0
    listed = capsys.readouterr().out
    assert all(f"{name} " in listed for name in get.SETS)
    for argv, message in (
        (["mnst", "--from", "."], "did you mean 'mnist'"),
        (["mnist", "--from", str(tmp_path)], "holds no train-images-idx3-ubyte.gz: do"),
        (["mnist", "--from", f"{tmp_path}/x"], "is no folder; mnist is at https://"),
        (["gtsrb"], "download gtsrb from https://benchmark.ini.rub.de"),
    ):
        assert cli.main(["data", "get", *argv, "--out", f"{tmp_path}/out"]) == 2
        assert message in capsys.readouterr().err
