"""Views of a source that every kind shares: a part, a range, prompts from labels."""

import functools
import itertools
import pathlib
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mmjax.data import content, image, records
from mmjax.data.records import BrokenRecord, Record, Source
from mmjax.data.sources import encoded as encoded_lib
from mmjax.errors import UserError

OPTIONS = ("template", "names", "where", "part", "group", "shots", "draw", "skip")
OPTIONS += ("limit", "keep")
HELD_OUT = 5  # one in so many is held out
SAMPLE, _RUN = 1_000_000, 1000  # records that teach a tokenizer; of them, neighbours


def apply(
    source: Source,
    *,
    template: str = "",
    names: str = "",
    where: str = "",
    part: str = "",
    group: str = "",
    shots: int = 0,
    draw: int = 0,
    skip: int = 0,
    limit: int | None = None,
    keep: bool = False,
) -> Source:
    """The source seen through the shared options, in this order.

    names: a text file with the name of a record on each line, as published splits are
    (`Flickr_8k.testImages.txt`): only those, whatever folder and image suffix either
    side writes. where: `NAME:VALUE`, records whose value NAME is that, such as `rep:1`;
    `NAME:VALUE|VALUE` for any of several.

    part: `train` or `held_out`, for sets that come without a split: one record in
    five, by a hash of its key, is held out. group: keys equal before the last of this
    text stay on one side (frames of one track, crops of one photo). shots: so many
    records of every class, of which `draw` numbers the choice; fewer are among more.
    skip: records left out at the front. limit: at most this many after them. template:
    captions made of class names, one for each of the templates between `|`, such as
    `a photo of a {}.|a drawing of a {}.` keep: records stay in memory, decoded, once
    they have been read: for sets that fit there and are read many times.
    """
    if group and not part:
        raise UserError(f"group={group!r} says how to split: give part= as well")
    if names:
        digest, chosen = _named(source, pathlib.Path(names).expanduser())
        source = Chosen(source, chosen, ("names", digest))
    if where:
        source = Chosen(source, _equal(source, where), ("where", where))
    if part:
        source = Chosen(source, _members(source, part, group), (part, group))
    if shots:
        source = Chosen(source, _few(source, shots, draw), ("shots", shots, draw))
    if skip or limit is not None:
        if skip < 0 or (limit is not None and limit < 1):
            raise UserError(f"skip={skip}, limit={limit}: use skip >= 0, limit >= 1")
        if skip >= len(source):
            raise UserError(f"skip={skip} leaves nothing of {len(source)} records")
        stop = len(source) if limit is None else min(skip + limit, len(source))
        source = Chosen(source, range(skip, stop), (skip, stop - skip))
    if template:
        source = Prompted(source, tuple(template.split("|")))
    return Kept(source) if keep else source


def _named(source: Source, path: pathlib.Path) -> tuple[str, list[int]]:
    """The digest of the names in a file, and the positions of their records."""
    try:
        lines = content.read(path).decode("utf-8-sig").splitlines()
    except (UserError, UnicodeDecodeError) as error:
        raise UserError(f"names={path} cannot be read: {error}") from None
    wanted = {_stem(line.strip()): line.strip() for line in lines if line.strip()}
    positions: dict[str, int] = {}
    for i in range(len(source)):
        try:
            stem = _stem(str(fields(source, i)["key"]))
        except BrokenRecord:
            continue  # `mmjax data check` lists it
        if stem in positions:
            raise UserError(
                f"{source.name}: records {positions[stem]} and {i} are both called "
                f"{stem}, and names={path} means one of them"
            )
        if stem in wanted:
            positions[stem] = i
    missing = [name for stem, name in wanted.items() if stem not in positions]
    if missing or not wanted:
        raise UserError(
            f"names={path}: {source.name} holds {len(positions)} of its {len(wanted)} "
            f"names, and not {missing[:3]}"
        )
    return records.digest(sorted(wanted)), sorted(positions.values())


