"""Raters with known preferences, over HTTP: the report has to find these again."""

import io
import json

import numpy as np
import pytest
from PIL import Image
from small_studies import Rater

from mmjax import cli
from mmjax.judging import chart, results, server, votes
from mmjax.judging import study as studies

testclient = pytest.importorskip("starlette.testclient", reason="needs mmjax[judge]")
HERE = "http://127.0.0.1:8008"
STRENGTHS = {"realism": (0.0, 0.8, -0.5), "match": (0.0, -0.4, 1.2)}


def looks(rater, state):
    """{side: (model, prompt, noise)}, read from pixels as a person would."""
    seen = {}
    for side in ("left", "right"):
        pixels = np.asarray(Image.open(io.BytesIO(rater.image(state, side).content)))
        red, green, _ = np.median(pixels[5:11, 5:11].reshape(-1, 3), axis=0)
        seen[side] = round((red - 40) / 60), round(green / 5), pixels[:3].std() > 10
    return seen


def answer(state, seen, rng, blind):
    """The side that a simulated rater chooses by STRENGTHS, sure about traps."""
    if blind:
        return "left" if rng.random() < 0.5 else "right"
    wanted = int(state["prompt"].split()[1])
    for side, other in (("left", "right"), ("right", "left")):
        model, prompt, noisy = seen[side]
        if noisy or prompt != wanted:
            return other
    strength = STRENGTHS[state["question"]]
    odds = strength[seen["left"][0]] - strength[seen["right"][0]]
    return "left" if rng.random() < 1 / (1 + np.exp(-odds)) else "right"


def simulate(folder, raters, blind=(), seed=0):
    rng = np.random.default_rng(seed)
    with server.opened(folder, host="127.0.0.1") as application:
        with testclient.TestClient(application.app, base_url=HERE) as client:
            for number in range(raters):
                client.cookies.clear()
                rater, number_seen = Rater(client, HERE), None
                state = rater.begin()
                while not state["done"]:
                    if state["number"] != number_seen:
                        number_seen, seen = state["number"], looks(rater, state)
                    side = answer(state, seen, rng, number in blind)
                    state = rater.vote(state, side).json()


@pytest.fixture(scope="module")
def voted(tmp_path_factory):
    """Three models, 24 prompts, five raters and one who does not look."""
    import small_studies

    folder = tmp_path_factory.mktemp("voted") / "study"
    texts = [f"caption {p} of things {p % 3}" for p in range(24)]
    drawn = small_studies.images(3, 24)
    studies.create(folder, small_studies.models(3), texts, drawn, votes=6, trap_every=6)
    simulate(folder, 6, blind=(2,))
    return folder


@pytest.fixture(scope="module")
def numbers(voted):
    cast = votes.read(voted)
    study = studies.open_study(voted)
    return results.summary(study, cast, min_attention=0.8, resamples=400)


def test_the_known_preferences_lie_in_the_intervals(numbers):
    for question, strength in STRENGTHS.items():
        asked = numbers["questions"][question]
        assert asked["raters"] == 5 and asked["votes"] == 5 * 72
        for row in asked["comparisons"]:
            a, b = (int(row[name][-1]) for name in ("first", "second"))
            known = 1 / (1 + np.exp(strength[b] - strength[a]))
            assert row["share_lo"] <= known <= row["share_hi"], (question, row)
            assert row["share_wilson"][0] <= row["share"] <= row["share_wilson"][1]
            assert row["votes"] == 5 * 24 and row["pairs"] == 24
            five = np.random.default_rng(0).binomial(5, known, 100_000) > 2
            assert row["majority_lo"] <= five.mean() <= row["majority_hi"], (
                known,
                five.sum(),
                row,
            )
        order = [row["model"] for row in asked["strengths"]]
        assert order == [f"model{i}" for i in np.argsort(strength)[::-1]]
        for row in asked["strengths"]:
            known = strength[int(row["model"][-1])] - np.mean(strength)
            assert row["strength_lo"] <= known <= row["strength_hi"]


