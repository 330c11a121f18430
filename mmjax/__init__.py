"""mmjax: multimodal vision-language research in JAX and Flax.

    import mmjax
    m = mmjax.load("runs/demo/clip")
    m.classify("photo.jpg", ["a red circle", "a blue star"])

Another distribution may hold families, evaluators, fields and verbs of its own, in the
same folders below a folder `mmjax` on Python's path: they are found by their names.
"""

import importlib
import pkgutil
from typing import TYPE_CHECKING

from mmjax.errors import UserError

if TYPE_CHECKING:
    from mmjax.inference.generate import Candidates
    from mmjax.inference.log import Log, differing, read_logs
    from mmjax.inference.model import Model, load
    from mmjax.inference.params import Diff, Params
    from mmjax.report.image_grid import sheet

__path__ = pkgutil.extend_path(__path__, __name__)
__version__ = "0.1.0"
# Where a public name is; JAX is imported when the first one is asked for.
_PLACES = {
    "Candidates": "inference.generate",
    "Diff": "inference.params",
    "Log": "inference.log",
    "Model": "inference.model",
    "Params": "inference.params",
    "differing": "inference.log",
    "load": "inference.model",
    "read_logs": "inference.log",
    "sheet": "report.image_grid",
}
__all__ = [
    "Candidates",
    "Diff",
    "Log",
    "Model",
    "Params",
    "UserError",
    "differing",
    "load",
    "read_logs",
    "sheet",
]


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module 'mmjax' has no attribute {name!r}")
    return getattr(importlib.import_module(f"mmjax.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
