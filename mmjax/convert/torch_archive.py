"""Reads torch's zip archives as data, without torch and without running their code.

A `.pt` file (a state dict, a whole module, or TorchScript as OpenAI released CLIP) is a
zip of raw storages and one pickle that says which tensor lies where. A pickle is a
program. The unpickler below looks no name up: the few calls that make tensors and
containers are this module's own, every other name is a stub, and calling it refuses
the file.
"""

import math
import pathlib
import pickle
import zipfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import ml_dtypes
import numpy as np

from mmjax.errors import UserError

_DTYPES = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}
# Instances of these classes are read for the tensors they hold.
_MODULES = ("__torch__.", "torch.nn.", "dall_e.")


class Refused(ValueError):
    """A pickle that would run code."""


class Module:
    """An instance of a class of _MODULES: its state, and no behaviour."""

    state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Dict(dict):
    """An OrderedDict without the attributes (`_metadata`) that torch gives it."""

    def __setstate__(self, state: Any) -> None:
        pass


def _stub(text: str) -> type:
    """What a name in a pickle stands for: it may be held, and never called."""

    def refuse(*_: Any, **__: Any) -> None:
        raise Refused(f"calls {text}")

    return type(text, (), {"__new__": refuse})


def _tensor(storage: np.ndarray, offset: int, size: tuple, stride: tuple, *_: Any):
    """A tensor's array, as torch._utils._rebuild_tensor_v2 describes it."""
    if min((offset, *size, *stride), default=0) < 0:
        raise ValueError("a tensor's sizes are negative")
    count = math.prod(size)
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    if count > storage.size or (count and last >= storage.size):
        raise ValueError(f"a tensor reaches to {last} of {storage.size} numbers")
    flat = storage[offset : last + 1] if count else storage[:0]
    steps = tuple(s * storage.itemsize for s in stride)
    view = np.lib.stride_tricks.as_strided(flat, size, steps, writeable=False)
    return np.asarray(view, order="C")


def _first(value: Any, *_: Any) -> Any:
    return value


_CALLS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "collections.OrderedDict": _Dict,
    "builtins.set": set,
    "__builtin__.set": set,
    "torch.Size": tuple,
    "torch.device": lambda *args: args,
    "torch.jit._pickle.build_intlist": _first,
    "torch.jit._pickle.build_tensorlist": _first,
    "torch.jit._pickle.build_doublelist": _first,
    "torch.jit._pickle.build_boollist": _first,
    "torch.jit._pickle.restore_type_tag": _first,
}


class _Unpickler(pickle.Unpickler):
    """Reads the pickle of an archive whose storages lie in `folder`."""

    def __init__(self, archive: zipfile.ZipFile, folder: str):
        super().__init__(_opened(archive, f"{folder}data.pkl"))
        self._archive, self._folder = archive, f"{folder}data/"
        self._storages: dict[str, np.ndarray] = {}

    def find_class(self, module: str, name: str) -> Any:
        text = f"{module}.{name}"
        return Module if text.startswith(_MODULES) else _CALLS.get(text) or _stub(text)

    def persistent_load(self, identity: Any) -> np.ndarray:
        """The flat array of ('storage', type, key, device, size), read once."""
        tag, kind, key, _, size = identity
        name = getattr(kind, "__name__", "").rpartition(".")[2]
        if tag != "storage" or name not in _DTYPES:
            raise Refused(f"names a storage of type {name or kind!r}")
        if key not in self._storages:
            data = _opened(self._archive, self._folder + key).read()
            raw = np.frombuffer(data, _DTYPES[name])
            if raw.size < size:
                raise ValueError(f"storage {key} holds {raw.size} of {size} numbers")
            self._storages[key] = raw
        return self._storages[key]


def _opened(archive: zipfile.ZipFile, name: str) -> Any:
    """A member as torch writes it: stored, so that it cannot unfold to more."""
    if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{name} is compressed")
    return archive.open(name)


def read(path: pathlib.Path) -> Any:
    """The object of a torch zip archive: dicts, lists, numbers, arrays and Modules.

    Raises:
      UserError: the pickle holds code, or the archive is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            inner = [n for n in names if n.rpartition("/")[2] == "data.pkl"]
            if len(inner) != 1:
                raise UserError(f"{path}: a zip file, but not one that torch wrote")
            home = inner[0].removesuffix("data.pkl")
            order = f"{home}byteorder"
            if order in names and archive.read(order) != b"little":
                raise UserError(f"{path}: big-endian tensors are not read")
            return _Unpickler(archive, home).load()
    except Refused as e:
        raise UserError(
            f"{path}: refused, its pickle {e}; only tensors in dicts and modules are "
            "read. Ask its author for a safetensors file"
        ) from e
    except UserError:
        raise
    except Exception as e:  # a damaged pickle can raise anything
        raise UserError(f"{path}: damaged or cut short ({e}): fetch it again") from e


def tensors(value: Any) -> dict[str, np.ndarray]:
    """Arrays by dotted name, as a torch state dict has them.

    A dict gives its arrays; a module gives its parameters and buffers and those of its
    children.
    """
    return dict(_walk(value, ""))


def _walk(value: Any, prefix: str) -> Iterator[tuple[str, np.ndarray]]:
    whole = isinstance(value, Module)
    state = value.state if whole else value
    if not isinstance(state, Mapping):
        return
    if whole and "_modules" in state:  # TorchScript lists all of them as attributes
        kept = ("_parameters", "_buffers", "_modules")
        state = {k: v for part in kept for k, v in (state.get(part) or {}).items()}
    for key, item in state.items():
        if isinstance(item, np.ndarray):
            yield f"{prefix}{key}", item
        elif whole or isinstance(item, Module):
            yield from _walk(item, f"{prefix}{key}.")
