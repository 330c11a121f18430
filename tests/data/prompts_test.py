"""Prompt template sets: counts of the paper, files, and refusals."""

import json

import pytest

from mmjax.data import prompts
from mmjax.errors import UserError


def test_the_papers_sets():
    assert len(prompts.load("clip80")) == 80 == len(set(prompts.load("clip80")))
    seven = prompts.load("clip7")
    assert len(seven) == 7 and set(seven) <= set(prompts.load("clip80"))
    assert prompts.load("plain") == ("{}",)
    assert prompts.load("photo") == ("a photo of a {}.",)
    assert len(prompts.load("cifar10")) == 18
    assert prompts.load("gtsrb")[0] == 'a zoomed in photo of a "{}" traffic sign.'
    assert (
        len(prompts.sets()) == 31
    )  # clip80, clip7, 26 data sets of CLIP, and 3 of ours
    assert all("{}" in t for listed in prompts.sets().values() for t in listed)


def test_fill_keeps_a_class_together_and_braces_intact():
    got = prompts.fill(["{}", "a {}."], ["cat", "{0} {x}"])
    assert got == ["cat", "a cat.", "{0} {x}", "a {0} {x}."]


def test_own_templates(tmp_path):
    (tmp_path / "a.txt").write_text("a {}\n\n the {} \n", encoding="utf-8")
    (tmp_path / "a.json").write_text(json.dumps(["x {}"]))
    (tmp_path / "b.json").write_text(json.dumps({"one": ["y {}"], "two": ["z"]}))
    assert prompts.load(str(tmp_path / "a.txt")) == ("a {}", "the {}")
    assert prompts.load(str(tmp_path / "a.json")) == ("x {}",)
    assert prompts.load(f"{tmp_path}/b.json#one") == ("y {}",)
    assert prompts.load("un {}") == ("un {}",)
    assert prompts.load(["p {}", "q {}"]) == ("p {}", "q {}")
    with pytest.raises(UserError, match="no list called 'on'; did you mean 'one'"):
        prompts.load(f"{tmp_path}/b.json#on")
    with pytest.raises(UserError, match="'z' has no {}"):
        prompts.load(f"{tmp_path}/b.json#two")
    (tmp_path / "c.json").write_text('{"a": ')
    (tmp_path / "d.txt").write_bytes(b"\xff\xfe {}")
    (tmp_path / "e.json").write_text('[1, "{}"]')
    (tmp_path / "f.json").write_text("[" * 100_000)
    named = [("c.json", "not JSON"), ("d.txt", "not UTF-8"), ("f.json", "too deep")]
    for name, words in named:
        with pytest.raises(UserError, match=words):
            prompts.load(str(tmp_path / name))
    with pytest.raises(UserError, match="list of strings"):
        prompts.load(str(tmp_path / "e.json"))


@pytest.mark.parametrize(
    "given, words",
    [
        ("clip8", "did you mean 'clip80'"),
        ("nowhere.txt", "no such file"),
        ([], "no templates"),
        (["a photo"], "'a photo' has no {}"),
        (["a {}", "a {}"], "'a {}' is given twice"),
    ],
)
def test_refusals(given, words):
    with pytest.raises(UserError, match=words):
        prompts.load(given)


def test_sha256_knows_order_and_boundaries():
    lists = [["a", "b"], ["b", "a"], ["ab"], ["a,b"], ['a","b']]
    assert len({prompts.sha256(x) for x in lists}) == len(lists)


def test_clip_benchmarks_files_in_three_languages(bundle):
    folder = bundle / "reference" / "clip_benchmark"
    first = {}
    for code in ("en", "it", "jp"):
        names = prompts.read_list(f"{folder}/{code}_classnames.json#imagenet1k")
        place = f"{folder}/{code}_zeroshot_classification_templates.json#imagenet1k"
        templates = prompts.load(place)
        assert len(names) == 1000
        if code == "it":  # as published: three templates come twice
            assert len(templates) == 49 and len(set(templates)) == 46
        assert all(prompts.SLOT in t and "{c}" not in t for t in templates)
        first[code] = prompts.fill(templates[:1], names[:1])[0]
    assert first["en"] == "a bad photo of a tench."
    assert first["it"] == "una brutta foto di una tinca"
    assert len(set(first.values())) == 3
    with pytest.raises(UserError, match="did you mean 'cifar10'"):
        prompts.load(f"{folder}/en_zeroshot_classification_templates.json#cifar")
