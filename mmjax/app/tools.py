"""What a page offers of its runs: it follows from what their tasks can predict."""

import base64
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mmjax.app import fields
from mmjax.app.fields import Field
from mmjax.app.line import Tell
from mmjax.data import image as image_lib
from mmjax.data import prompts
from mmjax.data.records import BrokenRecord
from mmjax.errors import UserError
from mmjax.inference import answer, caption, load
from mmjax.retrieval import gallery
from mmjax.retrieval import store as store_lib

_SHOWN = 256  # pixels of the longer side of an image that is found, or an example
_SHARES = 8  # class names that a form begins with, and answers that are shown
_HITS = 12
_HELD = 4  # sets of options that stay compiled
_EXAMPLES = 3


@dataclasses.dataclass(frozen=True)
class Tool:
    """A form, and what it computes.

    title: What it does, in a word that is on its button too.
    run: Whose it is.
    about: A sentence for the page.
    call: (values of the form, tell); tells `card`s, `bars`, `text`s and `note`s.
    """

    title: str
    run: load.Run
    about: str
    fields: tuple[Field, ...]
    call: Callable[[dict[str, Any], Tell], None]

    def work(self, given: Mapping[str, Any]) -> Callable[[Tell], None]:
        """What a line does for a form that was sent."""
        return lambda tell: self.call(fields.read(self.fields, given), tell)

    def warm(self, tell: Tell) -> None:
        """Compiles: computes once, of values that do not matter."""
        grey = np.full((8, 8, 3), 128, np.uint8)
        others = {"text": "a", "lines": "a, b", "image": grey}
        values = {f.name: f.value for f in self.fields}
        for f in self.fields:
            if f.optional:
                values[f.name] = None if f.kind == "image" else f.value
            elif f.choices:
                values[f.name] = f.choices[0]
            elif not f.option:
                values[f.name] = others.get(f.kind, f.value)
        self.call(values, tell)


class Held:
    """What is made for some sampling options, the last few."""

    def __init__(self, make: Callable[[dict[str, Any]], Any], task: Any):
        self.make, self.fields = make, fields.options(task)
        self._held: dict[tuple, Any] = {}

    def take(self, values: dict[str, Any], tell: Tell) -> Any:
        """By the options, which it takes out of the values."""
        given = {f: values.pop(f.name) for f in self.fields}
        changed = {f.name: value for f, value in given.items() if value != f.value}
        key = tuple(changed.items())
        if key not in self._held:
            tell({"note": "These options compile first."})
        self._held[key] = self._held.pop(key, None) or self.make(changed)
        if len(self._held) > _HELD:
            self._held.pop(next(iter(self._held)))
        return self._held[key]


def offers(run: load.Run, *names: str) -> bool:
    """Whether a run's task predicts all of them."""
    return set(names) <= run.parts.raw.keys()


