"""A study of human judges: prompts, images by several models, and the pairs to show.

A folder holds study.json, images/*.png under names that say nothing, and the votes
(mmjax.judging.votes). Ramesh et al. 2021 asked two questions about each pair, of five
people each, and counted the majority.

Legend: p prompts, s image side.
"""

import dataclasses
import hashlib
import io
import itertools
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from PIL import Image

from mmjax import errors, schema
from mmjax.data import prompts as prompts_lib
from mmjax.errors import UserError

QUESTIONS = ("realism", "match")  # in the order in which they are asked
ASKED = {
    "realism": "Which image is more realistic?",
    "match": "Which image matches the caption better?",
}
SCORED = {"noise": "realism", "caption": "match"}  # of a trap: the question that counts
_TRAPS = 20  # of each kind, at most
_NOISE = 0.65  # share of uniform noise in a damaged image
_AGAIN = "again:"
FILE = "study.json"


@dataclasses.dataclass(frozen=True)
class Model:
    """Who drew: `name` in reports, and what it was, so that a report can say."""

    name: str
    workdir: str
    step: int
    fingerprint: str
    sampling: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Side:
    """One image of a pair: the model's number, and the file's stem."""

    model: int
    image: str

    def __post_init__(self) -> None:
        if not self.image.isalnum():  # it becomes part of a path
            raise ValueError(f"{self.image!r} is no image's name: make the study again")


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two images for one prompt.

    kind: `plain` has two models' images. Traps have one model's: `noise` beside a
      damaged copy, `caption` beside its image of another prompt. A trap's right answer
      is `a`, the first.
    """

    kind: Literal["plain", "noise", "caption"]
    prompt: int
    a: Side
    b: Side


@dataclasses.dataclass(frozen=True)
class Study:
    """What study.json holds.

    drawn: How the images were drawn: seed, candidates, the CLIP that chose, if any.
    side: Pixels of every image shown.
    votes: People who answer each plain pair.
    trap_every, repeat_every: Of so many pairs that a rater sees, one is a trap, one a
      pair that they saw before, with its sides changed; 0 is none.
    """

    models: tuple[Model, ...]
    prompts: tuple[str, ...]
    pairs: Mapping[str, Pair]
    drawn: Mapping[str, Any]
    side: int
    votes: int
    trap_every: int
    repeat_every: int
    seed: int
    version: int = 1

    def __post_init__(self) -> None:
        for name, least in (("votes", 1), ("trap_every", 0), ("repeat_every", 0)):
            if getattr(self, name) < least:
                raise ValueError(
                    f"{name} is {getattr(self, name)}: give {least} or more"
                )
        for name, pair in self.pairs.items():
            numbers = (pair.a.model, pair.b.model)
            if not 0 <= pair.prompt < len(self.prompts) or not all(
                0 <= m < len(self.models) for m in numbers
            ):
                raise ValueError(
                    f"pair {name} is of prompt {pair.prompt} and models {numbers}, of "
                    f"{len(self.prompts)} and {len(self.models)}: make the study again"
                )

    def of(self, kind: str) -> list[str]:
        """The names of all pairs of a kind."""
        return [name for name, pair in self.pairs.items() if pair.kind == kind]

    def find(self, name: str) -> Pair:
        """The pair of a name, or of a repeat's."""
        return self.pairs[name.removeprefix(_AGAIN)]


def again(name: str) -> str:
    """The name under which a pair is shown a second time."""
    return _AGAIN + name


def original(name: str) -> str | None:
    """The pair that a repeat repeats; None of others."""
    return name.removeprefix(_AGAIN) if name.startswith(_AGAIN) else None


def number(*of: object) -> int:
    """The same large number for the same things, everywhere."""
    text = "/".join(map(str, of))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def read_prompts(place: str | pathlib.Path) -> tuple[str, ...]:
    """Prompts of a file, one a line (.txt) or a list (.json).

    Raises:
      UserError: see `prompts.read_list`; there are none, or one twice.
    """
    listed = prompts_lib.read_list(str(place))
    if not listed:
        raise UserError(f"{place}: holds no prompts; give one a line")
    first: dict[str, int] = {}
    for n, prompt in enumerate(listed, 1):
        if prompt in first:
            raise UserError(
                f"{place}: {prompt!r} is prompt {first[prompt]} and prompt {n}: give "
                "it once"
            )
        first[prompt] = n
    return listed


