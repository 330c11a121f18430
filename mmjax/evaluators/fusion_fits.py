"""Fusion without a network: fitted here on the fields of a run, judged as `fusion` is.

Legend: r records, n items (records, or their labelled steps), d columns, c classes.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np

from mmjax import schema
from mmjax.evaluators import base, fusion
from mmjax.metrics import cca, easymkl, hmm, linear_svm
from mmjax.metrics import fusion as metrics

_DEFINITIONS = {
    "FIT_MEASURE": "a measure of `fusion`, of answers by that fit",
    "svm": "linear SVM on all columns, those of an absent modality at their mean",
    "stacking": "linear SVM on scores of one a modality, those from inner folds",
    "mkl": "EasyMKL on RBF kernels, `scales` times the median distance, of every "
    "modality; those of an absent one at their mean",
    "hmm": "an HMM of all series: one a class of records, or with classes as states",
    "coupled_hmm": "a coupled HMM a class, a chain a modality",
}
_INNER = 5  # folds of stacking
_NAMED = "fits", "folds", "c", "scales", "lam", "states", "missing"
Answer = Callable[["Items", Sequence[str]], np.ndarray]


@dataclass(frozen=True)
class Config(fusion.Config):
    """train: records to fit on; without it, `folds` of the source, each in turn.

    A record's fold is what its number leaves as the rest, as of the task fusion.

    fits: of svm, stacking, mkl, hmm and coupled_hmm.
    c: of SVMs. scales: of kernels' widths, in median distances. lam: of EasyMKL.
    states: of each chain of HMMs of records.
    """

    train: Any = None
    fits: tuple[str, ...] = ("svm", "stacking", "mkl")
    folds: int = 10
    c: float = 1.0
    scales: tuple[float, ...] = (0.5, 1.0, 2.0)
    lam: float = 0.1
    states: int = 4

    def __post_init__(self):
        super().__post_init__()
        self.at_least(folds=2, states=1)
        for name in self.fits:
            if name not in FITS:
                raise ValueError(f"no fit {name!r}{schema.suggest(name, FITS)}")
        if self.numbers or self.noise:
            raise ValueError(
                f"numbers is {self.numbers} and noise {self.noise}: these fits are of "
                "classes, and are not judged on noisy fields; leave both out"
            )


class Items(NamedTuple):
    """Records, and the labelled items in them.

    series: (r, t, d) by name, t being 1 of static fields; masks: bool (r, t).
    label: (r, l); counts: bool (r, l), l being 1 where labels are of records.
    """

    series: dict[str, np.ndarray]
    masks: dict[str, np.ndarray]
    label: np.ndarray
    counts: np.ndarray
    index: np.ndarray

    def of(self, chosen_r: np.ndarray) -> "Items":
        """Some of the records."""
        return jax.tree.map(lambda x: x[chosen_r], self)

    @property
    def steps(self) -> bool:
        """Whether items are steps."""
        return self.label.shape[1] > 1

    @property
    def labels(self) -> np.ndarray:
        """(n,)."""
        return self.label[self.counts]

    def vectors(self, name: str) -> np.ndarray:
        """An item's columns, or all of a record's steps side by side, (n, d)."""
        x_rtd = self.series[name] * self.masks[name][..., None]
        if not self.steps:
            return x_rtd.reshape(len(x_rtd), -1)[self.counts[:, 0]]
        shape = (*self.counts.shape, x_rtd.shape[-1])
        return np.broadcast_to(x_rtd, shape)[self.counts]


class Evaluator(fusion.Judge):
    """Calls no predict function: fields are what is fitted."""

    config_class = Config

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        train = self.config.train
        self.train = None if train is None else self.open(train)

    def check(self, vars_abstract: base.PyTree) -> None:
        """See the base."""
        batch, fits = self.peek(self.source), self.config.fits
        shapes = {name: batch[name].shape for name in self.inputs}
        steps = {k: shape[1] if len(shape) == 3 else 1 for k, shape in shapes.items()}
        alike = len(set(steps.values())) == 1 and min(steps.values()) > 1
        if not alike and {"hmm", "coupled_hmm"} & set(fits):
            raise self.error(
                f"series have {steps} steps, and HMMs take series of one length: "
                "resample them with a source of kind series, or leave hmm out of fits"
            )
        labels = self.labels(batch)[1].shape[1]
        if labels > 1 and "coupled_hmm" in fits:
            raise self.error(
                f"coupled_hmm is of records, and there are {labels} labels in each, "
                "which all chains would share: use hmm"
            )

    def run(self, variables: base.PyTree) -> base.Result:
        """Measures of `fusion` for every fit, with intervals."""
        test, counts = self._items(variables, self.source)
        if self.train is not None:
            train, _ = self._items(variables, self.train)
            splits = [(train, np.ones(len(test.index), bool))]
        else:
            fold_r = test.index % self.config.folds
            splits = [(test.of(fold_r != f), fold_r == f) for f in np.unique(fold_r)]
        record_n = np.nonzero(test.counts)[0]
        cluster_n = self.clusters(test.index)[record_n]
        values, arrays = {}, {"cluster": cluster_n}
        for fit in self.config.fits:
            utility = {
                names: np.zeros(len(record_n)) for names in metrics.subsets(self.inputs)
            }
            for train, chosen_r in splits:
                answer, part = FITS[fit](train, self.config), test.of(chosen_r)
                usual = np.bincount(train.labels.astype(int)).argmax()
                for names, right_n in utility.items():
                    told = answer(part, names) if names else usual
                    right_n[chosen_r[record_n]] = told == part.labels
            rows = metrics.measures(utility, self.inputs, self.config.missing)
            rows = {f"{fit}_{name}": row_n for name, row_n in rows.items()}
            values |= self.measured(rows, cluster_n)
            arrays |= rows
        card = self.card(
            self.counts(cluster_n, counts),
            _DEFINITIONS,
            resampled=f"{self.config.cluster or 'records'}; the fits stay",
            inputs=self.inputs,
            train=None if self.train is None else self.train.fingerprint(),
            config={name: getattr(self.config, name) for name in _NAMED},
        )
        return base.Result(values, card, arrays)

    def _items(self, variables: base.PyTree, source: Any) -> tuple[Items, dict]:
        """All records of a source; UserError where a modality is missing everywhere."""

        def keep(outputs: dict, batch: base.Batch, valid_b: np.ndarray) -> dict:
            kept = {}
            for name in self.inputs:
                x = np.asarray(batch[name])
                x_btd = x if x.ndim == 3 else x[:, None]
                there = batch.get(f"{name}_mask", np.ones(x_btd.shape[:2], bool))
                given = batch.get(f"{name}_present", np.ones(len(x), bool))
                kept[f"x/{name}"] = x_btd[valid_b]
                kept[f"on/{name}"] = (there & given[:, None])[valid_b]
            label, counts = self.labels(batch)
            return kept | {"y": label[valid_b], "counts": counts[valid_b]}

        arrays, counts, _ = self.collect(variables, keep=keep, source=source)
        series, masks = (
            {name: arrays[f"{part}/{name}"] for name in self.inputs}
            for part in ("x", "on")
        )
        for name, mask_rt in masks.items():
            if not mask_rt.any():
                raise self.error(
                    f"none of {len(mask_rt)} records of {source.name} has {name!r}: "
                    "give other records, or leave it out of config.task.inputs"
                )
        label, there = arrays["y"], arrays["counts"]
        return Items(series, masks, label, there, arrays["index"]), counts


def _svm(train: Items, cfg: Config) -> Answer:
    columns = _Columns(train)

    def beside(items: Items, given: Sequence[str]) -> np.ndarray:
        parts = [columns(items, name) * (name in given) for name in columns.names]
        return np.concatenate(parts, 1)

    fitted = linear_svm.fit(beside(train, columns.names), train.labels, c=cfg.c)
    return lambda items, given: linear_svm.predict(*fitted, beside(items, given))


def _stacking(train: Items, cfg: Config) -> Answer:
    """Wolpert 1992: what the second level sees of training items is held out."""
    columns, label_n = _Columns(train), train.labels
    fold_n, classes = np.nonzero(train.counts)[0] % _INNER, np.unique(label_n)

    def fitted(name: str, own_n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return linear_svm.fit(rows[name][own_n], label_n[own_n], c=cfg.c)

    def scored(weights_fc: np.ndarray, found: np.ndarray, x_md: Any) -> np.ndarray:
        """Scores (m, c) of all classes, -1 of those that the fit has not seen."""
        score_mc = np.full((len(x_md), len(classes)), -1.0)
        own_c = np.searchsorted(classes, found)
        score_mc[:, own_c] = x_md @ weights_fc[:-1] + weights_fc[-1]
        return score_mc

    rows = {name: columns(train, name) for name in columns.names}
    held = {name: np.zeros((len(label_n), len(classes))) for name in columns.names}
    for name, fold in itertools.product(columns.names, range(_INNER)):
        out_n = fold_n == fold
        held[name][out_n] = scored(*fitted(name, ~out_n), rows[name][out_n])
    first = {name: fitted(name, fold_n >= 0) for name in columns.names}
    second = linear_svm.fit(np.concatenate(list(held.values()), 1), label_n, c=cfg.c)

    def answer(items: Items, given: Sequence[str]) -> np.ndarray:
        scores = [
            scored(*first[name], columns(items, name))
            if name in given
            else np.tile(held[name].mean(0), (int(items.counts.sum()), 1))
            for name in columns.names
        ]
        return linear_svm.predict(*second, np.concatenate(scores, 1))

    return answer


def _mkl(train: Items, cfg: Config) -> Answer:
    columns, width = _Columns(train), {}
    rows = {name: columns(train, name) for name in columns.names}
    rng = np.random.default_rng(cfg.seed)
    for name, x_nd in rows.items():
        a, b = rng.integers(len(x_nd), size=(2, 2000))
        width[name] = max(np.median(np.linalg.norm(x_nd[a] - x_nd[b], axis=1)), 1e-6)

    def kernels(items: Items, given: Sequence[str]) -> np.ndarray:
        made = []
        for number, (name, scale) in enumerate(pairs):
            if name in given:
                x_md = columns(items, name)
                made.append(cca.rbf(x_md, rows[name], scale * width[name]))
            else:
                made.append(np.tile(usual_rn[number], (int(items.counts.sum()), 1)))
        return np.stack(made)

    pairs = list(itertools.product(columns.names, cfg.scales))
    whole_rnn = kernels(train, columns.names)
    usual_rn = whole_rnn.mean(1)
    machine = easymkl.fit(whole_rnn, train.labels, lam=cfg.lam)
    return lambda items, given: machine.predict(kernels(items, given))


def _hmm(train: Items, cfg: Config, *, coupled: bool = False) -> Answer:
    names, classes = sorted(train.series), np.unique(train.labels)
    chains = tuple((name,) for name in names) if coupled else (tuple(names),)
    if train.steps:
        place_rt = np.searchsorted(classes, train.label) * train.counts
        model = hmm.supervised(
            train.series, train.counts, place_rt, chains=chains, states=len(classes)
        )

        def decoded(items: Items, given: Sequence[str]) -> np.ndarray:
            part = {name: items.series[name] for name in given}
            _, posterior, _ = model.walked(part, items.counts)
            return classes[posterior[items.counts].argmax(1)]

        return decoded
    models = []
    for number in classes:
        own = train.of(train.label[:, 0] == number)
        mask_rt = np.logical_and.reduce([own.masks[name] for name in names])
        models.append(hmm.fit(own.series, mask_rt, chains=chains, states=cfg.states))

    def likeliest(items: Items, given: Sequence[str]) -> np.ndarray:
        part = {name: items.series[name] for name in given}
        mask_rt = np.logical_and.reduce([items.masks[name] for name in given])
        logs = [model.walked(part, mask_rt)[0] for model in models]
        return classes[np.argmax(logs, 0)][items.counts[:, 0]]

    return likeliest


class _Columns:
    """Items' columns of a modality, less the training mean, of length about 1."""

    def __init__(self, train: Items):
        self.names = sorted(train.series)
        rows = {name: train.vectors(name) for name in self.names}
        self.mean = {name: x_nd.mean(0) for name, x_nd in rows.items()}
        self.size = {
            name: max(x_nd.std(), 1e-12) * x_nd.shape[1] ** 0.5
            for name, x_nd in rows.items()
        }

    def __call__(self, items: Items, name: str) -> np.ndarray:
        return (items.vectors(name) - self.mean[name]) / self.size[name]


FITS: dict[str, Callable[..., Answer]] = {
    "svm": _svm,
    "stacking": _stacking,
    "mkl": _mkl,
    "hmm": _hmm,
    "coupled_hmm": lambda train, cfg: _hmm(train, cfg, coupled=True),
}
