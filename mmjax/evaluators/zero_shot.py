"""Zero-shot classification by the similarity of an image to sentences about classes.

Radford et al. 2021, sections 3.1.2 and 3.1.4. Legend: b batch, n examples, c classes, d
embedding.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmjax.data import prompts
from mmjax.errors import UserError
from mmjax.evaluators import base
from mmjax.evaluators.common import forward, result_card
from mmjax.metrics import embeddings, ranking

TOP = (1, 5)


@dataclass(frozen=True)
class Config(base.EvalConfig):
    """templates: what prompts.load takes: a set's name, a file, or sentences with {}.

    class_names: names in place of the source's own, one per label, or a .txt or
    .json file of them; empty takes the source's.

    repeated_names: whether two labels may have one name, as two pairs of CLIP's 1,000
    ImageNet names do. They tie, and a tie is an error: neither is ever right.
    """

    templates: str | tuple[str, ...] = "photo"
    class_names: str | tuple[str, ...] = ()
    repeated_names: bool = False


class Evaluator(base.Evaluator):
    """Calls predict "embed_image" and "embed_text"; the source needs labels."""

    config_class = Config
    calls = {"embed_image": forward.IMAGE, "embed_text": forward.TEXT}
    reads_text = labelled = True

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.templates = prompts.load(self.config.templates)
        names, repeated = self.config.class_names, self.config.repeated_names
        names = prompts.read_list(names) if isinstance(names, str) else names
        self.class_names = checked_names(
            names, self.source, self.where, repeated=repeated
        )
        self.encoded = self.encode(prompts.fill(self.templates, self.class_names))

    def run(self, variables: base.PyTree) -> base.Result:
        """top1, top5 (where there are more than 5 classes), mean_per_class, intervals.

        `arrays` holds, per example: index, label, prediction and rank of the label.
        """
        classes_cd = self.class_embeddings(variables)
        arrays, counts, _ = self.rank_images(variables, classes_cd)
        label_n, rank_n = arrays["label"], arrays["rank"]
        tops = [k for k in TOP if k == 1 or k < len(self.class_names)]
        hits_kn = np.stack([rank_n < k for k in tops])

        def accuracies(weight_n):
            per_top = hits_kn @ weight_n / weight_n.sum()
            return np.append(per_top, mean_per_class(hits_kn[0], label_n, weight_n))

        names = [*(f"top{k}" for k in tops), "mean_per_class"]
        values = self.intervals(names, accuracies, label_n.size)
        # classes whose prompts read the same as another's once they are tokens
        tokens_cl = self.encoded["tokens"].reshape(len(self.class_names), -1)
        _, count_u = np.unique(tokens_cl, axis=0, return_counts=True)
        counts |= {
            "classes_present": len(np.unique(label_n)),
            "prompts_fill_context": int(self.encoded["tokens_mask"].all(1).sum()),
            "classes_alike": int(count_u[count_u > 1].sum()),
        }
        metrics = {f"top{k}": f"label among the {k} best classes" for k in tops}
        metrics["mean_per_class"] = "mean of top1 over the classes that occur"
        card = self.card(counts, metrics, **self.prompt_card(), ties=ranking.TIES)
        return base.Result(values, card, arrays)

    def class_embeddings(self, variables: base.PyTree) -> np.ndarray:
        """(c, d) unit rows: each prompt's embedding at length one, their mean, again.

        The ensemble is one of embeddings and not of probabilities, as in the paper:
        a classifier of many prompts costs what one of a single prompt does.
        """
        count, total_cd, done = len(self.templates), None, 0
        for rows_bd in self.embed_texts(variables, self.encoded):
            if total_cd is None:
                total_cd = np.zeros((len(self.class_names), rows_bd.shape[1]))
            owner_b = np.arange(done, done + len(rows_bd)) // count
            np.add.at(total_cd, owner_b, rows_bd)
            done += len(rows_bd)
        return embeddings.unit(total_cd / count)

    def rank_images(
        self, variables: base.PyTree, classes_cd: np.ndarray, source: Any = None
    ) -> forward.Collected:
        """The arrays of `run` for the records of a source."""

        def keep(outputs, batch, valid_b):
            rows_bd = np.asarray(outputs["embed_image"])[valid_b]
            rows_bd = embeddings.unit(rows_bd, f"{self.where}: embed_image")
            label_b = np.asarray(batch["label"])[valid_b]
            order_b = np.arange(len(label_b))
            return {
                "prediction": (rows_bd @ classes_cd.T).argmax(1),
                "rank": ranking.ranks(rows_bd, classes_cd, order_b, label_b),
            }

        return self.collect(variables, "embed_image", keep=keep, source=source)

    def prompt_card(self) -> dict[str, Any]:
        """The classes and templates, for the card."""
        given = self.config.templates
        name = given if isinstance(given, str) else None
        return {
            "class_names": result_card.listing(self.class_names),
            "templates": result_card.listing(self.templates, name),
        }


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
