"""How good fused answers are, and what each modality gives to them.

All sets of modalities are given in turn, so that ablations, Shapley values and what is
left where modalities are missing come of the same answers. Intervals resample clusters,
such as videos or speakers, whole: their items are not independent.

Legend: r records, n items (records, or their labelled steps), s members of the model.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmjax.evaluators import base
from mmjax.evaluators.common import forward
from mmjax.metrics import bootstrap
from mmjax.metrics import fusion as metrics

_DEFINITIONS = {
    "all": "share of right classes, or minus the mean absolute error, all given",
    "none": "the same, nothing given",
    "only_NAME": "one modality given",
    "without_NAME": "all but one given",
    "shapley_NAME": "Shapley value of the modality in `all` - `none`",
    "missing_P": "each modality missing with probability P, one left at least",
    "noise_NAME_S": "all given, NAME with Gaussian noise of standard deviation S",
    "members_sd": "standard deviation of `all` over members of the model",
}


@dataclass(frozen=True)
class Config(base.EvalConfig):
    """target: the field of labels; numbers: whether it has numbers, not classes.

    cluster: a value of records; those that share it are drawn together. "" draws
      records.
    missing: shares of modalities that are missing.
    noise: standard deviations of noise, in the units that fields have in batches.
    """

    target: str = "label"
    numbers: bool = False
    cluster: str = ""
    missing: tuple[float, ...] = (0.25, 0.5, 0.75)
    noise: tuple[float, ...] = ()

    def __post_init__(self):
        super().__post_init__()
        if not all(0 <= rate < 1 for rate in self.missing):
            raise ValueError(f"missing is {self.missing}: use shares from 0 to below 1")
        if not all(std > 0 for std in self.noise):
            raise ValueError(f"noise is {self.noise}: use more than 0")


class Judge(base.Evaluator):
    """What evaluators of fusion share: inputs, labels, clusters, intervals."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        target, reads = self.config.target, [n.rstrip("?") for n in self.env.reads]
        if target not in reads:
            raise self.error(
                f"target is {target!r}, and the task reads {', '.join(reads)}"
            )
        # The fields after the target say where a record stands, not what it shows.
        self.inputs = reads[: reads.index(target)]
        self.numbered = reads[reads.index(target) + 1 :]
        metrics.subsets(self.inputs)  # which refuses too many

    @property
    def names(self) -> tuple[str, ...]:
        """See the base."""
        return self.env.reads

    def labels(self, batch: base.Batch) -> tuple[np.ndarray, np.ndarray]:
        """Labels (b, t) or (b, t, k), and which of them count, bool (b, t)."""
        target = self.config.target
        label = np.asarray(batch[target])
        mask = batch.get(f"{target}_mask")
        if mask is None:
            label, mask = label[:, None], np.ones((len(label), 1), bool)
        if not self.config.numbers:
            label = np.round(label[..., 0] if label.ndim == 3 else label)
            mask = mask & (label >= 0)
        return label, np.asarray(mask)

    def clusters(self, index_r: np.ndarray) -> np.ndarray:
        """The cluster of each record, numbers from 0, (r,)."""
        name, values = self.config.cluster, index_r
        if name:
            found = [self.source[int(i)] for i in index_r]
            if lacking := [r for r in found if name not in r]:
                has = ", ".join(sorted(lacking[0]))
                raise self.error(f"cluster is {name!r}, and records have {has}")
            values = [str(record[name]) for record in found]
        return np.unique(values, return_inverse=True)[1]

    def measured(
        self, rows: Mapping[str, np.ndarray], cluster_n: np.ndarray
    ) -> dict[str, float]:
        """Means over items with intervals over clusters."""
        rows_kn = np.stack(list(rows.values())).astype(np.float64)
        count = int(cluster_n.max()) + 1
        sums_kc = np.stack([np.bincount(cluster_n, row_n, count) for row_n in rows_kn])
        size_c = np.bincount(cluster_n, minlength=count)

        def means(weight_c: np.ndarray) -> np.ndarray:
            return sums_kc @ weight_c / (size_c @ weight_c)

        return bootstrap.with_interval(list(rows), means, count, **self.draw)

    def counts(self, cluster_n: np.ndarray, counts: Mapping[str, int]) -> dict:
        """For the card."""
        clusters = int(cluster_n.max()) + 1
        return {**counts, "items": len(cluster_n), "clusters": clusters}


