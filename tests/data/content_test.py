"""Fingerprints: of what lies in the files, and not of where they lie."""

import os
import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image
from scipy.io import wavfile

from mmjax.data import build, content, records
from mmjax.data.sources import open_source


def paint(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 5), (value, 9, 9)).save(path, "BMP")  # of one size, always


@pytest.fixture
def home(tmp_path):
    home = tmp_path / "one"
    for k in range(4):
        paint(home / f"photos/{k % 2}/{k}.bmp", k)
        (home / f"photos/{k % 2}/{k}.txt").write_text("a cat")
    lines = (
        "image,caption,class,other\nphotos/0/0.bmp,a cat,x,y\nphotos/1/1.bmp,b,y,x\n"
    )
    (home / "x.csv").write_text(lines)
    wavfile.write(home / "photos/1/a.wav", 8000, np.zeros(9, np.int16))
    np.savez(home / "x.npz", x=np.zeros((9, 2)), label=np.arange(9))
    np.save(home / "x.npy", np.zeros((9, 2)))
    return home


def bmp(home):
    paint(home / "photos/0/0.bmp", 77)


def text(home):
    (home / "photos/0/0.txt").write_text("a dog")


def sound(home):
    wavfile.write(home / "photos/1/a.wav", 8000, np.ones(9, np.int16))


def array(home):
    x = np.zeros((9, 2))
    x[4, 1] = 1
    np.savez(home / "x.npz", x=x, label=np.arange(9))
    np.save(home / "x.npy", x)


CASES = [
    ("folder:{}/photos", bmp),
    ("folder:{}/photos", text),
    ("folder:{}/photos?label=parent", bmp),
    ("frames:{}/photos", bmp),
    ("wav:{}/photos", sound),
    ("csv:{}/x.csv", bmp),
    ("npz:{}/x.npz", array),
    ("npy:{}/x.npy", array),
]


@pytest.mark.parametrize(("spec", "change"), CASES)
def test_contents_count_and_places_do_not(home, spec, change):
    before = open_source(spec.format(home)).fingerprint()
    copy = shutil.copytree(home, home.parent / "two")
    os.utime(copy / "x.csv", (1, 1))
    assert open_source(spec.format(copy)).fingerprint() == before
    change(copy)
    assert open_source(spec.format(copy)).fingerprint() != before
    change(home)
    assert open_source(spec.format(home)).fingerprint() != before


def test_options_count(home):
    specs = "class", "other", ""
    digests = [
        open_source(f"csv:{home}/x.csv{label and f'?label={label}'}").fingerprint()
        for label in specs
    ]
    assert len(set(digests)) == 3


def test_tfds_sets(home, tmp_path):
    def built(folder):
        build.build({"train": f"folder:{home}/photos?label=none"}, folder, name="x")
        return open_source(f"tfds:x/train?data_dir={folder}").fingerprint()

    first = built(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    moved = open_source(f"tfds:x/train?data_dir={tmp_path}/b").fingerprint()
    paint(home / "photos/0/0.bmp", 77)
    assert first == moved != built(tmp_path / "c")


def test_sums(tmp_path):
    paths = [tmp_path / str(k) for k in range(5)]
    for path in paths:
        path.write_bytes(bytes(3 * content.SAMPLE))
    (tmp_path / "gone").symlink_to("nowhere")
    [*first] = content.sums([*paths, tmp_path / "gone", pathlib.Path("/dev/zero")])
    assert [size for size, _ in first] == [3 * content.SAMPLE] * 5 + [-1, -1]
    with paths[2].open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"x")
    assert content.sums(paths)[2] != first[2] == content.sums(paths)[1]
    assert len(content.sums([paths[0]] * 5000)) == content.FILES and not content.sums(
        []
    )


def test_what_a_fingerprint_covers_is_said_through_views(tmp_path):
    for name in "abcdef":
        Image.new("RGB", (3, 3)).save(tmp_path / f"{name}.png")
    source = open_source(f"folder:{tmp_path}?label=none&limit=3&keep=true")
    assert records.covers(source) == content.COVERS
    assert "4096 bytes at each end of 1024 files" in content.COVERS
    assert records.covers(open_source("shapes:val?count=2")) == "every value"
