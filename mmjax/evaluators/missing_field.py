"""Classes from the features of records with all their fields, and with one missing.

Srivastava and Salakhutdinov 2012, section 4: a probe is fitted on the features of whole
records. Test records then lack a field, which the model infers, or which is zeros.

Legend: n test records, d features, c classes.
"""

from dataclasses import dataclass

import numpy as np

from mmjax.evaluators import base
from mmjax.evaluators.common import forward, probing
from mmjax.evaluators.probe import logistic

WAYS = ("whole", "inferred", "zeros")
_DEFINITIONS = {
    "whole": "mean average precision over classes that occur, all fields given",
    "inferred": "the same, the field left out and the model inferring it",
    "zeros": "the same, zeros in the field's place",
    "gain": "inferred - zeros, of the same resamples",
}


@dataclass(frozen=True)
class Config(probing.ProbeConfig):
    """field: the field that test records lack.

    Other keys are those of `linear_probe`; the probe is fitted on train alone.
    """

    field: str = ""


class Evaluator(probing.Probing):
    """Calls predict "features": {fields} to (b, d), with one field fewer as well."""

    config_class = Config

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.calls = {self.config.features: None}
        fields = [name.rstrip("?") for name in self.env.reads]
        if self.config.field not in fields or len(fields) < 2:
            raise self.error(
                f"field is {self.config.field!r}: name one of two or more fields of "
                f"the task, {', '.join(fields)}"
            )

    def run(self, variables: base.PyTree) -> base.Result:
        """The values of `_DEFINITIONS` with intervals, and those of top1 by way.

        `arrays` holds index and label (n,) and each way's prediction (n,).
        """
        name, missing = self.config.features, self.config.field
        splits = self.splits(variables)
        problem = logistic.Problem(splits["train"].features_nd, splits["train"].label_n)
        probe, _ = self.fit(problem, splits)

        def keep(outputs, batch, valid_b):
            given = forward.inputs(batch, name, None, self.where)
            gone = forward.of_fields(given, [missing])
            part = {k: v for k, v in given.items() if k not in gone}
            zeros = {k: np.zeros_like(v) for k, v in gone.items()}
            call = self.env.predict[name]
            every = {
                "whole": outputs[name],
                "inferred": call(variables, part),
                "zeros": call(variables, part | zeros),
            }
            return {way: np.asarray(x, np.float32)[valid_b] for way, x in every.items()}

        arrays, counts, _ = self.collect(variables, keep=keep)
        label_n = arrays["label"]
        scores = {way: probe.scores(arrays[way]) for way in WAYS}
        hits_n = {way: probe.predict(arrays[way]) == label_n for way in WAYS}

        def statistics(weight_n: np.ndarray) -> np.ndarray:
            maps = [
                mean_average_precision(scores[w], label_n, probe.classes_c, weight_n)
                for w in WAYS
            ]
            top1 = [np.average(hits_n[way], weights=weight_n) for way in WAYS]
            return np.array([*maps, maps[1] - maps[2], *top1])

        names = [*WAYS, "gain", *(f"{way}_top1" for way in WAYS)]
        values = self.intervals(names, statistics, len(label_n))
        metrics = _DEFINITIONS | {f"{way}_top1": "label is the best" for way in WAYS}
        card = self.card(
            counts,
            metrics,
            resampled="test examples; the fit stays",
            field=missing,
            l2=probe.l2,
            **self.probe_card(splits),
        )
        kept = {way: probe.predict(arrays[way]) for way in WAYS}
        return base.Result(
            values, card, {k: arrays[k] for k in ("index", "label")} | kept
        )


def mean_average_precision(
    scores_nc: np.ndarray,
    label_n: np.ndarray,
    classes_c: np.ndarray,
    weight_n: np.ndarray,
) -> float:
    """Average precision of each class' scores, over the classes that occur.

    weight_n: how often each row counts.
    """
    found = []
    for column, number in enumerate(classes_c):
        order_n = np.argsort(-scores_nc[:, column], kind="stable")
        weights_n = weight_n[order_n]
        hit_n = weights_n * (label_n[order_n] == number)
        if hit_n.sum() > 0:
            precision_n = np.cumsum(hit_n) / np.maximum(np.cumsum(weights_n), 1e-12)
            found.append((hit_n * precision_n).sum() / hit_n.sum())
    return float(np.mean(found)) if found else float("nan")
