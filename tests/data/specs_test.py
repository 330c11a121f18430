"""Specs rewritten: options added, places made absolute."""

import pathlib

import pytest

from mmjax.data import specs
from mmjax.data.sources import open_source


@pytest.fixture
def home(tmp_path, monkeypatch) -> pathlib.Path:
    for name in ("photos", "train"):
        (tmp_path / name).mkdir()
    for name in ("names.txt", "x.npz", "t.csv"):
        (tmp_path / name).write_text("")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "spec, expected",
    [
        ("folder:photos", "folder:{}/photos"),
        ("folder:photos?template=a {}", "folder:{}/photos?template=a {}"),
        ("folder:photos?names=names.txt", "folder:{}/photos?names={}/names.txt"),
        ("webdataset:x-*.tar", "webdataset:{}/x-*.tar"),
        ("frames:npz:x.npz?height=30", "frames:npz:{}/x.npz?height=30"),
        ("vqa:x.npz?images=folder:photos", "vqa:{}/x.npz?images=folder:{}/photos"),
        # no places, or none that are here
        ("shapes:train?size=16", "shapes:train?size=16"),
        ("tfds:train/x", "tfds:train/x"),
        ("folder:gone", "folder:gone"),
        ("csv:/abs/t.csv", "csv:/abs/t.csv"),
        ("webdataset:$MMJAX_DATA/x-*.tar", "webdataset:$MMJAX_DATA/x-*.tar"),
        ("webdataset:gs://bucket/x-*.tar", "webdataset:gs://bucket/x-*.tar"),
        ("none:photos", "none:photos"),
        ("photos", "photos"),
        ("", ""),
    ],
)
def test_absolute(home, spec, expected):
    assert specs.absolute(spec) == expected.replace("{}/", f"{home}/")
    assert specs.absolute(specs.absolute(spec)) == specs.absolute(spec)


def test_absolute_inside_mixtures_and_mappings(home):
    right = {"kind": "csv", "path": "t.csv"}
    pairs = {"kind": "pairs", "left": "folder:photos", "right": right, "on": "key"}
    (first, weight), (second, _) = specs.absolute(((pairs, 2.0), ("folder:photos", 1)))
    assert weight == 2.0 and second == f"folder:{home}/photos"
    assert first["left"] == second and first["right"]["path"] == f"{home}/t.csv"
    again = {"kind": "mixture", "parts": (("folder:photos", 1.0),)}
    assert specs.absolute(again)["parts"] == ((second, 1.0),)
    source = open_source("shapes:val?size=16&count=2")  # opened, from a notebook
    assert specs.absolute(source) is source
    assert specs.absolute(("shapes:val", "shapes:val")) == ("shapes:val", "shapes:val")


def test_a_home_is_found(home, monkeypatch):
    monkeypatch.setenv("HOME", str(home))
    assert specs.absolute("folder:~/photos") == f"folder:{home}/photos"


def test_options_are_added_to_every_part():
    spec = (("shapes:val?size=16", 1.0), ({"kind": "shapes", "path": "val"}, 2.0))
    (text, _), (mapping, _) = specs.with_options(spec, part="train")
    assert text == "shapes:val?size=16&part=train"
    assert mapping == {"kind": "shapes", "path": "val", "part": "train"}
    assert specs.has_option(spec, "size") and not specs.has_option(spec, "part")