def small(run: load.Run, batch: int) -> load.Run:
    """The run with calls as small as a page's: what one waits for is one image."""
    rows = run.parts.layout.rows
    cfg = dataclasses.replace(run.parts.cfg, batch_size=-(-batch // rows) * rows)
    return dataclasses.replace(run, parts=dataclasses.replace(run.parts, cfg=cfg))


def card(pixels: np.ndarray, alt: str, **more: Any) -> dict[str, Any]:
    """An event that shows an image; `score` ranks it, `by` says what the score is."""
    data = base64.b64encode(image_lib.encode_png(pixels)).decode()
    return {"card": {"image": data, "alt": alt, **more}}


def _thumb(pixels: np.ndarray) -> np.ndarray:
    share = min(1.0, _SHOWN / max(pixels.shape[:2]))
    sides = tuple(max(1, round(share * side)) for side in pixels.shape[:2])
    return image_lib.resize(pixels, sides, "area")


def examples(run: load.Run) -> tuple[tuple[str, ...], tuple[bytes, ...]]:
    """A few texts and images of the training data, none where these are not here."""
    try:
        records = run.records(_EXAMPLES)
    except (UserError, BrokenRecord, OSError):
        return (), ()
    texts = (record["text"][0] for record in records if record.get("text"))
    images = (_thumb(record["image"]) for record in records if "image" in record)
    return tuple(dict.fromkeys(texts)), tuple(map(image_lib.encode_png, images))


def classifier(run: load.Run, image: Field) -> Tool:
    """Zero-shot, by label names that the page gives."""
    try:
        names = run.parts.source.class_names[:_SHARES]
    except (UserError, OSError):
        names = ()
    text = "Two or more, with commas between. The shares add up to 100 % even where "
    text += "no label fits."
    labels = Field("labels", "Labels", "lines", ", ".join(names), about=text)

    templates = run.templates()

    def call(values: dict[str, Any], tell: Tell) -> None:
        named = prompts.labels(values["labels"])
        cut = [one for one in named if run.cut(prompts.fill(templates, [one])).any()]
        if cut:
            text = f"Shorten {', '.join(cut)}: the model reads the beginning alone."
            tell({"note": text})
        chance_c = run.classify([values["image"]], named, templates)[0]
        order_c = np.argsort(-chance_c, kind="stable")
        tell({"bars": [[named[c], float(chance_c[c])] for c in order_c]})

    about = "Zero-shot classification of an image, by labels that you name."
    return Tool("Classify", run, about, (image, labels), call)


def captioner(run: load.Run, network: load.Run | None, image: Field) -> Tool:
    """Captions; `network` makes the features of a run that reads any."""
    network = None if run.task.image else network
    held = Held(lambda options: caption.Captioner(run, options, network), run.task)
    caption.Captioner(run, network=network)  # says now what is missing

    def call(values: dict[str, Any], tell: Tell) -> None:
        said, arrays = held.take(values, tell).say([values["image"]])
        for text, score in zip(said[0], arrays["score"][0].tolist(), strict=True):
            tell({"text": text, "score": score})

    about = "What an image shows, the likeliest sentence first."
    return Tool("Caption", run, about, (image, *held.fields), call)


def answerer(run: load.Run, texts: tuple[str, ...], image: Field) -> Tool:
    """Answers to questions, of those that the run was trained with."""
    answers = answer.Answerer(run)

    def call(values: dict[str, Any], tell: Tell) -> None:
        load.check_text(run.tokenizer, values["question"], "question")
        ranked = answers.ask(values["image"], values["question"])
        tell({"bars": ranked[:_SHARES]})

    question = Field("question", "Question", examples=texts)
    about = "Answers to a question about an image, each with its chance."
    return Tool("Ask", run, about, (image, question), call)


def searcher(
    index: store_lib.Store, runs: Sequence[load.Run], text: Field, image: Field
) -> Tool:
    """Search of an index by a text, an image, or the sum of both."""
    made = index.facts.model
    named = [run for run in runs if run.fingerprint == made["fingerprint"]]
    if not runs:
        raise UserError(
            f"{index.folder} is searched by the model that made it: give "
            f"{made['workdir']} as a run too"
        )
    run = (named or runs)[0]
    index.check_model(run.fingerprint, run.workdir)
    searched = gallery.Gallery(index, run)

    def call(values: dict[str, Any], tell: Tell) -> None:
        text, image = values["text"], values["image"]
        if text.strip() or image is None:
            load.check_text(run.tokenizer, text, "text")
        images, named = [] if image is None else [image], [text] if text.strip() else []
        row_d = run.combine(images, named)
        for hit in searched.search(row_d[None], _HITS)[0]:
            title = hit.text[0] if hit.text else hit.key
            more = {"caption": title, "score": hit.score, "by": "cosine"}
            tell(card(_thumb(searched.image(hit)), title, **more))

    about = "To search by; with a text, by the sum of both."
    image = dataclasses.replace(image, optional=True, about=about)
    about = f"The nearest of {index.count:,} images, of the index {index.folder}."
    return Tool("Search", run, about, (text, image), call)