def _stem(name: str) -> str:
    """A name without its folder and an image's suffix; other dots are its own."""
    name = name.rpartition("/")[2]
    stem, _, suffix = name.rpartition(".")
    return stem if stem and suffix.lower() in encoded_lib.SUFFIXES else name


def _equal(source: Source, where: str) -> list[int]:
    """Positions of the records that `where` describes. Reads every record once."""
    name, colon, values = where.partition(":")
    if not colon:
        raise UserError(f"where={where!r}: write NAME:VALUE, such as rep:1")
    wanted, chosen = set(values.split("|")), []
    seen: set[str] = set()
    has: set[str] = set()
    for i in range(len(source)):
        try:
            record = fields(source, i)
        except BrokenRecord:
            chosen.append(i)  # stays in the set, where the pipeline reports it
            continue
        has |= set(record)
        if name in record:
            seen.add(value := str(record[name]))
            if value in wanted:
                chosen.append(i)
    if not seen:
        raise UserError(
            f"where={where!r}: records of {source.name} have {', '.join(sorted(has))}"
        )
    if missing := wanted - seen:
        raise UserError(
            f"where={where!r}: no record of {source.name} has {name} "
            f"{sorted(missing)[0]}: it has {', '.join(sorted(seen)[:10])}"
        )
    return chosen


def _members(source: Source, part: str, group: str) -> list[int]:
    """Positions of a part. Reads the fields of every record once."""
    if part not in ("train", "held_out"):
        raise UserError(f"part={part!r}: use train or held_out")
    chosen = []
    for i in range(len(source)):
        try:
            key = str(fields(source, i)["key"])
        except BrokenRecord:
            key = str(i)  # stays in the set, where the pipeline reports it
        stem = key.rpartition(group)[0] if group else ""
        held_out = zlib.crc32((stem or key).encode()) % HELD_OUT == 0
        if held_out == (part == "held_out"):
            chosen.append(i)
    if not chosen:
        raise UserError(
            f"part={part} of {source.name} has none of {len(source)} records"
        )
    return chosen


def _few(source: Source, shots: int, draw: int) -> list[int]:
    """Positions, rising, of that many records of every class. Reads all once."""
    names = source.class_names
    if not names:
        raise UserError(
            f"shots={shots}: {source.name} has no class names; name a labelled source"
        )
    own: dict[int, list[int]] = {label: [] for label in range(len(names))}
    for i in range(len(source)):
        try:
            own.get(fields(source, i).get("label", -1), []).append(i)
        except BrokenRecord:
            continue  # `mmjax data check` lists it
    chosen = []
    for label, positions in own.items():
        if not 0 < shots <= len(positions):
            raise UserError(
                f"shots={shots}: class {names[label]!r} of {source.name} has "
                f"{len(positions)} records; ask for 1 to {min(map(len, own.values()))}"
            )
        order = np.random.default_rng([draw, label]).permutation(positions)
        chosen += order[:shots].tolist()
    return sorted(chosen)


class View:
    """A source through which another is read: as it is, where a view says no more."""

    def __init__(self, source: Source):
        self.source = source
        self.name, self.class_names = source.name, source.class_names
        self.stage1 = records.stage1(source)
        self.left_out = records.left_out(source)
        self.covers = records.covers(source)

    def __len__(self) -> int:
        return len(self.source)

    def at(self, i: int) -> int:
        """Where record i lies in the source."""
        return i

    def __getitem__(self, i: int) -> Record:
        return self.source[self.at(i)]

    def fields(self, i: int) -> Mapping[str, Any]:
        return fields(self.source, self.at(i))

    def captions(self, i: int) -> list[str]:
        return captions(self.source, self.at(i))

    def encoded(self, i: int) -> bytes:
        return encoded(self.source, self.at(i))

    def texts(self) -> Iterator[str]:
        return self.source.texts()

    def fingerprint(self) -> str:
        return self.source.fingerprint()


