"""Questions about images, several an image: `vqa:/d/questions.json?images=SOURCE`.

The forms are COCO-VQA's, {"questions": [{question_id, image_id, question}]} with
answers in a file of their own, {"annotations": [{question_id, multiple_choice_answer,
answers: [{answer}]}]} (Antol et al. 2015), easy-VQA's, [[question, answer, image]], and
JSON lines, such as NLVR's, whose fields are named.
"""

import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from mmjax import schema
from mmjax.data.records import BrokenRecord
from mmjax.data.sources import encoded, jsonl, pairs, table
from mmjax.errors import UserError


def open(
    path: str,
    images: str | Mapping[str, Any] = "",
    name: str = "{}",
    annotations: str = "",
    classes: str = "",
    closed: bool = False,
    question: str = "question",
    answer: str = "answer",
    image: str = "image",
    key: str = "",
) -> pairs.Pairs:
    """A record a question: `image`, the question as text, the answer as label.

    images: the source of the images, such as folder:/d/val2014?label=none. name: how
    the key of an image is made of its id, such as COCO_val2014_{:012d}.jpg.
    annotations: COCO-VQA's file of answers; without it records have no label. classes:
    a file with an answer on each line, so that parts of a set share their labels;
    other answers are -1. Without it, the classes are the answers, sorted. closed:
    whether an answer outside `classes` is an error.

    question, answer, image, key: fields of JSON lines; image=none: line n, from 0, asks
    about image n. Without a key, other forms than COCO's have IMAGE/NUMBER, so that
    `group=/` splits a set by its images. A question without words is left out.

    Records also have `answers`, list[str], of all people asked.
    """
    from mmjax.data.sources import open_source  # it imports this module

    if not images:
        raise UserError(
            "vqa data needs images=SOURCE, such as images=folder:/d/val2014"
        )
    answers = {}
    if annotations:
        form = "annotations with question_id and multiple_choice_answer"
        answers = dict(_read(annotations, "annotations", _answers, form))
    file = encoded.existing(path, "question file")
    lines = ".jsonl" in file.suffixes

    def parsed(entry: Any, place: int) -> dict[str, Any]:
        if lines or isinstance(entry, list):
            named = str(entry[key]) if lines and key else ""
            if lines:
                about = place if image == "none" else entry[image]
                entry = entry[question], entry[answer], about
            text, reply, number = entry
            reply = reply if isinstance(reply, str) else json.dumps(reply)
            row = {"question": text, "answer": reply, "answers": [reply]}
            row["question_id"] = named or f"{number}/{place + 1}"
        else:
            row = {k: entry[k] for k in ("question", "question_id")}
            number = entry["image_id"]
            if given := answers.get(entry["question_id"]):
                row |= {"answer": given[0], "answers": given[1:]}
        whole = str(number).isdecimal()
        return row | {"image_id": name.format(int(number) if whole else number)}

    form = f"questions for name={name} in COCO-VQA's or easy-VQA's form"
    form = f"{question}, {answer}, {image} or {key}" if lines else form
    rows = _read(path, "questions", parsed, form)
    asked = _table(file, rows)
    if any("answer" in row for row in rows):
        _label(asked, classes, closed)
    return pairs.Pairs(asked, open_source(images), "image_id:key", "inner")


def _table(file: pathlib.Path, rows: list[dict[str, Any]]) -> table.Table:
    """The questions with words, without their images."""
    kept, left_out = [], []
    for number, row in enumerate(rows, 1):
        text = row["question"]
        if isinstance(text, str) and not any(c.isalnum() for c in text):
            reason = f"the question {text!r} has no words: write one, or drop the entry"
            left_out.append(BrokenRecord(f"{file} entry {number}", reason))
        else:
            kept.append(table.Row(number, row))
    values = "answers" if any("answers" in row for row in rows) else ""
    how = {"image": "none", "text": "question", "key": "question_id"}
    asked = table.Table(file, kept, values=values, **how)
    asked.name, asked.left_out = f"vqa:{file}", left_out
    return asked


def _label(asked: table.Table, classes: str, closed: bool) -> None:
    """Gives every record the class of its answer; see `open`."""
    replies = [row.fields.get("answer") for (row,) in asked.rows]
    names = sorted({reply for reply in replies if reply is not None})
    if classes:
        lines = table.lines(encoded.existing(classes, "file of answers"))
        names = [text.strip() for _, text, _ in lines]
    rank = {answer: k for k, answer in enumerate(names)}
    asked.class_names = tuple(names)
    asked.labels = [rank.get(reply, -1) for reply in replies]
    if closed and -1 in asked.labels:
        at = asked.labels.index(-1)
        raise UserError(
            f"{asked.place(at)}: its answer {replies[at]!r} is none of {len(names)} in "
            f"{classes or 'the file'}: add it there, or leave closed out, and such "
            "questions have no label"
        )


def _answers(note: Mapping[str, Any], place: int) -> tuple[Any, list[str]]:
    """question_id, and the usual answer before those of all people asked."""
    others = [given["answer"] for given in note.get("answers", [])]
    return note["question_id"], [note["multiple_choice_answer"], *others]


def _read(
    path: str, key: str, parse: Callable[[Any, int], Any], form: str
) -> list[Any]:
    """What `parse` makes of every entry and its place, from 0, of a file."""
    file, place = encoded.existing(path, f"file of {key}"), -1
    parsed = []
    try:
        for place, entry in enumerate(_entries(file, key)):
            parsed.append(parse(entry, place))
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        where = f"entry {place + 1} of {file}" if place >= 0 else file
        kind = type(error).__name__
        raise UserError(f"{where} has no {form}: {kind} {error}") from None
    return parsed


def _entries(file: pathlib.Path, key: str) -> list[Any]:
    """What a file lists: JSON lines, a list, or a mapping's list at `key`."""
    if ".jsonl" in file.suffixes:
        rows = jsonl.rows(file)
        for row in rows:
            if row.error:
                raise ValueError(f"line {row.line}: {row.error}")
        return [row.fields for row in rows]
    data = schema.parse_json(table.read(file))
    return data[key] if isinstance(data, dict) else data
