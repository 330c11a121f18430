"""A trained run in a notebook: `run = load_run("runs/demo/clip")`.

Legend: n rows, m other rows, d embedding width, k singular values.
"""

import dataclasses
import functools
import logging
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mmjax import tree
from mmjax.data import image as image_lib
from mmjax.data import jpeg, prompts
from mmjax.data.records import BrokenRecord
from mmjax.errors import UserError
from mmjax.metrics import embeddings
from mmjax.state import TrainState
from mmjax.train import config as config_lib
from mmjax.train import metric_writer, restore, run_file, setup

log = logging.getLogger(__name__)

_ROWS = 256  # at most, in a call
_NAMED = 20  # texts that are cut, named in warnings


@dataclasses.dataclass(frozen=True)
class Run:
    """One checkpoint of a workdir, with everything it was trained with."""

    workdir: pathlib.Path
    parts: setup.Parts
    state: TrainState

    @functools.cached_property
    def config(self) -> Any:
        """The ConfigDict it was trained with."""
        return config_lib.from_json(run_file.read(self.workdir)["config"])

    @property
    def task(self) -> Any:
        return self.parts.task

    @property
    def tokenizer(self) -> Any:
        return self.parts.tokenizer

    @property
    def step(self) -> int:
        return int(self.state.step)

    @functools.cached_property
    def params(self) -> dict[str, np.ndarray]:
        """Parameters by '/'-joined path, the averaged ones where an EMA is kept."""
        flat = tree.flatten(self.state.eval_vars().params)
        return {path: np.asarray(leaf) for path, leaf in flat.items()}

    @functools.cached_property
    def fingerprint(self) -> str:
        """16 hex digits that identify the weights embeddings are made with."""
        return restore.fingerprint(self.parts, self.state.eval_vars())

    def table(self) -> str:
        """The parameter table as text."""
        return tree.table(tree.rows(self.params))

    def metrics(self) -> list[dict[str, Any]]:
        """Logged rows, each with its `step`."""
        return metric_writer.read(self.workdir)

    def last_metrics(self) -> dict[str, Any]:
        """The newest value of every metric logged up to this checkpoint."""
        newest: dict[str, Any] = {}
        for row in self.metrics():
            if row["step"] <= self.step:
                newest |= row
        return newest

    def embed_images(
        self, images: Sequence[np.ndarray | str | pathlib.Path]
    ) -> np.ndarray:
        """Unit rows (n, d) of images: uint8 (H, W, 3) RGB arrays, or files.

        Raises:
          UserError: a file is missing or no image, or the task embeds no images.
        """
        pixels_nhwc = np.stack([self.view(image) for image in images])
        return self._embed("embed_image", {"image": pixels_nhwc})

    def view(self, image: np.ndarray | str | pathlib.Path) -> np.ndarray:
        """uint8 (s, s, 3), what the model sees of an image; errors of embed_images."""
        pixels = image if isinstance(image, np.ndarray) else read_image(image)
        if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
            raise UserError(
                f"an array is {pixels.dtype} {pixels.shape}: give uint8 (H, W, 3), RGB"
            )
        return self.parts.image_cfg.evaluate(pixels)

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Unit rows (n, d) of sentences; warnings name the first that are cut."""
        tokens_nl, mask_nl = self.tokenizer.encode(list(texts))
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

    @functools.cached_property
    def templates(self) -> tuple[str, ...]:
        """Those of the run's own zero-shot evaluation, or the set `photo`."""
        own = (e.templates for e in self.config.evals.values() if "templates" in e)
        return prompts.load(next(own, "photo"))

    def cut(self, texts: Sequence[str]) -> np.ndarray:
        """bool (n,): whether a text is longer than the context, and loses its end."""
        count, context = self.tokenizer.count, self.tokenizer.context
        return np.array([count(text) > context for text in texts], bool)

    def combine(
        self,
        images: Sequence[np.ndarray | str | pathlib.Path] = (),
        plus: Sequence[str] = (),
        minus: Sequence[str] = (),
        *,
        weight: float = 1.0,
    ) -> np.ndarray:
        """(d,) unit sum of images, plus and minus texts: image - "red" + "blue".

        weight: of every text, beside an image's 1. See mmjax.metrics.embeddings.
        """
        terms = [(1.0, row) for row in self.embed_images(images)] if images else []
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
        images: Sequence[np.ndarray | str | pathlib.Path],
        labels: Sequence[str],
        templates: Sequence[str] = (prompts.SLOT,),
    ) -> np.ndarray:
        """(n, c) chances of labels by zero-shot: rows add up to 1.

        Templates hold a {} and are ensembled in embedding space: the mean of unit
        embeddings, at length one again (Radford et al. 2021, section 3.1.4).
        """
        texts_sd = self.embed_texts(prompts.fill(templates, labels))
        texts_ctd = texts_sd.reshape(len(labels), len(templates), -1)
        texts_cd = embeddings.unit(texts_ctd.mean(1))
        logits_nc = self.logits(self.embed_images(images), texts_cd)
        _finite(logits_nc, "a score")
        odds_nc = np.exp(logits_nc - logits_nc.max(1, keepdims=True))
        return odds_nc / odds_nc.sum(1, keepdims=True)

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


def load_run(workdir: str | pathlib.Path, step: int | None = None) -> Run:
    """Opens a workdir at one of its saved steps, the newest by default.

    Raises:
      UserError: the folder is not a run, or holds no such checkpoint.
    """
    workdir = pathlib.Path(workdir)
    return Run(workdir, *restore.restore(workdir, step))


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
