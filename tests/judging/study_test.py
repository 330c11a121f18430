"""What a study's folder holds, and what it refuses."""

import json

import numpy as np
import pytest
from PIL import Image
from small_studies import images, models

from mmjax.errors import UserError
from mmjax.judging import study as studies


def test_every_two_models_of_each_prompt_and_their_images(make):
    folder = make(3, 4, trap_every=0)
    study = studies.open_study(folder)
    assert len(study.of("plain")) == 4 * 3 and len(study.pairs) == 12
    for m in range(3):
        held = studies.images_of(folder, study, m)
        assert held.shape == (4, 16, 16, 3)
        assert (held[:, 8, 8, 0] == 60 * m + 40).all()
        assert held[3, 8, 8, 1] == 15


def test_names_and_files_say_nothing_about_models(make):
    folder = make(2, 6)
    study = studies.open_study(folder)
    names = [path.stem for path in (folder / "images").iterdir()]
    assert all(
        len(name) == 20 and set(name) <= set("0123456789abcdef") for name in names
    )
    for path in (folder / "images").iterdir():
        with Image.open(path) as held:
            assert held.size == (16, 16) and not held.info
    assert studies.number(0, "side", "1") == studies.number(0, "side", "1")
    assert study.models[0].name == "model0"


def test_images_of_several_sizes_are_shown_at_one(tmp_path):
    small, large = images(2, 2)
    large = large.repeat(2, axis=1).repeat(2, axis=2)
    for size, side in ((None, 32), (24, 24)):
        folder = tmp_path / f"{size}"
        study = studies.create(folder, models(2), ["a", "b"], [small, large], side=size)
        assert study.side == side
        assert studies.images_of(folder, study, 0).shape == (2, side, side, 3)


def test_traps_have_a_right_answer(make):
    folder = make(2, 10)
    study = studies.open_study(folder)
    assert len(study.of("noise")) == len(study.of("caption")) == 10
    for kind in studies.SCORED:
        for name in study.of(kind):
            pair = study.pairs[name]
            own, other = (
                np.asarray(Image.open(studies.image_path(folder, part)), float)
                for part in (pair.a, pair.b)
            )
            assert own[8, 8, 1] == 5 * pair.prompt and pair.a.model == pair.b.model
            if kind == "noise":
                assert np.abs(own - other).mean() > 30
            else:
                assert other[8, 8, 1] != own[8, 8, 1]
                swapped = int(other[8, 8, 1]) // 5
                assert swapped % 3 != pair.prompt % 3  # fewest words in common
    assert {study.pairs[name].a.model for name in study.of("noise")} == {0, 1}


@pytest.mark.parametrize(
    "text, said",
    [
        ("", "holds no prompts; give one a line"),
        ("\n \n", "holds no prompts"),
        ("a\nb\na\n", "'a' is prompt 1 and prompt 3: give it once"),
    ],
)
def test_prompt_files_that_are_refused(tmp_path, text, said):
    path = tmp_path / "prompts.txt"
    path.write_text(text)
    with pytest.raises(UserError, match=said):
        studies.read_prompts(path)


def test_bad_studies(make, tmp_path):
    with pytest.raises(UserError, match=r"1 run \(model0\): judges compare, give two"):
        studies.create(tmp_path / "a", models(1), ["a"], images(1, 1))
    with pytest.raises(UserError, match="2 runs are called 'model0': name them"):
        studies.create(tmp_path / "a", models(1) * 2, ["a"], images(2, 1))
    with pytest.raises(UserError, match="model0 drew 3 images for 2 prompts"):
        studies.create(tmp_path / "a", models(2), ["a", "b"], images(2, 3))
    folder = make()
    with pytest.raises(UserError, match="holds a study already: give another folder"):
        make()
    with pytest.raises(UserError, match="holds no study .* mmjax judge new"):
        studies.open_study(tmp_path / "none")
    path = folder / studies.FILE
    held = json.loads(path.read_text())
    for spoil, said in (
        (lambda d: d["pairs"]["0"]["a"].update(image="../../etc"), "no image's name"),
        (lambda d: d["pairs"]["0"].update(prompt=99), "prompt 99 .* of 10 and 2"),
        (lambda d: d.update(votes=0), "votes is 0: give 1 or more"),
        (lambda d: d.pop("models"), "'models' is missing"),
    ):
        spoiled = json.loads(json.dumps(held))
        spoil(spoiled)
        path.write_text(json.dumps(spoiled))
        with pytest.raises(UserError, match=said):
            studies.open_study(folder)
    path.write_text(json.dumps(held))
    next((folder / "images").iterdir()).unlink()
    with pytest.raises(UserError, match="of pair .* is missing: put it back"):
        studies.open_study(folder)
