"""Any task with frozen weights and a low-rank change of them: LoRA (Hu et al. 2021).

The changed weights go into the task's own loss and predict functions, so that losses,
evaluators and samplers are those of the task; what is trained is the change alone.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax

from mmjax import schema
from mmjax.errors import UserError
from mmjax.nn import lora
from mmjax.state import Ctx, Vars
from mmjax.tasks import base as base_lib

PyTree = Any
FROZEN = "base"  # name of the frozen parameters
# What the loop asks of a task that has it.
_EMBEDDED = ("embed", "loss_of")
_AS_IT_IS = ("init_rows", "sampling", "completion")


@dataclasses.dataclass(frozen=True)
class Task:
    """Fields are `config.task`.

    Variables: `params`, the change (see mmjax.nn.lora); `extra`, the task's own, such
    as running averages; `frozen/base`, the task's parameters, random until another
    run's are put there (`config.graft.base=RUN#params`).

    base: the `config.task` of the task that is adapted.
    rank: of the change, r.
    alpha: the change is multiplied by alpha / rank.
    targets: regexes of the paths of weights that have factors.
    also: regexes of parameters that are trained whole, such as norms or a temperature:
      as a difference from the frozen ones, so that weight decay pulls them back there.
    """

    base: dict
    rank: int = 8
    alpha: float = 16.0
    targets: tuple[str, ...] = (r"(qkv|out|fc|proj)/kernel$",)
    also: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        schema.at_least(1, self, "rank")
        base_lib.positive(self, "alpha")
        if not self.targets and not self.also:
            raise ValueError("targets and also are empty: nothing would be trained")

    @functools.cached_property
    def inner(self) -> base_lib.Task:
        """The task that is adapted."""
        task = base_lib.build(self.base, "config.task.base")
        if hasattr(task, "grads"):
            raise UserError(
                f"config.task.base.name is {self.base['name']!r}, whose gradients are "
                "not those of one loss: adapt a task with a loss"
            )
        if hasattr(task, "merged"):
            raise UserError(
                f"config.task.base.name is {self.base['name']!r}, which is an adapter "
                "itself: merge it first, and adapt what comes out"
            )
        return task

    @property
    def model(self) -> nn.Module:
        """The Linen module of the task that is adapted."""
        return self.inner.model

    @property
    def couples_rows(self) -> bool:
        """As the task that is adapted has it."""
        return self.inner.couples_rows

    @property
    def reads(self) -> tuple[str, ...]:
        return self.inner.reads

    def __getattr__(self, name: str) -> Any:
        """What the adapted task offers beyond the protocol, of the changed weights."""
        if name in _AS_IT_IS:
            return getattr(self.inner, name)
        if name in _EMBEDDED:
            method = getattr(self.inner, name)
            return lambda variables, *rest: method(self.merged(variables), *rest)
        raise AttributeError(name)

    def check(self, spec: base_lib.Spec) -> None:
        """See mmjax.tasks.base.Task."""
        self.inner.check(spec)

    def init(self, key: jax.Array, batch: base_lib.Batch) -> Vars:
        """See mmjax.tasks.base.Task."""
        made = self.inner.init(key, batch)
        key = jax.random.fold_in(key, 1)
        change = lora.init(key, made.params, self.targets, self.rank, self.also)
        frozen = {FROZEN: made.params, **made.frozen}
        return Vars(params=change, extra=made.extra, frozen=frozen)

    def merged(self, variables: Vars) -> Vars:
        """The variables of the adapted task that compute the same."""
        frozen = dict(variables.frozen)
        params = frozen.pop(FROZEN)
        params = lora.merge(params, variables.params, self.alpha / self.rank)
        return Vars(params=params, extra=variables.extra, frozen=frozen)

    def loss(
        self, variables: Vars, batch: base_lib.Batch, ctx: Ctx
    ) -> tuple[jax.Array, tuple[PyTree, base_lib.Metrics]]:
        """See mmjax.tasks.base.Task."""
        return self.inner.loss(self.merged(variables), batch, ctx)

    def predict(self) -> Mapping[str, base_lib.Predict]:
        """Those of the adapted task."""

        def of(function: base_lib.Predict) -> Callable:
            return lambda variables, *rest: function(self.merged(variables), *rest)

        return {name: of(fn) for name, fn in self.inner.predict().items()}
