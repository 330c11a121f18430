"""Features and labels of a source's images, as the probes want them.

Legend: b batch, n examples, d features.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mmjax import schema
from mmjax.errors import UserError
from mmjax.evaluators import zero_shot
from mmjax.evaluators.base import Env, EvalConfig, PyTree
from mmjax.evaluators.common import forward
from mmjax.evaluators.common.subset import View, open_view


class Labelled(NamedTuple):
    """features_nd float32, label_n and index_n (place in the source) int; broken."""

    features_nd: np.ndarray
    label_n: np.ndarray
    index_n: np.ndarray
    broken: int


class Probing:
    """What evaluators share that fit a probe on train, by val, and judge it on test.

    Subclasses have `config_class`, an EvalConfig with train, val, features, strength.
    """

    config_class: type[EvalConfig]

    def __init__(self, cfg: Mapping[str, Any], env: Env, where: str = "probe"):
        self.config = schema.from_mapping(self.config_class, cfg, where)
        self._env, self._where = env, where
        self._size = self.config.batch_size or env.batch_size
        _need_splits(self.config, where)
        specs = {"test": self.config.source}
        specs |= {"train": self.config.train, "val": self.config.val}
        self._views = open_splits(specs, self.config.limit, env, where)
        self.class_names = self._views["test"].class_names

    def check(self, vars_abstract: PyTree) -> None:
        """See Evaluator.check of the base."""
        name, size = self.config.features, self._size
        for split, view in self._views.items():
            place = f"{self._where}.{split}"
            check(self._env, view, name, size, vars_abstract, place)

    def splits(self, variables: PyTree) -> dict[str, Labelled]:
        """Features and labels of train, val (where there is one) and test."""
        return extract_all(
            self._env, variables, self._views, self.config, self._size, self._where
        )


def _need_splits(config: Any, where: str) -> None:
    """UserError where a split that the protocol needs is not given."""
    if config.train is None:
        raise UserError(f"{where}: 'train' is missing; give the training split's spec")
    if config.val is None and config.strength is None:
        raise UserError(
            f"{where}: 'val' is missing, by which the strength is chosen: give the "
            "validation split's spec, or a share of train such as 0.2, or fix strength"
        )
    if isinstance(config.val, float) and not 0 < config.val < 1:
        raise UserError(f"{where}: val {config.val} must lie between 0 and 1")


def open_splits(
    specs: Mapping[str, Any], limit: int | None, env: Env, where: str
) -> dict[str, View]:
    """Views of the splits that are given; `limit` is the test split's.

    Raises:
      UserError: no classes, two of one name, or splits whose class names differ: a
        label would not mean the same in both.
    """
    limits = {"test": limit}
    views = {
        split: open_view(spec, limits.get(split), env.open_source)
        for split, spec in specs.items()
        if spec is not None and not isinstance(spec, float)
    }
    names = zero_shot.checked_names((), views["test"], f"{where}.source")
    for split, view in views.items():
        if split == "test":
            continue
        own = zero_shot.checked_names((), view, f"{where}.{split}")
        if own != names:
            raise UserError(f"{where}: {_difference(split, own, names)}")
    return views


def _difference(split: str, own: Sequence[str], names: Sequence[str]) -> str:
    if len(own) != len(names):
        said = f"{len(own)} classes in {split} and {len(names)} in the test source"
    else:
        k = next(i for i in range(len(own)) if own[i] != names[i])
        said = f"label {k} is {own[k]!r} in {split} and {names[k]!r} in the test source"
    return f"{said}: give splits of one data set, with the same class names"


def check(
    env: Env, view: View, name: str, size: int, vars_abstract: PyTree, where: str
) -> None:
    """Raises UserError unless records have labels and `name` gives rows (size, d)."""
    batch = forward.peek(env, view, None, size, where)
    if "label" not in batch:
        raise UserError(f"{where}: records of {view.name!r} carry no label")
    images = forward.abstract(forward.image_batch(batch))
    got = forward.output_shape(env, name, vars_abstract, images, where)
    shape = getattr(got, "shape", None)
    if shape is None or len(shape) != 2 or shape[0] != size:
        raise UserError(f"{where}: {name!r} must give ({size}, d), gives {shape}")


def extract(
    env: Env, variables: PyTree, view: View, name: str, size: int, where: str
) -> Labelled:
    """All examples of a split through predict function `name`.

    Raises:
      UserError: every record is broken, a feature is not finite, or a label has no
        class name.
    """
    features, labels, index, broken = [], [], [], 0
    batches = env.eval_batches(view, None, env.image_cfg, batch_size=size)
    for batch in batches:
        valid_b = forward.valid_rows(batch)
        broken += forward.broken_rows(batch)
        rows_bd = env.predict[name](variables, forward.image_batch(batch))
        features.append(np.asarray(rows_bd, np.float32)[valid_b])
        labels.append(np.asarray(batch["label"])[valid_b])
        index.append(np.asarray(batch["_index"])[valid_b])
    found = Labelled(*map(np.concatenate, (features, labels, index)), broken)
    if not found.label_n.size:
        raise UserError(
            f"{where}: {broken} records of {view.name!r}, all of them broken"
        )
    bad = int((~np.isfinite(found.features_nd)).any(1).sum())
    if bad:
        raise UserError(
            f"{where}: {name} gave NaN or Inf in {bad} of {len(found.label_n)} rows; "
            "the weights are broken: go back to an earlier checkpoint"
        )
    count = len(view.class_names)
    wrong = np.flatnonzero((found.label_n < 0) | (found.label_n >= count))
    if wrong.size:
        at, label = int(found.index_n[wrong[0]]), int(found.label_n[wrong[0]])
        raise UserError(
            f"{where}: record {at} of {view.name!r} has label {label}, but there are "
            f"{count} class names (0 to {count - 1})"
        )
    return found


def extract_all(
    env: Env,
    variables: PyTree,
    views: Mapping[str, View],
    config: Any,
    size: int,
    where: str,
) -> dict[str, Labelled]:
    """`extract` of every split; a `val` that is a share is taken out of train."""
    name = config.features
    found = {s: extract(env, variables, v, name, size, where) for s, v in views.items()}
    if isinstance(config.val, float):
        train = found["train"]
        taken = held_out(train.label_n, config.val, seed=config.seed)
        if not taken.any():
            raise UserError(
                f"{where}.val: a share of {config.val} of {len(taken)} training "
                "images is none of any class: give a larger share"
            )
        for split, rows in (("train", ~taken), ("val", taken)):
            arrays = (array[rows] for array in train[:3])
            found[split] = Labelled(*arrays, train.broken)
    return found


def held_out(label_n: np.ndarray, share: float, *, seed: int) -> np.ndarray:
    """bool (n,): that share of every class, rounded down, the same for a seed."""
    taken = np.zeros(len(label_n), bool)
    for label in np.unique(label_n):
        own = np.random.default_rng([seed, int(label)]).permutation(
            np.flatnonzero(label_n == label)
        )
        taken[own[: int(share * len(own))]] = True
    return taken


def splits_card(
    views: Mapping[str, View], found: Mapping[str, Labelled], config: Any
) -> dict[str, Any]:
    """The splits other than test, for the card."""
    card = {
        split: {
            "name": view.name,
            "fingerprint": view.fingerprint(),
            "records": len(view),
            "broken": found[split].broken,
        }
        for split, view in views.items()
        if split != "test"
    }
    if isinstance(config.val, float):
        card["val"] = {"share_of_train": config.val, "seed": config.seed}
    return card