class Chosen(View):
    """The records of a source at some positions, in that order."""

    def __init__(self, source: Source, positions: Sequence[int], identity: tuple):
        super().__init__(source)
        self.positions, self.identity = positions, identity

    def __len__(self) -> int:
        return len(self.positions)

    def at(self, i: int) -> int:
        return self.positions[records.position(i, len(self))]

    @functools.cached_property
    def columns(self) -> dict[str, np.ndarray] | None:
        """The rows of the source's columns; None where they may not fit in memory."""
        whole, index = getattr(self.source, "columns", None), self.positions
        if isinstance(index, range):
            index = slice(index.start, index.stop)
        elif any(isinstance(column, np.memmap) for column in (whole or {}).values()):
            return None
        return whole and {name: column[index] for name, column in whole.items()}

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "columns"}

    def texts(self) -> Iterator[str]:
        return records.texts(self.captions, len(self))

    def fingerprint(self) -> str:
        return records.digest(self.source.fingerprint(), *self.identity)


class Kept(View):
    """A source whose records stay in memory. A pickled copy starts empty."""

    def __init__(self, source: Source):
        super().__init__(source)
        self.held: dict[int, Record] = {}

    def __getitem__(self, i: int) -> Record:
        i = records.position(i, len(self))
        if i not in self.held:
            self.held[i] = self.source[i]
        return self.held[i]

    def __reduce__(self) -> tuple:
        return Kept, (self.source,)

    @property
    def columns(self) -> dict[str, np.ndarray] | None:
        return getattr(self.source, "columns", None)


class Prompted(View):
    """A labelled source whose captions are made of its class names."""

    def __init__(self, source: Source, templates: tuple[str, ...]):
        super().__init__(source)
        if not source.class_names:
            raise UserError(
                f"template={templates[0]!r} needs class names, and {source.name} has "
                "none: drop the option or name a labelled source"
            )
        for template in templates:
            if template.count("{}") != 1:
                raise UserError(f"template {template!r}: write {{}} once, for the name")
        self.templates = templates
        self.prompts = [
            [template.replace("{}", name) for template in templates]
            for name in source.class_names
        ]

    def __getitem__(self, i: int) -> Record:
        record = self.source[i]
        return {**record, "text": self._prompts(record)}

    def captions(self, i: int) -> list[str]:
        return self._prompts(fields(self.source, i))

    def _prompts(self, record: Mapping[str, Any]) -> list[str]:
        if record["label"] < 0:
            place = f"{self.name}, record {record['key']}"
            raise BrokenRecord(place, "no label to make a caption of")
        return list(self.prompts[record["label"]])

    def texts(self) -> Iterator[str]:
        # once a class: enough to train a tokenizer on
        return itertools.chain.from_iterable(self.prompts)

    def fingerprint(self) -> str:
        return records.digest(self.source.fingerprint(), self.templates)


def fields(source: Source, i: int) -> Mapping[str, Any]:
    """Record i, or its fields alone, without its file, where the source can."""
    return getattr(source, "fields", source.__getitem__)(i)


def captions(source: Source, i: int) -> list[str]:
    """The captions of record i; without decoding its image where the source can."""
    return source.captions(i) if hasattr(source, "captions") else source[i]["text"]


def sampled_texts(source: Source, most: int = SAMPLE) -> Iterator[str]:
    """The captions of all records, or of `most` of them: evenly spaced runs of _RUN.

    Which, the number of records alone decides. Runs, because neighbours are cheap to
    read.
    """
    if records.head(source) is not source or len(source) <= most:
        return source.texts()
    run = min(_RUN, most)
    starts = (len(source) * k // (most // run) for k in range(most // run))
    positions = itertools.chain.from_iterable(range(at, at + run) for at in starts)
    each = (records.texts(lambda _, i=i: captions(source, i), 1) for i in positions)
    return itertools.chain.from_iterable(each)


def encoded(source: Source, i: int) -> bytes:
    """The file of record i as it is stored; PNG of its image where it has none."""
    if hasattr(source, "encoded"):
        return source.encoded(i)
    return image.encode_png(source[i]["image"])
