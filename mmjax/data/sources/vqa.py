"""Questions about images, several an image: `vqa:/d/questions.json?images=SOURCE`.

The forms are COCO-VQA's, {"questions": [{question_id, image_id, question}]} with
answers in a file of their own, {"annotations": [{question_id, multiple_choice_answer,
answers: [{answer}]}]} (Antol et al. 2015), and easy-VQA's, [[question, answer, image]].
"""

from __future__ import annotations

import functools
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from mmjax.data.sources import encoded, pairs, table
from mmjax.errors import UserError


def open(
    path: str,
    images: str | Mapping[str, Any] = "",
    name: str = "{}",
    annotations: str = "",
    classes: str = "",
) -> pairs.Pairs:
    """A record a question: `image`, the question as text, the answer as label.

    images: the source of the images, such as folder:/d/val2014?label=none. name: how
    the key of an image is made of its id, such as COCO_val2014_{:012d}.jpg.
    annotations: COCO-VQA's file of answers; without it records have no label. classes:
    a file with an answer on each line, so that parts of a set share their labels;
    other answers are -1. Without it, the classes are the answers, sorted.

    Records also have `answers`, list[str], of all people asked.
    """
    from mmjax.data.sources import open_source  # it imports this module

    if not images:
        raise UserError(
            "vqa data needs images=SOURCE, such as images=folder:/d/val2014"
        )
    file = encoded.existing(path, "question file")
    answered = (
        _answers(encoded.existing(annotations, "answer file")) if annotations else {}
    )
    try:
        questions = [
            _question(entry, answered) for entry in _entries(file, "questions")
        ]
        rows = [table.Row(number, row) for number, row in enumerate(questions, 1)]
        label = "answer" if any("answer" in row for row in questions) else ""
        asked = Questions(file, rows, label, classes)
        written = functools.partial(_written, name)
        written(str(questions[0]["image_id"]))
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise UserError(
            f"{file}, name={name}: no questions in COCO-VQA's or easy-VQA's form: "
            f"{type(error).__name__} {error}"
        ) from None
    return pairs.Pairs(
        asked, open_source(images), "image_id:key", "inner", written=written
    )


class Questions(table.Table):
    """The questions and answers, without images."""

    def __init__(
        self, file: pathlib.Path, rows: list[table.Row], label: str, classes: str
    ):
        self.classes = classes
        options = {
            "image": "none",
            "text": "question",
            "root": "",
            "key": "question_id",
        }
        super().__init__(
            file, rows, label=label, values="answers" if label else "", **options
        )
        self.name = f"vqa:{file}"

    def _read_labels(self, label: str) -> None:
        answers = [row[0].fields.get(label) for row in self.rows]
        if self.classes:
            lines = table.lines(encoded.existing(self.classes, "file of answers"))
            self.class_names = tuple(text.strip() for _, text, _ in lines)
        else:
            self.class_names = tuple(sorted({a for a in answers if a is not None}))
        rank = {name: k for k, name in enumerate(self.class_names)}
        self.labels = dict(enumerate(rank.get(answer, -1) for answer in answers))


def _question(entry: Any, answered: Mapping[Any, list[str]]) -> dict[str, Any]:
    if isinstance(entry, list):
        question, answer, image = entry
        return {
            "question": question,
            "answer": answer,
            "answers": [answer],
            "image_id": image,
        }
    row = {k: entry[k] for k in ("question", "question_id", "image_id")}
    if answers := answered.get(entry["question_id"]):
        row |= {"answer": answers[0], "answers": answers[1:]}
    return row


def _answers(file: pathlib.Path) -> dict[Any, list[str]]:
    """question_id -> the usual answer, then those of all people asked."""
    try:
        return {
            note["question_id"]: [
                note["multiple_choice_answer"],
                *(given["answer"] for given in note.get("answers", [])),
            ]
            for note in _entries(file, "annotations")
        }
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{file} has no annotations with question_id and multiple_choice_answer: "
            f"{type(error).__name__} {error}"
        ) from None


def _entries(file: pathlib.Path, name: str) -> list[Any]:
    data = json.loads(table.read(file))
    return data[name] if isinstance(data, dict) else data


def _written(name: str, number: str) -> str:
    """An image's id as the key of its image."""
    return name.format(int(number) if number.isdecimal() else number)
