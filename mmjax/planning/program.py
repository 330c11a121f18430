"""The training step of a config, lowered and compiled without its devices or its data.

Arrays are shapes with shardings, devices are virtual ones of this machine's CPU, and
the step is the one that `mmjax train` compiles.
"""

import contextlib
import dataclasses
import math
import pathlib
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache
from ml_collections import ConfigDict

from mmjax import parallel, schema, tree
from mmjax.data import fields as fields_lib
from mmjax.data.fields import Fields
from mmjax.errors import UserError
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
    """What is known of a step.

    mesh: sizes of its axes. batch_size: rows a step. rows: of the parameter table.
    sizes: bytes on a device of params, frozen, optimizer and other state; batch; temp,
      what the compiler needs besides; out, results that are not written over the state.
    params, frozen: numbers in all. flops: see mmjax.train.flops. collectives: of the
      compiled program. remat: the config's.
    """

    mesh: Mapping[str, int]
    batch_size: int
    rows: list[tree.Row]
    sizes: Mapping[str, int]
    params: int
    frozen: int
    flops: flops_lib.Flops
    collectives: list[hlo.Collective]
    remat: str

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


def build(config: ConfigDict) -> Program:
    """Traces, lowers and compiles the step of a config over its whole mesh.

    This process must show as many devices as `config.parallel.mesh` has.

    Raises:
      UserError: the config is wrong in itself, does not fit its mesh, or asks for pmap.
    """
    cfg = schema.from_mapping(config_lib.RunConfig, config, "config")
    layout = parallel.Layout(cfg.parallel)
    if layout.pmap:
        raise UserError(
            "config.parallel.mode is 'pmap', whose programs cannot be compiled without "
            "their devices: plan it as jit, which computes the same, with "
            f"--mesh data={len(layout.devices)}"
        )
    task = base.build(cfg.task)
    fields = fields_lib.build(cfg.data.fields)
    example = batch_of(fields, task, 2)
    update = update_lib.build(task, cfg.optim, layout, steps=cfg.steps, batch=example)
    layout.check_batch(cfg.batch_size, accum=update.cfg.accum)
    state = update.abstract(example)
    batch = {
        name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=layout.batch_sharding)
        for name, x in batch_of(fields, task, cfg.batch_size).items()
    }
    lowered = layout.compile_step(update.step, state).lower(state, batch)
    compiled, partitioned = compile_seen(lowered)
    remat = cfg.task["remat"] if "remat" in cfg.task else ""
    return Program(
        mesh=layout.shape,
        batch_size=cfg.batch_size,
        rows=tree.rows(state.vars.params, stats=False),
        sizes=_sizes(state, batch, compiled.memory_analysis()),
        params=_count(state.vars.params),
        frozen=_count(state.vars.frozen),
        flops=flops_lib.count(update.step, state, batch),
        collectives=hlo.collectives(partitioned),
        remat=remat,
    )


def compile_seen(lowered: jax.stages.Lowered) -> tuple[jax.stages.Compiled, str]:
    """A program compiled, and its text as the partitioner left it."""
    with tempfile.TemporaryDirectory(prefix="mmjax-plan-") as folder, _uncached():
        options = {"xla_dump_to": folder, "xla_dump_hlo_pass_re": _PASS}
        done = lowered.compile(compiler_options=options)
        found = sorted(pathlib.Path(folder).glob(f"*after_{_PASS}*.txt"))
        # one device: there is nothing to partition
        return done, found[-1].read_text() if found else done.as_text()


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


def _count(arrays: PyTree) -> int:
    return sum(x.size for x in jax.tree.leaves(arrays))


def _sizes(state: TrainState, batch: PyTree, memory: Any) -> dict[str, int]:
    """Bytes on one device, by what they are for."""
    sizes = {
        "params": shard_bytes(state.vars.params),
        "frozen": shard_bytes(state.vars.frozen),
        "optimizer": shard_bytes(state.opt_state),
        "average": shard_bytes(state.ema),
        "batch": shard_bytes(batch),
    }
    known = sum(sizes.values())
    everything = shard_bytes((state, batch))
    return sizes | {
        "other": everything - known,
        "activations": memory.temp_size_in_bytes,
        "results": memory.output_size_in_bytes - memory.alias_size_in_bytes,
    }


def shard_bytes(arrays: PyTree) -> int:
    """Bytes that one device holds of a tree of shapes with shardings."""
    total = 0
    for x in jax.tree.leaves(arrays):
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            x = jax.eval_shape(jax.random.key_data, x)
            total += x.size * x.dtype.itemsize
            continue
        total += math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize
    return total
