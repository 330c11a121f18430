"""The report page: every number, nothing loaded from elsewhere, nothing assumed."""

import html.parser
import json
import math
import os
import pathlib
import re

import numpy as np
import pytest
from PIL import Image

from mmjax_demo import report

VOID = {"meta", "link", "img", "col", "br", "hr", "input"}
CLIP_PNG, CODES_PNG, UNSEEN_PNG = "zero_shot", "reconstructions", "unseen_best"
PICTURES = (CLIP_PNG, CODES_PNG, UNSEEN_PNG, "samples_first", "samples_best")
PICTURES += ("completions",)
EVIL = '<script>alert("1")</script>'

SUMMARY = {
    "zero_shot_val": 0.9953,
    "zero_shot_val_lo": 0.9921,
    "zero_shot_val_hi": 0.9984,
    "oracle_new_k1": 0.5833,
    "oracle_new_k8": 0.8421,
    "oracle_k1": 0.6125,
    "oracle_k1_lo": 0.5612,
    "oracle_k1_hi": 0.6634,
    "oracle_k8": 0.8617,
    "oracle_unseen_k8": 0.7183,
    "psnr": 27.8451,
    "prior_image_nats": 1.6231,
    "minutes_clip": 4.25,
    "minutes_prior": 8.5,
    "minutes": 12.75,
    "cores": 2,
    "nobody_knows": 0.98765,
    "half_lo": 0.125,
    f"odd {EVIL}": 0.3331,
}
POOLS = [1, 8]
RESULTS = {
    "code_counts": [50, 30, 20, 0],
    "k_curve": {
        "val": {
            "k": POOLS,
            "all": [0.611, 0.862],
            "all_lo": [0.561, 0.832],
            "all_hi": [0.663, 0.883],
            "colour": [0.911, 0.953],
        },
        "unseen": {"k": POOLS, "all": [0.421, 0.718], "shape": [0.512, 0.733]},
    },
    "clip_scores": {"edges": [0.1, 0.2, 0.3], "first": [5, 1], "best": [2, 4]},
    "judges": {
        "val_oracle_colour_k8": 0.9533,
        "val_oracle_colour_k8_lo": 0.9311,
        "val_oracle_colour_k8_hi": 0.9722,
        "clip_fid": 0.03127,
        "nearest": 0.0817,
        "something_new": 7.125,
    },
    "cards": {"clip/val": {"evaluator": "zero_shot", "note": EVIL, "counts": [11, 12]}},
    "about": {"jax": "0.10.2", "seed": 3, "versions": {"numpy": "2.4.6"}, "by": EVIL},
}


