"""Fused attention: which kernel a product of queries and keys takes, and the kernels.

Legend: b rows, h heads, q queries, t keys, d width of a head.

A fused kernel never writes the (q, t) logits to memory (Dao et al. 2022): it keeps the
running maximum and sum of the softmax in float32, and computes the logits again for the
gradient. Names, as in `config.task.attention`:

- auto: the kernel of the platform that is compiled for, where it takes the shapes.
- reference: logits in memory, `mmjax.nn.attention`. Always there; the fastest on CPUs.
- tiled: the reference, a tile of queries at a time, again for the gradient. It needs
  the memory of a fused kernel on every platform, and is what a plan compiles for one.
- cudnn: NVIDIA GPUs, bfloat16 or float16.
- splash: TPUs, Pallas' block-sparse kernel: blocks that a mask hides are skipped.
"""

import contextlib
import contextvars
import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import NamedSharding, PartitionSpec

from mmjax import schema
from mmjax.errors import UserError

PyTree = Any
NAMES = ("auto", "reference", "tiled", "cudnn", "splash")
PLATFORM = {"cudnn": "cuda", "splash": "tpu"}  # that a kernel runs on
BLOCK = 128  # queries, and keys, of a block of splash; queries of a tile
# Pairs of query and key that splash may compute for one that counts, where nobody
# asked for it: blocks of 128 make 77 tokens 2.8 times the work, 257 tokens 2.2 times.
WASTE = 2.5


@dataclasses.dataclass
class Target:
    """What a program is traced for, where that is not this process' devices.

    platform: cpu, cuda or tpu. stand_in: `tiled` takes the place of kernels, since the
    program is compiled here. chosen: what each shape got, by a line that says so.
    """

    platform: str
    stand_in: bool = False
    chosen: dict[str, str] = dataclasses.field(default_factory=dict)


_target: contextvars.ContextVar[Target | None] = contextvars.ContextVar(
    "mmjax_attention_target", default=None
)


@contextlib.contextmanager
def tracing_for(platform: str, *, stand_in: bool = False) -> Iterator[Target]:
    """Programs traced inside are for another platform than this process computes on."""
    target = Target(platform, stand_in)
    token = _target.set(target)
    try:
        yield target
    finally:
        _target.reset(token)


@functools.cache
def _platform() -> str:
    """cpu, cuda or tpu; a GPU without cuDNN counts as none."""
    backend = jax.default_backend()
    if backend != "gpu":
        return backend
    x = jax.ShapeDtypeStruct((1, 8, 1, 8), jnp.bfloat16)
    try:
        jax.eval_shape(lambda x: _dot_product_attention(x, x, x), x)
    except RuntimeError:  # "cuDNN is not detected": AMD's GPUs
        return "gpu"
    return "cuda"


def choose(asked: str, q_bhqd: jax.Array, keys: int) -> str:
    """The kernel for queries (b, h, q, d), or their shape and dtype, and so many keys.

    Raises:
      UserError: the name is unknown, or the kernel asked for does not run here, or does
        not take these shapes.
    """
    if asked not in NAMES:
        raise UserError(
            f"config.task.attention {asked!r}{schema.suggest(asked, NAMES)}"
        )
    target = _target.get()
    platform = target.platform if target else _platform()
    kernel, why = asked, ""
    if asked == "auto":
        kernel = {v: k for k, v in PLATFORM.items()}.get(platform, "reference")
    elif asked in PLATFORM and platform != PLATFORM[asked]:
        raise UserError(
            f"config.task.attention is {asked}, a kernel for {PLATFORM[asked]}, and "
            f"this program is for {platform}: use auto, which takes the platform's own"
        )
    if kernel in PLATFORM:
        why = misfit(kernel, q_bhqd, keys, asked=asked != "auto")
    if why and asked != "auto":
        raise UserError(
            f"config.task.attention is {asked}, and {why}: use auto, which takes the "
            "reference for such a layer"
        )
    kernel = "reference" if why else kernel
    if target is not None:
        _, h, q, d = q_bhqd.shape
        line = f"{q:,} queries, {keys:,} keys, {h} heads of {d}, {q_bhqd.dtype}"
        target.chosen[line] = f"{kernel} ({why})" if why else kernel
        if target.stand_in and kernel in PLATFORM:
            kernel = "tiled"
    return kernel


def misfit(kernel: str, q_bhqd: jax.Array, keys: int, *, asked: bool = False) -> str:
    """Why a kernel does not take these shapes, or ''. asked: for it, by name."""
    q, d = q_bhqd.shape[2:]
    if kernel == "cudnn":
        if q_bhqd.dtype not in (jnp.bfloat16, jnp.float16):
            return f"cuDNN takes bfloat16 and float16, not {q_bhqd.dtype}"
        if d % 8 or d > 128:
            return f"cuDNN takes heads of a multiple of 8 up to 128, not of {d}"
    elif not asked:
        share = _up(q, BLOCK) * _up(keys, BLOCK) / (q * keys)
        if share > WASTE:
            return f"blocks of {BLOCK} would compute {share:.1f} times the pairs"
    return ""


