"""Captions of images by a trained run: `Captioner(load_run("runs/caption"))`.

Legend: p images, k captions of each, m words, n cells, d features.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from mmjax.data import fields
from mmjax.errors import UserError
from mmjax.inference import features
from mmjax.inference.load import Run
from mmjax.tasks import base


class _Images:
    """Images in memory, as a source."""

    name, class_names = "images", ()

    def __init__(self, images: Sequence[np.ndarray]):
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {"image": self.images[i], "text": [], "key": str(i)}


class Captioner:
    """Says what images show, in calls of the run's own batch size.

    Args:
      run: Of a task that offers predict "caption".
      sampling: Changes to how captions are found, such as k and length_norm.
      network: Of a run that reads features, the run that made them.

    Raises:
      UserError: the task says nothing of images, has no such option, fewer words than
        beams, or no network to make its features.
    """

    def __init__(
        self,
        run: Run,
        sampling: Mapping[str, Any] | None = None,
        network: Run | None = None,
    ):
        if "caption" not in run.parts.raw:
            raise UserError(
                f"{run.workdir} holds a {run.config.task.name!r} model, which has no "
                "caption head: give the workdir of a run of task 'caption'"
            )
        self.task = base.with_sampling(run.task, sampling or {})
        self.task.check_beams(run.tokenizer.vocab_size)
        if bool(network) == bool(self.task.image):
            raise UserError(
                f"{run.workdir} reads {run.task.reads[0]}, and the network of features "
                f"is {network and network.workdir}: "
                + ("leave it out" if network else "name the run that made them")
            )
        self.run, self.network = run, network
        self.parts = dataclasses.replace(run.parts, task=self.task)

    def say(
        self, images: Sequence[np.ndarray]
    ) -> tuple[list[list[str]], dict[str, np.ndarray]]:
        """Captions of images, uint8 (H, W, 3), the best or first drawn before others.

        Returns:
          k texts of each, and the arrays caption int32 (p, k, m) and score (p, k).
        """
        out = self._call("caption", self._batch(images))
        decode = self.run.tokenizer.decode
        return [[decode(ids_m) for ids_m in ids_km] for ids_km in out["caption"]], out

    def attention(
        self, images: Sequence[np.ndarray], caption_pm: np.ndarray
    ) -> np.ndarray:
        """Where each word of a caption of each image was looked for, (p, m, n)."""
        if "attention" not in self.parts.raw:
            raise UserError(
                f"the decoder of {self.run.workdir} is {self.task.kind!r}, which looks "
                "nowhere: ask for no maps, or train soft, hard or transformer"
            )
        batch = self._batch(images) | {"caption": caption_pm}
        return self._call("attention", batch)

    def view(self, image: np.ndarray) -> np.ndarray:
        """What is seen of an image, uint8 (s, s, 3)."""
        return (self.network or self.run).view(image)

    def _batch(self, images: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        tokens_pl, mask_pl = self.run.tokenizer.encode([""] * len(images))
        words = {"tokens": tokens_pl, "tokens_mask": mask_pl}
        if self.network is None:
            return words | {"image": np.stack([self.view(image) for image in images])}
        field = self.run.parts.fields["features"]
        *cells, _ = field.shapes("features")["features"][0]
        regions = features.Regions(f"cells:{math.isqrt(cells[0])}") if cells else None
        arrays, _ = features.of_records(self.network, _Images(images), regions)
        return words | fields.encode(
            {"features": field}, "features", list(arrays[field.reads("features")])
        )

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
