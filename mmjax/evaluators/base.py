"""What every evaluator is: a config, a limited source, and one way to go over it.

A new evaluator is a module of this package, or of any installed one, with a dataclass
`Config(EvalConfig)` and a class `Evaluator(base.Evaluator)` that has `calls` and
`run`; `modality_gap` is a short example.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from mmjax import schema
from mmjax.errors import UserError
from mmjax.evaluators.common import forward, result_card
from mmjax.evaluators.common.env import Batch, Env, Network, PyTree
from mmjax.evaluators.common.subset import View, open_view
from mmjax.metrics import bootstrap

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

    source: a data spec, or an opened Source (from a notebook).
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

    def open(self, spec: Any, limit: int | None = None) -> View:
        """A spec's source, or a Source as it is."""
        return open_view(spec, limit, self.env.open_source)

    def encode(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """Texts as the arrays that "embed_text" reads."""
        return forward.encode(self.env, texts, self.where)

    def embed_texts(self, variables: PyTree, encoded: Batch) -> Any:
        """Unit rows (<= size, d) of encoded texts, one chunk at a time."""
        args = self.env, variables, encoded
        return forward.embed_texts(*args, size=self.size, where=self.where)

    def collect(
        self,
        variables: PyTree,
        *names: str,
        keep: forward.Keep | None = None,
        source: Any = None,
        full: bool = False,
    ) -> forward.Collected:
        """The functions of `calls`, or those named, on a source: forward.collect."""
        return forward.collect(
            self.env,
            variables,
            self.source if source is None else source,
            {name: self.calls[name] for name in names or self.calls},
            keep=keep,
            size=self.size,
            where=self.where,
            names=self.names,
            classes=len(self.class_names) if self.labelled else 0,
            full=full,
        )

    def output_shapes(
        self, vars_abstract: PyTree, source: Any = None
    ) -> dict[str, PyTree]:
        """What each function of `calls` gives for a first batch, by tracing it."""
        source = self.source if source is None else source
        look = {"size": self.size, "where": self.where, "names": self.names}
        batch = forward.peek(self.env, source, **look)
        if self.labelled and "label" not in batch:
            raise self.error(f"records of {source.name!r} carry no label")
        batch = forward.abstract(batch)
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
            image_d, text_d = widths["embed_image"], widths["embed_text"]
            raise self.error(
                f"images embed in {image_d} dimensions and texts in {text_d}: give "
                "both towers the same embed_dim"
            )

    @functools.cached_property
    def draw(self) -> dict[str, int]:
        """The keywords of bootstrap functions."""
        return {"resamples": self.config.resamples, "seed": self.config.seed}

    def intervals(
        self, names: list[str], statistic: Callable[[np.ndarray], Any], count: int
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
        """The card of a result.

        Args:
          counts: how many examples there are, and how many were left out.
          metrics: a definition of each number.
          resampled: what the intervals draw anew.
          text: whether the tokenizer had a part in it; None is as the class says.
          task: what else identifies the measurement.
        """
        return result_card.write(
            self.config,
            self.env,
            self.source,
            kind=self.kind,
            counts=counts,
            interval=bootstrap.describe(resampled, **self.draw),
            metrics=metrics,
            task=task,
            text=self.reads_text or self.captions if text is None else text,
        )