def test_who_does_not_look_is_reported_and_left_out(numbers, voted):
    assert numbers["excluded"] == [3]
    rows = {row["rater"]: row for row in numbers["raters"]}
    assert len(rows) == 6 and rows[3]["excluded"] and rows[3]["attention"] < 0.8
    for rater, row in rows.items():
        assert row["traps"] >= 8 and row["votes"] == 2 * 72
        if rater != 3:
            assert row["attention"] == 1 and not row["excluded"]
            assert row["repeats"] > 0 and row["median_seconds"] == 3.0
    others = [r["with_majority_of_others"] for n, r in rows.items() if n != 3]
    assert rows[3]["with_majority_of_others"] < np.mean(others)
    study = studies.open_study(voted)
    all_of_them = results.summary(study, votes.read(voted), resamples=20)
    assert all_of_them["excluded"] == []
    assert all_of_them["questions"]["match"]["votes"] == 6 * 72


def test_majorities_and_histograms_by_hand(make):
    folder = make(2, 3, trap_every=0, repeat_every=0, votes=3)
    study = studies.open_study(folder)
    said = {"0": "aab", "1": "bb", "2": "ab"}
    cast = [
        votes.Vote(rater, pair, "realism", choice, 1.0, 0.0)
        for pair, choices in said.items()
        for rater, choice in enumerate(choices)
    ]
    numbers = results.summary(study, cast, resamples=50)
    (row,) = numbers["questions"]["realism"]["comparisons"]
    assert row["majority"] == pytest.approx((1 + 0 + 0.5) / 3) and row["ties"] == 1
    assert row["pairs_whole"] == 1 and row["histogram"] == [0, 0, 1, 0]
    assert row["share"] == pytest.approx(3 / 7)
    (none,) = numbers["questions"]["match"]["comparisons"]
    assert none["majority"] is None and none["share_wilson"] == [None, None]
    assert numbers["questions"]["realism"]["agreement"]["same"] == pytest.approx(2 / 5)
    assert numbers["questions"]["realism"]["strengths"] == []
    json.dumps(numbers, allow_nan=False)


def test_repeats_and_traps_are_no_votes(make):
    folder = make(2, 4)
    study = studies.open_study(folder)
    noise, caption = study.of("noise")[0], study.of("caption")[0]
    cast = [
        votes.Vote(1, pair, question, choice, 1.0, 0.0)
        for pair, question, choice in (
            ("0", "match", "a"),
            ("again:0", "match", "b"),
            (noise, "realism", "a"),
            (noise, "match", "b"),  # not what this trap is about
            (caption, "match", "b"),
        )
    ]
    (row,) = results.summary(study, cast, resamples=10)["raters"]
    assert (row["votes"], row["repeats"], row["repeats_same"]) == (1, 1, 0)
    assert (row["traps"], row["traps_right"], row["attention"]) == (2, 1, 0.5)


def test_the_report(voted, capsys):
    assert (
        cli.main(
            [
                "judge",
                "report",
                str(voted),
                "--min-attention",
                "0.8",
                "--resamples",
                "50",
            ]
        )
        == 0
    )
    said = capsys.readouterr().out
    assert "left out for attention below 0.8: rater 3" in said
    page = (voted / "report" / "index.html").read_text()
    for text in (
        "Left out for attention below 80%: rater 3",
        "Bradley-Terry",
        "Krippendorff",
        "Wilson",
        "model0 over model1",
        "left out",
    ):
        assert text in page, text
    held = json.loads((voted / "report" / "results.json").read_text())
    assert held["reference"]["realism"] == 0.9 and held["reference"]["match"] == 0.933
    assert held["runs"][1]["workdir"] == "runs/1"
    for name in ("chart.png", "pairs.png"):
        assert Image.open(voted / "report" / name).width > 200


def test_the_chart_has_the_papers_lines(numbers):
    figure = chart.draw(numbers)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["Realism", "Accuracy"]
    for axes, known in zip(figure.axes, (0.900, 0.933), strict=True):
        dashed = [x for x in axes.lines if x.get_linestyle() == "--"]
        assert [x.get_xdata()[0] for x in dashed] == [known]


def test_a_study_without_votes(make, capsys):
    folder = make()
    assert cli.main(["judge", "report", str(folder)]) == 2
    said = capsys.readouterr().err
    assert f"{folder} has no votes yet: run mmjax judge serve {folder}" in said
    assert cli.main(["judge", "report", str(folder), "--min-attention", "70"]) == 2
    assert "--min-attention 70.0: give a share from 0 to 1" in capsys.readouterr().err
