"""Classes from a code of several modalities, of which each can be missing.

Ngiam et al. 2011: codes of windows are averaged over the record they are cut from, and
over each of its parts, and a linear SVM is fitted on those of training records. Given
are all modalities (fusion), the same one in training and test (cross-modality
learning), or another in test than in training (shared representation). Test records may
also be noisy, or have one modality of one record and another of another (McGurk).

Legend: n windows, u records, k columns of a code, f features.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mmjax.data.sources import views
from mmjax.evaluators import base
from mmjax.evaluators.common import forward
from mmjax.metrics import embeddings, linear_svm

_FOLDS = 5  # one training record in so many chooses C
_DEFINITIONS = {
    "all": "share of right classes, codes of all fields in training and test",
    "NAME": "the same of one field alone, the others absent",
    "beside": "the same, features of `all` and of every field alone side by side",
    "A_to_B": "trained on codes of A alone, tested on codes of B alone",
    "NAME@VARIANT": "as NAME, tested on records of that variant",
    "conflict_NAME": "of records with fields of two classes, share heard as NAME's",
    "conflict_other": "share heard as neither",
    "svm_c_NAME": "C, the best on a fifth of the training records",
}
_NAMED = "features", "parts", "svm", "conflicts", "same"  # what moves the numbers
Rows = dict[str, np.ndarray]  # by what was given, and label


@dataclass(frozen=True)
class Config(base.EvalConfig):
    """train: training records; variants: name -> test records under other conditions.

    A source of kind windows says which windows are of one record; of other sources
    every row is a record of its own.

    parts: of equal time, whose means are features beside the mean over all; 1 is none.
    svm: values of C.
    conflicts: how many pairs of test records of unlike classes lend one field each, the
      first and second of the task; same: a value that both records share.
    """

    train: Any = None
    variants: dict = field(default_factory=dict)
    features: str = "codes"
    parts: int = 3
    svm: tuple[float, ...] = (0.1, 1.0, 10.0)
    conflicts: int = 0
    same: str = ""

    def __post_init__(self):
        super().__post_init__()
        self.at_least(parts=1, conflicts=0)
        if self.train is None:
            raise ValueError("'train' is missing; give the training records' spec")
        if not self.svm or min(self.svm) <= 0:
            raise ValueError(f"svm is {self.svm}: give values of C above 0")


class Evaluator(base.Evaluator):
    """Calls predict `features`: {any fields} to (b, k)."""

    config_class = Config
    labelled = True

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        cfg = self.config
        self.calls = {cfg.features: None}
        self.class_names = self.source.class_names
        if not self.class_names:
            raise self.error(
                f"source {self.source.name!r} has no class names: give one of labelled "
                "records"
            )
        self.fields = [name.rstrip("?") for name in self.env.reads]
        if len(self.fields) < 2:
            raise self.error(f"the task reads {self.fields}: it needs two fields")
        self.ways = {"all": self.fields, **{name: [name] for name in self.fields}}
        self.train = self.open(cfg.train)
        self.variants = {name: self.open(s) for name, s in cfg.variants.items()}

    def run(self, variables: base.PyTree) -> base.Result:
        """Accuracies with intervals over test records, see `_DEFINITIONS`.

        `arrays` holds label (u,), each way's answer (u,) as `answer/NAME`, and, with
        conflicts, conflict_FIELD (p,), the classes given, and conflict_answer (p,).
        """
        train, _, _ = self._pooled(variables, self.train)
        test, counts, inputs = self._pooled(variables, self.source)
        fits = {way: self._fit(train[way], train["label"]) for way in self.ways}
        beside = {
            "train": np.concatenate([train[way] for way in self.ways], 1),
            "test": np.concatenate([test[way] for way in self.ways], 1),
        }
        fits["beside"] = self._fit(beside["train"], train["label"])
        answers = {way: fits[way](test[way]) for way in self.ways}
        answers["beside"] = fits["beside"](beside["test"])
        for a in self.fields:
            others = [b for b in self.fields if b != a]
            answers |= {f"{a}_to_{b}": fits[a](test[b]) for b in others}
        label_u = test["label"]
        for name, source in self.variants.items():
            rows, _, _ = self._pooled(variables, source)
            if not np.array_equal(rows["label"], label_u):
                raise self.error(f"variant {name!r} has other records than the source")
            answers |= {f"{way}@{name}": fits[way](rows[way]) for way in self.ways}
        hits = np.stack([answer_u == label_u for answer_u in answers.values()])
        values = self.intervals(
            list(answers), lambda w: hits @ w / w.sum(), len(label_u)
        )
        values |= {f"svm_c_{way}": fit.c for way, fit in fits.items()}
        arrays = {"label": label_u, **{f"answer/{k}": v for k, v in answers.items()}}
        if self.config.conflicts:
            share, found = self._conflicts(variables, inputs, label_u, fits["all"])
            values, arrays = values | share, arrays | found
            counts["pairs"] = len(found["conflict_answer"])
        cfg, sources = self.config, {"train": self.train, **self.variants}
        card = self.card(
            counts | {"records": len(label_u)},
            _DEFINITIONS,
            resampled="test records; the fits stay",
            others={name: source.fingerprint() for name, source in sources.items()},
            config={name: getattr(cfg, name) for name in _NAMED},
        )
        return base.Result(values, card, arrays)

    def _pooled(self, variables: base.PyTree, source: Any) -> tuple[Rows, dict, Rows]:
        """(features (u, f) of every way and label, counts, the windows' own values)."""
        name = self.config.features

        def keep(outputs: dict, batch: base.Batch, valid_b: np.ndarray) -> dict:
            given = forward.inputs(batch, name, None, self.where)
            rows = {}
            for way, fields in self.ways.items():
                code_bk = outputs[name]
                if way != "all":
                    code_bk = self.env.predict[name](
                        variables, forward.of_fields(given, fields)
                    )
                rows[way] = np.asarray(code_bk, np.float32)[valid_b]
            kept = (
                forward.of_fields(given, self.fields) if self.config.conflicts else {}
            )
            rows |= {f"given/{k}": np.asarray(v)[valid_b] for k, v in kept.items()}
            return rows

        arrays, counts, _ = self.collect(variables, keep=keep, source=source)
        group_n, place_n = grouped(source, arrays["index"])
        first_u = np.unique(group_n, return_index=True)[1]
        rows = {"label": arrays["label"][first_u]}
        for way in self.ways:
            embeddings.check_finite(arrays[way], f"{self.where}: {name}")
            rows[way] = pooled(arrays[way], group_n, place_n, self.config.parts)
        inputs = {k: v for k, v in arrays.items() if k.startswith("given/")}
        inputs |= {"group": group_n, "place": place_n, "index": arrays["index"]}
        return rows, counts, inputs

    def _fit(self, x_uf: np.ndarray, label_u: np.ndarray) -> "_Svm":
        """The SVM with the best C, on all training records."""
        cfg, best = self.config, self.config.svm[0]
        if len(cfg.svm) > 1:
            held_u = np.random.default_rng(cfg.seed).permutation(len(x_uf)) % _FOLDS
            fitted, judged = held_u > 0, held_u == 0
            right = [
                (
                    _Svm(x_uf[fitted], label_u[fitted], c)(x_uf[judged])
                    == label_u[judged]
                ).mean()
                for c in cfg.svm
            ]
            best = cfg.svm[int(np.argmax(right))]
        return _Svm(x_uf, label_u, best)

    def _conflicts(
        self, variables: base.PyTree, inputs: Rows, label_u: np.ndarray, svm: "_Svm"
    ) -> tuple[dict, Rows]:
        """Records of unlike classes, the first field of one and the second of other."""
        cfg, (first, second) = self.config, self.fields[:2]
        ids, group_n = np.unique(inputs["group"], return_inverse=True)
        shared_u = np.zeros(len(ids))
        if cfg.same:
            starts_u = np.unique(inputs["group"], return_index=True)[1]
            values = [self._value(int(i)) for i in inputs["index"][starts_u]]
            shared_u = np.unique(values, return_inverse=True)[1]
        rng = np.random.default_rng(cfg.seed)
        legal = (label_u[:, None] != label_u) & (shared_u[:, None] == shared_u)
        pairs = np.argwhere(legal)
        if not len(pairs):
            raise self.error(f"no two records of unlike classes share {cfg.same!r}")
        pairs = pairs[rng.permutation(len(pairs))[: cfg.conflicts]]
        take_n2, of_n, place_n = [], [], []
        for p, (a, b) in enumerate(pairs):
            ours, theirs = (np.flatnonzero(group_n == u) for u in (a, b))
            where = inputs["place"][theirs]
            near = np.abs(inputs["place"][ours][:, None] - where).argmin(0)
            take_n2.append(np.stack([ours[near], theirs], 1))
            of_n.append(np.full(len(theirs), p))
            place_n.append(where)
        given = {k.removeprefix("given/"): v for k, v in inputs.items() if "/" in k}
        take_n2 = np.concatenate(take_n2)
        column = {
            key: int(key not in forward.of_fields(given, [first])) for key in given
        }
        rows = {key: given[key][take_n2[:, c]] for key, c in column.items()}
        code_nk = np.concatenate(list(self._coded(variables, rows)))
        group_n, place_n = np.concatenate(of_n), np.concatenate(place_n)
        answer_p = svm(pooled(code_nk, group_n, place_n, cfg.parts))
        classes = label_u[pairs[:, 0]], label_u[pairs[:, 1]]
        hits = [answer_p == classes[0], answer_p == classes[1]]
        hits = np.stack([*hits, ~(hits[0] | hits[1])]).astype(float)
        names = [f"conflict_{name}" for name in (first, second, "other")]
        values = self.intervals(names, lambda w: hits @ w / w.sum(), len(pairs))
        found = {
            f"conflict_{first}": classes[0],
            f"conflict_{second}": classes[1],
            "conflict_answer": answer_p,
        }
        return values, found

    def _value(self, i: int) -> Any:
        record, name = self.source[i], self.config.same
        if name not in record:
            raise self.error(f"same is {name!r}, and records have {sorted(record)}")
        return record[name]

    def _coded(self, variables: base.PyTree, rows: Rows) -> Iterator[np.ndarray]:
        """Codes of rows, in calls of `size`."""
        count = len(next(iter(rows.values())))
        for start in range(0, count, self.size):
            take = np.minimum(np.arange(start, start + self.size), count - 1)
            batch = {key: value[take] for key, value in rows.items()}
            code_bk = self.env.predict[self.config.features](variables, batch)
            yield np.asarray(code_bk, np.float32)[: count - start]


class _Svm:
    """A linear SVM over features that are centred, all divided by one number."""

    def __init__(self, x_uf: np.ndarray, label_u: np.ndarray, c: float):
        self.mean_f, self.scale, self.c = x_uf.mean(0), max(x_uf.std(), 1e-12), c
        # of length about 1, so that one C serves any width
        self.scale *= x_uf.shape[1] ** 0.5
        self.fitted = linear_svm.fit(self._scaled(x_uf), label_u, c=c)

    def _scaled(self, x_uf: np.ndarray) -> np.ndarray:
        return (x_uf - self.mean_f) / self.scale

    def __call__(self, x_uf: np.ndarray) -> np.ndarray:
        return linear_svm.predict(*self.fitted, self._scaled(x_uf))


def grouped(source: Any, index_n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(record, place in it) of each window, through views of a source of kind windows.

    Rows of any other source are records of their own.
    """
    while not hasattr(source, "groups"):
        if not isinstance(source, views.View):
            return np.asarray(index_n), np.zeros(len(index_n))
        index_n = np.array([source.at(int(i)) for i in index_n])
        source = source.source
    return source.groups[index_n], source.places[index_n]


def pooled(
    code_nk: np.ndarray, group_n: np.ndarray, place_n: np.ndarray, parts: int
) -> np.ndarray:
    """Means over a record and over each of its `parts`, (u, k) or (u, (1 + parts) k).

    place_n: of a window in its record, 0 to 1. A part without windows has the mean over
    all.
    """
    ids, group_n = np.unique(group_n, return_inverse=True)

    def means(chosen_n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        sums_uk = np.zeros((len(ids), code_nk.shape[1]))
        np.add.at(sums_uk, group_n[chosen_n], code_nk[chosen_n])
        count_u1 = np.bincount(group_n[chosen_n], minlength=len(ids))[:, None]
        return sums_uk / np.maximum(count_u1, 1), count_u1

    whole_uk, _ = means(np.ones(len(group_n), bool))
    if parts == 1:
        return whole_uk
    part_n = np.minimum((place_n * parts).astype(int), parts - 1)
    cut = [means(part_n == part) for part in range(parts)]
    rows = [np.where(count_u1 > 0, mean_uk, whole_uk) for mean_uk, count_u1 in cut]
    return np.concatenate([whole_uk, *rows], 1)
