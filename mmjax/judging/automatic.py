"""Automated judges of a study's images, to be read beside the people.

Legend: p prompts, s image side, d embedding.
"""

import itertools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmjax.data.sources import open_source
from mmjax.errors import UserError
from mmjax.inference import load
from mmjax.judging import results
from mmjax.judging import study as studies
from mmjax.judging.study import Study
from mmjax.judging.votes import Vote
from mmjax.metrics import bootstrap, judges

_REAL = 10_000  # images of a source, at most, that FID compares with


def judge(
    folder: pathlib.Path,
    study: Study,
    votes: Sequence[Vote],
    *,
    clip: load.Run | None = None,
    source: str = "",
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Numbers of each model, of each two models, and how they go with the people.

    Args:
      clip: A contrastive run: CLIP score, preference by it, and the space of FID.
      source: Real images. With `clip` they are what FID compares with; records with
        scenes, whose first caption is a prompt, let the oracle judge.

    Raises:
      UserError: this CLIP chose the images; no record of the source is of use.
    """
    draw = {"resamples": resamples, "seed": seed}
    images = [studies.images_of(folder, study, m) for m in range(len(study.models))]
    records = _records(source) if source else []
    scores: dict[str, np.ndarray] = {}  # judge: (m, p), the more the better
    values: list[dict[str, float]] = [{} for _ in study.models]
    if clip is not None:
        scores["clip"] = _clip(clip, study, images, values, records, draw)
    scenes = {r["text"][0]: r["scene"] for r in records if "scene" in r and r["text"]}
    known = [p for p, prompt in enumerate(study.prompts) if prompt in scenes]
    if known:
        truths = [scenes[study.prompts[p]] for p in known]
        right = np.full((len(images), len(study.prompts)), np.nan)
        for m, images_p in enumerate(images):
            chosen = images_p[known][:, None], truths, judges.picks(1)
            numbers, right_pk = judges.oracle(*chosen, **draw)
            values[m] |= numbers
            right[m, known] = right_pk[:, 0]
        scores["oracle"] = right
    elif records and clip is None:
        raise UserError(
            f"{source}: no record with a scene has a prompt of this study as its first "
            "caption, and without --clip there is no FID: give --clip RUN, or the "
            "source of the prompts"
        )
    return {
        "models": {
            model.name: row for model, row in zip(study.models, values, strict=True)
        },
        "prompts_with_scene": len(known),
        "real_images": len(records),
        "source": source,
        "clip": {"workdir": str(clip.workdir), "step": clip.step} if clip else None,
        "preferences": {
            name: _preferences(study, votes, score_mp, draw)
            for name, score_mp in scores.items()
        },
    }


def _records(source: str) -> list[dict[str, Any]]:
    held = open_source(source)
    return [held[i] for i in range(min(len(held), _REAL))]


def _clip(
    clip: load.Run,
    study: Study,
    images: Sequence[np.ndarray],
    values: list[dict[str, float]],
    records: Sequence[Mapping[str, Any]],
    draw: Mapping[str, int],
) -> np.ndarray:
    """Cosines (m, p) of images with their prompts; adds CLIP scores and FID."""
    if study.drawn.get("clip") and study.drawn["clip_fingerprint"] == clip.fingerprint:
        raise UserError(
            f"{clip.workdir} chose the images of this study, and would judge its own "
            "choice: give a --clip that was trained apart from it"
        )
    texts_pd = clip.embed_texts(study.prompts)
    real_md = clip.embed_images([r["image"] for r in records]) if records else None
    cosines = []
    for row, images_p in zip(values, images, strict=True):
        image_pkd = clip.embed_images(list(images_p))[:, None]
        cosine_pk = np.einsum("pkd,pd->pk", image_pkd, texts_pd)
        row |= judges.clip_score(cosine_pk, judges.picks(1), **draw)
        if real_md is not None and len(images_p) > 1 and len(real_md) > 1:
            few = draw | {"resamples": min(draw["resamples"], 100)}
            row |= judges.fid(image_pkd, real_md, judges.picks(1), **few)
        cosines.append(cosine_pk[:, 0])
    return np.stack(cosines)


def _preferences(
    study: Study,
    votes: Sequence[Vote],
    score_mp: np.ndarray,
    draw: Mapping[str, int],
) -> list[dict[str, Any]]:
    """How often a judge prefers the first of two models, and the people's majority.

    Equal scores count a half. `with_people` is the share of pairs in which the judge
    and the majority prefer the same image, of those where both prefer one.
    """
    people = results.majorities(study, votes, "match")
    rows = []
    for a, b in itertools.combinations(range(len(study.models)), 2):
        first_p = (np.sign(score_mp[a] - score_mp[b]) + 1) / 2
        known_p = np.isfinite(first_p)
        said = [
            (first_p[pair.prompt], people[name])
            for name, pair in study.pairs.items()
            if name in people and (pair.a.model, pair.b.model) == (a, b)
        ]
        both = [x == y for x, y in said if np.isfinite(x) and x != 0.5 and y != 0.5]
        names = {"first": study.models[a].name, "second": study.models[b].name}
        share = bootstrap.means({"share": first_p[known_p]}, **draw)
        together = sum(both) / len(both) if both else None
        rows.append(names | share | {"with_people": together, "pairs": len(both)})
    return rows