def create(
    folder: pathlib.Path,
    models: Sequence[Model],
    prompts: Sequence[str],
    images: Sequence[np.ndarray],
    *,
    side: int | None = None,
    seed: int = 0,
    votes: int = 5,
    trap_every: int = 8,
    repeat_every: int = 12,
    drawn: Mapping[str, Any] | None = None,
) -> Study:
    """Writes a study of every two models' images of each prompt.

    Args:
      images: Of each model uint8 (p, s, s, 3), prompt by prompt.
      side: Pixels to which all images are resized; the largest model's without it, for
        a size would tell who drew.

    Raises:
      UserError: there is a study already, fewer than two models, two of one name, or
        a model has not one image a prompt.
    """
    check_models([model.name for model in models])
    check_new(folder)
    for model, drawn_p in zip(models, images, strict=True):
        if len(drawn_p) != len(prompts):
            raise UserError(
                f"{model.name} drew {len(drawn_p)} images for {len(prompts)} prompts: "
                "draw one for each, in their order"
            )
    side = side or max(drawn_p.shape[1] for drawn_p in images)
    rng = np.random.default_rng(seed)
    store = _Images(folder / "images", side)
    sides = [
        [Side(m, store.write(image)) for image in drawn_p]
        for m, drawn_p in enumerate(images)
    ]
    pairs = [
        Pair("plain", p, sides[a][p], sides[b][p])
        for p in range(len(prompts))
        for a, b in itertools.combinations(range(len(models)), 2)
    ]
    if trap_every:
        pairs += _traps(prompts, images, sides, store, rng)
    study = Study(
        models=tuple(models),
        prompts=tuple(prompts),
        pairs={f"{n}": pair for n, pair in enumerate(pairs)},
        drawn=dict(drawn or {}),
        side=side,
        votes=votes,
        trap_every=trap_every,
        repeat_every=repeat_every,
        seed=seed,
    )
    with errors.writing(folder / FILE) as part:
        part.write_text(json.dumps(dataclasses.asdict(study), indent=1) + "\n")
    return study


def check_models(names: Sequence[str]) -> None:
    """Raises UserError for fewer than two models, or two of one name."""
    if len(names) < 2:
        raise UserError(
            f"{len(names)} run ({', '.join(names)}): judges compare, give two or more"
        )
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise UserError(
            f"{len(twice)} runs are called {twice[0]!r}: name them, as in one=RUN "
            "two=RUN"
        )


def check_new(folder: pathlib.Path) -> None:
    """Raises UserError where a folder holds a study, or something else."""
    if (folder / FILE).exists():
        raise UserError(f"{folder} holds a study already: give another folder")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is no folder: give another name")


def open_study(folder: str | pathlib.Path) -> Study:
    """The study of a folder.

    Raises:
      UserError: it holds none, the file is damaged, or an image is missing.
    """
    folder = pathlib.Path(folder)
    path = folder / FILE
    if not path.is_file():
        raise UserError(
            f"{folder} holds no study ({FILE} is missing): make one with mmjax judge "
            f"new {folder} RUN_A RUN_B --prompts FILE"
        )
    study = schema.from_mapping(Study, schema.read_json(path), str(path))
    for name, pair in study.pairs.items():
        for part in (pair.a, pair.b):
            if not image_path(folder, part).is_file():
                raise UserError(
                    f"{folder}: image {part.image}.png of pair {name} is missing: put "
                    "it back, or make the study again"
                )
    return study


def image_path(folder: pathlib.Path, part: Side) -> pathlib.Path:
    """Where an image lies."""
    return folder / "images" / f"{part.image}.png"


def images_of(folder: pathlib.Path, study: Study, model: int) -> np.ndarray:
    """uint8 (p, s, s, 3), a model's images of the prompts in their order."""
    files = {}
    for name in study.of("plain"):
        pair = study.pairs[name]
        for part in (pair.a, pair.b):
            if part.model == model:
                files[pair.prompt] = image_path(folder, part)
    rows = (files[p] for p in range(len(study.prompts)))
    return np.stack([np.asarray(Image.open(path).convert("RGB")) for path in rows])


class _Images:
    """Writes PNG files of one size, named by what they hold."""

    def __init__(self, folder: pathlib.Path, side: int):
        self.folder, self.side = folder, side

    def write(self, image: np.ndarray) -> str:
        drawn = Image.fromarray(image)
        if drawn.size != (self.side, self.side):
            drawn = drawn.resize((self.side, self.side), Image.Resampling.BICUBIC)
        stream = io.BytesIO()
        drawn.save(stream, "PNG")
        name = hashlib.sha256(stream.getvalue()).hexdigest()[:20]
        with errors.writing(self.folder / f"{name}.png") as part:
            part.write_bytes(stream.getvalue())
        return name


def _traps(
    prompts: Sequence[str],
    images: Sequence[np.ndarray],
    sides: Sequence[Sequence[Side]],
    store: _Images,
    rng: np.random.Generator,
) -> list[Pair]:
    """Pairs with a right answer, of each model in turn."""
    traps = []
    for n, p in enumerate(rng.permutation(len(prompts))[:_TRAPS].tolist()):
        m = n % len(sides)
        image = images[m][p].astype(np.float64)
        noise = rng.uniform(0, 255, image.shape)
        damaged = ((1 - _NOISE) * image + _NOISE * noise).astype(np.uint8)
        traps.append(Pair("noise", p, sides[m][p], Side(m, store.write(damaged))))
        other = _least_like(prompts, p, rng)
        if other is not None:
            traps.append(Pair("caption", p, sides[m][p], sides[m][other]))
    return traps


def _least_like(prompts: Sequence[str], p: int, rng: np.random.Generator) -> int | None:
    """A prompt that shares the least of its words with prompt p; None of one alone."""
    words = set(prompts[p].lower().split())
    shared = {}
    for other in rng.permutation(len(prompts)).tolist():
        if other != p:
            theirs = set(prompts[other].lower().split())
            shared[other] = len(words & theirs) / len(words | theirs)
    return min(shared, key=shared.__getitem__, default=None)
