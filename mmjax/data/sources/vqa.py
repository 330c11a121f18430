"""Questions about images, several an image: `vqa:/d/questions.json?images=SOURCE`.

The forms are COCO-VQA's, {"questions": [{question_id, image_id, question}]} with
answers in a file of their own, {"annotations": [{question_id, multiple_choice_answer,
answers: [{answer}]}]} (Antol et al. 2015), and easy-VQA's, [[question, answer, image]].
"""

from collections.abc import Callable, Mapping
from typing import Any

from mmjax import schema
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
    answers = {}
    if annotations:
        form = "annotations with question_id and multiple_choice_answer"
        answers = dict(_read(annotations, "annotations", _answers, form))

    def question(entry: Any) -> dict[str, Any]:
        if isinstance(entry, list):
            text, answer, number = entry
            row = {"question": text, "answer": answer, "answers": [answer]}
        else:
            row = {k: entry[k] for k in ("question", "question_id")}
            number = entry["image_id"]
            if given := answers.get(entry["question_id"]):
                row |= {"answer": given[0], "answers": given[1:]}
        whole = str(number).isdecimal()
        return row | {"image_id": name.format(int(number) if whole else number)}

    form = f"questions for name={name} in COCO-VQA's or easy-VQA's form"
    rows = _read(path, "questions", question, form)
    answered = any("answer" in row for row in rows)
    file = encoded.existing(path, "question file")
    asked = table.Table(
        file,
        [table.Row(number, row) for number, row in enumerate(rows, 1)],
        image="none",
        text="question",
        key="question_id",
        values="answers" if answered else "",
    )
    asked.name = f"vqa:{file}"
    if answered:
        names = sorted({row["answer"] for row in rows if "answer" in row})
        if classes:
            lines = table.lines(encoded.existing(classes, "file of answers"))
            names = [text.strip() for _, text, _ in lines]
        rank = {answer: k for k, answer in enumerate(names)}
        asked.class_names = tuple(names)
        asked.labels = [rank.get(row.get("answer"), -1) for row in rows]
    return pairs.Pairs(asked, open_source(images), "image_id:key", "inner")


def _answers(note: Mapping[str, Any]) -> tuple[Any, list[str]]:
    """question_id, and the usual answer before those of all people asked."""
    others = [given["answer"] for given in note.get("answers", [])]
    return note["question_id"], [note["multiple_choice_answer"], *others]


def _read(path: str, key: str, parse: Callable[[Any], Any], form: str) -> list[Any]:
    file = encoded.existing(path, f"file of {key}")
    try:
        data = schema.parse_json(table.read(file))
        return [parse(e) for e in (data[key] if isinstance(data, dict) else data)]
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        kind = type(error).__name__
        raise UserError(f"{file} has no {form}: {kind} {error}") from None
