"""Reading configs: `configs/clip.py:shapes` and `--config.optim.lr=3e-4`.

A config file has `get_config(arg)` returning a ConfigDict. Overrides go through
ml_collections' own flag parser, on flags that live for one call.
"""

import copy
import dataclasses
import importlib
import importlib.util
import json
import pathlib
import sys
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_dict, config_flags

from mmjax import schema
from mmjax.errors import UserError
from mmjax.train.checkpoint import CheckpointConfig

# Where the files of a checkout lie: the folder that holds the package.
HOME = pathlib.Path(__file__).resolve().parents[2]
_SCALARS = (bool, int, float, str)


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """`config.data`."""

    train: Any  # source spec, or ((spec, weight), ...)
    fields: dict = dataclasses.field(default_factory=dict)  # NAME: {kind, ...}
    threads: int = 2  # decoding threads, where workers is 0
    workers: int = 0  # decoding processes
    prefetch: int = 2  # batches made ahead and placed on the device
    max_broken: float = 0.01  # share of broken records that fails the run


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """The top of a config."""

    task: Any
    data: DataConfig
    steps: int
    batch_size: int  # global
    seed: int = 0
    log_every: int = 50
    optim: Any = dataclasses.field(default_factory=dict)
    parallel: Any = dataclasses.field(default_factory=dict)
    checkpoint: CheckpointConfig = CheckpointConfig()
    evals: Any = dataclasses.field(default_factory=dict)
    peak_tflops: float = 0.0  # of one device, for `mfu`; 0: of the device's make
    graft: Any = dataclasses.field(default_factory=dict)  # place: WORKDIR, see `graft`


def load(spec: str, overrides: Sequence[str] = ()) -> ConfigDict:
    """The config of `PATH.py:ARG`, with `--config.key=value` overrides applied.

    A relative path is looked up in the working folder, then beside the package.

    Raises:
      UserError: no such file, or the file raises on ARG; an unknown key (names the
        nearest one); a value that does not parse as the key's type (names both).
    """
    return override(_call(spec), overrides)


def override(config: ConfigDict, overrides: Sequence[str]) -> ConfigDict:
    """A locked copy of `config` with `--config.key=value` overrides applied.

    A key that the config leaves at its default may be given as well.
    """
    config = copy.deepcopy(config).unlock()
    for text in overrides:
        _prepare(config, text)
    holder = flags.FlagValues()
    argv = ["mmjax", *overrides]
    config_flags.DEFINE_config_dict("config", config, flag_values=holder, sys_argv=argv)
    try:
        holder(argv)
    except flags.Error as e:
        raise UserError(" ".join(str(e).split())) from e
    return config.lock()


def from_json(saved: str | Mapping) -> ConfigDict:
    """The config of a run.json: lists become tuples again, so overrides work."""
    found = json.loads(saved) if isinstance(saved, str) else saved
    return ConfigDict(_tuples(found))


