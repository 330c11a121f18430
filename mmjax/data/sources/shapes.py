"""The embedded data: captioned scenes of shapes, made from (seed, split, index).

`shapes:train?size=32&count=20000`. No files; record i is the same in every process,
whatever was read before it. Splits draw from different streams; only `unseen` shows the
six colour-shape pairs of `scene.UNSEEN`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from mmjax.data import records
from mmjax.data.shapes import render, scene
from mmjax.errors import UserError

COUNTS = {"train": 20_000, "val": 1_000, "unseen": 1_000}  # records, by default
STREAMS = {"train": 0, "val": 1, "unseen": 2}
BLOCK = 1024  # scenes drawn together by texts()
VERSION = 1  # of the generator, part of the fingerprint: raise it with any change

# One caption of each row, so that a record's captions differ in kind. The first row
# says everything. {A}, {B}: "a small red circle"; {a}, {b}: "a red circle"; {at}: "to
# the left of", {ta}: the opposite; {here}: "to its left", {there}: the opposite.
ONE = (
    (
        "{A} on a {ground} background",
        "there is {A} on a {ground} background",
        "a {ground} background with {A}",
        "a picture of {A} on a {ground} background",
    ),
    ("{a}", "a photo of {a}", "a drawing of {a}", "{a}, alone"),
    ("{A}", "a picture of {A}", "an image of {A}", "there is {A}"),
    (
        "the {shape} is {colour}",
        "a {shape} that is {colour}",
        "a {shape} in {colour}",
        "one {colour} {shape}",
    ),
    (
        "{a} on {ground}",
        "there is {a} on a {ground} background",
        "the background is {ground} and the {shape} is {colour}",
        "here we see {a} in front of a {ground} background",
    ),
)
TWO = (
    (
        "{A} {at} {B} on a {ground} background",
        "a {ground} background with {A} {at} {B}",
        "{B} with {A} {here} on a {ground} background",
        "on a {ground} background, {B} is {ta} {A}",
    ),
    (
        "{a} {at} {b}",
        "{b} {ta} {a}",
        "a picture of {a} {at} {b}",
        "there is {a} {at} {b}",
    ),
    (
        "{b} with {a} {here}",
        "{a} with {b} {there}",
        "{a}, and {b} {there}",
        "an image of {b} with {a} {here}",
    ),
    (
        "{A} and {B}",
        "there are {A} and {B}",
        "a picture of {B} and {A}",
        "two shapes: {A} and {B}",
    ),
    (
        "{a} and {b} on {ground}",
        "{a} is {at} {b}",
        "{b} is {ta} {a}",
        "{b} next to {a} on a {ground} background",
    ),
)
AT = {
    "left": "to the left of",
    "right": "to the right of",
    "above": "above",
    "below": "below",
}
HERE = {
    "left": "to its left",
    "right": "to its right",
    "above": "above it",
    "below": "below it",
}
SYNONYMS = {"small": ("small", "little", "tiny"), "big": ("big", "large", "huge")}


def open(
    split: str,
    *,
    size: int | str = 32,
    count: int | str | None = None,
    seed: int | str = 0,
    objects: int | str | None = None,
    words: str = "all",
) -> Shapes:
    """The `split`, one of {train, val, unseen}, `count` records of `size` pixels.

    objects: 1 or 2 in every scene; None for both kinds. `objects=1` is the labelled
    form, for zero-shot. words: "all" five captions of a scene, or "full": only the one
    that says everything. Raises UserError on anything else.
    """
    if words not in ("all", "full"):
        raise UserError(f"shapes: words={words} must be all or full")
    if split not in STREAMS:
        raise UserError(
            f"shapes has no split {split!r}: use one of {', '.join(STREAMS)}"
        )
    return Shapes(
        split=split,
        size=_whole("size", size, 16, 4096),
        count=COUNTS[split] if count is None else _whole("count", count, 1, 2**40),
        seed=_whole("seed", seed, 0, 2**63 - 1),
        objects=None if objects is None else _whole("objects", objects, 1, 2),
        words=words,
    )


@dataclasses.dataclass(frozen=True)
class Shapes:
    """A split as a Source. Labels are -1 where a scene has two objects."""

    split: str
    size: int
    count: int
    seed: int
    objects: int | None
    words: str = "all"
    class_names: tuple[str, ...] = scene.CLASS_NAMES

    @property
    def name(self) -> str:
        return f"shapes:{self.split}"

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> records.Record:
        i = records.position(i, self.count)
        [(drawn, u)] = self._scenes(i, i + 1)
        return {
            "image": render.render(drawn, self.size),
            "text": self._captions(drawn, u),
            "label": drawn.objects[0].label if len(drawn.objects) == 1 else -1,
            "boxes": render.boxes(drawn, self.size),
            "scene": drawn,
            "key": f"{self.split}-{i:06d}",
        }

    def texts(self) -> Iterator[str]:
        for start in range(0, self.count, BLOCK):
            for drawn, u in self._scenes(start, min(start + BLOCK, self.count)):
                yield from self._captions(drawn, u)

    def fingerprint(self) -> str:
        facts = [self.split, self.size, self.count, self.seed, self.objects]
        if self.words != "all":
            facts.append(self.words)
        return records.digest("shapes", VERSION, facts)

    def _captions(self, drawn: scene.Scene, u: list[float]) -> list[str]:
        texts = captions(drawn, u[scene.CAPTION_DRAWS :])
        return texts[:1] if self.words == "full" else texts

    def _scenes(
        self, start: int, stop: int
    ) -> Iterator[tuple[scene.Scene, list[float]]]:
        """The scenes from `start` to before `stop`, with the numbers behind each."""
        rows = scene.draws(self.seed, STREAMS[self.split], np.arange(start, stop))
        unseen = self.split == "unseen"
        for u in rows.tolist():
            yield scene.sample(u, unseen=unseen, objects=self.objects), u


def captions(drawn: scene.Scene, u: list[float]) -> list[str]:
    """Five captions of a scene of one or two objects; the first says everything.

    u: at least ten uniform numbers that choose the wording.
    """
    things = drawn.objects
    words = {"ground": drawn.background}
    for letter, thing, v in zip("ab", things, u[5:7], strict=False):
        article = "an" if thing.colour[0] in "aeiou" else "a"
        kinds = SYNONYMS[thing.size]
        size = kinds[int(v * len(kinds))]
        words[letter] = f"{article} {thing.colour} {thing.shape}"
        words[letter.upper()] = f"a {size} {thing.colour} {thing.shape}"
    if len(things) == 1:
        words |= {"colour": things[0].colour, "shape": things[0].shape}
    else:
        relation = drawn.relation
        opposite = scene.OPPOSITE[relation]
        words |= {"at": AT[relation], "ta": AT[opposite]}
        words |= {"here": HERE[relation], "there": HERE[opposite]}
    rows = ONE if len(things) == 1 else TWO
    return [
        row[int(v * len(row))].format_map(words)
        for row, v in zip(rows, u[:5], strict=True)
    ]


def _whole(option: str, value: int | str, low: int, high: int) -> int:
    """`value` as an integer from `low` to `high`, or a UserError that says so."""
    text = str(value)
    if not text.isdecimal() or not low <= int(text) <= high:
        raise UserError(f"shapes: {option}={value} must be a number {low} to {high}")
    return int(text)
