"""Images from a trained generator: samples, completions, and the best of K by a CLIP.

    drawn = Generator(load_run("runs/prior")).sample(["a red star"], k=64, seed=0)

Legend: p prompts, k candidates of each, s image side, d embedding.
"""

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image as pil

from mmjax import errors
from mmjax.errors import UserError
from mmjax.inference import given
from mmjax.inference.load import Run, check_text
from mmjax.report import image_grid
from mmjax.sampling import calls
from mmjax.sampling.calls import Seen, Tick
from mmjax.tasks import base


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Candidates:
    """What was drawn, candidate c of a prompt always the same whatever k is.

    prompts: The texts or labels that were given.
    arrays: All that the task gives, (p, k, ...), such as `image`, `image_tokens` and
      `log_prob` of a prior.
    """

    prompts: tuple[str, ...] | tuple[int, ...]
    arrays: Mapping[str, np.ndarray]

    @property
    def images(self) -> np.ndarray:
        """uint8 (p, k, s, s, 3)."""
        return self.arrays["image"]

    def __repr__(self) -> str:
        p, k = self.images.shape[:2]
        return f"Candidates({k} of {p} prompts: {', '.join(self.arrays)})"

    def ranked(self, clip: Run) -> "Candidates":
        """Each prompt's candidates, the best first by a contrastive run.

        `clip` of the arrays is their cosine with the prompt, `candidate` their number.
        """
        if not isinstance(clip, Run):
            raise UserError(f"ranked takes a model, and not {clip!r}: give mmjax.load")
        image_pkd, text_pd = embeddings(clip, self)
        score_pk = np.einsum("pkd,pd->pk", image_pkd, text_pd)
        order_pk = np.argsort(-score_pk, axis=1, kind="stable")
        row_p1 = np.arange(len(order_pk))[:, None]
        arrays = {**self.arrays, "clip": score_pk}
        best = {name: array[row_p1, order_pk] for name, array in arrays.items()}
        return Candidates(self.prompts, {**best, "candidate": order_pk})

    def save(self, path: str | os.PathLike, top: int = 8) -> pathlib.Path:
        """Writes the first `top` images of each prompt as a sheet, a row a prompt."""
        return image_grid.draw(errors.image_name(str(path)), *self._rows(top))

    def sheet(self, top: int = 8) -> pil.Image:
        """The same as a Pillow image, which a notebook shows."""
        return image_grid.sheet(*self._rows(top))

    def _rows(self, top: int) -> tuple[list[np.ndarray], list[str]]:
        return [row[:top] for row in self.images], [str(p) for p in self.prompts]