def _tuples(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _tuples(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return tuple(_tuples(v) for v in value)
    return value


# -- the file ------------------------------------------------------------------
def _call(spec: str) -> ConfigDict:
    name, _, arg = spec.partition(":")
    path = _find(name)
    # A config may import its neighbours, `from configs import common`.
    roots = [str(path.parent.parent), str(HOME)]
    sys.path[:0] = roots
    try:
        module_spec = importlib.util.spec_from_file_location(
            f"mmjax_config_{path.stem}", path
        )
        module = importlib.util.module_from_spec(module_spec)
        module_spec.loader.exec_module(module)
        config = module.get_config(arg)
    except (ValueError, KeyError) as e:
        message = e.args[0] if e.args else type(e).__name__
        raise UserError(f"--config={spec}: {message}") from e
    except (AttributeError, ImportError, SyntaxError) as e:
        raise UserError(f"--config={spec}: {type(e).__name__}: {e}") from e
    finally:
        for root in roots:
            sys.path.remove(root)
    if not isinstance(config, ConfigDict):
        raise UserError(
            f"--config={spec}: get_config returned {type(config).__name__}, "
            "expected an ml_collections.ConfigDict"
        )
    return config


def _find(name: str) -> pathlib.Path:
    path = pathlib.Path(name).expanduser()
    places = [path.resolve()] if path.is_absolute() else [path.resolve(), HOME / path]
    for place in places:
        if place.is_file():
            return place
    shipped = [f"configs/{p.name}" for p in sorted((HOME / "configs").glob("*.py"))]
    listed = [s for s in shipped if s not in ("configs/common.py",)]
    raise UserError(f"no config file {name}{schema.suggest(name, listed)}")


# -- overrides -----------------------------------------------------------------
def _prepare(config: ConfigDict, text: str) -> None:
    """Checks one override's key and value before the flag parser sees it."""
    given, equals, value = text.partition("=")
    path = given.lstrip("-").removeprefix("config.")
    if not equals:
        raise UserError(f"{given}: write {given}=VALUE")
    *above, key = path.split(".")
    node, where = config, "config"
    for part in above:
        node = _child(node, part, where)
        where = f"{where}.{part}"
        if not isinstance(node, ConfigDict):
            raise UserError(
                f"{where} is {node!r} and has no keys; {given} does not fit"
            )
    if key not in node:
        _add_default(config, node, above, key)
    _check_type(f"--config.{path}", node[key], node.get_type(key), value)


def _child(node: ConfigDict, key: str, where: str) -> Any:
    if key not in node:
        raise UserError(f"{where}: unknown key {key!r}{schema.suggest(key, node)}")
    return node[key]


def _add_default(config: ConfigDict, node: ConfigDict, above: list, key: str) -> None:
    """Writes out a legal key that the config file leaves at its default."""
    where = ".".join(["config", *above])
    fields = _section(config, above)
    if key not in fields:
        legal = {*node.keys(), *fields}
        raise UserError(f"{where}: unknown key {key!r}{schema.suggest(key, legal)}")
    node[key] = fields[key]


def _section(config: ConfigDict, above: Iterable[str]) -> dict[str, Any]:
    """Defaults of the dataclass that reads a section, those a flag can set."""
    from mmjax import parallel
    from mmjax.train import checkpoint, optim
    from mmjax.train import config as config_lib

    known: dict[tuple[str, ...], Any] = {
        (): config_lib.RunConfig,
        ("data",): config_lib.DataConfig,
        ("optim",): optim.OptimConfig,
        ("parallel",): parallel.ParallelConfig,
        ("parallel", "mesh"): parallel.MeshConfig,
        ("checkpoint",): checkpoint.CheckpointConfig,
    }
    place = tuple(above)
    cls = known.get(place) or _plugin(config, place)
    return _defaults(cls) if cls is not None else {}


def _plugin(config: ConfigDict, place: tuple[str, ...]) -> type | None:
    """The dataclass of a section whose place or `kind` says it: task, field, group."""
    if place == ("task",):
        name, attribute = f"mmjax.tasks.{config.task.name}", "Task"
    elif place[0] == "evals" and len(place) == 2:
        kind = config.evals[place[1]].type
        name = kind if "." in kind else f"mmjax.evaluators.{kind}"
        attribute = "Config"
    elif place[:2] == ("data", "fields") and len(place) == 3:
        name = f"mmjax.data.fields.{config.data.fields[place[2]].kind}"
        attribute = "Field"
    elif place[:2] == ("optim", "groups") and len(place) == 3:
        name, attribute = "mmjax.train.optim", "GroupConfig"
    else:
        return None
    try:
        return getattr(importlib.import_module(name), attribute, None)
    except ModuleNotFoundError:
        return None  # building the run says what is wrong with the name


def _defaults(cls: type) -> dict[str, Any]:
    found, hints = {}, typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        kinds = [k for k in typing.get_args(hints[field.name]) if k in _SCALARS]
        if isinstance(field.default, (*_SCALARS, tuple)):
            found[field.name] = field.default
        elif field.default is None and kinds:  # `int | None`
            found[field.name] = config_dict.placeholder(kinds[0])
    return found


def _check_type(name: str, old: Any, kind: type, value: str) -> None:
    """A message of our own where the flag parser's would not name both types."""
    try:
        if kind is bool:
            if value.lower() not in ("true", "false", "1", "0", "t", "f"):
                raise ValueError
        elif kind in (int, float):
            kind(value)
        elif kind not in (str, tuple, object):
            raise UserError(
                f"{name}: a whole {kind.__name__} cannot be given on the command line; "
                "give its keys one by one, or edit the config file"
            )
    except ValueError as e:
        got = type(_literal(value)).__name__
        raise UserError(
            f"{name}: expected {kind.__name__} (such as {old!r}), got {value!r} ({got})"
        ) from e


def _literal(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
