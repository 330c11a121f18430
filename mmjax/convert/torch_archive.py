"""Reads torch's zip archives as data: nothing is unpickled, imported or run.

A `.pt` file (a state dict, a whole module, or TorchScript as OpenAI released CLIP) is a
zip of raw storages and one pickle that says which tensor lies where. A pickle is a
program. This module walks its opcodes by `pickletools`; names of classes stay names,
and the few calls that make tensors and containers are done by this code. Any other
call is code in the file, and the file is refused.
"""

import dataclasses
import math
import pathlib
import pickletools
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


@dataclasses.dataclass(frozen=True)
class Name:
    """A global that a pickle names: never looked up."""

    text: str


@dataclasses.dataclass(eq=False)
class Module:
    """An instance of a class of _MODULES: its state, and no behaviour."""

    state: Any = None


class Refused(ValueError):
    """A pickle that would run code, or an opcode that no torch file needs."""


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
    "collections.OrderedDict": dict,
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


_PUSHED = {  # opcodes whose argument is the value
    *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT", "INT", "LONG"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "UNICODE"),
    *("BINSTRING", "SHORT_BINSTRING", "STRING"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
_EMPTY |= {"EMPTY_SET": set}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_MARK = object()


def _run(program: bytes, storage: Callable[[Any], np.ndarray]) -> Any:
    """The value of a pickle; `storage` gives the array of a persistent id."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}

    def marked() -> list[Any]:
        """The values above the last mark, taken off with it."""
        items = []
        while (item := stack.pop()) is not _MARK:
            items.append(item)
        return items[::-1]

    def pairs() -> Any:
        items = marked()
        return zip(items[::2], items[1::2], strict=True)

    for opcode, value, _ in pickletools.genops(program):
        match opcode.name:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                return stack.pop()
            case name if name in _PUSHED:
                stack.append(value)
            case name if name in _CONSTANTS:
                stack.append(_CONSTANTS[name])
            case name if name in _EMPTY:
                stack.append(_EMPTY[name]())
            case name if name in _TUPLES:
                stack[-_TUPLES[name] :] = [tuple(stack[-_TUPLES[name] :])]
            case "MARK":
                stack.append(_MARK)
            case "TUPLE":
                stack.append(tuple(marked()))
            case "LIST":
                stack.append(marked())
            case "DICT":
                stack.append(dict(pairs()))
            case "APPEND":
                item = stack.pop()
                stack[-1].append(item)
            case "APPENDS":
                items = marked()
                stack[-1].extend(items)
            case "ADDITEMS":
                items = marked()
                stack[-1].update(items)
            case "SETITEM":
                item, key = stack.pop(), stack.pop()
                stack[-1][key] = item
            case "SETITEMS":
                items = pairs()
                stack[-1].update(items)
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                memo[value] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(memo[value])
            case "POP":
                stack.pop()
            case "GLOBAL":
                stack.append(Name(value.replace(" ", ".", 1)))
            case "STACK_GLOBAL":
                name = stack.pop()
                stack[-1] = Name(f"{stack[-1]}.{name}")
            case "BINPERSID":
                stack[-1] = storage(stack[-1])
            case "REDUCE" | "NEWOBJ" as way:
                args = stack.pop()
                stack[-1] = _call(stack[-1], args, new=way == "NEWOBJ")
            case "BUILD":
                _build(stack.pop(), stack[-1])
            case name:
                raise Refused(f"has the opcode {name}")
    raise EOFError("the pickle has no end")


def _call(function: Any, args: tuple, *, new: bool) -> Any:
    """A call of _CALLS, or (`new`) an instance of a class of _MODULES."""
    text = function.text if isinstance(function, Name) else repr(function)
    if text in _CALLS:
        return _CALLS[text](*args)
    if new and text.startswith(_MODULES):
        return Module()
    raise Refused(f"calls {text}")


def _build(state: Any, target: Any) -> None:
    if isinstance(target, Module):
        target.state = state
    elif not isinstance(target, dict):  # an OrderedDict's attributes (_metadata)
        raise Refused(f"sets the state of a {type(target).__name__}")


def _storages(archive: zipfile.ZipFile, folder: str) -> Callable[[Any], np.ndarray]:
    """Gives the flat array of ('storage', type, key, device, size), each read once."""
    arrays: dict[str, np.ndarray] = {}

    def storage(identity: Any) -> np.ndarray:
        tag, kind, key, _, size = identity
        name = kind.text.rpartition(".")[2] if isinstance(kind, Name) else ""
        if tag != "storage" or name not in _DTYPES:
            raise Refused(f"names a storage of type {name or kind!r}")
        if key not in arrays:
            raw = np.frombuffer(_member(archive, folder + key), _DTYPES[name])
            if raw.size < size:
                raise ValueError(f"storage {key} holds {raw.size} of {size} numbers")
            arrays[key] = raw
        return arrays[key]

    return storage


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    """A member as torch writes it: stored, so that it cannot unfold to more."""
    if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{name} is compressed")
    return archive.read(name)


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
            # eight bytes of it: it may unfold to any number
            if order in names and archive.open(order).read(8) != b"little":
                raise UserError(f"{path}: big-endian tensors are not read")
            program = _member(archive, inner[0])
            return _run(program, _storages(archive, f"{home}data/"))
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
