"""What drawn pictures are worth: the judges of generation, as functions of arrays.

    draw = {"resamples": 1000, "seed": 0}
    values, right = judges.oracle(images, scenes, judges.picks(4), **draw)

Pictures come as (p, k, ...): k candidates for each of p prompts. Which of them count is
a pick, an index (p, n) under the suffix of its values' names: `picks`. Every value
comes with `_lo` and `_hi`, 95 % over prompts, whose pictures stay together.

Legend: p prompts, k candidates, n picked of them, d features, c classes, m pictures.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from mmjax.data.shapes.scene import Scene
from mmjax.metrics import bootstrap, copying, frechet, scenes
from mmjax.sampling import rerank

Picks = Mapping[str, np.ndarray]
Values = dict[str, float]
ORDER = ("all", *(name for name in scenes.ATTRIBUTES if name != "all"))
UNIT = "prompts, each with its pictures"


def picks(
    candidates: int, cosines_pk: np.ndarray | None = None, pools: Sequence[int] = ()
) -> dict[str, np.ndarray]:
    """All candidates, under "", and for each pool K the best of the first K.

    The latter are called `_best<K>` and are chosen by `cosines_pk`.
    """
    found = {"": np.arange(candidates)[None]}  # the same for every prompt
    if pools:
        best_ps = rerank.best_of(cosines_pk, pools)
        for s, pool in enumerate(pools):
            found[f"_best{pool}"] = best_ps[:, s : s + 1]
    return found


def oracle(
    images: np.ndarray,
    scenes_p: Sequence[Scene],
    chosen: Picks,
    *,
    resamples: int,
    seed: int,
    processes: int | None = None,
) -> tuple[Values, np.ndarray]:
    """Shares of pictures that show their scene, and where all of it is right (p, k).

    images: (p, k, S, S, 3), see `scenes.judge` for that and for `processes`.
    """
    p, k = images.shape[:2]
    truths = [scene for scene in scenes_p for _ in range(k)]
    right = scenes.judge(flat(images), truths, processes=processes)
    columns = {
        f"oracle_{name}{suffix}": _take(right[name].reshape(p, k), pick_pn)
        for suffix, pick_pn in chosen.items()
        for name in ORDER
    }
    values = means(columns, resamples=resamples, seed=seed)
    return values, right["all"].reshape(p, k)


def clip_score(
    cosines_pk: np.ndarray, chosen: Picks, *, resamples: int, seed: int
) -> Values:
    """Mean of max(100 cosine, 0) of pictures with their captions.

    The scale is that of most implementations; Hessel et al. 2021 have 2.5 in place of
    100.
    """
    score_pk = np.maximum(100.0 * cosines_pk, 0)
    columns = {f"clip_score{s}": _take(score_pk, pick) for s, pick in chosen.items()}
    return means(columns, resamples=resamples, seed=seed)


def classifier(
    logits_pkc: np.ndarray,
    label_p: np.ndarray,
    chosen: Picks,
    *,
    resamples: int,
    seed: int,
) -> Values:
    """Share of pictures in which a network sees the prompt's class; -1 is left out."""
    known_p = label_p >= 0
    right_pk = logits_pkc.argmax(2) == label_p[:, None]
    columns = {
        f"classifier_accuracy{suffix}": _take(right_pk, pick_pn)[known_p]
        for suffix, pick_pn in chosen.items()
    }
    return means(columns, resamples=resamples, seed=seed)


def fid(
    features_pkd: np.ndarray,
    real_md: np.ndarray,
    chosen: Picks,
    *,
    resamples: int,
    seed: int,
) -> Values:
    """Frechet distance to real pictures, which are not resampled; see `frechet`."""
    target = frechet.gaussian(real_md)

    def of(rows_nd: np.ndarray) -> tuple[float, frechet.Statistic]:
        value = frechet.distance(*frechet.gaussian(rows_nd), *target)
        return value, frechet.resampled(rows_nd, *target)

    draw = {"resamples": resamples, "seed": seed}
    return _of_sets("fid", of, features_pkd, chosen, **draw)


def inception_score(
    logits_pkc: np.ndarray, chosen: Picks, *, resamples: int, seed: int
) -> Values:
    """See `frechet.inception_score`."""

    def of(rows_nc: np.ndarray) -> tuple[float, frechet.Statistic]:
        return frechet.inception_score(rows_nc), frechet.scores_of(rows_nc)

    chances_pkc = frechet.softmax(logits_pkc)
    draw = {"resamples": resamples, "seed": seed}
    return _of_sets("inception_score", of, chances_pkc, chosen, **draw)


def copies(
    images: np.ndarray,
    train: np.ndarray,
    held_out: np.ndarray,
    *,
    resamples: int,
    seed: int,
) -> Values:
    """Nearest training pictures of drawn and of held-out real ones: copying.METRICS.

    All uint8: (p, k, S, S, 3) and (m, S, S, 3).
    """
    train_md = copying.pixels(train)
    drawn_n, _ = copying.nearest(copying.pixels(flat(images)), train_md)
    real_n, _ = copying.nearest(copying.pixels(held_out), train_md)
    drawn_pk = drawn_n.reshape(images.shape[:2])
    columns = {
        "nearest": drawn_pk,
        "near": drawn_pk < copying.near_limit(real_n),
        "copies": drawn_pk <= copying.SAME,
    }
    draw = {"resamples": resamples, "seed": seed}
    return means(columns, **draw) | means({"nearest_real": real_n[:, None]}, **draw)


def flat(values_pk: np.ndarray) -> np.ndarray:
    """(p, k, ...) as (p k, ...): a prompt's candidates side by side."""
    return values_pk.reshape(-1, *values_pk.shape[2:])


def means(columns: Mapping[str, np.ndarray], *, resamples: int, seed: int) -> Values:
    """Means of (p, n) numbers, each with its interval over the p."""
    rows = [np.mean(value, axis=1, dtype=np.float64) for value in columns.values()]
    mean_vp = np.stack(rows)

    def statistic(weight_p: np.ndarray) -> np.ndarray:
        return mean_vp @ weight_p / weight_p.sum()

    draw = {"resamples": resamples, "seed": seed}
    return bootstrap.with_interval(list(columns), statistic, mean_vp.shape[1], **draw)


def _of_sets(
    name: str,
    of: Callable[[np.ndarray], tuple[float, frechet.Statistic]],
    rows_pkd: np.ndarray,
    chosen: Picks,
    *,
    resamples: int,
    seed: int,
) -> Values:
    """A statistic of each pick's rows, resampled by prompt."""
    values: Values = {}
    for suffix, pick_pn in chosen.items():
        rows_pnd = _take(rows_pkd, pick_pn)
        count, each = rows_pnd.shape[:2]
        value, of_rows = of(flat(rows_pnd))

        def of_prompts(weight_p, of_rows=of_rows, each=each):
            return of_rows(np.repeat(weight_p, each))

        draw = {"resamples": resamples, "seed": seed}
        values |= frechet.with_interval(name + suffix, value, of_prompts, count, **draw)
    return values


def _take(values_pk: np.ndarray, pick_pn: np.ndarray) -> np.ndarray:
    count = len(values_pk)
    index_pn = np.broadcast_to(pick_pn, (count, pick_pn.shape[1]))
    return rerank.chosen(values_pk, index_pn)