class Generator:
    """Draws from one run, `batch` candidates in a call, so memory does not grow.

    Args:
      run: Of a task that offers predict "sample".
      sampling: Changes to the task's own `sampling` (temperature, top_k, ...).
      batch: Candidates in a call, of all devices together.

    Raises:
      UserError: the task draws nothing, or has no such option.
    """

    def __init__(
        self, run: Run, *, sampling: Mapping[str, Any] | None = None, batch: int = 64
    ):
        if "sample" not in run.parts.raw:
            raise UserError(
                f"{run.workdir} holds a {run.config.task.name!r} model, which draws no "
                "images: give the workdir of a prior"
            )
        task = base.with_sampling(run.task, sampling or {})
        self.parts = dataclasses.replace(run.parts, task=task)
        self.variables, self.batch = run.state.eval_vars(), batch

    @property
    def options(self) -> dict[str, Any]:
        """The options that it draws with, by name."""
        return base.sampling_options(self.parts.task)

    def check_prompts(self, prompts: Sequence[str] | Sequence[int]) -> None:
        """Raises UserError for a text that is empty or longer than the context."""
        tokenizer = self.parts.tokenizer
        for prompt in prompts:
            if not isinstance(prompt, str):
                if tokenizer is None:
                    continue
                raise UserError(
                    f"the prompt {prompt!r} is no text, and this run reads texts: say "
                    "what the image should show"
                )
            if tokenizer is None:
                raise UserError(
                    f"the prompt {prompt!r} is a text, and this run has no tokenizer: "
                    "give the number of a label"
                )
            check_text(tokenizer, prompt)

    def pieces(self, prompt: str) -> dict[str, int]:
        """Words of a prompt that are no single token, and how many each takes.

        The model spells them out; where its tokenizer was trained on its captions it
        has rarely or never seen them.
        """
        count = self.parts.tokenizer.count
        counts = {word: count(word) - count("") for word in prompt.split()}
        return {word: many for word, many in counts.items() if many > 1}

    def sample(
        self,
        prompts: Sequence[str] | Sequence[int],
        *,
        k: int,
        seed: int = 0,
        tick: Tick = lambda count: None,
        seen: Seen = lambda rows: None,
        negative: str = "",
        start: Sequence[np.ndarray] | None = None,
        predict: str = "sample",
        rows: Mapping[str, np.ndarray] | None = None,
    ) -> Candidates:
        """`k` candidates for each prompt: a text, or the number of a label.

        Args:
          seen: Called with each call's candidates as they are drawn, (n, ...).
          negative: A text that guidance leads away from, in place of the empty one.
          start: One uint8 image (h, w, 3) a prompt that drawing begins from, as far as
            the sampling's `strength` says.
          predict: The task's function that draws.
          rows: What it reads besides, one row a prompt.

        Raises:
          UserError: k is below 1, the weights give NaN, or see `check_prompts`.
        """
        k = given.whole(k, "k", least=1, fix="ask for one candidate or more")
        self.check_prompts(prompts)
        conditions = calls.conditions(prompts, self.parts.tokenizer, seed=seed)
        more = dict(rows or {})
        if negative or start is not None:
            self._check_diffuses("negative" if negative else "start")
        if negative:
            self.check_prompts([negative])
            texts = calls.conditions([negative], self.parts.tokenizer, seed=seed)
            for key in ("tokens", "tokens_mask"):
                more[f"negative_{key}"] = np.repeat(texts[key], len(prompts), axis=0)
        if start is not None:
            more["image"] = self._views(start, prompts)
        arrays = calls.draw(
            lambda batch: self.parts.predict[predict](self.variables, batch),
            conditions | more,
            k=k,
            size=self.batch,
            devices=self.parts.layout.rows,
            tick=tick,
            seen=seen,
        )
        for name, array in arrays.items():
            if array.dtype.kind == "f" and np.isnan(array).any():
                raise UserError(
                    f"{name} of what was drawn holds NaN: the weights are broken, go "
                    "back to an earlier checkpoint"
                )
        return Candidates(tuple(prompts), arrays)

    def complete(
        self,
        images: Sequence[np.ndarray],
        prompts: Sequence[str] | Sequence[int],
        *,
        known: np.ndarray,
        **options: Any,
    ) -> Candidates:
        """As `sample`, with some pixels of each image given.

        Args:
          images: One uint8 (h, w, 3) a prompt; the run's evaluation view makes them
            (s, s, 3).
          known: bool (s, s) or (p, s, s), the pixels that are given.
          options: `k`, `seed`, `tick` and `seen` of `sample`.

        Raises:
          UserError: the task completes nothing, or not from such pixels.
        """
        if "complete" not in self.parts.raw:
            raise UserError(f"task {self.parts.config.task.name} completes no images")
        pixels = self._views(images, prompts)
        if np.shape(known)[-2:] != pixels.shape[1:3]:
            raise UserError(
                f"known is {np.shape(known)}, the images {pixels.shape[1:3]}: give one "
                "bool for every pixel"
            )
        rows = {"image": pixels, "known": np.broadcast_to(known, pixels.shape[:3])}
        if hasattr(self.parts.task, "completion"):
            rows = self.parts.task.completion(rows)
        return self.sample(prompts, predict="complete", rows=rows, **options)

    def _views(self, images: Sequence[np.ndarray], prompts: Sequence) -> np.ndarray:
        """The run's evaluation views of one image a prompt, uint8 (p, s, s, 3)."""
        if len(images) != len(prompts):
            raise UserError(
                f"{len(images)} images and {len(prompts)} prompts: pair them"
            )
        return np.stack([self.parts.image_cfg.evaluate(image) for image in images])

    def _check_diffuses(self, what: str) -> None:
        if "strength" not in self.options:
            raise UserError(
                f"task {self.parts.config.task.name} draws without {what!r}: leave it "
                "out, or give the workdir of a diffusion model"
            )
        if what == "negative" and not getattr(self.parts.task.sampling, "guided", 0):
            raise UserError(
                "negative leads guidance, and sampling.guidance is "
                f"{self.options['guidance']}, which is off: set it to 3, say"
            )


def embeddings(run: Run, drawn: Candidates) -> tuple[np.ndarray, np.ndarray]:
    """Unit rows of a contrastive model: images (p, k, d) and prompts (p, d)."""
    p, k = drawn.images.shape[:2]
    flat = drawn.images.reshape(p * k, *drawn.images.shape[2:])
    image_pkd = run.embed_images(list(flat)).reshape(p, k, -1)
    return image_pkd, run.embed_texts(drawn.prompts)
