"""Torch zip archives read as data: nothing in them is unpickled, imported or run.

A `.pt` file (a state dict, a whole module, or TorchScript as OpenAI released CLIP) is
a zip: raw storages, and one pickle that says which tensors lie where. A pickle is a
program. Here its opcodes are walked by `pickletools`, names of classes stay names, and
the few calls that make tensors and containers are done by this code. Any other call is
code in the file, and the file is refused.
"""

import dataclasses
import math
import pathlib
import pickletools
import zipfile
from collections.abc import Callable
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
# Classes whose instances are read for the tensors they hold; no other is made.
_MODULES = ("__torch__.", "torch.nn.", "dall_e.")


@dataclasses.dataclass(frozen=True)
class Name:
    """A global that a pickle names: never looked up."""

    text: str


@dataclasses.dataclass(eq=False)
class Module:
    """An instance of a class of _MODULES: its state, and no behaviour."""

    kind: str
    state: Any = None


class Refused(ValueError):
    """A pickle that would run code, or an opcode that no torch file needs."""


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
            if f"{home}byteorder" in names and archive.read(f"{home}byteorder") not in (
                b"little",
            ):
                raise UserError(f"{path}: big-endian tensors are not read")
            storages = _Storages(archive, f"{home}data/")
            return _Machine(storages.of).run(_member(archive, inner[0]))
    except Refused as e:
        raise UserError(
            f"{path}: refused, its pickle {e}; only tensors in dicts and modules are "
            "read. Ask its author for a safetensors file"
        ) from e
    except (zipfile.BadZipFile, EOFError, KeyError, IndexError, ValueError) as e:
        raise UserError(f"{path}: damaged or cut short ({e}): fetch it again") from e


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    """A member as torch writes it: stored, so that it cannot unfold to more."""
    if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{name} is compressed")
    return archive.read(name)


class _Storages:
    """The raw arrays of an archive, each read once."""

    def __init__(self, archive: zipfile.ZipFile, folder: str):
        self._archive, self._folder = archive, folder
        self._kept: dict[str, np.ndarray] = {}

    def of(self, identity: Any) -> np.ndarray:
        """The flat array of a persistent id ('storage', type, key, device, size)."""
        tag, kind, key, _, size = identity
        name = kind.text.rpartition(".")[2] if isinstance(kind, Name) else ""
        if tag != "storage" or name not in _DTYPES:
            raise Refused(f"names a storage of type {name or kind!r}")
        if key not in self._kept:
            raw = np.frombuffer(
                _member(self._archive, self._folder + key), _DTYPES[name]
            )
            if raw.size < size:
                raise ValueError(f"storage {key} holds {raw.size} of {size} numbers")
            self._kept[key] = raw
        return self._kept[key]


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


