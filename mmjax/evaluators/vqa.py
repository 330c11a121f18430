"""Accuracy of answers to questions about images, by kind of question.

A model that answers as well without the image, or without the question, has learned
only how answers are distributed (Goyal et al. 2017): each is blanked in turn.

Legend: b batch, n questions, k numbers, a answers.
"""

import collections
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from mmjax.data import fields
from mmjax.data.sources import views
from mmjax.evaluators import base
from mmjax.evaluators.common import forward
from mmjax.report import image_grid

SIDE = 96  # pixels of an image in the PNG
OFTEN = 20  # questions that make a kind of their first words
_DEFINITIONS = {
    "accuracy": "share of questions whose answer has the largest logit",
    "accuracy_KIND": "the same, of questions of a kind (`types`, `words`)",
    "majority": "share of the commonest answer of train",
    "prior": "share of the commonest answer, in train, to questions of these words",
    "without_FIELD": "accuracy where that field is blank",
    "gain_FIELD": "accuracy - without_FIELD, of the same resamples",
}


@dataclass(frozen=True)
class Config(base.EvalConfig):
    """train: the training split's spec, whose commonest answers are the baselines; the
      source itself where there is none.

    types: kind of question -> its answers, such as {"yes_no": ("yes", "no")}.
    words: the first so many of a question name its kind too, where 20 begin so.
    png: a sheet of questions to write; empty writes none. shown: how many it has.
    """

    train: Any = None
    types: dict = field(default_factory=dict)
    words: int = 0
    png: str = ""
    shown: int = 12

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least(words=0, shown=1)


class Evaluator(base.Evaluator):
    """Calls predict "logits": {fields} to (b, a), also with each field blank."""

    config_class, calls, reads_text = Config, {"logits": None}, True

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.blanked = [n.rstrip("?") for n in self.env.reads if n != "label"]
        self.class_names, train = self.source.class_names, self.config.train
        self.train = self.source if train is None else self.open(train)
        if self.train.class_names != self.class_names:
            raise self.error(
                f"train has the answers {', '.join(self.train.class_names)}, and "
                f"{self.source.name!r} {', '.join(self.class_names)}: give both one "
                "list, by classes="
            )
        for kind, answers in self.config.types.items():
            for answer in answers:
                if answer not in self.class_names:
                    raise self.error(
                        f"types.{kind} has {answer!r}, which is no answer of "
                        f"{self.source.name!r}: it has {', '.join(self.class_names)}"
                    )

    def run(self, variables: base.PyTree) -> base.Result:
        """The numbers of `_DEFINITIONS`, with intervals over questions.

        A record without an answer counts as a wrong one. `arrays` holds index, label
        and prediction (n,).
        """
        count = min(self.config.shown, len(self.source))
        shown = np.linspace(0, len(self.source) - 1, count).astype(int)
        looked_at: dict[int, np.ndarray] = {}

        def keep(outputs: dict, batch: base.Batch, valid_b: np.ndarray) -> dict:
            given = forward.inputs(batch, "logits", None, self.where)
            rows = {"prediction": outputs["logits"]}
            for name in self.blanked:
                one = {name: self.env.fields[name]}
                empty = fields.collate(one, [fields.blank(one)] * len(valid_b))
                call = self.env.predict["logits"]
                rows[f"without_{name}"] = call(variables, given | empty)
            for row in np.flatnonzero(valid_b & np.isin(batch["_index"], shown)):
                looked_at[int(batch["_index"][row])] = np.asarray(batch["image"][row])
            return {k: np.asarray(x).argmax(1)[valid_b] for k, x in rows.items()}

        arrays, counts, _ = self.collect(variables, keep=keep)
        label_n = arrays["label"]
        asked = [self.source.captions(int(i))[0].lower() for i in arrays["index"]]
        guesses = {"accuracy": arrays["prediction"], **self._baselines(asked)}
        guesses |= {f"without_{n}": arrays[f"without_{n}"] for n in self.blanked}
        rows_kn = np.array([x == label_n for x in guesses.values()], float)
        kinds = self._kinds(asked, label_n)
        lost = len(guesses) - len(self.blanked)

        def statistics(weight_n: np.ndarray) -> np.ndarray:
            mean_k = rows_kn @ weight_n / weight_n.sum()
            own = [(of_n * weight_n, rows_kn[0]) for of_n in kinds.values()]
            by_kind = [w @ hit_n / w.sum() if w.any() else np.nan for w, hit_n in own]
            return np.array([*mean_k, *(mean_k[0] - mean_k[lost:]), *by_kind])

        names = [*guesses, *(f"gain_{name}" for name in self.blanked)]
        names += [f"accuracy_{kind}" for kind in kinds]
        values = self.intervals(names, statistics, len(label_n))
        if self.config.png:
            self._draw(looked_at, arrays)
        counts = counts | {"without_answer": int((label_n < 0).sum())}
        about = {"train": self.train.fingerprint(), "words": self.config.words}
        about["types"] = {k: list(v) for k, v in self.config.types.items()}
        card = self.card(counts, _DEFINITIONS, **about)
        kept = {k: arrays[k] for k in ("index", "label", "prediction")}
        return base.Result(values, card, kept)

    def _baselines(self, asked: list[str]) -> dict[str, np.ndarray]:
        """Answers (n,) that are the commonest in train: of all, and to these words."""
        every = collections.Counter()
        by_words = collections.defaultdict(collections.Counter)
        for i in range(len(self.train)):
            label = views.fields(self.train, i)["label"]
            if label >= 0:
                every[label] += 1
                by_words[views.captions(self.train, i)[0].lower()][label] += 1
        if not every:
            raise self.error(f"no record of {self.train.name!r} has an answer")
        best = [by_words.get(text, every).most_common(1)[0][0] for text in asked]
        usual_n = np.full(len(asked), every.most_common(1)[0][0])
        return {"majority": usual_n, "prior": np.array(best)}

    def _kinds(self, asked: list[str], label_n: np.ndarray) -> dict[str, np.ndarray]:
        """Which questions (n,) are of each kind."""
        kinds = {}
        for kind, answers in self.config.types.items():
            ranks = [self.class_names.index(answer) for answer in answers]
            kinds[kind] = np.isin(label_n, ranks)
        if count := self.config.words:
            begins = np.array(["_".join(t.split()[:count]) for t in asked])
            often = collections.Counter(begins.tolist()).items()
            kinds |= {name: begins == name for name, n in often if n >= OFTEN}
        return kinds

    def _draw(self, looked_at: dict[int, np.ndarray], arrays: dict) -> None:
        """The sheet: images, question, prediction and answer, one below the other."""
        names, rows, captions = [*self.class_names, "none of the list"], [], []
        for at, pixels in sorted(looked_at.items()):
            (n,) = np.flatnonzero(arrays["index"] == at)
            ranks = (arrays[key][n] for key in ("label", "prediction"))
            answer, guess = (names[min(rank, len(names) - 1)] for rank in ranks)
            verdict = "right" if answer == guess else f"wrong: {answer}"
            captions.append(f"{self.source.captions(at)[0]}  {guess} ({verdict})")
            several = pixels if pixels.ndim == 4 else pixels[None]
            sized = (Image.fromarray(x).resize((SIDE, SIDE), 0) for x in several)
            rows.append([np.asarray(image) for image in sized])
        image_grid.draw(self.config.png, rows, captions)
