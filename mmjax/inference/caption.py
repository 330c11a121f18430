"""Captions of images by a trained run: `Captioner(load_run("runs/caption"))`.

Legend: p images, k captions of each, m words, n cells.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from mmjax.errors import UserError
from mmjax.inference.load import Run
from mmjax.tasks import base


class Captioner:
    """Says what images show, in calls of the run's own batch size.

    Args:
      run: Of a task that offers predict "caption".
      sampling: Changes to how captions are found, such as k and length_norm.

    Raises:
      UserError: the task says nothing of images, has no such option, or fewer words
        than beams.
    """

    def __init__(self, run: Run, sampling: Mapping[str, Any] | None = None):
        if "caption" not in run.parts.raw:
            raise UserError(
                f"{run.workdir} holds a {run.config.task.name!r} model, which has no "
                "caption head: give the workdir of a run of task 'caption'"
            )
        self.task = base.with_sampling(run.task, sampling or {})
        self.task.check_beams(run.tokenizer.vocab_size)
        self.run = run
        self.parts = dataclasses.replace(run.parts, task=self.task)

    def say(
        self, views: Sequence[np.ndarray]
    ) -> tuple[list[list[str]], dict[str, np.ndarray]]:
        """Captions of each view of an image (`Run.view`), the best or first drawn.

        Returns:
          k texts of each, and the arrays caption int32 (p, k, m) and score (p, k).
        """
        out = self._call("caption", self._batch(views))
        decode = self.run.tokenizer.decode
        return [[decode(ids_m) for ids_m in ids_km] for ids_km in out["caption"]], out

    def attention(
        self, views: Sequence[np.ndarray], caption_pm: np.ndarray
    ) -> np.ndarray:
        """Where each word of a caption of each view was looked for, (p, m, n)."""
        if "attention" not in self.parts.raw:
            raise UserError(
                f"the decoder of {self.run.workdir} is {self.task.kind!r}, which looks "
                "nowhere: ask for no maps, or train soft, hard or transformer"
            )
        return self._call("attention", self._batch(views) | {"caption": caption_pm})

    def _batch(self, views: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        tokens_pl, mask_pl = self.run.tokenizer.encode([""] * len(views))
        return {"image": np.stack(views), "tokens": tokens_pl, "tokens_mask": mask_pl}

    def _call(self, name: str, batch: dict[str, np.ndarray]) -> Any:
        predict = functools.partial(
            self.parts.predict[name], self.run.state.eval_vars()
        )
        count, size = len(batch["tokens"]), self.parts.cfg.batch_size
        takes = (
            np.minimum(np.arange(start, start + size), count - 1)
            for start in range(0, count, size)
        )
        parts = [predict({key: x[take] for key, x in batch.items()}) for take in takes]
        return jax.tree.map(lambda *xs: np.concatenate(xs)[:count], *parts)
