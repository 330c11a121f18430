"""The tables of a suite's results."""

import dataclasses
import json

import pytest

from mmjax.errors import UserError
from mmjax.suite import published, report
from mmjax.suite.runner import Outcome

TOP1 = ("cifar10", "zero_shot", "top1")


def outcome(dataset, protocol, values, **more):
    made = {"type": "zero_shot", "key": "k", "show": (), "published": dataset}
    made |= {"card": {"id": "i"}, "seconds": 1.0, **more}
    return Outcome(dataset=dataset, protocol=protocol, values=values, **made)


FOUND = [
    outcome("a", "zero", {"top1": 0.5, "top1_lo": 0.4, "top1_hi": 0.6, "top5": 0.9}),
    outcome("a", "gap", {"gap": 1.0, "pair": 0.25}, type="gap", show=("pair",)),
    outcome("b", "zero", {"top1": 0.125}, published="CIFAR-10"),
]
TABLE = published.Table(
    "t.csv", {"good": {TOP1: 0.9}, "bad": {TOP1: 0.1}, "none": {("z", "y", "x"): 1.0}}
)


def test_overview():
    assert report.overview(FOUND) == [
        ["data set", "zero: top1", "gap: pair"],
        ["a", "0.500 (0.400 to 0.600)", "0.250"],
        ["b", "0.125", ""],
    ]


def test_what_is_not_defined_is_said():
    undefined = dict.fromkeys(("kept", "kept_lo", "kept_hi"), float("nan"))
    assert report.spell(undefined, "kept") == "not defined"
    assert report.spell({**undefined, "kept": 0.5}, "kept") == "0.500"


def test_beside_published():
    assert report.compare(FOUND, TABLE) == [
        ["model", "b.zero: top1"],
        ["this run", "0.125"],
        ["good", "0.900"],
        ["bad", "0.100"],
        ["published models below this run", "1 of 2"],
    ]
    with pytest.raises(UserError, match="none of the numbers"):
        report.compare(FOUND[:1], TABLE)


def test_markdown_and_html_escape():
    rows = [["a|b"], ["<c>"]]
    assert "| a\\|b |" in report.markdown("t", [], {"": rows}, [])
    page = report.page("t", [], {"": rows}, [], FOUND)
    assert "&lt;c&gt;" in page and "<c>" not in page
    assert page.count("<details>") == 3


def test_an_entry_is_an_outcome_again():
    entry = json.loads(json.dumps(FOUND[0].entry()))
    assert Outcome.of(entry) == dataclasses.replace(FOUND[0])
