"""From a suite's config to its cells: one evaluator for a data set and a protocol."""

import dataclasses
from collections.abc import Callable, Mapping
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

    datasets: dict
    protocols: dict
    limit: int | None = None
    only: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Cell:
    """One evaluator, to be run once: `cfg` is what it is built from."""

    dataset: str
    protocol: str
    type: str
    cfg: Mapping[str, Any]
    show: tuple[str, ...]
    published: str

    @property
    def name(self) -> str:
        return f"{self.dataset}.{self.protocol}"

    @property
    def where(self) -> str:
        """Where messages say that the mistake is."""
        return f"config.protocols.{self.protocol} on config.datasets.{self.dataset}"

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
    known, own = {}, {}
    for name, given in suite.protocols.items():
        asked = {"type": name, **given}
        known[name], own[name] = _protocol(asked, f"config.protocols.{name}")
    found = []
    for name in suite.only:
        if name not in suite.datasets:
            hint = schema.suggest(name, suite.datasets)
            raise UserError(f"config.only: no data set {name!r}{hint}")
    for name in suite.only or suite.datasets:
        given = suite.datasets[name]
        where = f"config.datasets.{name}"
        dataset = schema.from_mapping(Dataset, given, where)
        for wanted in dataset.protocols:
            if wanted not in known:
                hint = schema.suggest(wanted, known)
                raise UserError(f"{where}.protocols: no protocol {wanted!r}{hint}")
        for protocol in dataset.protocols or known:
            made = _cell(name, dataset, protocol, known[protocol], own[protocol])
            if suite.limit is not None:
                made["limit"] = min(suite.limit, made.get("limit") or suite.limit)
            cell = Cell(
                dataset=name,
                protocol=protocol,
                type=known[protocol].type,
                cfg=made,
                show=known[protocol].show,
                published=dataset.published or name,
            )
            found.append(cell)
    if not found:
        raise UserError("the suite has no data set, or no protocol: give one of each")
    return found


def _protocol(given: Mapping[str, Any], where: str) -> tuple[Protocol, dict[str, Any]]:
    """A protocol, and the keys that are its evaluator's."""
    mine = {field.name for field in dataclasses.fields(Protocol)}
    read = {k: v for k, v in given.items() if k in mine}
    protocol = schema.from_mapping(Protocol, read, where)
    evaluators.find(protocol.type, where)
    for part in (protocol.on, *protocol.needs):
        if part not in (*SPECS, "captions"):
            hint = schema.suggest(part, (*SPECS, "captions"))
            raise UserError(f"{where}: a data set has no part {part!r}{hint}")
    return protocol, {k: v for k, v in given.items() if k not in mine}


def _cell(
    name: str, dataset: Dataset, protocol: str, asked: Protocol, own: Mapping[str, Any]
) -> dict[str, Any]:
    """The evaluator's config."""
    config_class = evaluators.find(asked.type, f"config.protocols.{protocol}").Config
    fields = {field.name: field for field in dataclasses.fields(config_class)}
    needed = {asked.on, *asked.needs}
    needed |= {part for part in SPECS if part in fields and _required(fields[part])}
    for part in sorted(needed - {"source"}):
        if getattr(dataset, part) is None and part not in own:
            raise UserError(
                f"config.datasets.{name} has no {part} split, which the protocol "
                f"{protocol!r} needs: give config.datasets.{name}.{part}, or list the "
                f"protocols it takes in config.datasets.{name}.protocols"
            )
    made = {"type": asked.type, "source": getattr(dataset, asked.on)}
    for key in _PASSED:
        if key in fields and getattr(dataset, key) is not None:
            made[key] = getattr(dataset, key)
    if dataset.limit is not None:
        made["limit"] = dataset.limit
    return {**made, **own}


def _required(field: dataclasses.Field) -> bool:
    missing = dataclasses.MISSING
    return field.default is missing and field.default_factory is missing
