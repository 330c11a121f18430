"""From a suite's config to its cells: one evaluator for a data set and a protocol."""

import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from mmjax import evaluators, schema
from mmjax.data import prompts
from mmjax.data.records import digest
from mmjax.errors import UserError

SPECS = ("source", "train", "val")  # keys of evaluators that hold a data spec
_PASSED = ("train", "val", "templates", "class_names", "shots")
_FREE = ("every", "batch_size")  # have no part in what comes out


@dataclasses.dataclass(frozen=True)
class Dataset:
    """`config.datasets.NAME`.

    source: the examples that are judged.
    train, val: other parts of the set, for the protocols that fit something; val may be
      a share of train for those that probe.
    captions: the judged examples with texts, for the protocols that read them.
    templates, class_names: see mmjax.evaluators.zero_shot.
    shots: of few_shot, where a class has fewer images than its own shots ask for.
    limit: look at this many examples, evenly spaced.
    protocols: names of those that fit the set; none is all.
    published: its name in tables of published results, where that is another one.
    """

    source: Any
    train: Any = None
    val: Any = None
    captions: Any = None
    templates: str | tuple[str, ...] = "photo"
    class_names: str | tuple[str, ...] = ()
    shots: tuple[int, ...] | None = None
    limit: int | None = None
    protocols: tuple[str, ...] = ()
    published: str = ""


@dataclasses.dataclass(frozen=True)
class Protocol:
    """`config.protocols.NAME`, besides the evaluator's own keys, which win.

    type: of the evaluator; NAME itself where it is not given.
    on: the part of a data set that is judged.
    needs: parts that a data set must have, where the evaluator could do without.
    show: the numbers in the table; none is the first.
    """

    type: str
    on: str = "source"
    needs: tuple[str, ...] = ()
    show: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Suite:
    """The top of a suite's config.

    limit: for every data set, at most. only: names of data sets; none is all.
    """

    datasets: dict[str, Dataset]
    protocols: dict[str, dict[str, Any]]
    limit: int | None = None
    only: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a cell stands: its data set, its protocol and how both are shown."""

    dataset: str
    protocol: str
    type: str
    show: tuple[str, ...]
    published: str

    @property
    def name(self) -> str:
        return f"{self.dataset}.{self.protocol}"


@dataclasses.dataclass(frozen=True)
class Cell(Place):
    """One evaluator, to be run once: it is built from `cfg`."""

    cfg: Mapping[str, Any]

    @property
    def where(self) -> str:
        """Where messages say that the mistake is."""
        return f"config.protocols.{self.protocol} on config.datasets.{self.dataset}"

    def place(self) -> dict[str, Any]:
        """The fields of Place."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(Place)}

    def key(self, model: Mapping[str, Any], open_source: Callable) -> str:
        """Identifies the cell's numbers: the same key, the same numbers.

        Files go in by what they hold and not by their names.
        """
        cfg = {k: v for k, v in self.cfg.items() if k not in _FREE}
        for name in SPECS:
            if name in cfg and not isinstance(cfg[name], float):
                cfg[name] = open_source(cfg[name]).fingerprint()
        if "templates" in cfg:
            cfg["templates"] = prompts.load(cfg["templates"])
        if "class_names" in cfg and isinstance(cfg["class_names"], str):
            cfg["class_names"] = prompts.read_list(cfg["class_names"])
        return digest(dict(model), cfg)


def cells(config: Any) -> list[Cell]:
    """Every data set, by name, with every protocol that it takes.

    Args:
      config: a ConfigDict or mapping; see Suite.

    Raises:
      UserError: an unknown key, protocol or type; a part that a protocol needs and a
        data set lacks; nothing to run.
    """
    plain = config.to_dict() if hasattr(config, "to_dict") else dict(config)
    suite = schema.from_mapping(Suite, plain, "config")
    known = {
        name: _protocol({"type": name, **given}, f"config.protocols.{name}")
        for name, given in suite.protocols.items()
    }
    _check_names(suite.only, suite.datasets, "config.only", "data set")
    listed = []
    for name in suite.only or suite.datasets:
        where, dataset = f"config.datasets.{name}", suite.datasets[name]
        _check_names(dataset.protocols, known, f"{where}.protocols", "protocol")
        for title in dataset.protocols or known:
            protocol, own = known[title]
            keys = _config(dataset, where, protocol, title, own)
            if suite.limit is not None:
                keys["limit"] = min(suite.limit, keys.get("limit") or suite.limit)
            cell = Cell(
                dataset=name,
                protocol=title,
                type=protocol.type,
                show=protocol.show,
                published=dataset.published or name,
                cfg=keys,
            )
            listed.append(cell)
    if not listed:
        raise UserError("the suite has no data set, or no protocol: give one of each")
    return listed


def _check_names(
    names: Iterable[str], legal: Collection[str], where: str, kind: str
) -> None:
    for name in names:
        if name not in legal:
            hint = schema.suggest(name, legal)
            raise UserError(f"{where}: no {kind} {name!r}{hint}")


def _protocol(given: Mapping[str, Any], where: str) -> tuple[Protocol, dict[str, Any]]:
    """A protocol, and the keys that are its evaluator's."""
    mine = {field.name for field in dataclasses.fields(Protocol)}
    read = {k: v for k, v in given.items() if k in mine}
    protocol = schema.from_mapping(Protocol, read, where)
    evaluators.find(protocol.type, where)
    parts, legal = (protocol.on, *protocol.needs), (*SPECS, "captions")
    _check_names(parts, legal, where, "part of a data set is called")
    return protocol, {k: v for k, v in given.items() if k not in mine}


def _config(
    dataset: Dataset, where: str, protocol: Protocol, title: str, own: Mapping[str, Any]
) -> dict[str, Any]:
    """The config of the evaluator that runs a protocol on a data set."""
    config_class = evaluators.find(protocol.type, f"config.protocols.{title}").Config
    fields = {field.name: field for field in dataclasses.fields(config_class)}
    required = {
        part
        for part in ("train", "val")
        if part in fields
        and fields[part].default is fields[part].default_factory is dataclasses.MISSING
    }
    for part in sorted({protocol.on, *protocol.needs, *required} - {"source"}):
        if getattr(dataset, part) is None and part not in own:
            raise UserError(
                f"{where} has no {part} split, which the protocol {title!r} needs: "
                f"give {where}.{part}, or list the protocols it takes in "
                f"{where}.protocols"
            )
    cfg = {"type": protocol.type, "source": getattr(dataset, protocol.on)}
    passed = [key for key in _PASSED if key in fields]
    for key in (*passed, "limit"):
        if getattr(dataset, key) is not None:
            cfg[key] = getattr(dataset, key)
    return {**cfg, **own}
