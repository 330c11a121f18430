"""A part held out of `config.data.train`, and sources that mean the same anywhere."""

import pytest
from PIL import Image

from mmjax.data.sources import open_source
from mmjax.errors import UserError
from mmjax.train import config as config_lib
from mmjax.train import setup

SHAPES = "shapes:train?size=16&count=40"


def own(*overrides: str):
    return config_lib.load("clip:own", [f"--config.{text}" for text in overrides])


def test_a_fifth_is_held_out_and_named_so():
    given = own(f"data.train={SHAPES}")
    made = config_lib.resolve(given)
    assert made.data.train == f"{SHAPES}&part=train"
    assert made.evals.held_out.source == f"{SHAPES}&part=held_out"
    assert config_lib.resolve(made).to_dict() == made.to_dict() and made.is_locked
    assert given.data.held_out and given.evals.held_out.source == "held_out"
    keys = [
        {source[i]["key"] for i in range(len(source))}
        for source in map(open_source, (made.data.train, made.evals.held_out.source))
    ]
    assert not keys[0] & keys[1] and len(keys[0] | keys[1]) == 40


def test_of_a_mixture_each_part_is_split():
    mixture = f"(('{SHAPES}', 1.0), ('{SHAPES}&seed=1', 2.0))"
    made = config_lib.resolve(own(f"data.train={mixture}"))
    assert [spec[-10:] for spec, _ in made.data.train] == ["part=train"] * 2
    assert made.evals.held_out.source[1] == (f"{SHAPES}&seed=1&part=held_out", 2.0)


@pytest.mark.parametrize(
    "overrides, message",
    [
        ([], "config.data.train names no data.*--config.data.train=folder:photos"),
        ([f"data.train={SHAPES}&part=train"], "a part, of which nothing is held out"),
        (
            [f"data.train={SHAPES}", "data.held_out=False"],
            "config.evals.held_out.source is held_out, and nothing is",
        ),
    ],
)
def test_what_cannot_be_held_out(overrides, message):
    with pytest.raises(UserError, match=message):
        setup.build(own(*overrides))


def test_run_json_says_where_the_data_lie(tmp_path, monkeypatch):
    (tmp_path / "photos").mkdir()
    for k in range(4):
        Image.new("RGB", (16, 16), (40 * k, 9, 9)).save(tmp_path / f"photos/{k}.png")
        (tmp_path / f"photos/{k}.txt").write_text(f"image number {k}")
    monkeypatch.chdir(tmp_path)
    given = ["--config.data.train=folder:photos"]
    given += ["--config.evals.val.source=folder:photos"]
    about = setup.about(setup.build(config_lib.load("clip:tiny", given)))
    assert about["config"]["data"]["train"] == f"folder:{tmp_path}/photos"
    assert about["config"]["evals"]["val"]["source"] == f"folder:{tmp_path}/photos"
