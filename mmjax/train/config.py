"""Reading configs: `configs/clip.py:shapes` and `--config.optim.lr=3e-4`.

A config file has `get_config(arg)` returning a ConfigDict. RunConfig types it, and
its annotations say what an override may set and how its text is read:

| section | its keys are the fields of |
|---|---|
| config, data, optim, parallel, checkpoint | RunConfig, DataConfig, OptimConfig, ... |
| task | mmjax.tasks.NAME.Task, where NAME is `config.task.name` |
| evals.X | mmjax.evaluators.TYPE.Config, where TYPE is `config.evals.X.type` |
| graft | any PLACE, `graft.params.image` for `params/image` |
"""

import copy
import dataclasses
import functools
import importlib
import importlib.util
import json
import logging
import pathlib
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

from ml_collections import ConfigDict

from mmjax import schema
from mmjax.data import specs
from mmjax.errors import UserError
from mmjax.parallel.layout import ParallelConfig
from mmjax.train.checkpoint import CheckpointConfig
from mmjax.train.optim import OptimConfig

log = logging.getLogger(__name__)
# Where the package lies: site-packages, or the folder of a checkout.
HOME = pathlib.Path(__file__).resolve().parents[2]
HELD_OUT = "held_out"  # the part of `data.train` that is not trained on, as a source
_SOURCES = ("source", "train")  # keys of evaluators that are specs
_Task = Annotated[dict[str, Any], schema.Plugin("mmjax.tasks", "name", "Task")]
_Field = Annotated[dict[str, Any], schema.Plugin("mmjax.data.fields", "kind", "Field")]
_Eval = Annotated[
    dict[str, Any], schema.Plugin("mmjax.evaluators", "type", "Config", outside=True)
]


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """`config.data`."""

    train: str | Mapping[str, Any] | tuple  # a source, or ((source, weight), ...)
    fields: dict[str, _Field] = dataclasses.field(default_factory=dict)
    threads: int = 2  # decoding threads, where workers is 0
    workers: int = 0  # decoding processes
    prefetch: int = 2  # batches made ahead and placed on the device
    max_broken: float = 0.01  # share of broken records that fails the run
    held_out: bool = False  # train on four fifths: the rest is the source `held_out`
    changed: bool = False  # resume although the records are not those of the start
    templates: str | tuple[str, ...] = ()  # of zero-shot, where no evaluator has any

    def __post_init__(self) -> None:
        schema.at_least(0, self, "threads", "workers", "prefetch", "max_broken")


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """The top of a config."""

    task: _Task
    data: DataConfig
    steps: int
    batch_size: int  # global
    seed: int = 0
    log_every: int = 50
    optim: OptimConfig = OptimConfig()
    parallel: ParallelConfig = ParallelConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    evals: dict[str, _Eval] = dataclasses.field(default_factory=dict)
    peak_tflops: float = 0.0  # of one device, for `mfu`; 0: of the device's make
    graft: dict[str, str] = dataclasses.field(default_factory=dict)  # see `init_from`

    def __post_init__(self) -> None:
        schema.at_least(1, self, "steps", "batch_size", "log_every")
        schema.at_least(0, self, "seed", "peak_tflops")
        schema.under(1 << 32, self, "seed")

    @property
    def templates(self) -> str | tuple[str, ...]:
        """What `prompts.load` takes: of its zero-shot evaluation, else its data's."""
        own = (e["templates"] for e in self.evals.values() if "templates" in e)
        return next(own, self.data.templates)


def load(
    spec: str, overrides: Sequence[str] = (), *, kind: type = RunConfig
) -> ConfigDict:
    """The config that `spec` names, with `--config.key=value` overrides applied.

    `kind` is the dataclass that types it.

    | spec | is |
    |---|---|
    | PATH.py:ARG | the file at that path, if there is one |
    | configs/NAME.py:ARG or NAME.py:ARG | else the config NAME that mmjax ships |
    | NAME:ARG | the config NAME that mmjax ships |

    A file may import its neighbours (`import neighbour`) and ours
    (`from mmjax_configs import common`).

    Raises:
      UserError: no such file, or the file raises on ARG; an unknown key (names the
        nearest one); a value that does not parse as the key's type (names both).
    """
    return override(_call(spec), overrides, kind=kind)


def override(
    config: ConfigDict, overrides: Sequence[str], *, kind: type = RunConfig
) -> ConfigDict:
    """A locked copy of `config` with `--config.key=value` overrides applied.

    Any key that `kind` has, or the classes that its sections name, may be given. Where
    `steps` are fewer than a warm-up of the cosine that is not given with them, the
    warm-up keeps its share of the run, and the log says so.
    """
    given, config = config, copy.deepcopy(config).unlock()
    for text in overrides:
        _set(config, text, kind)
    named = {
        text.lstrip("-").removeprefix("config.").partition("=")[0] for text in overrides
    }
    if "steps" in named and "optim" in config and "steps" in given and given.steps:
        _shorten(config, given, named)
    return config.lock()


