"""Draws a study's images from the runs to be compared.

Legend: p prompts, k candidates, s image side.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmjax.errors import UserError
from mmjax.inference import generate, load
from mmjax.judging.study import Model
from mmjax.sampling.calls import Tick


@dataclasses.dataclass(frozen=True)
class Drawer:
    """A run under the name that it has in reports."""

    model: Model
    generator: generate.Generator

    @property
    def reads_texts(self) -> bool:
        return self.generator.parts.tokenizer is not None


def open_drawers(
    runs: Mapping[str, pathlib.Path],
    prompts: Sequence[str],
    *,
    sampling: Mapping[str, Mapping[str, Any]] | None = None,
    batch: int = 64,
) -> list[Drawer]:
    """The runs by name, after checking that all of them can draw the prompts.

    sampling: by name, changes to the options that a run samples with.

    Raises:
      UserError: a run draws nothing, or not these prompts; some read texts and others
        labels; two are the same weights with the same options.
    """
    drawers = []
    for name, workdir in runs.items():
        run = load.load_run(workdir)
        options = (sampling or {}).get(name, {})
        generator = generate.Generator(run, sampling=options, batch=batch)
        model = Model(
            name, str(workdir), run.step, run.fingerprint, dict(generator.options)
        )
        drawers.append(Drawer(model, generator))
    _check(drawers, prompts)
    return drawers


def _check(drawers: Sequence[Drawer], prompts: Sequence[str]) -> None:
    texts = [d.model.name for d in drawers if d.reads_texts]
    labels = [d.model.name for d in drawers if not d.reads_texts]
    if texts and labels:
        raise UserError(
            f"these runs disagree on prompts: {', '.join(texts)} read texts, and "
            f"{', '.join(labels)} numbers of labels; a study compares one kind"
        )
    seen: dict[Any, str] = {}
    for drawer in drawers:
        model = drawer.model
        try:
            drawer.generator.check_prompts(_prompts(drawer, prompts))
        except UserError as error:
            others = [d.model.name for d in drawers if d is not drawer]
            raise UserError(
                f"{model.name} cannot draw what {', '.join(others)} should draw too: "
                f"{error}"
            ) from error
        same = model.fingerprint, repr(sorted(model.sampling.items()))
        if same in seen:
            raise UserError(
                f"{seen[same]} and {model.name} are the same weights with the same "
                "options: nobody can tell them apart; change one with --set"
            )
        seen[same] = model.name


def _prompts(drawer: Drawer, prompts: Sequence[str]) -> Sequence[str] | Sequence[int]:
    if drawer.reads_texts:
        return prompts
    words = [prompt for prompt in prompts if not prompt.isdecimal()]
    if words:
        raise UserError(
            f"the prompt {words[0]!r} is no label, and this run reads numbers of "
            "labels: give one a line"
        )
    return [int(prompt) for prompt in prompts]


def draw(
    drawers: Sequence[Drawer],
    prompts: Sequence[str],
    *,
    k: int = 1,
    seed: int = 0,
    clip: load.Run | None = None,
    tick: Tick = lambda count: None,
) -> list[np.ndarray]:
    """Of each run uint8 (p, s, s, 3): candidate 0, or the best of k that a CLIP chose.

    Ramesh et al. 2021 had 512 candidates in all figures, chosen by CLIP.

    Raises:
      UserError: a CLIP is to choose among images of labels, which it cannot read.
    """
    if clip is not None and not drawers[0].reads_texts:
        raise UserError("CLIP reads captions, and these runs draw labels: no --clip")
    images = []
    for drawer in drawers:
        listed = _prompts(drawer, prompts)
        drawn = drawer.generator.sample(listed, k=k, seed=seed, tick=tick)
        best_p = np.zeros(len(prompts), int)
        if clip is not None:
            image_pkd, text_pd = generate.embeddings(clip, drawn)
            best_p = np.einsum("pkd,pd->pk", image_pkd, text_pd).argmax(1)
        images.append(drawn.images[np.arange(len(prompts)), best_p])
    return images
