"""How a run lies over devices and processes.

`Layout`, `MeshConfig`, `ParallelConfig` and `spread` are read from `layout` when they
are first asked for: `runtime`, which every command imports, works without JAX.
"""

from typing import Any

_LAYOUT = ("AXES", "ROWS", "Layout", "MeshConfig", "ParallelConfig", "spread")


def __getattr__(name: str) -> Any:
    if name not in _LAYOUT:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from mmjax.parallel import layout

    return getattr(layout, name)