def _shorten(config: ConfigDict, before: ConfigDict, named: set[str]) -> None:
    """Scales warm-ups that are longer than the run, unless they are among `named`."""
    rules = {"optim": config.optim}
    if "groups" in config.optim:
        rules |= {f"optim.groups.{k}": v for k, v in config.optim.groups.items()}
    for place, rule in rules.items():
        cosine = "schedule" not in rule or rule.schedule == "cosine"
        every = rule.every if "every" in rule else 1
        if not cosine or "warmup" not in rule or f"{place}.warmup" in named:
            continue
        if rule.warmup >= config.steps // every:
            old, rule.warmup = rule.warmup, rule.warmup * config.steps // before.steps
            log.warning(
                f"config.{place}.warmup is {rule.warmup}, and not {old}, in a run of "
                f"{config.steps} steps in place of {before.steps}"
            )


def resolve(config: ConfigDict) -> ConfigDict:
    """A copy whose sources mean the same in every folder and at every time.

    Places are absolute. Where `data.held_out` is set, `data.train` becomes the part
    `train` of itself, `held_out` in place of an evaluator's source the other part, and
    the key is false: what is resolved resolves to itself.

    Raises:
      UserError: records are to be held out of no data, or of a part of some; an
        evaluator asks for `held_out`, and nothing is.
    """
    config = config.copy_and_resolve_references()
    if "data" not in config or "train" not in config.data:
        return config  # typing it says so
    with config.unlocked(), config.ignore_type():
        data, part = config.data, ""
        if "held_out" in data and data.held_out:
            if data.train == "":
                raise UserError(
                    "config.data.train names no data: give it yours, such as "
                    "--config.data.train=folder:photos"
                )
            if specs.has_option(data.train, "part"):
                raise UserError(
                    f"config.data.train is {data.train}, a part, of which nothing is "
                    "held out: leave part= away, or set config.data.held_out=False and "
                    "name the evaluators' sources"
                )
            part = specs.with_options(data.train, part=HELD_OUT)
            data.train = specs.with_options(data.train, part="train")
            data.held_out = False
        data.train = specs.absolute(data.train)
        evals = config.evals if "evals" in config else {}
        for name, key in ((n, k) for n in evals for k in _SOURCES if k in evals[n]):
            if evals[name][key] == HELD_OUT and not part:
                raise UserError(
                    f"config.evals.{name}.{key} is {HELD_OUT}, and nothing is: set "
                    "config.data.held_out=True, or name a source"
                )
            spec = part if evals[name][key] == HELD_OUT else evals[name][key]
            evals[name][key] = specs.absolute(spec)
    return config


def from_json(saved: str | Mapping) -> ConfigDict:
    """The config of a run.json: lists become tuples again, so overrides work."""
    values = json.loads(saved) if isinstance(saved, str) else saved
    try:
        return ConfigDict(schema.tuples(values))
    except (ValueError, TypeError) as error:  # a key with a dot, say
        raise UserError(
            f"the config of this run is damaged ({error}): put back a copy of run.json"
        ) from None


# -- the file ------------------------------------------------------------------
def _call(spec: str) -> ConfigDict:
    name, _, arg = spec.partition(":")
    with _run(name, f"--config={spec}") as module:
        config = module.get_config(arg)
    if not isinstance(config, ConfigDict):
        raise UserError(
            f"--config={spec}: get_config returned {type(config).__name__}, "
            "expected an ml_collections.ConfigDict"
        )
    return config


def shipped() -> list[str]:
    """The configs of runs that mmjax ships, as `load` and `presets` take them."""
    return [f"configs/{n}.py" for n in sorted(_names() - {"suites"})]


def presets(name: str) -> tuple[str, dict[str, str]]:
    """(the first line of a config file, preset -> the first line of its docstring).

    UserError where there is no such file, or it has no mapping PRESETS.
    """
    with _run(name, name) as module:
        if not isinstance(getattr(module, "PRESETS", None), Mapping):
            raise UserError(
                f"{name} lists no presets: it has no PRESETS, a mapping of names to "
                "functions that give a ConfigDict; its comments may say what it takes"
            )
        return _line(module), {k: _line(f) for k, f in module.PRESETS.items()}


def _line(documented: Any) -> str:
    """The first line of a docstring; of a partial function, after its argument."""
    if isinstance(documented, functools.partial):
        return f"{documented.args[0]}: {_line(documented.func)}"
    return (documented.__doc__ or "").strip().partition("\n")[0]