class Evaluator(Judge):
    """Calls predict "answers": {fields, NAME_present} to (b, s, t) or (b, s, t, k)."""

    config_class = Config
    call = "answers"

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        for name in self.numbered:  # folds are of the training records' numbers
            records = self.env.fields[name].records
            if records != len(self.source):
                raise self.error(
                    f"source {self.source.name!r} has {len(self.source)} records, and "
                    f"the run was trained in folds of {records}: give its training "
                    "source without limit, or train with folds=1"
                )

    def check(self, vars_abstract: base.PyTree) -> None:
        """See the base."""
        batch = self.peek(self.source)
        given = self._given(batch, self.inputs)
        args = self.env, self.call, vars_abstract, forward.abstract(given), self.where
        shape = getattr(forward.output_shape(*args), "shape", ())
        label, _ = self.labels(batch)
        if (shape[:1] + shape[2:]) != label.shape or len(shape) < 3:
            raise self.error(
                f"{self.call!r} gives {shape}, and the labels are {label.shape}: it "
                "must give (rows, members, ...) of them"
            )

    def _given(self, batch: base.Batch, names: Any) -> dict[str, np.ndarray]:
        """The batch with these fields alone; the others are marked as absent."""
        given = forward.inputs(batch, self.call, None, self.where)
        for name in self.inputs:
            there = given.get(f"{name}_present", np.ones(len(batch["_mask"]), bool))
            given[f"{name}_present"] = there & (name in names)
        return given

    def run(self, variables: base.PyTree) -> base.Result:
        """The values of `_DEFINITIONS`, with intervals.

        `arrays` holds `cluster` (n,) and by measure what each item adds, (n,).
        """
        ways: dict[str, Callable] = {}
        for names in metrics.subsets(self.inputs):
            ways["+".join(names)] = lambda batch, names=names: self._given(batch, names)
        for number, name in enumerate(self.inputs):
            for std in self.config.noise:
                ways[f"noise_{name}_{std:g}"] = (
                    lambda batch, name=name, std=std, number=number: self._given(
                        self._noisy(batch, name, std, number), self.inputs
                    )
                )

        def keep(outputs: dict, batch: base.Batch, valid_b: np.ndarray) -> dict:
            label, mask_bt = self.labels(batch)
            mask_bt = mask_bt & valid_b[:, None]
            record_n = np.broadcast_to(batch["_index"][:, None], mask_bt.shape)[mask_bt]
            kept = {"record": record_n}
            for way, change in ways.items():
                answer = np.asarray(
                    self.env.predict[self.call](variables, change(batch))
                )
                by_item = np.moveaxis(answer, 1, 2)[mask_bt]
                kept[way] = self._worth(by_item, label[mask_bt][:, None])
            return kept

        arrays, counts, _ = self.collect(variables, keep=keep)
        record_n = arrays["record"]
        ids_r, own_n = np.unique(record_n, return_inverse=True)
        cluster_n = self.clusters(ids_r)[own_n]
        utility = {
            names: arrays["+".join(names)].mean(1)
            for names in metrics.subsets(self.inputs)
        }
        rows = metrics.measures(utility, self.inputs, self.config.missing)
        rows |= {k: arrays[k].mean(1) for k in ways if k.startswith("noise_")}
        values = self.measured(rows, cluster_n)
        values["members_sd"] = float(arrays["+".join(self.inputs)].mean(0).std())
        card = self.card(
            self.counts(cluster_n, counts),
            _DEFINITIONS,
            resampled=self.config.cluster or "records",
            inputs=self.inputs,
            config={k: getattr(self.config, k) for k in ("missing", "noise")},
        )
        return base.Result(values, card, {"cluster": cluster_n, **rows})

    def _noisy(
        self, batch: base.Batch, name: str, std: float, number: int
    ) -> dict[str, np.ndarray]:
        """The batch with noise on a field; a record's own number decides its draw."""
        shape, key = batch[name].shape[1:], (self.config.seed, number)
        draws = [
            np.random.default_rng([*key, int(i) + 1]).normal(size=shape)
            for i in batch["_index"]  # -1 of rows that fill up
        ]
        return {**batch, name: np.float32(batch[name] + std * np.stack(draws))}

    def _worth(self, answer_ns: np.ndarray, label_n1: np.ndarray) -> np.ndarray:
        """float (n, s): 1 of a right class, or minus the mean absolute error."""
        if self.config.numbers:
            return -np.abs(answer_ns - label_n1).mean(-1)
        return (answer_ns == label_n1).astype(np.float64)
