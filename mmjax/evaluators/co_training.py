"""Classes from few labels by co-training of two views (Blum and Mitchell 1998).

Beside it stand classifiers of the same labels without it: of each view, and of both.

Legend: n rows of train, m test rows, c classes, r draws of labels.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from mmjax.evaluators import base
from mmjax.evaluators.common import views
from mmjax.metrics import co_training

_DEFINITIONS = {
    "NAME": "share of right classes, that view's classifier on the labelled rows alone",
    "both": "the same of the product of both views' posteriors",
    "co_NAME": "of that view's classifier after co-training",
    "co_both": "of the product of both after co-training",
    "gain": "co_both less the better of the two views, of the same draw of labels",
    "co_gain": "co_both - both",
}
_NAMED = ("features", "names", "labels", "draws", "rounds", "pool", "grow", "shrink")


@dataclass(frozen=True)
class Config(base.EvalConfig):
    """train: rows, of which few are labelled in turn; source: the test rows.

    features: `codes` of the model, or its inputs, `views`.
    names: the two views; empty takes the first two.
    labels: labelled rows, as many of every class. draws: of them, a seed each.
    rounds, pool, grow, shrink: see mmjax.metrics.co_training.
    """

    train: Any = None
    features: Literal["codes", "views"] = "views"
    names: tuple[str, ...] = ()
    labels: int = 50
    draws: int = 20
    rounds: int = 30
    pool: int = 150
    grow: int = 1
    shrink: float = 0.5

    def __post_init__(self):
        super().__post_init__()
        self.at_least(labels=1, draws=1, rounds=1, pool=1, grow=1)
        if self.train is None:
            raise ValueError("'train' is missing; give the training rows' spec")
        if len(self.names) not in (0, 2):
            raise ValueError(f"names is {self.names}: name two views, or none")


class Evaluator(views.Evaluator):
    """Calls the predict function `features`: rows by view; records have classes."""

    config_class = Config

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.calls = {self.config.features: None}
        self.train = self.open(self.config.train)
        self.require_classes()
        if self.config.labels % len(self.class_names):
            raise self.error(
                f"labels is {self.config.labels} of {len(self.class_names)} classes: "
                "use a multiple, as many of every class"
            )

    def run(self, variables: base.PyTree) -> base.Result:
        """The values of `_DEFINITIONS`; intervals are over draws of the labels.

        `arrays` holds each of them by draw (r,).
        """
        cfg = self.config
        test = self.rows(variables, cfg.features)
        train = self.rows(variables, cfg.features, self.train)
        names = cfg.names or tuple(test.views)[:2]
        sides = [self.view(part, name) for part in (train, test) for name in names]
        for i in range(2):  # columns of one scale, by the training rows
            spread = sides[i].std(0)
            scale = np.where(spread > 0, spread, 1.0)
            mean = sides[i].mean(0)
            sides[i], sides[i + 2] = ((sides[k] - mean) / scale for k in (i, i + 2))
        draws = [self._draw(names, sides, train, test, i) for i in range(cfg.draws)]
        arrays = {key: np.array([draw[key] for draw in draws]) for key in draws[0]}
        stacked = np.stack(list(arrays.values()))
        values = self.intervals(
            list(arrays), lambda w: stacked @ w / w.sum(), cfg.draws
        )
        card = self.card(
            test.counts,
            _DEFINITIONS,
            resampled="draws of the labelled rows; the test rows stay",
            fitted_on={"rows": len(self.train), "data": self.train.fingerprint()},
            config={k: getattr(cfg, k) for k in _NAMED},
        )
        return base.Result(values, card, arrays)

    def _draw(
        self,
        names: tuple[str, ...],
        sides: list[np.ndarray],
        train: views.Rows,
        test: views.Rows,
        number: int,
    ) -> dict[str, float]:
        cfg, classes = self.config, len(self.class_names)
        rng = np.random.default_rng([cfg.seed, number])
        each = cfg.labels // classes
        known_n = np.zeros(len(train.label), bool)
        for c in range(classes):
            rows = rng.permutation(np.flatnonzero(train.label == c))
            if len(rows) < each:
                raise self.error(
                    f"class {self.class_names[c]!r} has {len(rows)} training rows, and "
                    f"{each} of each are labelled: use labels={len(rows) * classes}"
                )
            known_n[rows[:each]] = True
        how = {"shrink": cfg.shrink}
        alone = [
            co_training.fit(x[known_n], train.label[known_n], classes, **how)
            for x in sides[:2]
        ]
        growth = {key: getattr(cfg, key) for key in ("rounds", "pool", "grow")}
        together = co_training.co_train(
            sides[:2], train.label, known_n, classes, seed=number, **growth, **how
        )
        out = {}
        for start, models in (("", alone), ("co_", together)):
            logs = [
                model.log_posterior(x)
                for model, x in zip(models, sides[2:], strict=True)
            ]
            for name, log_mc in zip((*names, "both"), (*logs, sum(logs)), strict=True):
                out[start + name] = float((log_mc.argmax(1) == test.label).mean())
        out["gain"] = out["co_both"] - max(out[name] for name in names)
        out["co_gain"] = out["co_both"] - out["both"]
        return out
