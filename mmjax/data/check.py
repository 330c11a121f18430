"""`mmjax data check`: reads every record once and reports its contents and errors."""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import functools
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from mmjax import errors
from mmjax.data import image, jpeg, records
from mmjax.data.records import BrokenRecord, Source
from mmjax.data.sources import open_source
from mmjax.report import fonts

CELL, LINE, COLUMNS, SHOWN = 128, 12, 8, 16  # px, px, images a row and a source
LINES = 10  # of a caption
_BAR = 40  # characters of the longest bar
_BINS = 12
_TWICE = 10  # keys of several records that are shown
_REPORTED = ("image", "text", "key", "label")  # each in lines of its own
_counter = functools.partial(dataclasses.field, default_factory=collections.Counter)


@dataclasses.dataclass
class SourceReport:
    """The contents of a source.

    damaged: (place, what libjpeg warns) of JPEGs that are read, unless refused by
    MMJAX_STRICT_JPEG=1 (`mmjax.data.jpeg`). left_out: what lies beside the records, see
    `records.left_out`. keys: of records. words: of captions. sizes: (height, width) of
    images -> records. values: of others, (name, dtype, shape) -> records; texts and
    numbers have dtype str, int and so on.
    cells: thumbnails with a caption.
    """

    name: str
    fingerprint: str
    records: int
    broken: list[BrokenRecord] = dataclasses.field(default_factory=list)
    damaged: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    left_out: Sequence[BrokenRecord] = ()
    keys: collections.Counter[str] = _counter()
    words: collections.Counter[int] = _counter()
    sizes: collections.Counter[tuple[int, int]] = _counter()
    values: collections.Counter[tuple[str, str, tuple[int, ...]]] = _counter()
    labels: collections.Counter[str] = _counter()
    cells: list[tuple[np.ndarray, str]] = dataclasses.field(default_factory=list)

    @property
    def captions(self) -> int:
        return self.words.total()

    def text(self) -> str:
        """The report as lines for a terminal."""
        lines = [
            f"{self.name}  [{self.fingerprint}]",
            f"  records   {self.records}, broken {len(self.broken)}",
            f"  captions  {self.captions}",
        ]
        if twice := [key for key, count in self.keys.items() if count > 1]:
            say = ", ".join(f"{key} ({self.keys[key]})" for key in twice[:_TWICE])
            lines.append(f"  keys      {len(twice)} of several records: {say}")
        if self.sizes:
            [((height, width), count)] = self.sizes.most_common(1)
            lines.append(
                f"  images    {len(self.sizes)} sizes, most often {width}x{height} "
                f"({count})"
            )
        if self.labels:
            least, most = min(self.labels.values()), max(self.labels.values())
            lines.append(
                f"  classes   {len(self.labels)} seen, {least} to {most} records each"
            )
        lines += _values(self.values)
        lines += [f"  broken    {error}" for error in self.broken]
        lines += [f"  damaged   {place}: {said}" for place, said in self.damaged]
        lines += [f"  left out  {part}" for part in self.left_out]
        return "\n".join([*lines, *_histogram(self.words)])


@dataclasses.dataclass(frozen=True)
class Report:
    """Every source's report, and the contact sheet's path.

    unsaved: why there is no sheet; the report is not lost with it.
    """

    sources: tuple[SourceReport, ...]
    sheet: pathlib.Path
    unsaved: str = ""

    @property
    def broken(self) -> int:
        """How many records cannot be read, of all sources."""
        return sum(len(source.broken) for source in self.sources)

    @property
    def left_out(self) -> int:
        """How many files are no records, of all sources."""
        return sum(len(source.left_out) for source in self.sources)

    def text(self) -> str:
        """The report as lines for a terminal; what is no text in names, escaped."""
        parts = [source.text() for source in self.sources]
        sheet = [] if self.unsaved else [f"contact sheet: {self.sheet}"]
        return _printable("\n\n".join([*parts, *sheet]))


def check(
    sources: Sequence[Source | str | Mapping[str, Any]],
    out_png: str | pathlib.Path,
    *,
    threads: int = 2,
) -> Report:
    """Decodes all records of the sources (or specs) and writes a contact sheet.

    The sheet shows up to 16 records of each source, evenly spaced, with their first
    caption. Broken records are part of the report, not errors.
    """
    opened = [open_source(s) if isinstance(s, str | Mapping) else s for s in sources]
    reports = []
    for source in opened:
        with jpeg.watch() as damaged:
            reports.append(_check_one(source, threads))
        reports[-1].damaged += sorted(damaged)
    sheet = pathlib.Path(out_png)
    try:
        with errors.writing(sheet) as part:
            contact_sheet(reports).save(part, "PNG")
    except errors.UserError as error:
        return Report(tuple(reports), sheet, str(error))
    return Report(tuple(reports), sheet)


def _check_one(source: Source, threads: int) -> SourceReport:
    report = SourceReport(source.name, source.fingerprint(), len(source))
    report.left_out = records.left_out(source)
    show = set(np.linspace(0, len(source) - 1, SHOWN).astype(int).tolist())

    def look(i: int) -> Any:
        try:
            record = source[i]
        except BrokenRecord as error:
            return error
        cell = thumbnail(_image(record)) if i in show else None
        shape = record["image"].shape[:2] if "image" in record else None
        others = [_form(k, v) for k, v in record.items() if k not in _REPORTED]
        label = record.get("label", -1)
        name = source.class_names[label] if source.class_names and label >= 0 else ""
        return shape, others, record["text"], name, cell, record["key"]

    for seen in _in_order(look, len(source), threads):
        if isinstance(seen, BrokenRecord):
            report.broken.append(seen)
            continue
        shape, others, texts, name, cell, key = seen
        report.keys[key] += 1
        report.sizes.update([shape] if shape else [])
        report.values.update(others)
        report.words.update(len(text.split()) for text in texts)
        report.labels.update([name] if name else [])
        if cell is not None:
            report.cells.append((cell, texts[0] if texts else name))
    return report