_CALLS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_parameter": lambda data, *_: data,
    "torch._utils._rebuild_parameter_with_state": lambda data, *_: data,
    "collections.OrderedDict": dict,
    "builtins.set": set,
    "__builtin__.set": set,
    "torch.Size": tuple,
    "torch.device": lambda *args: args,
    "torch.jit._pickle.build_intlist": lambda data: data,
    "torch.jit._pickle.build_tensorlist": lambda data: data,
    "torch.jit._pickle.build_doublelist": lambda data: data,
    "torch.jit._pickle.build_boollist": lambda data: data,
    "torch.jit._pickle.restore_type_tag": lambda data, _: data,
}
_PUSH = {  # opcodes whose argument is the value
    *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT", "INT", "LONG"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "UNICODE"),
    *("BINSTRING", "SHORT_BINSTRING", "STRING"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY = {
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_SET": set,
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_MARK = object()


class _Machine:
    """Walks the opcodes of one pickle."""

    def __init__(self, storage: Callable[[Any], np.ndarray]):
        self._storage = storage
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def run(self, program: bytes) -> Any:
        for opcode, value, _ in pickletools.genops(program):
            name = opcode.name
            if name == "STOP":
                return self._stack.pop()
            if name in _PUSH:
                self._stack.append(value)
            elif name in _CONSTANTS:
                self._stack.append(_CONSTANTS[name])
            elif name in _EMPTY:
                self._stack.append(_EMPTY[name]())
            elif name in _TUPLES:
                count = _TUPLES[name]
                self._stack[-count:] = [tuple(self._stack[-count:])]
            elif name not in ("PROTO", "FRAME"):
                step = getattr(self, f"_{name.lower()}", None)
                if step is None:
                    raise Refused(f"has the opcode {name}")
                step(value)
        raise EOFError("the pickle has no end")

    def _marked(self) -> list[Any]:
        """What lies above the last mark, taken off with it."""
        at = len(self._stack) - 1
        while self._stack[at] is not _MARK:
            at -= 1
        found = self._stack[at + 1 :]
        del self._stack[at:]
        return found

    def _mark(self, _: Any) -> None:
        self._stack.append(_MARK)

    def _tuple(self, _: Any) -> None:
        self._stack.append(tuple(self._marked()))

    def _list(self, _: Any) -> None:
        self._stack.append(self._marked())

    def _dict(self, _: Any) -> None:
        items = self._marked()
        self._stack.append(dict(zip(items[::2], items[1::2], strict=True)))

    def _append(self, _: Any) -> None:
        value = self._stack.pop()
        self._stack[-1].append(value)

    def _appends(self, _: Any) -> None:
        items = self._marked()
        self._stack[-1].extend(items)

    def _additems(self, _: Any) -> None:
        items = self._marked()
        self._stack[-1].update(items)

    def _setitem(self, _: Any) -> None:
        key, value = self._stack[-2:]
        del self._stack[-2:]
        self._stack[-1][key] = value

    def _setitems(self, _: Any) -> None:
        items = self._marked()
        self._stack[-1].update(zip(items[::2], items[1::2], strict=True))

    def _put(self, index: int) -> None:
        self._memo[index] = self._stack[-1]

    _binput = _long_binput = _put

    def _memoize(self, _: Any) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def _get(self, index: int) -> None:
        self._stack.append(self._memo[index])

    _binget = _long_binget = _get

    def _pop(self, _: Any) -> None:
        self._stack.pop()

    def _global(self, text: str) -> None:
        self._stack.append(Name(text.replace(" ", ".", 1)))

    def _stack_global(self, _: Any) -> None:
        module, name = self._stack[-2:]
        self._stack[-2:] = [Name(f"{module}.{name}")]

    def _binpersid(self, _: Any) -> None:
        self._stack.append(self._storage(self._stack.pop()))

    def _reduce(self, _: Any) -> None:
        function, args = self._stack[-2:]
        text = function.text if isinstance(function, Name) else repr(function)
        if text not in _CALLS:
            raise Refused(f"calls {text}")
        self._stack[-2:] = [_CALLS[text](*args)]

    def _newobj(self, _: Any) -> None:
        kind, _args = self._stack[-2:]
        text = kind.text if isinstance(kind, Name) else repr(kind)
        if text in _CALLS:
            self._stack[-2:] = [_CALLS[text](*_args)]
            return
        if not text.startswith(_MODULES):
            raise Refused(f"makes an instance of {text}")
        self._stack[-2:] = [Module(text)]

    def _build(self, _: Any) -> None:
        state = self._stack.pop()
        target = self._stack[-1]
        if isinstance(target, Module):
            target.state = state
        elif not isinstance(target, dict):  # an OrderedDict's attributes (_metadata)
            raise Refused(f"sets the state of a {type(target).__name__}")


def tensors(found: Any) -> dict[str, np.ndarray]:
    """Arrays by dotted name, as a torch state dict has them.

    Of a module its parameters and buffers and those of its children; of a dict its
    arrays, and of `state_dict` or `model` in it where it has none itself.
    """
    return dict(_walk(found, ""))


def _walk(found: Any, prefix: str):
    if isinstance(found, Module):
        state = found.state if isinstance(found.state, dict) else {}
        if "_modules" in state:  # a Python module; TorchScript lists all as attributes
            kept = ("_parameters", "_buffers", "_modules")
            state = {k: v for part in kept for k, v in (state.get(part) or {}).items()}
    elif isinstance(found, dict):
        state = found
    else:
        return
    for key, value in state.items():
        if isinstance(value, np.ndarray):
            yield f"{prefix}{key}", value
        elif isinstance(value, Module) or isinstance(found, Module):
            yield from _walk(value, f"{prefix}{key}.")
