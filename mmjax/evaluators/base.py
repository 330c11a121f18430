"""What an evaluator is given, what it hands back, and how it is called."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

PyTree = Any
Batch = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Network:
    """Another trained run, as a judge of this one's output.

    name: its workdir; task, step, fingerprint (of its weights): for the card.
    predict: its functions, the weights bound: numpy batch -> pytree of arrays.
    """

    name: str
    task: str
    step: int
    fingerprint: str
    predict: Mapping[str, Callable[[Batch], PyTree]]
    tokenizer: Any
    image_cfg: Any
    batch_size: int


@dataclass(frozen=True)
class Env:
    """The run's side of an evaluation: all that an evaluator knows of the model.

    predict: named functions (variables, numpy batch) -> pytree of arrays that every
      process can read; compiled, so they are only called with full-sized batches.
    raw: the same functions before compilation, for `jax.eval_shape`.
    image_cfg: how an image becomes `batch_size` rows of uint8 (see mmjax.data.image).
    open_source: spec -> Source; eval_batches: see mmjax.data.pipeline.
    open_run: workdir -> Network, for evaluators that judge by another run.
    devices: how many the rows of a batch split over.
    sampling: the options that the task samples with; with_sampling: changes to them ->
      the Env of a task that samples so.
    """

    predict: Mapping[str, Callable[[PyTree, Batch], PyTree]]
    raw: Mapping[str, Callable[[PyTree, Batch], PyTree]]
    tokenizer: Any
    image_cfg: Any
    batch_size: int
    open_source: Callable[[str | Mapping], Any]
    eval_batches: Callable[..., Iterator[Batch]]
    open_run: Callable[[str], Network] | None = None
    devices: int = 1
    sampling: Mapping[str, Any] = field(default_factory=dict)
    with_sampling: Callable[[Mapping[str, Any]], "Env"] | None = None


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
        least = {"every": 0, "limit": 1, "batch_size": 1, "resamples": 1}
        for name, low in least.items():
            value = getattr(self, name)
            if value is not None and value < low:
                raise ValueError(f"{name} must be at least {low}, got {value}")


class Evaluator(Protocol):
    """One class of this name per module `mmjax/evaluators/<type>.py`."""

    config: EvalConfig

    def __init__(self, cfg: Mapping[str, Any], env: Env, where: str): ...

    def check(self, vars_abstract: PyTree) -> None:
        """Raises UserError if the model cannot be evaluated so; computes nothing."""
        ...

    def run(self, variables: PyTree) -> Result:
        """Evaluates; the same arrays in give the same numbers out."""
        ...