def _up(n: int, unit: int) -> int:
    return -(-n // unit) * unit


def fused(
    kernel: str,
    q_bhqd: jax.Array,
    k_bhtd: jax.Array,
    v_bhtd: jax.Array,
    *,
    causal: bool = False,
    mask_qt: jax.Array | None = None,
    mask_bt: jax.Array | None = None,
) -> jax.Array:
    """Scaled dot-product attention (b, h, q, d) by a kernel of PLATFORM.

    At most one of the three masks; of the arrays, True is visible. What a query that
    sees no key gets is finite, and not the reference's mean of all values.

    Args:
      causal: query i sees keys 0 to i; there are as many of both.
      mask_qt: bool, the same for all rows.
      mask_bt: bool, the same for all queries of a row.
    """
    run = cudnn if kernel == "cudnn" else splash
    return run(q_bhqd, k_bhtd, v_bhtd, causal=causal, mask_qt=mask_qt, mask_bt=mask_bt)


def _padded(x: jax.Array, axis: int, unit: int) -> jax.Array:
    """Zeros, or False, after the end, up to a multiple of `unit`."""
    widths = [(0, 0)] * x.ndim
    widths[axis] = (0, _up(x.shape[axis], unit) - x.shape[axis])
    return jnp.pad(x, widths)


def _dot_product_attention(*args: jax.Array, **kwargs: object) -> jax.Array:
    return jax.nn.dot_product_attention(*args, implementation="cudnn", **kwargs)


def cudnn(
    q_bhqd: jax.Array,
    k_bhtd: jax.Array,
    v_bhtd: jax.Array,
    *,
    causal: bool = False,
    mask_qt: jax.Array | None = None,
    mask_bt: jax.Array | None = None,
) -> jax.Array:
    """`fused` on NVIDIA GPUs. Masks other than causal are added to the logits."""
    (b, _, q, _), t = q_bhqd.shape, k_bhtd.shape[2]
    mask = None
    if mask_qt is not None:
        mask = mask_qt[None, None]
    elif mask_bt is not None:
        mask = jnp.broadcast_to(mask_bt[:, None, None], (b, 1, q, t))
    # Its gradient takes even lengths; keys that are made up are hidden.
    heads_last = (x.swapaxes(1, 2) for x in (q_bhqd, k_bhtd, v_bhtd))
    q_bqhd, k_bthd, v_bthd = (_padded(x, 1, 8) for x in heads_last)
    lengths = None
    if mask is not None:
        mask = _padded(_padded(mask, 2, 8), 3, 8)
    elif t % 8 and not causal:
        lengths = jnp.full(b, t, jnp.int32)
    y_bqhd = _dot_product_attention(
        *(q_bqhd, k_bthd, v_bthd),
        mask=mask,
        is_causal=causal,
        key_value_seq_lengths=lengths,
    )
    return y_bqhd[:, :q].swapaxes(1, 2)


def splash(
    q_bhqd: jax.Array,
    k_bhtd: jax.Array,
    v_bhtd: jax.Array,
    *,
    causal: bool = False,
    mask_qt: jax.Array | None = None,
    mask_bt: jax.Array | None = None,
    interpret: bool = False,
) -> jax.Array:
    """`fused` on TPUs. interpret: Pallas' interpreter, on any platform."""
    # Its module registers with the compiler for TPUs when it is imported.
    from jax.experimental.pallas.ops.tpu.splash_attention import (
        splash_attention_kernel as kernels,
    )

    q, t, d = q_bhqd.shape[2], k_bhtd.shape[2], q_bhqd.shape[3]
    q_bhqd = _padded(q_bhqd * d**-0.5, 2, BLOCK)
    k_bhtd, v_bhtd = (_padded(x, 2, BLOCK) for x in (k_bhtd, v_bhtd))
    if mask_qt is None:
        shape = q_bhqd.shape[2], k_bhtd.shape[2]
        seen = np.broadcast_to(np.arange(shape[1]) < t, shape)
        seen = np.tri(*shape, dtype=bool) if causal else seen
    else:
        seen = _padded(_padded(jnp.asarray(mask_qt), 0, BLOCK), 1, BLOCK)
    kernel = kernels.make_splash_mha_single_device(
        seen[None],  # of one head: all have the same
        block_sizes=kernels.BlockSizes.get_default(),
        interpret=interpret,
    )
    ids_bt = None
    if mask_bt is not None:
        ids_bt = _padded(mask_bt.astype(jnp.int32), 1, BLOCK)
    for name in ("fwd_mask_info", "dq_mask_info", "dkv_mask_info"):
        # Names a scope and no more, and an array could not be asked when traced.
        info = getattr(kernel, name)._replace(is_dynamic_mask=None)
        setattr(kernel, name, info)
    masks, structure = jax.tree.flatten(kernel)
    y_bhqd = _splash(structure, q_bhqd, k_bhtd, v_bhtd, ids_bt, tuple(masks))
    return y_bhqd[:, :, :q].astype(v_bhtd.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _splash(
    structure: PyTree,
    q_bhqd: jax.Array,
    k_bhtd: jax.Array,
    v_bhtd: jax.Array,
    ids_bt: jax.Array | None,
    masks: tuple[jax.Array, ...],
) -> jax.Array:
    """Each device runs the kernel on its own rows and heads.

    structure, masks: of the kernel, as a tree of arrays. ids_bt: 1 where a key is seen.
    """
    run = functools.partial(_local, structure)
    return _split(run, "b h q d", (q_bhqd, k_bhtd, v_bhtd), ids_bt, masks)


def _splash_forward(structure: PyTree, *saved: PyTree) -> tuple[jax.Array, tuple]:
    return _splash(structure, *saved), saved


def _splash_backward(structure: PyTree, saved: tuple, grad_bhqd: jax.Array) -> tuple:
    """Of what each device holds. The two directions are split over devices apart, and
    nothing but arguments goes between them: the forward kernel runs again."""
    *qkv, ids_bt, masks = saved

    def run(grad_bhqd: jax.Array, *args: PyTree) -> tuple[jax.Array, ...]:
        *qkv, ids_bt, masks = args
        _, pull = jax.vjp(lambda *qkv: _local(structure, *qkv, ids_bt, masks), *qkv)
        return pull(grad_bhqd)

    out = "b h q d, b h t d, b h t d"
    return (*_split(run, out, (grad_bhqd, *qkv), ids_bt, masks), None, None)


_splash.defvjp(_splash_forward, _splash_backward)


def _local(
    structure: PyTree,
    q_bhqd: jax.Array,
    k_bhtd: jax.Array,
    v_bhtd: jax.Array,
    ids_bt: jax.Array | None,
    masks: tuple[jax.Array, ...],
) -> jax.Array:
    """The kernel on one device."""
    from jax.experimental.pallas.ops.tpu.splash_attention import (
        splash_attention_kernel as kernels,
    )

    kernel = jax.tree.unflatten(structure, masks)

    def of_row(
        q_hqd: jax.Array, k_htd: jax.Array, v_htd: jax.Array, ids_t: jax.Array | None
    ) -> jax.Array:
        segments = None
        if ids_t is not None:  # a query is of segment 1, and so is a key that it sees
            ones_q = jnp.ones(q_hqd.shape[1], jnp.int32)
            segments = kernels.SegmentIds(ones_q, ids_t)
        one = jax.vmap(lambda *qkv: kernel(*(x[None] for x in qkv), segments)[0])
        return one(q_hqd, k_htd, v_htd)

    return jax.vmap(of_row)(q_bhqd, k_bhtd, v_bhtd, ids_bt).astype(q_bhqd.dtype)


def _split(
    run: Callable,
    out: str,
    heads: tuple[jax.Array, ...],
    ids_bt: jax.Array | None,
    masks: tuple[jax.Array, ...],
) -> PyTree:
    """`run(*heads, ids_bt, masks)`, every device on its own rows and heads.

    XLA cannot split a Pallas kernel: left alone, it would refuse the program.
    """
    args = heads, ids_bt, masks
    leaves, structure = jax.tree.flatten(args)

    def body(*leaves: jax.Array) -> PyTree:
        heads, ids_bt, masks = jax.tree.unflatten(structure, leaves)
        return run(*heads, ids_bt, masks)

    def partition(mesh: Any, arguments: Any, results: PyTree) -> tuple:
        rows, head = (*arguments[0].sharding.spec, None, None)[:2]
        placed = [PartitionSpec(rows, head, None, None)] * len(heads)
        placed += [PartitionSpec(rows, None)] * (ids_bt is not None)
        placed += [PartitionSpec()] * len(masks)
        inside = tuple(NamedSharding(mesh, spec) for spec in placed)
        return mesh, body, jax.tree.map(lambda _: inside[0], results), inside

    names = ["b h q d"] * (len(heads) - 2) + ["b h t d"] * 2
    names += ["b t"] * (ids_bt is not None)
    whole = [[f"m{i}x{j}" for j in range(x.ndim)] for i, x in enumerate(masks)]
    names += [" ".join(axes) for axes in whole]
    split = custom_partitioning(body)
    split.def_partition(
        partition=partition,
        sharding_rule=f"{', '.join(names)} -> {out}",
        # in the order in which they appear
        need_replication_factors=("q", "d", "t", *itertools.chain(*whole)),
    )
    return split(*leaves)
