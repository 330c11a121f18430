"""The report of a study: results.json, index.html and chart.png."""

import html
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from mmjax import errors
from mmjax.judging import chart, results
from mmjax.judging import study as studies
from mmjax.judging.chart import SHORT
from mmjax.judging.study import ASKED, QUESTIONS, SCORED, Study
from mmjax.judging.votes import Vote
from mmjax.report import figures, image_grid, page

CHART, PAGE, NUMBERS, SHEET = "chart.png", "index.html", "results.json", "pairs.png"
_PAIRS = 8  # shown, of each two models
_CHANCE = 0.75  # of a trap answered right by all raters, below which it tells little


def write(
    out: pathlib.Path,
    folder: pathlib.Path,
    study: Study,
    votes: Sequence[Vote],
    summary: Mapping[str, Any],
    automatic: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Writes all files into `out`; returns what results.json holds."""
    reference = {"name": results.REFERENCE_NAME, **results.REFERENCE}
    held = {
        "study": str(folder),
        "drawn": dict(study.drawn),
        "runs": [
            {
                "name": m.name,
                "workdir": m.workdir,
                "step": m.step,
                "fingerprint": m.fingerprint,
                "sampling": dict(m.sampling),
            }
            for m in study.models
        ],
        **summary,
        "reference": reference,
        "automatic": automatic,
    }
    figures.save(chart.draw(summary), out / CHART)
    _sheet(out / SHEET, folder, study, votes)
    with errors.writing(out / NUMBERS) as part:
        part.write_text(json.dumps(held, indent=1) + "\n", encoding="utf-8")
    with errors.writing(out / PAGE) as part:
        part.write_text(_page(out, study, held), encoding="utf-8")
    return held


def _sheet(
    path: pathlib.Path, folder: pathlib.Path, study: Study, votes: Sequence[Vote]
) -> None:
    """Some pairs in the order of their models, each under its caption and votes."""
    told = {
        q: results.tallies_of(v for v in votes if v.question == q) for q in QUESTIONS
    }
    rows, captions = [], []
    counts: dict[tuple[int, int], int] = {}
    for name in study.of("plain"):
        pair = study.pairs[name]
        models = pair.a.model, pair.b.model
        counts[models] = counts.get(models, 0) + 1
        if counts[models] > _PAIRS:
            continue
        files = [studies.image_path(folder, part) for part in (pair.a, pair.b)]
        rows.append([np.asarray(Image.open(file).convert("RGB")) for file in files])
        said = [
            f"{SHORT[q].lower()} {told[q][name, q][0]}:{told[q][name, q][1]}"
            for q in QUESTIONS
            if (name, q) in told[q]
        ]
        first, second = (study.models[m].name for m in models)
        words = ", ".join(said) or "no votes"
        captions.append(f"{study.prompts[pair.prompt]}   ({first} : {second}, {words})")
    image_grid.draw(path, rows, captions)


def _page(out: pathlib.Path, study: Study, held: Mapping[str, Any]) -> str:
    asked = held["questions"]
    raters, excluded = held["raters"], held["excluded"]
    lead = (
        f"{len(raters)} raters, {asked['realism']['votes'] + asked['match']['votes']} "
        f"votes that count, {held['pairs']} pairs of {' and '.join(held['models'])}, "
        f"{held['votes_wanted']} raters wanted for each."
    )
    notes = [page.paragraph(lead, "lead")]
    if excluded:
        names = ", ".join(f"{r}" for r in excluded)
        notes.append(
            page.paragraph(
                f"Left out for attention below {held['min_attention']:.0%}: rater "
                f"{names}. The table of raters has their numbers.",
                "note",
            )
        )
    notes += [page.paragraph(text, "note") for text in _warnings(held)]
    sections = [
        ("votes", "What people prefer", _votes(out, held)),
        ("agreement", "Do raters agree?", _agreement(held)),
        ("raters", "Raters and attention", _raters(held)),
        ("automatic", "Automated judges", _automatic(held)),
        ("pairs", "Some pairs", _pairs(out)),
        ("drawn", "How it was drawn", _drawn(study, held)),
    ]
    title = f"Human judges: {', '.join(held['models'])}"
    return page.document(title, "".join(notes), sections, by="mmjax judge report")


def _warnings(held: Mapping[str, Any]) -> list[str]:
    texts = []
    for kind, row in held["traps"].items():
        if row["asked"] and row["share"] < _CHANCE:
            texts.append(
                f"Traps of kind {kind} were answered right {row['share']:.0%} of the "
                f"time, of {row['asked']}. That is low for all raters together: the "
                "images may not show what a trap relies on."
            )
    untested = [str(row["rater"]) for row in held["raters"] if not row["traps"]]
    if untested:
        texts.append(f"Raters who saw no trap, and count: {', '.join(untested)}.")
    return texts


def _votes(out: pathlib.Path, held: Mapping[str, Any]) -> str:
    alt = "Votes of pairs for the first of two models, majorities, the paper's shares."
    text = (
        "Each bar: pairs by how many of their votes the first model has. Point: its "
        "share of majorities. Dashed: the paper's share, of other images and raters."
    )
    parts = [_tiles(held), page.image(out / CHART, alt=alt, text=text)]
    head = ["", "majority", "95 %", "pairs", "all votes", "95 %", "Wilson", "clusters"]
    for question in QUESTIONS:
        rows = []
        for row in held["questions"][question]["comparisons"]:
            pairs = f"{row['pairs']} ({row['pairs_whole']} whole, {row['ties']} tied)"
            cells = [
                _percent(row["majority"]),
                _span(row["majority_lo"], row["majority_hi"]),
                pairs,
                f"{_percent(row['share'])} of {row['votes']}",
                _span(row["share_lo"], row["share_hi"]),
                _span(*row["share_wilson"]),
                _span(*row["share_bootstrap"]),
            ]
            rows.append((f"{row['first']} over {row['second']}", cells))
        parts.append(page.matrix(f"{SHORT[question]}: {ASKED[question]}", head, rows))
        if strengths := held["questions"][question]["strengths"]:
            lines = [
                (
                    r["model"],
                    [
                        f"{r['strength']:+.2f}",
                        f"{r['strength_lo']:+.2f} to {r['strength_hi']:+.2f}",
                    ],
                )
                for r in strengths
            ]
            name = f"{SHORT[question]}: Bradley-Terry strengths (log odds, mean 0)"
            parts.append(page.matrix(name, ["model", "strength", "95 %"], lines))
    parts.append(
        page.paragraph(
            "Ties count one half. 95 %: the outer ends of Wilson's interval, which has "
            "votes independent, and of a bootstrap over clusters: prompts, and for "
            "all votes raters too.",
            "soft",
        )
    )
    return "".join(parts)


def _tiles(held: Mapping[str, Any]) -> str:
    tiles = []
    for question in QUESTIONS:
        for row in held["questions"][question]["comparisons"][:3]:
            if row["majority"] is None:
                continue
            label = f"{SHORT[question]}: {row['first']} over {row['second']}, majority"
            span = _span(row["majority_lo"], row["majority_hi"])
            tiles.append(
                f'<div class="tile"><dt>{html.escape(label)}</dt><dd class="big">'
                f'{_percent(row["majority"])}</dd><dd class="span">95 %: {span}</dd>'
                "</div>"
            )
    return f'<dl class="tiles">{"".join(tiles)}</dl>' if tiles else ""


def _agreement(held: Mapping[str, Any]) -> str:
    rows = []
    for question in QUESTIONS:
        row = held["questions"][question]["agreement"]
        span = _span(row["alpha_lo"], row["alpha_hi"], "{:.2f}")
        cells = [_number(row["alpha"]), span, _percent(row["same"])]
        rows.append((SHORT[question], cells))
    head = ["question", "Krippendorff's alpha", "95 %", "pairs of raters that agree"]
    note = (
        "Alpha (nominal) is 1 where raters agree and 0 where they agree as chance has "
        "it. Where one model wins nearly all, alpha is low though raters agree."
    )
    return page.matrix("Agreement", head, rows) + page.paragraph(note, "soft")


def _raters(held: Mapping[str, Any]) -> str:
    rows = []
    for row in held["raters"]:
        cells = [
            f"{row['votes']}",
            f"{row['traps_right']} of {row['traps']}",
            f"{row['repeats_same']} of {row['repeats']}",
            _percent(row["with_majority_of_others"]),
            f"{row['median_seconds']:.1f} s",
            "left out" if row["excluded"] else "counts",
        ]
        rows.append((f"Rater {row['rater']}", cells))
    head = [
        "rater",
        "votes",
        "traps right",
        "repeats the same",
        "with the others' majority",
        "median time",
        "in the results",
    ]
    traps = [
        (kind, [SHORT[SCORED[kind]], f"{row['right']} of {row['asked']}"])
        for kind, row in held["traps"].items()
    ]
    return page.matrix("Raters", head, rows) + page.matrix(
        "Traps, of all raters", ["kind", "question", "right"], traps
    )


def _automatic(held: Mapping[str, Any]) -> str:
    automatic = held["automatic"]
    if not automatic:
        return page.paragraph(
            "None were asked. Give --clip RUN for CLIP score and preference, and "
            "--source SPEC for FID and the oracle.",
            "note",
        )
    names = [n for n in next(iter(automatic["models"].values())) if n[-3:-2] != "_"]
    head = ["model", *names]
    rows = [
        (
            model,
            [
                f"{v[n]:.3f} ({_span(v[f'{n}_lo'], v[f'{n}_hi'], '{:.3f}')})"
                for n in names
            ],
        )
        for model, v in automatic["models"].items()
    ]
    parts = [page.matrix("Each model", head, rows)]
    people = held["questions"]["match"]["comparisons"]
    lines = [
        (
            f"people: {r['first']} over {r['second']}",
            [_percent(r["majority"]), _span(r["majority_lo"], r["majority_hi"]), ""],
        )
        for r in people
    ]
    for judge, listed in automatic["preferences"].items():
        for r in listed:
            together = f"{_percent(r['with_people'])} of {r['pairs']} pairs"
            cells = [
                _percent(r["share"]),
                _span(r["share_lo"], r["share_hi"]),
                together,
            ]
            lines.append((f"{judge}: {r['first']} over {r['second']}", cells))
    head = ["who prefers", "share of prompts", "95 %", "agrees with people"]
    return "".join(parts) + page.matrix("Accuracy, by judge", head, lines)


def _pairs(out: pathlib.Path) -> str:
    alt = "Pairs of images, the first model's on the left, under caption and votes."
    text = f"The first {_PAIRS} pairs of each two models, not chosen."
    return page.image(out / SHEET, alt=alt, text=text, least=320)


def _drawn(study: Study, held: Mapping[str, Any]) -> str:
    rows = [
        (
            m.name,
            [
                html.escape(m.workdir),
                f"{m.step}",
                m.fingerprint,
                html.escape(", ".join(f"{k}={v}" for k, v in m.sampling.items())),
            ],
        )
        for m in study.models
    ]
    facts = ", ".join(f"{k} {v}" for k, v in study.drawn.items() if v is not None)
    return page.matrix(
        "Runs", ["name", "workdir", "step", "weights", "options"], rows
    ) + page.paragraph(f"{facts}. Shown at {study.side} pixels.", "soft")


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f} %"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _span(low: float | None, high: float | None, form: str = "") -> str:
    if low is None or high is None or not np.isfinite([low, high]).all():
        return ""
    if form:
        return f"{form.format(low)} to {form.format(high)}"
    return f"{100 * low:.1f} to {100 * high:.1f}"
