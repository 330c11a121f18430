"""Where arrays live, and one step compiled two ways: jit over a mesh, or pmap.

Rules map parameter paths to mesh axes. They are matched against the end of a leaf's
shape, so that a depth-stacked kernel (nn.scan) and a plain one share a rule, and
optimizer slots, whose paths end like their parameter's, follow their parameter.
"""

import dataclasses
import functools
import logging
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from mmjax import tree
from mmjax.errors import UserError
from mmjax.parallel import processes

PyTree = Any
ROWS = ("data", "fsdp")  # batch rows are split over both
AXES = ("data", "fsdp", "tensor")
_log = logging.getLogger(__name__)

# (path regex, axes of the trailing dimensions). First match wins.
RULES: tuple[tuple[str, tuple[str | None, ...]], ...] = (
    (r"(qkv|query|key|value|fc|up|gate)/kernel$", ("fsdp", "tensor")),
    (r"(out|down|c_proj|proj)/kernel$", ("tensor", "fsdp")),
    (r"embedding$", ("tensor", "fsdp")),
    (r"conv[^/]*/kernel$", (None, None, None, "fsdp")),
    (r"(kernel|projection)$", ("fsdp", None)),
)


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Sizes of the mesh axes; -1 (one of them at most) takes what is left."""

    data: int = -1
    fsdp: int = 1
    tensor: int = 1


@dataclasses.dataclass(frozen=True)
class ParallelConfig:
    """`config.parallel`."""

    mode: str = "jit"  # jit | pmap
    mesh: MeshConfig = MeshConfig()


def _mesh_shape(cfg: MeshConfig, devices: int) -> tuple[int, int, int]:
    sizes = [cfg.data, cfg.fsdp, cfg.tensor]
    if any(s < 1 and s != -1 for s in sizes) or sizes.count(-1) > 1:
        raise UserError(
            f"config.parallel.mesh is {dict(zip(AXES, sizes, strict=True))}: sizes are "
            "positive, and one of them may be -1"
        )
    known = math.prod(s for s in sizes if s != -1)
    if devices % known or (-1 not in sizes and known != devices):
        raise UserError(
            f"config.parallel.mesh {dict(zip(AXES, sizes, strict=True))} is a mesh of "
            f"{known}{' x n' if -1 in sizes else ''} devices and {devices} are here: "
            f"{_fitting(sizes, devices)}, or run with another number of devices"
        )
    return tuple(devices // known if s == -1 else s for s in sizes)


def _fitting(sizes: list[int], devices: int) -> str:
    """The nearest mesh to the one asked for that has so many devices."""
    _, fsdp, tensor = (max(s, 1) for s in sizes)
    if devices % (fsdp * tensor) == 0:
        return f"use data={devices // (fsdp * tensor)}"
    near = [
        (abs(f - fsdp) + abs(t - tensor), f, t)
        for f in range(1, devices + 1)
        for t in range(1, devices // f + 1)
        if devices % (f * t) == 0
        and (f == 1) == (fsdp == 1)
        and (t > 1) <= (tensor > 1)
    ]
    _, f, t = min(near, default=(0, 1, 1))
    return f"use data={devices // (f * t)}, fsdp={f}, tensor={t}"


class Layout:
    """A mode, a mesh, and the placement of everything on it.

    Raises UserError where the mesh does not fit the devices, before any compilation.
    """

    def __init__(
        self, config: ParallelConfig | None = None, devices: list | None = None
    ):
        self.config = config or ParallelConfig()
        # In the order of processes: each then holds neighbouring rows of a batch.
        here = sorted(jax.devices(), key=lambda d: (d.process_index, d.id))
        self.devices = devices or here
        self.processes = len({d.process_index for d in self.devices})
        shape = _mesh_shape(self.config.mesh, len(self.devices))
        if self.config.mode not in ("jit", "pmap"):
            raise UserError(
                f"config.parallel.mode is {self.config.mode!r}: use jit or pmap"
            )
        if self.pmap and shape[1:] != (1, 1):
            raise UserError(
                f"config.parallel.mode=pmap is data-parallel only, but the mesh has "
                f"fsdp={shape[1]}, tensor={shape[2]}: set both to 1 or use mode=jit"
            )
        grid = np.asarray(self.devices).reshape(shape)
        self.mesh = jax.sharding.Mesh(grid, AXES, axis_types=(AxisType.Auto,) * 3)
        self.shape = dict(zip(AXES, shape, strict=True))
        self.rows = shape[0] * shape[1]
        self._unsplit: set[str] = set()
        self._met: dict[str, set[int]] = {axis: set() for axis in AXES}

    @property
    def pmap(self) -> bool:
        return self.config.mode == "pmap"

    @property
    def axis(self) -> str | None:
        """The name losses see in Ctx.axis."""
        return "data" if self.pmap else None

    @property
    def row_sharding(self) -> NamedSharding | None:
        """What losses see in Ctx.rows."""
        return None if self.pmap else self.batch_sharding

    def check_batch(self, batch_size: int, *, accum: int = 1) -> None:
        """Raises UserError unless the global batch splits over devices and slices."""
        unit = self.rows * accum
        if batch_size % unit or batch_size < unit:
            lower = batch_size // unit * unit
            fixes = f"{lower} or {lower + unit}" if lower else f"{unit}"
            slices = f" x {accum} accumulation slices" if accum > 1 else ""
            raise UserError(
                f"batch {batch_size} must split over {self.rows} devices{slices}: "
                f"use {fixes}"
            )

    # -- parameters ------------------------------------------------------------
    def spec(self, path: str, shape: tuple[int, ...]) -> PartitionSpec:
        """Partition of one leaf by RULES; replicated where an axis does not divide."""
        rules = (
            axes
            for pattern, axes in RULES
            if re.search(pattern, path) and len(shape) >= len(axes)
        )
        axes = next(rules, None)
        if axes is None:
            return PartitionSpec()
        full = (None,) * (len(shape) - len(axes)) + axes
        placed = []
        for size, axis in zip(shape, full, strict=True):
            splits = axis is not None and self.shape[axis] > 1
            if axis is not None:
                self._met[axis].add(size)
            if splits and size % self.shape[axis]:
                self._unsplit.add(f"{path} {size} over {axis}={self.shape[axis]}")
                splits = False
            placed.append(axis if splits else None)
        return PartitionSpec(*placed)

    def shardings(self, abstract: PyTree) -> PyTree:
        """A NamedSharding for every leaf of a tree of arrays or their shapes.

        Raises:
          UserError: an axis of the mesh splits none of them: its devices would all
            hold and compute the same.
        """
        specs = tree.map_with_path(lambda path, x: self.spec(path, x.shape), abstract)
        used = {axis for spec in jax.tree.leaves(specs) for axis in spec}
        for axis in ("fsdp", "tensor"):
            size, met = self.shape[axis], sorted(self._met[axis])
            if size == 1 or axis in used or not met:
                continue
            legal = [
                str(n)
                for n in range(2, len(self.devices) + 1)
                if len(self.devices) % n == 0 and any(width % n == 0 for width in met)
            ]
            raise UserError(
                f"config.parallel.mesh.{axis}={size} divides no parameter, their sizes "
                f"along it are {', '.join(map(str, met[:8]))}: use "
                f"{', '.join(legal) + ' or 1' if legal else '1'}"
            )
        if self._unsplit:
            _log.warning(
                "%d dimensions do not divide and stay replicated, the first: %s",
                *(len(self._unsplit), min(self._unsplit)),
            )
            self._unsplit.clear()
        return jax.tree.map(lambda spec: NamedSharding(self.mesh, spec), specs)

    def abstract(self, shapes: PyTree) -> PyTree:
        """Shapes with shardings: what a checkpoint is restored onto."""
        return jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
            shapes,
            self.shardings(shapes),
        )

    def init(self, fn: Callable[..., PyTree], *args: PyTree) -> PyTree:
        """fn(*args) computed straight into its shards."""
        out = self.shardings(jax.eval_shape(fn, *args))
        return self._in_step(jax.jit(fn, out_shardings=out))(*args)

    # -- batches ---------------------------------------------------------------
    @functools.cached_property
    def batch_sharding(self) -> NamedSharding:
        return NamedSharding(self.mesh, PartitionSpec(ROWS))

    def batch_shape(
        self, shape: tuple[int, ...], devices: int | None = None
    ) -> tuple[int, ...]:
        """(B, ...) as a compiled step takes it; under pmap (devices, B / devices, ...).

        devices: those that hold these rows; all, by default.
        """
        n = devices or self.rows
        return (n, shape[0] // n, *shape[1:]) if self.pmap else shape

    def row_share(self) -> tuple[int, int]:
        """(k, n): this process reads the k-th n-th of every batch's rows.

        Processes that hold parts of the same rows, split over the tensor axis, read
        the same ones.

        Raises:
          UserError: the tensor axis cuts through the devices of a process.
        """
        local, tensor = len(self.devices) // self.processes, self.shape["tensor"]
        if local % tensor and tensor % local:
            raise UserError(
                f"config.parallel.mesh.tensor={tensor} does not fit the {local} "
                f"devices of each process: use a divisor or a multiple of {local}"
            )
        together = max(1, tensor // local)  # processes that share their rows
        return jax.process_index() // together, self.processes // together

    # -- compilation -----------------------------------------------------------
    def compile_step(self, step: Callable, state: PyTree) -> Callable:
        """step(state, batch) -> (state, metrics), for batches from `load`.

        The state keeps the placement it came with: without saying so, the compiler
        may choose another, and the second step would compile again. It is donated: the
        next one is written over it.
        """
        if self.pmap:
            axes = {"in_axes": (None, 0), "out_axes": (None, None)}
            where = {"axis_name": "data", "devices": tuple(self.devices)}
            mapped = jax.pmap(step, donate_argnums=0, **where, **axes)
            return self._in_step(mapped, traced=self._shards(step))
        step = self._rows_kept(step)
        placed = jax.tree.map(lambda x: x.sharding, state)
        out = placed, self.replicated  # every process reads all metrics
        return self._in_step(jax.jit(step, donate_argnums=0, out_shardings=out))

    def _shards(self, step: Callable) -> Callable:
        """What pmap makes of a step, to be looked at: pmap itself cannot be traced over
        the devices of several processes."""
        return jax.shard_map(
            lambda state, batch: step(state, jax.tree.map(lambda x: x[0], batch)),
            mesh=self.mesh,
            in_specs=(PartitionSpec(), PartitionSpec("data")),
            out_specs=PartitionSpec(),
            check_vma=False,
        )

    def _rows_kept(self, fn: Callable) -> Callable:
        """fn, with what every module called in it puts out split by rows.

        Left to itself, the compiler may split a layer's features over fsdp in place of
        its rows, since its kernel lies so: it then sends activations, which are many
        times a kernel. All other axes stay the compiler's to split.
        """

        def keep(x: Any) -> Any:
            if not isinstance(x, jax.Array) or x.ndim < 2 or x.shape[0] % self.rows:
                return x  # parameters as such, scalars, means over rows
            free = (PartitionSpec.UNCONSTRAINED,) * (x.ndim - 1)
            spec = PartitionSpec(ROWS, *free)
            return jax.lax.with_sharding_constraint(x, NamedSharding(self.mesh, spec))

        def call(
            method: Callable,
            args: tuple,
            kwargs: dict,
            context: nn.module.InterceptorContext,
        ) -> PyTree:
            out = method(*args, **kwargs)
            return jax.tree.map(keep, out) if context.method_name == "__call__" else out

        @functools.wraps(getattr(fn, "func", fn))  # a partial has no name
        def run(*args: PyTree) -> PyTree:
            with nn.intercept_methods(call):
                return fn(*args)

        return fn if self.rows == 1 else run

    def _in_step(
        self, compiled: Callable, *, traced: Callable | None = None
    ) -> Callable:
        """With several processes: none runs a program before all have compiled it.

        It is then called with global arrays, those of pmap as well: what `lower` gives
        leaves out pmap's conversion of what each process holds.

        Args:
          traced: what to trace in place of `compiled`.
        """
        if self.processes == 1:
            return compiled
        made: dict[Any, Callable] = {}

        def run(*args: PyTree) -> PyTree:
            leaves, structure = jax.tree.flatten(args)
            if any(isinstance(x, jax.core.Tracer) for x in leaves):
                return (traced or compiled)(*args)  # only looked at, by make_jaxpr
            key = structure, *(f"{x.dtype}{x.shape}" for x in leaves)
            if key not in made:
                made[key] = compiled.lower(*args).compile()
                processes.wait_for_all("program")
            return made[key](*args)

        return run

    @functools.cached_property
    def replicated(self) -> NamedSharding:
        return NamedSharding(self.mesh, PartitionSpec())

    def replicate(self, fn: Callable) -> Callable:
        """fn compiled, with results that every process can read."""
        return self._in_step(jax.jit(fn, out_shardings=self.replicated))

    def fetch(self, arrays: PyTree) -> PyTree:
        """All of every array, as numpy, on every process."""
        if self.processes > 1:
            arrays = self.replicate(lambda x: x)(arrays)
        return jax.device_get(arrays)

    def load(self, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
        """This process' rows of a batch, as the compiled step takes them.

        Global arrays, of the shapes that `batch_shape` gives.
        """
        devices = len(self.devices) // self.processes
        return {
            k: jax.make_array_from_process_local_data(
                self.batch_sharding, v.reshape(self.batch_shape(v.shape, devices))
            )
            for k, v in _arrays(batch).items()
        }

    def compile_predict(self, fn: Callable) -> Callable:
        """predict(vars, numpy batch) -> numpy; rows that do not divide replicate.

        Every process gives the whole batch and gets the whole result.
        """
        compiled = self.replicate(fn) if self.processes > 1 else jax.jit(fn)

        def run(variables: PyTree, batch: Mapping[str, np.ndarray]) -> PyTree:
            rows = len(next(iter(batch.values())))
            where = self.replicated if rows % self.rows else self.batch_sharding
            placed = spread(_arrays(batch), where)
            return jax.device_get(compiled(variables, placed))

        return run


def _arrays(batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A batch without the host pipeline's notes, '_' before their names, but with the
    padding mask."""
    return {k: v for k, v in batch.items() if k[0] != "_" or k == "_mask"}


def spread(arrays: PyTree, sharding: NamedSharding) -> PyTree:
    """Arrays that every process holds whole, as global arrays of one sharding.

    `jax.device_put` would first send them round to see that they are equal.
    """
    if sharding.is_fully_addressable:
        return jax.device_put(arrays, sharding)
    return jax.tree.map(
        lambda x: jax.make_array_from_callback(x.shape, sharding, lambda i: x[i]),
        jax.tree.map(np.asarray, arrays),
    )
