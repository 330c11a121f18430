"""Right answers to questions about images, by kind of question, and what they rest on.

A model that answers without the image, or without the question, has learned how answers
are distributed (Goyal et al. 2017): each is blanked in turn.

Legend: b batch, n questions, a answers.
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
_DEFINITIONS = {
    "accuracy": "share of questions whose answer has the largest logit",
    "accuracy_KIND": "the same, of questions of a kind (`types`, `words`)",
    "majority": "share of the commonest answer of train (without it, of the source)",
    "prior": "share of the commonest answer, in train, to questions of these words",
    "without_FIELD": "accuracy where that field is blank",
    "gain_FIELD": "accuracy - without_FIELD, of the same resamples",
}


@dataclass(frozen=True)
class Config(base.EvalConfig):
    """train: the training split's spec, whose commonest answers are the baselines.

    types: kind of question -> its answers, such as {"yes_no": ("yes", "no")}.
    words: of a question, the first so many name its kind as well, where 20 or more
      begin so; 0 is none.
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
        self.class_names = self.source.class_names
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
        shown = self._shown()
        pictures: dict[int, np.ndarray] = {}

        def keep(outputs: dict, batch: base.Batch, valid_b: np.ndarray) -> dict:
            given = forward.inputs(batch, "logits", None, self.where)
            rows = {"prediction": outputs["logits"]}
            for name in self.blanked:
                empty = self._blank(name, len(valid_b))
                call = self.env.predict["logits"]
                rows[f"without_{name}"] = call(variables, given | empty)
            for row in np.flatnonzero(valid_b):
                if (at := int(batch["_index"][row])) in shown and "image" in batch:
                    pictures[at] = np.asarray(batch["image"][row])
            return {k: np.asarray(x).argmax(1)[valid_b] for k, x in rows.items()}

        arrays, counts, _ = self.collect(variables, keep=keep)
        label_n = arrays["label"]
        asked = [self.source.captions(int(i))[0].lower() for i in arrays["index"]]
        right = {"accuracy": arrays["prediction"] == label_n}
        right |= {k: x == label_n for k, x in arrays.items() if k.startswith("without")}
        right |= {k: x == label_n for k, x in self._baselines(asked).items()}
        values = self._values(right, self._kinds(asked, label_n))
        if self.config.png and pictures:
            self._draw(pictures, arrays)
        counts = counts | {"without_answer": int((label_n < 0).sum())}
        train = self.config.train and self.open(self.config.train)
        about = {"train": train and train.fingerprint(), "words": self.config.words}
        about["types"] = {k: list(v) for k, v in self.config.types.items()}
        card = self.card(counts, _DEFINITIONS, **about)
        names = "index", "label", "prediction"
        return base.Result(values, card, {name: arrays[name] for name in names})

    def _blank(self, name: str, rows: int) -> dict[str, np.ndarray]:
        """The arrays of a field of records that lack it."""
        one = {name: self.env.fields[name]}
        return fields.collate(one, [fields.blank(one)] * rows)

    def _baselines(self, asked: list[str]) -> dict[str, np.ndarray]:
        """Answers (n,) that are the commonest in train: of all, and to these words."""
        source = self.source
        if self.config.train is not None:
            source = self.open(self.config.train)
            if source.class_names != self.class_names:
                raise self.error(
                    f"train has the answers {', '.join(source.class_names)}, and "
                    f"{self.source.name!r} {', '.join(self.class_names)}: give both "
                    "one list, by classes="
                )
        of_all: collections.Counter = collections.Counter()
        by_words: dict[str, collections.Counter] = collections.defaultdict(
            collections.Counter
        )
        for i in range(len(source)):
            label = views.fields(source, i)["label"]
            if label >= 0:
                of_all[label] += 1
                by_words[views.captions(source, i)[0].lower()][label] += 1
        if not of_all:
            raise self.error(f"no record of {source.name!r} has an answer of the list")
        usual = of_all.most_common(1)[0][0]
        prior = [
            by_words[text].most_common(1)[0][0] if text in by_words else usual
            for text in asked
        ]
        return {"majority": np.full(len(asked), usual), "prior": np.array(prior)}

    def _kinds(self, asked: list[str], label_n: np.ndarray) -> dict[str, np.ndarray]:
        """Which questions (n,) are of each kind."""
        kinds = {}
        for kind, answers in self.config.types.items():
            ranks = [self.class_names.index(answer) for answer in answers]
            kinds[kind] = np.isin(label_n, ranks)
        if count := self.config.words:
            begins = np.array(["_".join(t.split()[:count]) for t in asked])
            often = collections.Counter(begins.tolist()).most_common()
            kinds |= {name: begins == name for name, times in often if times >= 20}
        return {kind: of_n for kind, of_n in kinds.items() if of_n.any()}

    def _values(
        self, right: dict[str, np.ndarray], kinds: dict[str, np.ndarray]
    ) -> dict[str, float]:
        rows_kn = np.array(list(right.values()), float)
        kinds_kn = np.array(list(kinds.values()), float).reshape(
            len(kinds), rows_kn.shape[1]
        )
        lost = [name for name in right if name.startswith("without_")]
        at = [list(right).index(name) for name in lost]

        def statistics(weight_n: np.ndarray) -> np.ndarray:
            means_k = rows_kn @ weight_n / weight_n.sum()
            size_k = kinds_kn @ weight_n
            hits_k = kinds_kn @ (weight_n * rows_kn[0])
            by_kind = np.where(size_k > 0, hits_k / np.maximum(size_k, 1), np.nan)
            return np.concatenate([means_k, means_k[0] - means_k[at], by_kind])

        gains = [f"gain_{name.removeprefix('without_')}" for name in lost]
        names = [*right, *gains, *(f"accuracy_{kind}" for kind in kinds)]
        return self.intervals(names, statistics, rows_kn.shape[1])

    def _shown(self) -> set[int]:
        count = min(self.config.shown, len(self.source))
        return set(np.linspace(0, len(self.source) - 1, count).astype(int).tolist())

    def _draw(self, pictures: dict[int, np.ndarray], arrays: dict) -> None:
        """The sheet: images, question, answer and prediction, one below the other."""
        place = {int(i): n for n, i in enumerate(arrays["index"])}
        rows, captions = [], []
        for at, pixels in sorted(pictures.items()):
            n, names = place[at], (*self.class_names, "no answer of the list")
            answer, said = (names[arrays[k][n]] for k in ("label", "prediction"))
            verdict = "right" if answer == said else f"wrong: it is {answer}"
            captions.append(f"{self.source.captions(at)[0]}  {said} ({verdict})")
            several = pixels if pixels.ndim == 4 else pixels[None]
            sized = (Image.fromarray(x).resize((SIDE, SIDE), 0) for x in several)
            rows.append([np.asarray(image) for image in sized])
        image_grid.draw(self.config.png, rows, captions)
