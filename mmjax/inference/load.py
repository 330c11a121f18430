"""A trained run in a notebook: `run = load_run("runs/demo/clip")`.

Legend: n rows, m other rows, d embedding width, k singular values.
"""

import dataclasses
import functools
import logging
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image as pil

from mmjax import tree
from mmjax.data import image as image_lib
from mmjax.data import jpeg, prompts
from mmjax.data.records import BrokenRecord
from mmjax.errors import UserError
from mmjax.inference import given
from mmjax.inference import log as log_lib
from mmjax.inference import params as params_lib
from mmjax.metrics import embeddings
from mmjax.state import TrainState
from mmjax.train import restore, setup

log = logging.getLogger(__name__)
Image = str | os.PathLike | pil.Image | np.ndarray  # a file, Pillow's, (H, W, 3)
_KINDS = "give a path, a Pillow image or a uint8 array (H, W, 3), or a list of these"

_ROWS = 256  # at most, in a call
_NAMED = 20  # texts that are cut, named in warnings


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Run(log_lib.Log):
    """One checkpoint of a workdir, with everything it was trained with.

    parts: what its config determines: fields, task, data, layout. state: its weights.
    """

    parts: setup.Parts
    state: TrainState

    def __repr__(self) -> str:
        # leaves may be of one process: their shapes are known to all
        sizes = (leaf.size for leaf in tree.flatten(self.state.vars.params).values())
        about = f"{self.config.task.name}, step {self.step}"
        name = type(self).__name__
        return f"{name}({self.workdir}: {about}, {sum(sizes):,} parameters)"

    @property
    def task(self) -> Any:
        """The Task: its model, loss and predict functions."""
        return self.parts.task

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of its texts; None for a model that reads none."""
        return self.parts.tokenizer

    @property
    def step(self) -> int:
        """The number of updates that made these weights."""
        return int(self.state.step)

    @functools.cached_property
    def params(self) -> params_lib.Params:
        """Parameters by '/'-joined path, the averaged ones where an EMA is kept."""
        return params_lib.Params.of(self.state.eval_vars().params)

    @functools.cached_property
    def fingerprint(self) -> str:
        """16 hex digits that identify the weights embeddings are made with."""
        return restore.fingerprint(self.parts, self.state.eval_vars())

    def table(self) -> str:
        """The parameter table as text."""
        return self.params.table()

    def last_metrics(self, until: float | None = None) -> dict[str, Any]:
        """The newest value of every metric logged up to this checkpoint."""
        return super().last_metrics(self.step if until is None else until)

    def embed_images(self, images: Image | Sequence[Image]) -> np.ndarray:
        """Unit rows (n, d) of images: files, Pillow images or uint8 (H, W, 3) arrays.

        One image gives one row.

        Raises:
          UserError: a file is missing or no image, an image is of another kind, there
            are none, or the task embeds no images.
        """
        pixels_nhwc = np.stack([self.view(image) for image in several(images)])
        return self._embed("embed_image", {"image": pixels_nhwc})

    def view(self, image: Image) -> np.ndarray:
        """uint8 (s, s, 3), what the model sees of an image; errors of embed_images."""
        if self.parts.image_cfg is None:
            kind = self.config.task.name
            raise UserError(
                f"{self.workdir} is a run of task {kind}: it sees no images"
            )
        return self.parts.image_cfg.evaluate(pixels_of(image))

    def embed_texts(self, texts: str | Sequence[str]) -> np.ndarray:
        """Unit rows (n, d) of sentences; warnings name the first that are cut.

        One sentence gives one row.

        Raises:
          UserError: there are none, one is no string, or the task embeds no texts.
        """
        texts = given.strings(texts, "texts")
        self._predict("embed_text")  # before its tokenizer is asked for
        tokens_nl, mask_nl = self.tokenizer.encode(texts)
        long = np.flatnonzero(self.cut(texts))
        for i in long[:_NAMED]:
            count = self.tokenizer.count(texts[i])
            log.warning(
                "the text %r has %d tokens with its marks, and the model reads %d: "
                "the rest is cut off",
                *(texts[i], count, self.tokenizer.context),
            )
        if len(long) > _NAMED:
            log.warning("and %d more texts are cut off", len(long) - _NAMED)
        return self._embed("embed_text", {"tokens": tokens_nl, "tokens_mask": mask_nl})

    def cut(self, texts: Sequence[str]) -> np.ndarray:
        """bool (n,): whether a text is longer than the context, and loses its end."""
        count, context = self.tokenizer.count, self.tokenizer.context
        return np.array([count(text) > context for text in texts], bool)

    def combine(
        self,
        images: Image | Sequence[Image] = (),
        plus: str | Sequence[str] = (),
        minus: str | Sequence[str] = (),
        *,
        weight: float = 1.0,
    ) -> np.ndarray:
        """(d,) unit sum of images, plus and minus texts: image - "red" + "blue".

        weight: of every text, beside an image's 1. See mmjax.metrics.embeddings.
        """
        none = isinstance(images, (list, tuple)) and not images
        terms = [] if none else [(1.0, row) for row in self.embed_images(images)]
        for sign, texts in ((weight, plus), (-weight, minus)):
            terms += [(sign, row) for row in self.embed_texts(texts)] if texts else []
        return embeddings.combine(terms)

    def logits(self, images: np.ndarray, texts: np.ndarray) -> np.ndarray:
        """(n, m): cosines of two embeddings at the model's temperature (and bias)."""
        one = {"tokens": np.zeros((1, self.tokenizer.context), np.int32)}
        scale, bias = self._predict("scale")(one)
        return np.asarray(scale) * (images @ texts.T) + np.asarray(bias)

    def classify(
        self,
        images: Image | Sequence[Image],
        labels: Sequence[str],
        templates: str | Sequence[str] | None = None,
    ) -> np.ndarray:
        """(n, c) chances of labels by zero-shot: rows add up to 1.

        Args:
          images: As of `embed_images`.
          labels: Two names or more.
          templates: Sentences with a {}, or what `prompts.load` takes for them; by
            default those of the run's own zero-shot evaluation, or "photo". They are
            ensembled in embedding space: the mean of unit embeddings, at length one
            again (Radford et al. 2021, section 3.1.4).

        Raises:
          UserError: labels are one string, fewer than two or equal, or see
            `embed_images`.
        """
        names = given.strings(labels, "labels")
        if isinstance(labels, str) or len(set(names)) < max(2, len(names)):
            raise UserError(f"labels are {labels!r}: give a list of two or more names")
        labels = names
        if not isinstance(templates, str | None):
            templates = given.strings(templates, "templates")
        templates = prompts.load(self.templates() if templates is None else templates)
        texts_sd = self.embed_texts(prompts.fill(templates, labels))
        texts_ctd = texts_sd.reshape(len(labels), len(templates), -1)
        texts_cd = embeddings.unit(texts_ctd.mean(1))
        logits_nc = self.logits(self.embed_images(images), texts_cd)
        _finite(logits_nc, "a score")
        odds_nc = np.exp(logits_nc - logits_nc.max(1, keepdims=True))
        return odds_nc / odds_nc.sum(1, keepdims=True)

    def templates(self) -> tuple[str, ...]:
        """Its own prompt templates, or "photo"'s.

        Those of its zero-shot evaluation, else of `config.data.templates`.
        """
        return prompts.load(self.parts.cfg.templates or "photo")

    def records(self, count: int) -> list[dict[str, Any]]:
        """Evenly spaced records of the training source."""
        total = len(self.parts.source)
        return [self.parts.source[i * total // count] for i in range(count)]

    def _predict(self, name: str) -> Callable:
        if name not in self.parts.predict:
            kind, legal = self.config.task.name, ", ".join(sorted(self.parts.predict))
            raise UserError(f"task {kind} offers no {name!r}, only {legal}")
        return functools.partial(self.parts.predict[name], self.state.eval_vars())

    def _embed(self, name: str, batch: Mapping[str, np.ndarray]) -> np.ndarray:
        predict, count = self._predict(name), len(next(iter(batch.values())))
        # As many as in an evaluation, so that its compiled function is found again.
        size = min(self.parts.cfg.batch_size, _ROWS)
        rows = []
        for start in range(0, count, size):
            take = np.minimum(np.arange(start, start + size), count - 1)
            rows.append(predict({k: v[take] for k, v in batch.items()}))
        return _finite(np.concatenate(rows)[:count], "an embedding")


def _finite(values: np.ndarray, what: str) -> np.ndarray:
    if not np.isfinite(values).all():
        raise UserError(
            f"{what} holds NaN or Inf: the weights are broken, go back to an earlier "
            "checkpoint"
        )
    return values


def check_text(tokenizer: Any, text: str, name: str = "prompt") -> None:
    """Raises UserError for a text that is empty or longer than the context."""
    if not text.strip():
        raise UserError(f"the {name} is empty: say what the image should show")
    try:
        text.encode()
    except UnicodeError as error:
        raise UserError(f"the {name} {text!r} is no text: {error}") from None
    size, context = tokenizer.count(text), tokenizer.context
    if size > context:
        raise UserError(
            f"the {name} {text!r} has {size} tokens with its marks, and the model "
            f"reads {context}: shorten it"
        )


def load_run(
    workdir: str | pathlib.Path, step: int | None = None, dtype: str = ""
) -> Run:
    """Opens a workdir at one of its saved steps, the newest by default.

    Args:
      dtype: of the weights and of compute, in place of the run's: "bfloat16" takes half
        the memory. Embeddings differ by its rounding, so an index of others' is not
        searched with them.

    Raises:
      UserError: the folder is not a run, or holds no such checkpoint.
    """
    workdir = pathlib.Path(workdir)
    return Run(workdir, *restore.restore(workdir, step, dtype=dtype))


def several(images: Image | Sequence[Image]) -> list[Image]:
    """A list of images, from one or more of them; UserError for none."""
    one = isinstance(images, (str, os.PathLike, pil.Image)) or (
        hasattr(images, "__array__") and images.ndim <= 3
    )
    listable = isinstance(images, Iterable) and not isinstance(images, (bytes, Mapping))
    if not one and not listable:
        raise UserError(f"images are {type(images).__name__}: {_KINDS}")
    listed = [images] if one else list(images)
    if not listed:
        raise UserError("there are no images: give one or more")
    return listed


def pixels_of(image: Image) -> np.ndarray:
    """uint8 (H, W, 3) RGB of a file, a Pillow image or such an array.

    Raises:
      UserError: it is neither, cannot be read, or its pixels say no range.
    """
    if isinstance(image, (str, os.PathLike)):
        return read_image(image)
    if isinstance(image, pil.Image):
        if 0 in image.size:
            raise UserError(f"an image has no pixels: it is {image.size}")
        try:
            return image_lib.to_rgb(image)
        except (OSError, ValueError) as error:
            raise UserError(
                f"an image of mode {image.mode!r} cannot be read ({error}): give "
                'image.convert("RGB")'
            ) from error
    if not hasattr(image, "__array__"):
        raise UserError(f"an image is {type(image).__name__}: {_KINDS}")
    pixels = np.asarray(image)
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        raise UserError(
            f"an array is {pixels.dtype} {pixels.shape}: give uint8 (H, W, 3), RGB"
        )
    if not pixels.size:
        raise UserError(f"an image has no pixels: it is {pixels.shape}")
    return pixels


def read_image(path: str | pathlib.Path) -> np.ndarray:
    """An image file as uint8 (H, W, 3), RGB; UserError where it cannot be read."""
    path = pathlib.Path(path)
    if path.exists() and not path.is_file():  # a pipe or a device may never end
        raise UserError(f"cannot read image {path}: it is no file")
    try:
        return decode_image(path.read_bytes(), str(path))
    except OSError as e:
        raise UserError(f"cannot read image {path}: {e.strerror}") from e


def decode_image(data: bytes, name: str) -> np.ndarray:
    """A file's bytes as uint8 (H, W, 3), RGB; UserError where they are no image."""
    try:
        return image_lib.decode(data, name)
    except BrokenRecord as e:
        raise UserError(f"cannot read image {e}") from e


def read_images(
    paths: Sequence[pathlib.Path], then: Callable[[np.ndarray], Any] = lambda x: x
) -> tuple[list[pathlib.Path], list[Any]]:
    """(the files that can be read, `then` of their pixels); a warning names the others.

    UserError where none can be read.
    """
    read, pixels, broken = [], [], []
    with jpeg.watch() as damaged:
        for path in paths:
            try:
                pixels.append(then(read_image(path)))
                read.append(path)
            except UserError as error:
                broken.append(error)
    if paths and not read:
        rest = f", and none of {len(broken) - 1} others" if len(broken) > 1 else ""
        raise UserError(f"{broken[0]}{rest}")
    for error in broken:
        log.warning("left out: %s", error)
    for place, said in damaged:
        log.warning("damaged, and read: %s: %s", place, said)
    return read, pixels
