"""The page of any run: headline numbers, images, curves, all numbers, its config."""

import dataclasses
import json
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from mmjax.report import curves, elements, numbers, page

_TILES = 8
_IMAGES = 40  # of a page, which holds them whole
_LARGE = 8 << 20  # bytes from which an image is left out


def document(
    title: str,
    head: str,
    *,
    images: Sequence[pathlib.Path],
    rows: curves.Rows,
    values: Mapping[str, float],
    cards: Mapping[str, Mapping[str, Any]],
    config: str,
) -> str:
    """The page as HTML.

    Args:
      head: what the run is, in a sentence.
      images: PNG files, best first.
      rows: of its metrics.jsonl.
      values: EVALUATOR/NUMBER and the ends of intervals, _lo and _hi.
      cards: evaluator -> what exactly was measured.
      config: as text.
    """
    known = numbers.figures(values, lambda name: _meaning(name, cards))
    tiles = [(f"{f.meaning.group}: {f.meaning.label}", f) for f in _headlines(known)]
    sections = [("images", "Images", _images(images))] if images else []
    sections += [
        ("curves", "Training curves", _curves(title, rows)),
        ("numbers", "All numbers", _numbers(known)),
        ("cards", "What was measured", _cards(cards)),
        ("config", "Config", elements.preformatted(config)),
    ]
    lead = page.paragraph(head, "lead") + elements.tiles(tiles)
    return page.document(title, lead, sections, by="mmjax report")


def _meaning(name: str, cards: Mapping[str, Mapping[str, Any]]) -> numbers.Meaning:
    """What EVALUATOR/NUMBER is, with the definition of its card.

    That of `i2t_r@k` is of i2t_r5 and of i2t_equal_r5, that of `rank` of i2t_rank.
    """
    plain, number = numbers.by_name(name), name.rpartition("/")[2]
    defined = cards.get(plain.group, {}).get("metrics", {})
    if number in defined:
        return dataclasses.replace(plain, text=defined[number])
    words = re.sub(r"\d+$", "@k", number).split("_")
    fitting = [
        key
        for key in defined
        if key.split("_")[-1] == words[-1] and set(key.split("_")) <= set(words)
    ]
    return dataclasses.replace(
        plain, text=defined[max(fitting, key=len)] if fitting else ""
    )


def _headlines(known: Sequence[numbers.Figure]) -> list[numbers.Figure]:
    """The first number of every evaluator, then those with an interval."""
    first = {figure.meaning.group: figure for figure in reversed(known)}
    chosen = [figure for figure in known if first[figure.meaning.group] is figure]
    chosen += [f for f in known if f.low is not None and f not in chosen]
    return chosen[:_TILES]


def _images(paths: Sequence[pathlib.Path]) -> str:
    kept = [path for path in paths if path.stat().st_size < _LARGE][:_IMAGES]
    drawn = []
    for path in kept:
        name = path.stem.replace("_", " ")
        alt = f"Image {name} of the folder {path.parent.name}"
        drawn.append(page.image(path, alt=alt, text=name))
    left = len(paths) - len(kept)
    note = page.paragraph(f"{left} more images lie in the workdir.") if left else ""
    return elements.grid(drawn, "pair") + note


def _curves(title: str, rows: curves.Rows) -> str:
    drawn = [curves.loss(title, rows, "")]
    drawn += [curves.metric(name, [(title, rows)]) for name in curves.names(rows)]
    drawn.append(curves.throughput(title, rows))
    return elements.grid(drawn) or elements.absent("metrics.jsonl has no rows.")


def _numbers(known: Sequence[numbers.Figure]) -> str:
    note = page.paragraph(
        "Intervals are over examples, by the bootstrap. What another training, from "
        "another seed, would give is not covered.",
        "soft",
    )
    return note + elements.table(known) if known else elements.absent("no evaluation.")


def _cards(cards: Mapping[str, Mapping[str, Any]]) -> str:
    folded = []
    for name, card in cards.items():
        text = json.dumps(card, indent=2, ensure_ascii=False)
        folded.append(page.details(name, elements.preformatted(text)))
    return "".join(folded) or elements.absent("no evaluator has run.")
