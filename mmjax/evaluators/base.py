"""What every evaluator is: a config, a limited source, and one way to go over it.

A new evaluator is a module of this package, or of any installed one, with a dataclass
`Config(EvalConfig)` and a class `Evaluator(base.Evaluator)` that has `calls` and
`run`; `modality_gap` is a short example.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from mmjax import schema
from mmjax.data import records
from mmjax.data.prompts import SLOT
from mmjax.data.records import digest
from mmjax.errors import UserError
from mmjax.evaluators.common import forward, result_card
from mmjax.evaluators.common.env import Batch, Env, Network, PyTree
from mmjax.evaluators.common.subset import Subset
from mmjax.metrics import bootstrap, embeddings

__all__ = ["Batch", "Env", "EvalConfig", "Evaluator", "Network", "PyTree", "Result"]


@dataclass(frozen=True)
class Result:
    """One evaluation: flat numbers, the card that says of what, and raw arrays."""

    values: dict[str, float]
    card: dict[str, Any]
    arrays: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class EvalConfig:
    """Keys that every evaluator's config has.

    source: a data spec, or an opened Source (from a notebook). While it is "", a run
      passes the evaluator over.
    every: steps between two runs in training; 0 is none, only `mmjax eval` runs it.
    limit: look at this many examples, evenly spaced over the source; None is all.
    batch_size: rows a call; None is the run's own.
    resamples, seed: of the bootstrap intervals.
    """

    source: Any
    type: str = ""
    every: int = 0
    limit: int | None = None
    batch_size: int | None = None
    resamples: int = 1000
    seed: int = 0

    def __post_init__(self):
        self.at_least(every=0, limit=1, batch_size=1, resamples=1)

    def at_least(self, **least: int) -> None:
        """Raises ValueError where a number of that name is smaller."""
        for name, low in least.items():
            value = getattr(self, name)
            if value is not None and value < low:
                raise ValueError(f"{name} must be at least {low}, got {value}")


@dataclass(frozen=True)
class TemplateConfig(EvalConfig):
    """template: a sentence around every text; CLIP prepends "a photo of "."""

    template: str = SLOT

    def __post_init__(self):
        super().__post_init__()
        if SLOT not in self.template:
            raise ValueError(f"template {self.template!r} has no {SLOT}")


class Evaluator:
    """The base of `Evaluator`, one class of a module. Subclasses set:

    config_class: the module's Config.
    calls: the predict functions, and the keys of a batch that each is given.
    reads_text: whether the run needs a tokenizer, which the card then describes.
    captions: whether batches hold captions as tokens.
    labelled: whether records must carry the label of a class in `class_names`.
    """

    config_class: ClassVar[type[EvalConfig]] = EvalConfig
    calls: forward.Calls = {}
    reads_text = captions = labelled = False
    class_names: Sequence[str] = ()

    def __init__(self, cfg: Mapping[str, Any], env: Env, where: str = ""):
        self.where = where or self.kind
        self.config = schema.from_mapping(self.config_class, cfg, self.where)
        self.env, self.size = env, self.config.batch_size or env.batch_size
        self.source = self.open(self.config.source, self.config.limit)
        if self.reads_text:
            forward.require_tokenizer(env, self.where)

    def check(self, vars_abstract: PyTree) -> None:
        """Raises UserError if the model cannot be evaluated so; computes nothing.

        Every function of `calls` must give rows (size, d) of one width; override this
        where they give something else.
        """
        self.check_rows(self.output_shapes(vars_abstract))

    def run(self, variables: PyTree) -> Result:
        """Evaluates; the same arrays in give the same numbers out."""
        raise NotImplementedError

    @property
    def names(self) -> tuple[str, ...]:
        """The fields of its batches: the task's own where a function is given all."""
        if None in self.calls.values():
            return (*self.env.reads, "label?")
        captions = self.captions and self.env.tokenizer is not None
        return forward.IMAGES + (("tokens",) if captions else ())

    # -- for subclasses ------------------------------------------------------------
    @property
    def kind(self) -> str:
        """The type by which a config names this evaluator."""
        package, _, name = type(self).__module__.rpartition(".")
        return name if package == "mmjax.evaluators" else f"{package}.{name}"

    def error(self, message: str) -> UserError:
        """The message, with the place in the config that it is about."""
        return UserError(f"{self.where}: {message}")

    def open(self, spec: Any, limit: int | None = None) -> Subset:
        """A spec's source, or a Source as it is."""
        is_spec = isinstance(spec, (str, tuple, list)) or hasattr(spec, "keys")
        return Subset(self.env.open_source(spec) if is_spec else spec, limit)

    def encode(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """Texts as `tokens` int32 (n, l) and `tokens_mask` bool (n, l)."""
        return dict(zip(forward.TEXT, self.env.tokenizer.encode(texts), strict=True))

    def embed_texts(self, variables: PyTree, encoded: Batch) -> Iterator[np.ndarray]:
        """Unit rows (<= size, d) of encoded texts, one chunk at a time, in order.

        Every call has `size` rows, so that it compiles once: the last chunk is filled
        up with its first text, whose rows are dropped.
        """
        count = len(encoded["tokens"])
        for start in range(0, count, self.size):
            take = np.arange(start, start + self.size)
            take[take >= count] = start
            batch = {name: array[take] for name, array in encoded.items()}
            rows_bd = np.asarray(self.env.predict["embed_text"](variables, batch))
            yield embeddings.unit(rows_bd[: count - start], f"{self.where}: embed_text")

    def batches(self, source: Any) -> Iterator[Batch]:
        """A source's batches, in order, the last one padded."""
        return iter(self.env.eval_batches(source, self.names, batch_size=self.size))

    def peek(self, source: Any) -> Batch:
        """The first batch of a source; UserError where it is empty."""
        if not len(source):
            raise self.error(f"source {source.name!r} holds no examples")
        return next(self.batches(source))

    def collect(
        self,
        variables: PyTree,
        *names: str,
        keep: forward.Keep | None = None,
        source: Any = None,
        full: bool = False,
    ) -> forward.Collected:
        """Calls predict functions on a source, batch by batch, and keeps valid rows.

        Rows are left out that pad the last batch or stand in for a broken record.

        Args:
          names: functions of `calls`; none is all of them.
          keep: (outputs by function, batch, valid (b,)) -> arrays of the valid rows,
            for outputs that are too large to hold; without it every function's rows
            are kept as float32, under the function's name.
          source: None is the config's.
          full: leave out a batch with fewer than `size` good records.

        Raises:
          UserError: no row is left, a row that is kept without `keep` is not finite,
            or a label has no class name.
        """
        source = self.source if source is None else source
        calls = {name: self.calls[name] for name in names or self.calls}
        parts: dict[str, list[np.ndarray]] = defaultdict(list)
        batches = broken = 0
        for batch in self.batches(source):
            valid_b = forward.valid_rows(batch)
            broken += int((np.asarray(batch.get("_broken", 0)) > 0).sum())
            if full and (np.asarray(batch["_mask"]) > 0).sum() < self.size:
                continue
            batches += 1
            rows = {"index": np.asarray(batch["_index"])[valid_b]}
            if "label" in batch:
                rows["label"] = np.asarray(batch["label"])[valid_b]
            if self.labelled:
                self._check_labels(rows["label"], rows["index"], source)
            outputs = {}
            for name, keys in calls.items():
                given = forward.inputs(batch, name, keys, self.where)
                outputs[name] = self.env.predict[name](variables, given)
            if keep is not None:
                rows |= keep(outputs, batch, valid_b)
            else:
                for name, output in outputs.items():
                    rows[name] = np.asarray(output, np.float32)[valid_b]
            for name, array in rows.items():
                parts[name].append(array)
        arrays = {name: np.concatenate(listed) for name, listed in parts.items()}
        count = len(arrays["index"]) if arrays else 0
        if not count:
            name = source.name
            raise self.error(f"{broken} records, all of them broken, in {name!r}")
        for name in calls if keep is None else ():
            embeddings.check_finite(arrays[name], f"{self.where}: {name}")
        return forward.Collected(arrays, {"examples": count, "broken": broken}, batches)

    def _check_labels(
        self, label_n: np.ndarray, index_n: np.ndarray, source: Any
    ) -> None:
        count = len(self.class_names)
        wrong = np.flatnonzero((label_n < 0) | (label_n >= count))
        if wrong.size:
            label, index = label_n[wrong[0]], index_n[wrong[0]]
            raise self.error(
                f"record {index} of {source.name!r} has label {label}, but there are "
                f"{count} class names (0 to {count - 1}); -1 means a record without a "
                "class: choose a source of labelled ones"
            )

    def output_shapes(
        self, vars_abstract: PyTree, source: Any = None
    ) -> dict[str, PyTree]:
        """What each function of `calls` gives for a first batch, by tracing it."""
        source = self.source if source is None else source
        batch = forward.abstract(self.peek(source))
        if self.labelled and "label" not in batch:
            raise self.error(f"records of {source.name!r} carry no label")
        if self.reads_text:
            batch |= forward.text_abstract(self.env, self.size)
        shapes = {}
        for name, keys in self.calls.items():
            given = forward.inputs(batch, name, keys, self.where)
            args = self.env, name, vars_abstract, given, self.where
            shapes[name] = forward.output_shape(*args)
        return shapes

    def check_rows(self, shapes: Mapping[str, PyTree]) -> None:
        """Raises UserError unless all are (size, d), of the same d."""
        widths = {}
        for name, rows in shapes.items():
            shape = getattr(rows, "shape", None)
            if shape is None or len(shape) != 2 or shape[0] != self.size:
                raise self.error(f"{name!r} must give ({self.size}, d), gives {shape}")
            widths[name] = shape[1]
        if len(set(widths.values())) > 1:
            told = " and ".join(
                f"{name!r} gives rows of {widths[name]}" for name in widths
            )
            raise self.error(f"{told}: give both the same embed_dim")

    @property
    def draw(self) -> dict[str, int]:
        """The keywords of bootstrap functions."""
        return {"resamples": self.config.resamples, "seed": self.config.seed}

    def intervals(
        self, names: list[str], statistic: bootstrap.Statistic, count: int
    ) -> dict[str, float]:
        """Values with their 95 % intervals; see bootstrap.with_interval."""
        return bootstrap.with_interval(names, statistic, count, **self.draw)

    def card(
        self,
        counts: Mapping[str, int],
        metrics: Mapping[str, str],
        *,
        resampled: str = "examples",
        text: bool | None = None,
        **task: Any,
    ) -> dict[str, Any]:
        """The card of a result, ready for JSON.

        `id` is a hash of all but the counts and the interval: numbers of two runs may
        be compared where their ids are equal.

        Args:
          counts: how many examples there are, and how many were left out.
          metrics: a definition of each number.
          resampled: what the intervals draw anew.
          text: whether the tokenizer had a part in it; None is as the class says.
          task: what else identifies the measurement.
        """
        env, source = self.env, self.source
        text = self.reads_text or self.captions if text is None else text
        identity = {
            "evaluator": self.kind,
            "source": {
                "name": source.name,
                "fingerprint": source.fingerprint(),
                "records": len(source),
                "limit": None if source.whole else self.config.limit,
            },
            "preprocessing": result_card.preprocessing(env.image_cfg),
            "tokenizer": result_card.tokenizer(env.tokenizer) if text else None,
            "metrics": dict(metrics),
            **task,
        }
        interval = bootstrap.describe(resampled, **self.draw)
        identity = {"id": digest(identity), **identity}
        covers = {"fingerprint_covers": records.covers(source)}
        identity["source"] = identity["source"] | covers
        return identity | {"counts": dict(counts), "interval": interval}
