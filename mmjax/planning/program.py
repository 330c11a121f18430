"""The training step of a config, lowered and compiled without its devices or its data.

Arrays are shapes with shardings, devices are virtual ones of this machine's CPU, and
the step is the one that `mmjax train` compiles.
"""

import contextlib
import dataclasses
import math
import pathlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache
from ml_collections import ConfigDict

from mmjax import parallel, schema, tree
from mmjax.data import fields as fields_lib
from mmjax.data.fields import Fields
from mmjax.nn import attention_kernels
from mmjax.planning import hlo
from mmjax.state import TrainState
from mmjax.tasks import base
from mmjax.train import config as config_lib
from mmjax.train import flops as flops_lib
from mmjax.train import update as update_lib

PyTree = Any
_PASS = "spmd-partitioning"


@dataclasses.dataclass(frozen=True)
class Program:
    """What is known of a step."""

    mesh: Mapping[str, int]  # sizes of its axes
    batch_size: int  # rows a step
    rows: list[tree.Row]  # of the parameter table
    sizes: Mapping[str, int]  # bytes on a device, see `_sizes`
    params: int  # numbers in all
    frozen: int  # the same
    flops: flops_lib.Flops
    collectives: list[hlo.Collective]  # of the compiled program
    remat: str  # the config's
    # kernel of every attention, by its shape; see mmjax.nn.attention_kernels
    attention: Mapping[str, str] = dataclasses.field(default_factory=dict)
    steps: int = 0  # of the run; 0 is not known, nor is what follows
    saves: int = 0  # checkpoints that a run writes
    saved: int = 0  # bytes of one, over all devices; frozen weights are written once
    row: int = 0  # bytes of a row as a step takes it

    @property
    def devices(self) -> int:
        return math.prod(self.mesh.values())

    @property
    def bytes_per_device(self) -> int:
        return sum(self.sizes.values())


def batch_of(
    fields: Fields, task: base.Task, rows: int
) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes of `rows` rows of the fields that a task reads."""
    shapes = fields_lib.shapes(fields_lib.choose(fields, None, task.reads))
    return {
        key: jax.ShapeDtypeStruct((rows, *shape), dtype)
        for key, (shape, dtype) in shapes.items()
    }


def build(config: ConfigDict, platform: str = "cpu") -> Program:
    """Traces, lowers and compiles the step of a config over its whole mesh.

    This process must show as many devices as `config.parallel.mesh` has. On a platform
    with fused attention, the form that needs as little memory is compiled in its place.

    Raises:
      UserError: the config is wrong in itself, or does not fit its mesh.
    """
    with attention_kernels.tracing_for(platform, stand_in=True) as target:
        return dataclasses.replace(_build(config), attention=target.chosen)


def state_bytes(config: ConfigDict) -> int:
    """Bytes of the state on one device; nothing is compiled.

    Raises:
      UserError: as `build`.
    """
    return shard_bytes(_traced(config)[-2])


def _traced(config: ConfigDict) -> tuple:
    """(config, layout, update, state, batch) of a config, shapes with shardings."""
    cfg = schema.from_mapping(config_lib.RunConfig, config, "config")
    layout = parallel.Layout(cfg.parallel)
    task = base.build(cfg.task)
    fields = fields_lib.build(cfg.data.fields)
    example = batch_of(fields, task, 2)
    update = update_lib.build(task, cfg.optim, layout, steps=cfg.steps, batch=example)
    layout.check_batch(cfg.batch_size, accum=update.cfg.accum)
    state = update.abstract(example)
    batch = {
        name: jax.ShapeDtypeStruct(
            layout.batch_shape(x.shape), x.dtype, sharding=layout.batch_sharding
        )
        for name, x in batch_of(fields, task, cfg.batch_size).items()
    }
    return cfg, layout, update, state, batch


def _build(config: ConfigDict) -> Program:
    cfg, layout, update, state, batch = _traced(config)
    step = layout.compile_step(update.step, state)
    compiled, partitioned = compile_seen(step.lower(state, batch))
    params, frozen = (
        sum(x.size for x in jax.tree.leaves(arrays))
        for arrays in (state.vars.params, state.vars.frozen)
    )
    return Program(
        mesh=layout.shape,
        batch_size=cfg.batch_size,
        rows=tree.rows(state.vars.params, stats=False),
        sizes=_sizes(state, batch, compiled.memory_analysis()),
        params=params,
        frozen=frozen,
        flops=flops_lib.count(step, state, batch),
        collectives=hlo.collectives(partitioned),
        remat=cfg.task["remat"] if "remat" in cfg.task else "",
        steps=cfg.steps,
        saves=-(-cfg.steps // (cfg.checkpoint.every or cfg.steps)),
        saved=_bytes(state.replace(vars=state.vars._replace(frozen={}))),
        row=_bytes(batch) // cfg.batch_size,
    )


def compile_seen(lowered: jax.stages.Lowered) -> tuple[jax.stages.Compiled, str]:
    """A program compiled, and its text as the partitioner left it."""
    with tempfile.TemporaryDirectory(prefix="mmjax-plan-") as folder, _uncached():
        options = {"xla_dump_to": folder, "xla_dump_hlo_pass_re": _PASS}
        compiled = lowered.compile(compiler_options=options)
        texts = sorted(pathlib.Path(folder).glob(f"*after_{_PASS}*.txt"))
        # one device: there is nothing to partition
        return compiled, texts[-1].read_text() if texts else compiled.as_text()


@contextlib.contextmanager
def _uncached() -> Iterator[None]:
    """A program out of the cache is not compiled, and nothing of it is written."""
    before = jax.config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()  # or what it saw at its first use goes on
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
        compilation_cache.reset_cache()


def _sizes(state: TrainState, batch: PyTree, memory: Any) -> dict[str, int]:
    """Bytes on one device, by what they are for.

    `activations` is what the compiler needs besides the arguments; `results` are not
    written over the state.
    """
    kinds = {
        "params": state.vars.params,
        "frozen": state.vars.frozen,
        "optimizer": state.opt_state,
        "average": state.ema,
        "batch": batch,
    }
    sizes = {kind: shard_bytes(arrays) for kind, arrays in kinds.items()}
    return sizes | {
        "other": shard_bytes((state, batch)) - sum(sizes.values()),
        "activations": memory.temp_size_in_bytes,
        "results": memory.output_size_in_bytes - memory.alias_size_in_bytes,
    }


def shard_bytes(arrays: PyTree) -> int:
    """Bytes that one device holds of a tree of shapes with shardings."""
    return _bytes(arrays, lambda x: x.sharding.shard_shape(x.shape))


def _bytes(arrays: PyTree, shape_of: Callable = lambda x: x.shape) -> int:
    total = 0
    for x in jax.tree.leaves(arrays):
        shape = shape_of(x)
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            x = jax.eval_shape(jax.random.key_data, x)
            shape = x.shape
        total += math.prod(shape) * x.dtype.itemsize
    return total