@contextmanager
def _run(name: str, place: str) -> Iterator[types.ModuleType]:
    """The module of a config file, run; what it raises inside is about `place`."""
    path = _find(name)
    try:
        with _importable(path.parent):
            module = _module(f"mmjax_config_{path.stem}", path)
            module.__spec__.loader.exec_module(module)
            yield module
    except (ValueError, KeyError) as e:
        message = e.args[0] if e.args else type(e).__name__
        raise UserError(f"{place}: {message}") from e
    except (AttributeError, ImportError, SyntaxError) as e:
        raise UserError(f"{place}: {type(e).__name__}: {e}") from e


def _module(name: str, path: pathlib.Path, **options: Any) -> types.ModuleType:
    """The module of a file, not yet run."""
    spec = importlib.util.spec_from_file_location(name, path, **options)
    return importlib.util.module_from_spec(spec)


@contextmanager
def _importable(folder: pathlib.Path) -> Iterator[None]:
    """Has `folder` and mmjax_configs importable, and forgets folder's modules after."""
    if "mmjax_configs" not in sys.modules:  # a checkout may not be installed
        init = _shipped() / "__init__.py"
        inside = {"submodule_search_locations": [str(init.parent)]}
        sys.modules["mmjax_configs"] = _module("mmjax_configs", init, **inside)
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - before:  # another folder may have the same name
            file = getattr(sys.modules[name], "__file__", None) or ""
            if not name.startswith("mmjax_") and folder in pathlib.Path(file).parents:
                del sys.modules[name]


def _shipped() -> pathlib.Path:
    """The folder of mmjax_configs: beside the package, under this name or `configs`."""
    installed = HOME / "mmjax_configs"
    return installed if installed.is_dir() else HOME / "configs"


def _find(name: str) -> pathlib.Path:
    path = pathlib.Path(name).expanduser()
    if path.suffix == ".py" and path.is_file():
        return path.resolve()
    ours = _shipped() / f"{path.stem}.py"
    if path.parent in (pathlib.Path(), pathlib.Path("configs")) and ours.is_file():
        return ours
    raise UserError(f"no config file {name}{schema.suggest(path.stem, _names())}")


def _names() -> set[str]:
    return {p.stem for p in _shipped().glob("*.py")} - {"common", "__init__"}


# -- overrides -----------------------------------------------------------------
def _set(config: ConfigDict, text: str, root: type) -> None:
    """Applies one override to a config that is not locked."""
    given, equals, value = text.partition("=")
    if not equals:
        raise UserError(f"{given}: write {given}=VALUE")
    path = given.lstrip("-").removeprefix("config.")
    *above, key = path.split(".")
    node, where = config, "config"
    hints, other = schema.keys(root, config)
    while above and other is not str:
        part = above.pop(0)
        node = _section(node, hints, other, part, [*above, key][0], where)
        where = f"{where}.{part}"
        if not isinstance(node, ConfigDict):
            raise UserError(
                f"{where} is {node!r} and has no keys; {given} does not fit"
            )
        kind = hints.get(part, other)  # inside a mapping of Any, every key is legal
        hints, other = schema.keys(dict if kind is Any else kind, node)
    # What maps names to texts has paths for names: graft.params.image is params/image.
    key = "/".join([*above, key])
    old, kind = node[key] if key in node else None, hints.get(key, other)
    if kind is None and key not in node:
        hint = schema.suggest(key, {*node, *hints})
        raise UserError(f"{where}: unknown key {key!r}{hint}")
    if kind in (None, Any):  # the annotations do not say, so the old value does
        kind = node.get_type(key) if key in node else Any
        kind = Any if kind in (type(None), object) else kind
    if kind is ConfigDict or (
        schema.keys(kind, {}) != ({}, None) and not schema.is_union(kind)
    ):
        raise UserError(
            f"--config.{path}: a whole ConfigDict cannot be given on the command line; "
            "give its keys one by one, or edit the config file"
        )
    with node.ignore_type():
        node[key] = schema.parse(value, kind, f"--config.{path}", old=old)


def _section(
    node: ConfigDict, hints: dict, other: Any, part: str, inside: str, where: str
) -> Any:
    """`node[part]`, made where the file leaves a legal section out."""
    if part not in node:
        named = schema.plugin(other)
        legal = part in hints or (other is not None and named is None)
        if not legal and (named is None or inside != named.key):
            unknown = f"unknown key {part!r}{schema.suggest(part, {*node, *hints})}"
            raise UserError(f"{where}: {unknown}")
        if schema.keys(hints.get(part, other), {}) != ({}, None):
            node[part] = ConfigDict()
    return node[part]
