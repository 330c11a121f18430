"""Zero-shot classification by the similarity of an image to sentences about classes.

Radford et al. 2021, sections 3.1.2 and 3.1.4. Legend: b batch, c classes, d embedding.
"""

import collections
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmjax import schema
from mmjax.data import prompts
from mmjax.errors import UserError
from mmjax.evaluators.base import Env, EvalConfig, PyTree, Result
from mmjax.evaluators.common import forward, result_card
from mmjax.evaluators.common.subset import open_view
from mmjax.metrics import bootstrap, ranking

TOP = (1, 5)


@dataclass(frozen=True)
class Config(EvalConfig):
    """templates: what prompts.load takes: a set's name, a file, or sentences with {}.

    class_names: names in place of the source's own, one per label, or a .txt or
    .json file of them; empty takes the source's.

    repeated_names: whether two labels may have one name, as two pairs of CLIP's 1,000
    ImageNet names do. They tie, and a tie is an error: neither is ever right.
    """

    templates: str | tuple[str, ...] = "photo"
    class_names: str | tuple[str, ...] = ()
    repeated_names: bool = False


class Evaluator:
    """Calls predict "embed_image" and "embed_text"; the source needs labels."""

    config_class: type[Config] = Config

    def __init__(self, cfg: Mapping[str, Any], env: Env, where: str = "zero_shot"):
        self.config = schema.from_mapping(self.config_class, cfg, where)
        self._env, self._where = env, where
        self._size = self.config.batch_size or env.batch_size
        self._source = open_view(self.config.source, self.config.limit, env.open_source)
        self.templates = prompts.load(self.config.templates)
        given = self.config.class_names
        names = prompts.read_list(given) if isinstance(given, str) else given
        self.class_names = checked_names(
            names, self._source, where, repeated=self.config.repeated_names
        )
        sentences = prompts.fill(self.templates, self.class_names)
        self._encoded = forward.encode(env, sentences, where)

    def check(self, vars_abstract: PyTree) -> None:
        """See Evaluator.check of the base."""
        batch = forward.peek(self._env, self._source, None, self._size, self._where)
        if "label" not in batch:
            name = self._source.name
            raise UserError(f"{self._where}: records of {name!r} carry no label")
        forward.check_pair(self._env, vars_abstract, batch, self._size, self._where)

    def run(self, variables: PyTree) -> Result:
        """top1, top5 (where there are more than 5 classes), mean_per_class, intervals.

        `arrays` holds, per example: index, label, prediction and rank of the label.
        """
        classes_cd = self.class_embeddings(variables)
        arrays, broken = self.rank_images(variables, classes_cd, self._source)
        label_n, rank_n = arrays["label"], arrays["rank"]
        if not label_n.size:
            raise UserError(f"{self._where}: {broken} records, all of them broken")
        tops = [k for k in TOP if k == 1 or k < len(self.class_names)]
        hits_kn = np.stack([rank_n < k for k in tops])

        def accuracies(weight_n):
            per_top = hits_kn @ weight_n / weight_n.sum()
            return np.append(per_top, mean_per_class(hits_kn[0], label_n, weight_n))

        names = [*(f"top{k}" for k in tops), "mean_per_class"]
        draw = {"resamples": self.config.resamples, "seed": self.config.seed}
        values = bootstrap.with_interval(names, accuracies, label_n.size, **draw)
        counts = {
            "examples": int(label_n.size),
            "broken": broken,
            "classes_present": len(np.unique(label_n)),
            "prompts_fill_context": int(self._encoded["tokens_mask"].all(1).sum()),
            "classes_alike": self._alike(),
        }
        return Result(values, self._card(counts, tops, draw), arrays)

    def class_embeddings(self, variables: PyTree) -> np.ndarray:
        """(c, d) unit rows: each prompt's embedding at length one, their mean, again.

        The ensemble is one of embeddings and not of probabilities, as in the paper:
        a classifier of many prompts costs what one of a single prompt does.
        """
        count, total_cd, done = len(self.templates), None, 0
        parts = forward.embed_texts(
            self._env, variables, self._encoded, self._size, self._where
        )
        for rows_bd in parts:
            if total_cd is None:
                total_cd = np.zeros((len(self.class_names), rows_bd.shape[1]))
            owner_b = np.arange(done, done + len(rows_bd)) // count
            np.add.at(total_cd, owner_b, rows_bd)
            done += len(rows_bd)
        return forward.unit(total_cd / count, "embed_text", self._where)

    def rank_images(
        self, variables: PyTree, classes_cd: np.ndarray, source: Any
    ) -> tuple[dict[str, np.ndarray], int]:
        """The arrays of `run` for the records of a source, and how many are broken."""
        env, broken = self._env, 0
        parts = collections.defaultdict(list)
        batches = env.eval_batches(source, None, env.image_cfg, batch_size=self._size)
        for batch in batches:
            valid_b = forward.valid_rows(batch)
            broken += forward.broken_rows(batch)
            images = forward.image_batch(batch)
            rows_bd = np.asarray(env.predict["embed_image"](variables, images))[valid_b]
            rows_bd = forward.unit(rows_bd, "embed_image", self._where)
            label_b = np.asarray(batch["label"])[valid_b]
            index_b = np.asarray(batch["_index"])[valid_b]
            self._check_labels(label_b, index_b)
            order_b = np.arange(len(label_b))
            parts["index"].append(index_b)
            parts["label"].append(label_b)
            parts["prediction"].append((rows_bd @ classes_cd.T).argmax(1))
            parts["rank"].append(ranking.ranks(rows_bd, classes_cd, order_b, label_b))
        return {name: np.concatenate(rows) for name, rows in parts.items()}, broken

    def _check_labels(self, label_b: np.ndarray, index_b: np.ndarray) -> None:
        """Raises UserError where a label has no class name."""
        count = len(self.class_names)
        wrong = np.flatnonzero((label_b < 0) | (label_b >= count))
        if wrong.size:
            label, index = int(label_b[wrong[0]]), int(index_b[wrong[0]])
            raise UserError(
                f"{self._where}: record {index} of {self._source.name!r} has label "
                f"{label}, but there are {count} class names (0 to {count - 1}); "
                "-1 means a record without a class: choose a source of labelled ones"
            )

    def _alike(self) -> int:
        """Classes whose prompts read the same as another's once they are tokens."""
        shape = len(self.class_names), -1
        tokens_cl = self._encoded["tokens"].reshape(shape)
        _, count_u = np.unique(tokens_cl, axis=0, return_counts=True)
        return int(count_u[count_u > 1].sum())

    def _card(self, counts: dict, tops: list[int], draw: dict) -> dict[str, Any]:
        given = self.config.templates
        name = given if isinstance(given, str) else None
        metrics = {f"top{k}": f"label among the {k} best classes" for k in tops}
        return result_card.write(
            self.config,
            self._env,
            self._source,
            kind="zero_shot",
            counts=counts,
            interval=bootstrap.describe("examples", **draw),
            metrics=metrics
            | {"mean_per_class": "mean of top1 over the classes that occur"},
            task={
                "class_names": result_card.listing(self.class_names),
                "templates": result_card.listing(self.templates, name),
                "ties": ranking.TIES,
            },
            text=True,
        )


