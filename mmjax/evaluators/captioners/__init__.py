"""Captioners without a decoder: by the captions of near images, and by templates."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmjax import schema
from mmjax.errors import UserError
from mmjax.evaluators.captioners import examples, templates


@dataclasses.dataclass(frozen=True)
class Options:
    """What the captioners take.

    neighbours: how many near images consensus and phrases look at.
    templates: sentences with {slots}, of which the one that fits best is said.
    slots: slot -> the words or phrases that may stand there.
    ridge: of the detectors of those, beside features of unit variance.
    """

    neighbours: int = 60
    templates: tuple[str, ...] = ()
    slots: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    ridge: float = 100.0

    def __post_init__(self) -> None:
        schema.at_least(1, self, "neighbours")
        schema.at_least(0, self, "ridge")
        templates.check(self.templates, self.slots)


METHODS = ("nearest", "consensus", "phrases", "template")


def say(
    method: str,
    query_qd: np.ndarray,
    features_nd: np.ndarray,
    captions: Sequence[Sequence[Sequence[str]]],
    options: Options,
) -> list[str]:
    """A caption of every query.

    Args:
      method: one of `METHODS`. nearest: the first caption of the nearest image.
        consensus: of the captions of near images the one that is most like the others
        (Devlin et al. 2015). phrases: put together from phrases of them. template: the
        best of the templates, filled with what detectors see (Yang et al. 2011).
      query_qd: features of the images.
      features_nd: features of the examples.
      captions: of each example its captions, as words.

    Raises:
      UserError: an unknown method, fewer examples than neighbours, or no template.
    """
    if method not in METHODS:
        raise UserError(f"no captioner {method!r}{schema.suggest(method, METHODS)}")
    if method == "template":
        if not options.templates:
            raise UserError("captioner 'template' has no templates: give templates")
        return templates.Filler(features_nd, captions, options).say(query_qd)
    many = 1 if method == "nearest" else options.neighbours
    if len(features_nd) < many:
        raise UserError(
            f"neighbours is {many}, and there are {len(features_nd)} examples: use "
            f"{len(features_nd)} or fewer"
        )
    return getattr(examples.Examples(features_nd, captions), method)(query_qd, many)