def _in_order(look: Any, count: int, threads: int) -> Iterator[Any]:
    """`look(0), look(1), ...` with a bounded number under way."""
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        for start in range(0, count, 1024):
            yield from pool.map(look, range(start, min(start + 1024, count)))


def _printable(text: str) -> str:
    """Text that any UTF-8 terminal takes: lone surrogates and NULs, escaped."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


def _image(record: Mapping[str, Any]) -> np.ndarray:
    """A record's image, else its middle frame, else nothing but white."""
    frames = record.get("frames", ())
    if "image" not in record and len(frames):
        return frames[len(frames) // 2]
    return record.get("image", np.full((1, 1, 3), 255, np.uint8))


def _form(name: str, value: Any) -> tuple[str, str, tuple[int, ...]]:
    """A value's name, dtype and shape."""
    if isinstance(value, np.ndarray):
        return name, str(value.dtype), value.shape
    if isinstance(value, list) and value:
        return name, f"list[{type(value[0]).__name__}]", ()
    return name, type(value).__name__, ()


def _values(values: Mapping[tuple[str, str, tuple[int, ...]], int]) -> list[str]:
    """A line for each value and dtype: records, shapes."""
    grouped = collections.defaultdict(collections.Counter)
    for (name, dtype, shape), count in values.items():
        grouped[name, dtype][shape] += count
    lines = []
    for (name, dtype), shapes in sorted(grouped.items()):
        [(shape, count)] = shapes.most_common(1)
        line = f"  {name:<9} {dtype}, {shapes.total()} records"
        if len(shapes) > 1:
            line += f", {len(shapes)} shapes, most often {shape} ({count})"
        lines.append(line + (f" of {shape}" if len(shapes) == 1 and shape else ""))
    return lines


def thumbnail(img: np.ndarray) -> np.ndarray:
    """The image inside a white square of CELL pixels, uint8 (CELL, CELL, 3)."""
    height, width = img.shape[:2]
    scale = CELL / max(height, width)
    size = max(1, round(height * scale)), max(1, round(width * scale))
    out = np.full((CELL, CELL, 3), 255, np.uint8)
    top, left = (CELL - size[0]) // 2, (CELL - size[1]) // 2
    out[top : top + size[0], left : left + size[1]] = image.resize(img, size, "area")
    return out


def contact_sheet(reports: Sequence[SourceReport]) -> Image.Image:
    """All cells, each source starting a new row under its name; captions are whole.

    A row is as high as its longest caption, of at most LINES lines, needs.
    """
    texts = [text for report in reports for _, text in report.cells]
    font = fonts.font("".join([*texts, *(report.name for report in reports)]), 10)
    rows = []
    for report in reports:
        for at in range(0, max(1, len(report.cells)), COLUMNS):
            cells = [
                (cell, _wrapped(_printable(text), font))
                for cell, text in report.cells[at : at + COLUMNS]
            ]
            strip = 4 + LINE * max([len(lines) for _, lines in cells], default=1)
            rows.append((report.name if at == 0 else "", cells, strip))
    heights = [CELL + strip + (16 if name else 0) for name, _, strip in rows]
    sheet = Image.new("RGB", (COLUMNS * CELL, sum(heights)), "white")
    draw, top = ImageDraw.Draw(sheet), 0
    for (name, cells, strip), height in zip(rows, heights, strict=True):
        draw.text((2, top + 2), _printable(name[-170:]), fill="black", font=font)
        above = top + height - CELL - strip
        for column, (cell, lines) in enumerate(cells):
            sheet.paste(Image.fromarray(cell), (column * CELL, above))
            for k, line in enumerate(lines):
                at = column * CELL + 2, above + CELL + LINE * k
                draw.text(at, line, "black", font)
        top += height
    return sheet


def _wrapped(text: str, font: Any) -> list[str]:
    """Lines of a cell's width; words that are wider, or have no spaces, are cut."""
    lines = [""]
    for word in re.findall(r"\S+\s*", text):
        wide = font.getlength(word.rstrip()) > CELL - 4
        for piece in word if wide else (word,):
            if font.getlength((lines[-1] + piece).rstrip()) > CELL - 4:
                lines.append("")
            lines[-1] += piece
    return (
        lines
        if len(lines) <= LINES
        else [*lines[: LINES - 1], lines[LINES - 1][:-2] + "…"]
    )


def _histogram(words: collections.Counter[int]) -> list[str]:
    """Captions by number of words, as bars."""
    if not words:
        return []
    low, high = min(words), max(words)
    step = max(1, -(-(high - low + 1) // _BINS))
    bins = [
        sum(words[length] for length in range(start, start + step))
        for start in range(low, high + 1, step)
    ]
    lines = ["  words a caption"]
    for k, count in enumerate(bins):
        start, bar = low + k * step, "#" * round(_BAR * count / max(bins))
        lines.append(f"  {start:4d}-{start + step - 1:<4d} {count:8d} {bar}".rstrip())
    return lines
