"""What an evaluator is given of the run that it evaluates."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

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
    tokenizer, image_cfg: of the fields `tokens` and `image`, for evaluators that bring
      texts and images of their own; None where the run has none.
    reads: names of the fields that the task's own batches have.
    open_source: spec -> Source.
    eval_batches: (source, names of fields, batch_size=) -> see mmjax.data.pipeline.
    open_run: workdir -> Network, for evaluators that judge by another run.
    devices: how many the rows of a batch split over.
    fields: of the run, open, by name.
    sampling: the options that the task samples with; with_sampling: changes to them ->
      the Env of a task that samples so.
    """

    predict: Mapping[str, Callable[[PyTree, Batch], PyTree]]
    raw: Mapping[str, Callable[[PyTree, Batch], PyTree]]
    tokenizer: Any
    image_cfg: Any
    reads: tuple[str, ...]
    batch_size: int
    open_source: Callable[[str | Mapping], Any]
    eval_batches: Callable[..., Iterator[Batch]]
    open_run: Callable[[str], Network] | None = None
    devices: int = 1
    fields: Mapping[str, Any] = field(default_factory=dict)
    sampling: Mapping[str, Any] = field(default_factory=dict)
    with_sampling: Callable[[Mapping[str, Any]], "Env"] | None = None