class Page(html.parser.HTMLParser):
    """A page's elements, checked to be nested properly, and its visible text."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.sections: dict[str, list[str]] = {}
        self._section = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag == "section":
            self._section = dict(attrs)["id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):  # of SVG
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag == "section":
            self._section = ""

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "title"):
            said = data.replace("\N{NO-BREAK SPACE}", " ")
            self.words.append(said)
            self.sections.setdefault(self._section, []).append(said)

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attrs for name, attrs in self.elements if name == tag]

    def text(self, section: str | None = None) -> str:
        words = self.words if section is None else self.sections.get(section, [])
        return re.sub(r"\s+", " ", " ".join(words))

    @property
    def values(self) -> set[str]:
        return {attrs["value"] for attrs in self.all("data")}


@pytest.fixture
def workdir(tmp_path) -> pathlib.Path:
    """All that a demo leaves and the report reads."""
    (tmp_path / "summary.json").write_text(json.dumps(SUMMARY))
    (tmp_path / "results.json").write_text(json.dumps(RESULTS))
    for n, name in enumerate(PICTURES):
        pixels = np.full((8, 12 + n, 3), 40 * n, np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    for run in report.RUNS:
        (tmp_path / run).mkdir()
        rows = [
            {"step": 10, "loss": 4.125, "rows_per_second": 321.0},
            {"step": 20, "loss": 2.0625, "rows_per_second": 654.0},
            {"step": 20, "val/loss": 2.5},
        ]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / run / "metrics.jsonl").write_text(lines)
    return tmp_path


def read(workdir: pathlib.Path) -> Page:
    return Page(report.write(workdir).read_text(encoding="utf-8"))


def numbers(values) -> list[float]:
    """All numbers of nested lists and dicts."""
    if isinstance(values, dict):
        return [n for value in values.values() for n in numbers(value)]
    if isinstance(values, list):
        return [n for value in values for n in numbers(value)]
    return [values] if isinstance(values, (int, float)) else []


def test_every_number_is_on_the_page(workdir):
    page = read(workdir)
    shown = [SUMMARY, RESULTS["judges"], RESULTS["about"]]
    for curve in RESULTS["k_curve"].values():
        shown.append({name: v for name, v in curve.items() if name != "k"})
    missing = [n for n in numbers(shown) if str(n) not in page.values]
    assert missing == []
    for name in [*SUMMARY, *RESULTS["judges"]]:
        ends = name.endswith(("_lo", "_hi")) and name != "half_lo"
        assert ends or name in page.text()


def test_numbers_are_spelled_for_people(workdir):
    text = read(workdir).text("numbers")
    assert "99.5 %" in text and "99.2 to 99.8" in text
    assert "27.8 dB" in text and "1.62 nats" in text and "12.8 min" in text
    assert "Guessing gets 1.6 %" in text
    assert "Caption drawn right, best of 8" in text
    assert "0.9877" in text  # of a name that nobody described, not as a share


def test_the_headline_is_of_the_largest_pool(workdir):
    assert "one of 8 that CLIP chooses 84.2 %" in read(workdir).text("")
    sentence = "right in 58.3 % of first pictures and in 84.2 % of CLIP's choices among"
    assert sentence in read(workdir).text("samples")


def test_nothing_is_loaded_from_elsewhere(workdir):
    text = report.write(workdir).read_text(encoding="utf-8")
    page = Page(text)
    loads = ("src", "href", "srcset", "action", "poster", "data", "xlink:href")
    for tag, attrs in page.elements:
        for name in loads:
            assert attrs.get(name, "#").startswith(("#", "data:")), (tag, attrs[name])
        assert not [name for name in attrs if name.startswith("on")]
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "iframe", "object", "embed", "base", "form"}
    assert "://" not in text and "@import" not in text and "url(" not in text
    policy = [m for m in page.all("meta") if "http-equiv" in m][0]["content"]
    assert "default-src 'none'" in policy


def test_text_of_files_is_escaped(workdir):
    text = report.write(workdir).read_text(encoding="utf-8")
    assert "<script" not in text
    # the name in the table, the software's author, and the card in its details
    assert Page(text).text().count("<script>alert(") >= 3


def test_pictures_are_inside_and_described(workdir):
    page = read(workdir)
    images = page.all("img")
    assert len(images) == len(PICTURES)
    assert sorted(int(i["width"]) for i in images) == [12 + n for n in range(6)]
    assert all(i["src"].startswith("data:image/png;base64,") for i in images)
    assert all(len(i["alt"]) > 20 for i in images)
    charts = page.all("svg")
    # loss and throughput of three runs, code usage, three attributes, scores
    assert len(charts) == 6 + 1 + 3 + 1
    assert all(c["role"] == "img" and len(c["aria-label"]) > 20 for c in charts)


def test_links_and_labels_have_their_targets(workdir):
    page = read(workdir)
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    links = [a["href"].removeprefix("#") for a in page.all("a")]
    assert links == [section["id"] for section in page.all("section")]
    labels = [a["aria-labelledby"] for _, a in page.elements if "aria-labelledby" in a]
    assert set(links) | set(labels) <= set(ids)


def test_curves_tell_the_losses_and_the_use_of_codes(workdir):
    page = read(workdir)
    assert page.text("curves").count("from 4.125 at step 10 to 2.062 at step 20") == 3
    assert page.text("curves").count("Median 654 images a second") == 3
    shares = [0.5, 0.3, 0.2]
    perplexity = math.exp(-sum(s * math.log(s) for s in shares))
    said = "3 of 4 codes occur in 100 tokens of held-out pictures; as many bits as "
    assert said + f"{perplexity:.0f} codes" in page.text("tokenizer")


def test_commands_name_the_workdir(workdir):
    text = read(workdir).text("made")
    assert f'mmjax sample {workdir}/prior "a small red star" --clip' in text
    assert "-k 8" in text


def test_a_name_with_a_space_is_quoted(tmp_path):
    folder = tmp_path / "my demo"
    folder.mkdir()
    assert f"'{folder}/prior'" in read(folder).text("made")


@pytest.mark.parametrize("made", [(), ("clip",), ("clip", "tokenizer", "prior")])
def test_it_can_be_written_at_any_stage(workdir, tmp_path, made):
    early = tmp_path / "early"
    early.mkdir()
    for run in made:
        (workdir / run).rename(early / run)
    page = read(early)
    for run in report.RUNS:
        missing = f"the {run} stage hasn't run" in page.text("curves")
        assert missing == (run not in made)
    assert len(page.all("svg")) == 2 * len(made)
    for section in ("clip", "tokenizer", "samples", "best-of-k", "completions"):
        assert "the judge stage hasn't run" in page.text(section)
    for section in ("judges", "numbers", "made"):
        assert "the judge stage hasn't run" in page.text(section)


@pytest.mark.parametrize(
    "name, section",
    [
        (CLIP_PNG, "clip"),
        (CODES_PNG, "tokenizer"),
        ("samples_first", "samples"),
        ("samples_best", "samples"),
        (UNSEEN_PNG, "samples"),
        ("completions", "completions"),
    ],
)
@pytest.mark.parametrize("cut", [False, True])
def test_a_missing_picture_is_named(workdir, name, section, cut):
    path = workdir / f"{name}.png"
    path.write_bytes(path.read_bytes()[:10]) if cut else path.unlink()
    page = read(workdir)
    assert f"hasn't run, which makes {name}.png" in page.text(section)
    assert page.text().count("hasn't run") == 1
    assert len(page.all("img")) == len(PICTURES) - 1


@pytest.mark.parametrize(
    "key, section, what",
    [
        ("code_counts", "tokenizer", "the count of every code"),
        ("k_curve", "best-of-k", "the curve over K"),
        ("clip_scores", "best-of-k", "CLIP's scores"),
        ("judges", "judges", "the judges' numbers"),
        ("cards", "judges", "the cards"),
        ("about", "made", "the list of versions, hardware and seeds"),
    ],
)
@pytest.mark.parametrize("empty", [None, "gone", {}])
def test_a_missing_result_is_named(workdir, key, section, what, empty):
    left = {k: v for k, v in RESULTS.items() if k != key}
    if empty != "gone":
        left[key] = empty
    (workdir / "results.json").write_text(json.dumps(left))
    page = read(workdir)
    assert f"hasn't run, which makes {what}" in page.text(section)
    assert page.text().count("hasn't run") == 1


def test_files_cut_by_a_stop_do_no_harm(workdir):
    for name in ("summary.json", "results.json", "clip/metrics.jsonl"):
        path = workdir / name
        path.write_text(path.read_text()[:-9])
    page = read(workdir)
    assert "which makes summary.json" in page.text("numbers")
    assert len(page.all("svg")) == 6  # the loss curves have lost one evaluation
    (workdir / "summary.json").write_text("[" * 100_000)
    assert "which makes summary.json" in read(workdir).text("numbers")


@pytest.mark.parametrize(
    "changed",
    [
        {"k_curve": {"val": 3}},
        {"k_curve": {"val": {"k": ["1", 8], "all": [0.1, 0.2]}}},
        {"k_curve": {"val": {"k": [1, 8], "all": [0.1]}}},
        {"clip_scores": {"edges": [0.1, "x", 0.3], "first": [5, 1], "best": [2, 4]}},
        {"clip_scores": {"edges": [0.1, 0.3], "first": [5, 1], "best": [2, 4]}},
        {"judges": [1], "cards": "x", "about": 3, "code_counts": [10**400]},
    ],
)
def test_values_that_cannot_be_drawn_cost_their_own_part(workdir, changed, caplog):
    (workdir / "results.json").write_text(json.dumps(RESULTS | changed))
    page = read(workdir)
    assert "holds other values than numbers" in page.text()
    assert "a part of the page is left out" in caplog.text
    assert "99.5 %" in page.text("numbers")  # of summary.json


def test_what_is_no_text_or_no_file_is_left_out(workdir, caplog):
    (workdir / "summary.json").write_bytes(b"\xff\xfe")
    (workdir / "results.json").unlink()
    os.mkfifo(workdir / "results.json")
    assert "which makes summary.json" in read(workdir).text("numbers")
    assert caplog.text.count("left out: ") == 2
    (workdir / "summary.json").write_text(json.dumps({"odd \ud800": 3}))
    assert "odd \\ud800" in read(workdir).text("numbers")


def test_numbers_that_are_none_are_shown_as_they_are(workdir):
    odd = {"oracle_k1": math.nan, "psnr": math.inf, "zero_shot_val": None}
    (workdir / "summary.json").write_text(json.dumps(odd))
    diverged = [{"step": 1, "loss": "nan"}, {"step": 2, "loss": 0.0}]
    lines = "".join(json.dumps(row) + "\n" for row in diverged)
    (workdir / "prior" / "metrics.jsonl").write_text(lines)
    page = read(workdir)
    assert {"nan", "inf", "None"} <= page.values
    assert "from 0 at step 2 to 0 at step 2" in page.text("curves")
    assert "nan" not in " ".join(attrs.get("d", "") for attrs in page.all("path"))


def test_writing_again_gives_the_same_page_and_no_leftovers(workdir):
    path = report.write(workdir)
    first = path.read_bytes()
    assert report.write(str(workdir)) == path == workdir / "report.html"
    assert path.read_bytes() == first
    assert not list(workdir.glob("*.part"))
