"""What the children of benchmarks share: training steps and machine rates.

Imports of jax and torch are inside, since a child has but one of them at work, and the
peer's Python (`--peer-python`) may lack the other.
"""

import functools
import pathlib
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from turns import PRODUCT

ROOT = pathlib.Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def start_mmjax() -> None:
    """Makes mmjax importable and sets up its process, as `mmjax train` does."""
    sys.path.insert(0, str(ROOT))
    from mmjax.parallel import runtime

    runtime.configure()


def mmjax_step(
    task: Any, batch: Mapping, adamw: Mapping[str, float]
) -> tuple[Callable[[], float], dict]:
    """A compiled training step with donated state, which returns its loss; facts.

    Args:
      task: a `mmjax.tasks.base.Task`.
      batch: arrays, the same for every step.
      adamw: lr, b1, b2, eps and weight_decay, as of `torch_adamw`.
    """
    import jax
    import jax.numpy as jnp

    from mmjax.state import TrainState
    from mmjax.train import optim
    from mmjax.train.step import train_step

    variables = jax.jit(task.init)(jax.random.key(0), batch)
    config = optim.OptimConfig(schedule="constant", warmup=0, **adamw)
    couples = task.couples_rows
    tx, *_ = optim.make(config, 1000, variables.params, couples_rows=couples)
    slots = jax.jit(tx.init)(variables.params)
    zero = jnp.zeros((), jnp.int32)
    held = [TrainState(zero, variables, slots, None, jax.random.key(1))]
    start = time.perf_counter()
    run = jax.jit(functools.partial(train_step, task, tx), donate_argnums=0)
    run = run.lower(held[0], batch).compile()
    facts = {
        "jax": jax.__version__,
        "compile_s": time.perf_counter() - start,
        "executed_flops": run.cost_analysis().get("flops", 0.0),
        "parameters": sum(x.size for x in jax.tree.leaves(variables.params)),
    }

    def step() -> float:
        held[0], metrics = run(held[0], batch)
        return float(metrics["loss"])

    return step, facts


def torch_adamw(
    model: Any,
    lr: float,
    b1: float,
    b2: float,
    eps: float,
    weight_decay: float,
    **options: bool,
) -> Any:
    """torch's AdamW, eager, with weight decay on kernels alone."""
    import torch

    plain = [p for p in model.parameters() if p.ndim < 2]
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    groups = [
        {"params": plain, "weight_decay": 0.0},
        {"params": decayed, "weight_decay": weight_decay},
    ]
    return torch.optim.AdamW(groups, lr=lr, betas=(b1, b2), eps=eps, **options)


def jax_product() -> Callable[[], Any]:
    """For `turns.product_rate`."""
    import jax
    import jax.numpy as jnp

    shape = (PRODUCT, PRODUCT)
    a, b = (jax.random.normal(jax.random.key(i), shape) for i in (0, 1))
    product = jax.jit(jnp.matmul)
    jax.block_until_ready(product(a, b))
    return lambda: jax.block_until_ready(product(a, b))


def torch_product() -> Callable[[], Any]:
    """For `turns.product_rate`."""
    import torch

    a, b = torch.randn(PRODUCT, PRODUCT), torch.randn(PRODUCT, PRODUCT)
    a @ b
    return lambda: a @ b
