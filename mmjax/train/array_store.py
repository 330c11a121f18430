"""Checkpoints on disk: the one module that calls Orbax' checkpoint API.

A folder holds a subfolder for every step, of two items: `state`, a tree of arrays, and
`data`, JSON. What is said here through version 0 of Orbax' API can be said through
version 1, but for removal of steps and notice of preemption; see
docs/design/0011-orbax-behind-one-module.md.
"""

import functools
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from mmjax import tree
from mmjax.train import checksum

PyTree = Any
_PART = 1 << 30  # bytes of arrays that are read before they are cast


class ArrayStore:
    """The steps of one folder. Saves are asynchronous and atomic."""

    def __init__(self, folder: epath.Path, *, keep: int, read_only: bool):
        """Args:
        folder: made where it is missing, unless `read_only`.
        keep: the newest steps that stay.
        read_only: nothing is written or removed.

        Raises:
          ValueError: a step cannot even be listed.
        """
        options = ocp.CheckpointManagerOptions(
            preservation_policy=ocp.checkpoint_managers.LatestN(keep),
            cleanup_tmp_directories=not read_only,
            create=not read_only,
        )
        self._folder = folder
        self._arrays = ocp.StandardCheckpointHandler()
        self._notes = ocp.JsonCheckpointHandler()
        registry = ocp.handlers.DefaultCheckpointHandlerRegistry()
        for args in (ocp.args.StandardSave, ocp.args.StandardRestore):
            registry.add("state", args, self._arrays)
        for args in (ocp.args.JsonSave, ocp.args.JsonRestore):
            registry.add("data", args, self._notes)
        self._manager = ocp.CheckpointManager(
            folder, options=options, handler_registry=registry
        )
        self.latest = self._manager.latest_step
        self.steps = self._manager.all_steps
        self.wait = self._manager.wait_until_finished
        self.reload = self._manager.reload
        self.close = self._manager.close

    def save(self, step: int, state: PyTree, notes: Any) -> bool:
        """Begins saving arrays and what JSON can hold; False where it is not taken."""
        args = ocp.args.Composite(
            state=ocp.args.StandardSave(state), data=ocp.args.JsonSave(notes)
        )
        return self._manager.save(step, args=args)

    def shapes(self, step: int) -> dict[str, tuple[int, ...]]:
        """Shapes of all arrays of a step by '/'-joined path; nothing is read."""
        meta = self._manager.item_metadata(step)["state"]
        meta = getattr(meta, "tree", meta)
        if meta is None:
            raise ValueError("its metadata are missing")
        return {path: tuple(x.shape) for path, x in tree.flatten(meta).items()}

    # By the handlers themselves: the manager waits, after reading, for processes that
    # a failure has sent elsewhere.
    def arrays(self, step: int, wanted: PyTree) -> PyTree:
        """All arrays of a step, read straight onto the shardings of `wanted`."""
        args = ocp.args.StandardRestore(wanted)
        return self._arrays.restore(self._folder / str(step) / "state", args=args)

    def some(
        self, step: int, wanted: PyTree, dtype: str = ""
    ) -> tuple[PyTree, dict[str, int]]:
        """(arrays, their sums) of those of a step that `wanted` names, and no others.

        See `cast` for `dtype`.
        """
        return _some(self._folder / str(step) / "state", wanted, dtype)

    def notes(self, step: int) -> Any:
        """The JSON of a step."""
        args = ocp.args.JsonRestore()
        return self._notes.restore(self._folder / str(step) / "data", args=args)


def save_once(folder: epath.Path, arrays: PyTree) -> None:
    """Writes a tree of arrays that has no steps, over what is there."""
    with ocp.StandardCheckpointer() as once:
        once.save(folder, arrays, force=True)


def read_once(
    folder: epath.Path, wanted: PyTree, dtype: str = ""
) -> tuple[PyTree, dict[str, int]]:
    """What `save_once` wrote, and the sums of its arrays; see `cast` for `dtype`."""
    return _some(folder, wanted, dtype)


def _some(
    folder: epath.Path, wanted: PyTree, dtype: str
) -> tuple[PyTree, dict[str, int]]:
    handler, read, sums = ocp.PyTreeCheckpointHandler(), {}, {}
    parts = map(tree.unflatten, _parts(tree.flatten(wanted)))
    for item in parts if dtype else [wanted]:
        args = ocp.checkpoint_utils.construct_restore_args(item)
        args = ocp.args.PyTreeRestore(
            item=item, restore_args=args, partial_restore=True
        )
        arrays = tree.flatten(handler.restore(folder, args=args))
        # Orbax hands back what it was asked for in place of an array that is not there.
        for path, leaf in arrays.items():
            if isinstance(leaf, jax.ShapeDtypeStruct):
                raise ValueError(f"{path} is missing")
        sums |= checksum.sums(arrays)
        read |= {path: cast(leaf, dtype) for path, leaf in arrays.items()}
    return tree.map_with_path(lambda path, _: read[path], wanted), sums


def _parts(leaves: dict[str, Any]) -> list[dict[str, Any]]:
    """The leaves in groups of some _PART bytes: not all are there before the cast."""
    parts, size = [{}], 0
    for path, leaf in leaves.items():
        parts[-1][path] = leaf
        size += leaf.size * 4
        if size > _PART:
            parts, size = [*parts, {}], 0
    return [part for part in parts if part]


def cast(leaf: jax.Array, dtype: str) -> jax.Array:
    """A float array in `dtype`, where it is given; all else as it is."""
    if dtype and jax.dtypes.issubdtype(leaf.dtype, jax.numpy.floating):
        return _cast(leaf, dtype)
    return leaf


@functools.partial(jax.jit, static_argnums=1)  # its sharding stays
def _cast(leaf: jax.Array, dtype: str) -> jax.Array:
    return leaf.astype(dtype)