def mean_per_class(
    hit_n: np.ndarray, label_n: np.ndarray, weight_n: np.ndarray
) -> float:
    """Weighted accuracy within each class, averaged over the classes with weight."""
    total_c = np.bincount(label_n, weights=weight_n)
    right_c = np.bincount(label_n, weights=weight_n * hit_n)
    present_c = total_c > 0
    return float((right_c[present_c] / total_c[present_c]).mean())


def checked_names(
    names: Sequence[str], source: Any, where: str, *, repeated: bool = False
) -> tuple[str, ...]:
    """The given names, or else the source's own.

    Raises:
      UserError: there are none, a name is empty or comes twice (the two classes could
        not be told apart) and may not be `repeated`, or their number is not the
        source's.
    """
    own = source.class_names
    chosen = tuple(names) or own
    if not chosen:
        raise UserError(
            f"{where}: source {source.name!r} names no classes; give class_names"
        )
    if own and len(own) != len(chosen):
        raise UserError(
            f"{where}: {len(chosen)} class_names for the {len(own)} classes of "
            f"{source.name!r}; give one per label"
        )
    first: dict[str, int] = {}
    for label, name in enumerate(chosen):
        if not name.strip():
            raise UserError(f"{where}: the class name of label {label} is empty")
        if name in first and not repeated:
            raise UserError(
                f"{where}: labels {first[name]} and {label} are both called {name!r}; "
                "give class_names that differ"
            )
        first[name] = label
    return chosen
