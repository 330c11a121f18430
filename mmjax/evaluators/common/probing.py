"""Features and labels of a source's images, as the probes want them.

Legend: b batch, n examples, d features.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from mmjax.errors import UserError
from mmjax.evaluators import base, zero_shot
from mmjax.evaluators.common import forward, result_card
from mmjax.evaluators.probe import logistic, search


class Labelled(NamedTuple):
    """features_nd float32, label_n and index_n (place in the source) int; broken."""

    features_nd: np.ndarray
    label_n: np.ndarray
    index_n: np.ndarray
    broken: int

    @property
    def counts(self) -> dict[str, int]:
        """For the card."""
        examples, features = self.features_nd.shape
        return {"examples": examples, "broken": self.broken, "features": features}


@dataclass(frozen=True)
class ProbeConfig(base.EvalConfig):
    """source: the test split. train, val: specs of the other two; val may be a share
      between 0 and 1 of every class of train, taken out of it.

    features: the predict function whose rows are classified: `features` are those
      before the projection to the joint space, `projected` those after it (CLIP's own
      example), `embed_image` the latter at length one.
    l2: fixes the weight lambda of the L2 penalty (scikit-learn's 1 / C), which
      otherwise val chooses.
    iterations: of L-BFGS, at most.
    """

    train: Any = None
    val: Any = None
    features: str = "features"
    l2: float | None = None
    iterations: int = logistic.ITERATIONS

    def __post_init__(self):
        super().__post_init__()
        self.at_least(iterations=1)
        if self.l2 is not None and not self.l2 > 0:
            raise ValueError(f"l2 must be positive, got {self.l2}")
        if self.train is None:
            raise ValueError("'train' is missing; give the training split's spec")
        if self.val is None and self.l2 is None:
            raise ValueError(
                "'val' is missing, by which l2 is chosen: give the validation split's "
                "spec, or a share of train such as 0.2, or fix l2"
            )
        if isinstance(self.val, float) and not 0 < self.val < 1:
            raise ValueError(f"val {self.val} must lie between 0 and 1")


class Probing(base.Evaluator):
    """What evaluators share that fit a probe on train, by val, and judge it on test.

    Subclasses have a `config_class` that is a ProbeConfig.
    """

    labelled = True

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.calls = {self.config.features: forward.IMAGE}
        specs = {"train": self.config.train, "val": self.config.val}
        self.views = {"test": self.source}
        for split, spec in specs.items():
            if spec is not None and not isinstance(spec, float):
                self.views[split] = self.open(spec)
        for split, view in self.views.items():
            place = f"{self.where}.{'source' if split == 'test' else split}"
            names = zero_shot.checked_names((), view, place)
            self.class_names = self.class_names or names
            if names != self.class_names:
                raise self.error(_difference(split, names, self.class_names))

    def check(self, vars_abstract: base.PyTree) -> None:
        """See the base."""
        for view in self.views.values():
            self.check_rows(self.output_shapes(vars_abstract, view))

    def splits(self, variables: base.PyTree) -> dict[str, Labelled]:
        """Features and labels of test, train and val (where there is one).

        A `val` that is a share is taken out of train.
        """
        name, share = self.config.features, self.config.val
        splits = {}
        for split, view in self.views.items():
            arrays, counts, _ = self.collect(variables, source=view)
            rows = arrays[name], arrays["label"], arrays["index"]
            splits[split] = Labelled(*rows, counts["broken"])
        if isinstance(share, float):
            train = splits["train"]
            taken_n = held_out(train.label_n, share, seed=self.config.seed)
            if not taken_n.any():
                raise UserError(
                    f"{self.where}.val: a share of {share} of {len(taken_n)} training "
                    "images is none of any class: give a larger share"
                )
            for split, keep_n in (("train", ~taken_n), ("val", taken_n)):
                arrays = (array[keep_n] for array in train[:3])
                splits[split] = Labelled(*arrays, train.broken)
        return splits

    def fit(
        self, problem: logistic.Problem, splits: Mapping[str, Labelled], **how: Any
    ) -> tuple[logistic.Probe, search.Chosen | None]:
        """The classifier of the config's l2, or of the best on val and what was tried.

        how: keywords of search.choose.
        """
        cfg = self.config
        if cfg.l2 is not None:
            return problem.path([cfg.l2], iterations=cfg.iterations)[0], None
        val, how = splits["val"], how | {"iterations": cfg.iterations}
        chosen = search.choose(problem, val.features_nd, val.label_n, **how)
        return chosen.probe, chosen

    def probe_card(self, splits: Mapping[str, Labelled]) -> dict[str, Any]:
        """What probes share on their cards; splits other than test."""
        rest = {
            split: {
                "name": view.name,
                "fingerprint": view.fingerprint(),
                "records": len(view),
                "broken": splits[split].broken,
            }
            for split, view in self.views.items()
            if split != "test"
        }
        cfg = self.config
        if isinstance(cfg.val, float):
            rest["val"] = {"share_of_train": cfg.val, "seed": cfg.seed}
        return {
            "class_names": result_card.listing(self.class_names),
            "features": cfg.features,
            "iterations": cfg.iterations,
            "splits": rest,
        }


def _difference(split: str, own: Sequence[str], names: Sequence[str]) -> str:
    if len(own) != len(names):
        text = f"{len(own)} classes in {split} and {len(names)} in the test source"
    else:
        k = next(i for i in range(len(own)) if own[i] != names[i])
        text = f"label {k} is {own[k]!r} in {split} and {names[k]!r} in the test source"
    return f"{text}: give splits of one data set, with the same class names"


def held_out(label_n: np.ndarray, share: float, *, seed: int) -> np.ndarray:
    """bool (n,): that share of every class, rounded down, the same for a seed."""
    taken = np.zeros(len(label_n), bool)
    for label in np.unique(label_n):
        own = np.random.default_rng([seed, int(label)]).permutation(
            np.flatnonzero(label_n == label)
        )
        taken[own[: int(share * len(own))]] = True
    return taken
