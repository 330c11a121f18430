"""What generated images are worth: the judges of generation, as functions of arrays.

    draw = {"resamples": 1000, "seed": 0}
    values, right = judges.oracle(images, scenes, judges.picks(4), **draw)

Images come as (p, k, ...): k candidates for each of p prompts. Which of them count is
a pick, an index (p, n) under the suffix of its values' names: `picks`. Every value
comes with `_lo` and `_hi`, 95 % over prompts, whose images stay together; `draw` holds
the number of resamples and the seed of these intervals.

Legend: p prompts, k candidates, n picked of them, d features, c classes, m images.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from scipy import special

from mmjax.data.shapes.scene import Scene
from mmjax.metrics import bootstrap, copying, frechet, scenes
from mmjax.sampling import rerank

Picks = Mapping[str, np.ndarray]
Values = dict[str, float]
ORDER = ("all", *(name for name in scenes.ATTRIBUTES if name != "all"))
UNIT = "prompts, each with its images"


def picks(
    candidates: int, cosines_pk: np.ndarray | None = None, pools: Sequence[int] = ()
) -> dict[str, np.ndarray]:
    """All candidates, under "", and for each pool K the best of the first K.

    The latter are called `_best<K>` and are chosen by `cosines_pk`.
    """
    chosen = {"": np.arange(candidates)[None]}  # the same for every prompt
    if pools:
        best_sp = rerank.best_of(cosines_pk, pools).T
        best = zip(pools, best_sp, strict=True)
        chosen |= {f"_best{pool}": best_p[:, None] for pool, best_p in best}
    return chosen


def oracle(
    images: np.ndarray, scenes_p: Sequence[Scene], chosen: Picks, **draw: int
) -> tuple[Values, np.ndarray]:
    """Shares of images that show their scene, and where all of it is right (p, k).

    images: (p, k, S, S, 3), see `scenes.judge`.
    """
    p, k = images.shape[:2]
    truths = [scene for scene in scenes_p for _ in range(k)]
    right = scenes.judge(flat(images), truths)
    columns = {
        f"oracle_{name}{suffix}": taken(right[name].reshape(p, k), pick_pn)
        for suffix, pick_pn in chosen.items()
        for name in ORDER
    }
    return means(columns, **draw), right["all"].reshape(p, k)


def by_novelty(
    columns: Mapping[str, np.ndarray], new_p: np.ndarray, **draw: int
) -> Values:
    """Means (p, n) of the new prompts and of the others, apart.

    A column's name has `{}` in the place of "new" and "seen". Nothing is given of a
    group without a prompt.
    """
    values: Values = {"prompts_new": int(new_p.sum())}
    for tag, group_p in (("new", new_p), ("seen", ~new_p)):
        rows = {name.format(tag): v[group_p] for name, v in columns.items()}
        values |= means(rows, **draw) if group_p.any() else {}
    return values


def clip_score(cosines_pk: np.ndarray, chosen: Picks, **draw: int) -> Values:
    """Mean of max(100 cosine, 0) of images with their captions.

    The scale is that of most implementations; Hessel et al. 2021 have 2.5 in place of
    100.
    """
    score_pk = np.maximum(100.0 * cosines_pk, 0)
    columns = {f"clip_score{s}": taken(score_pk, pick) for s, pick in chosen.items()}
    return means(columns, **draw)


def classifier(
    logits_pkc: np.ndarray, label_p: np.ndarray, chosen: Picks, **draw: int
) -> Values:
    """Share of images that a network assigns to the prompt's class; -1 is left out."""
    known_p = label_p >= 0
    right_pk = logits_pkc.argmax(2) == label_p[:, None]
    columns = {
        f"classifier_accuracy{suffix}": taken(right_pk, pick_pn)[known_p]
        for suffix, pick_pn in chosen.items()
    }
    return means(columns, **draw)


def fid(
    features_pkd: np.ndarray, real_md: np.ndarray, chosen: Picks, **draw: int
) -> Values:
    """Frechet distance to real images, which are not resampled; see `frechet`."""
    target = frechet.gaussian(real_md)

    def of(rows_nd: np.ndarray) -> tuple[float, bootstrap.Statistic]:
        value = frechet.distance(*frechet.gaussian(rows_nd), *target)
        return value, frechet.resampled(rows_nd, *target)

    return _of_sets("fid", of, features_pkd, chosen, **draw)


def inception_score(logits_pkc: np.ndarray, chosen: Picks, **draw: int) -> Values:
    """See `frechet.inception_score`."""

    def of(rows_nc: np.ndarray) -> tuple[float, bootstrap.Statistic]:
        statistic = frechet.inception_score(rows_nc)
        return statistic(np.ones(len(rows_nc))), statistic

    chances_pkc = special.softmax(np.asarray(logits_pkc, np.float64), axis=-1)
    return _of_sets("inception_score", of, chances_pkc, chosen, **draw)


def copies(
    images: np.ndarray, train: np.ndarray, held_out: np.ndarray, **draw: int
) -> Values:
    """Nearest training images of generated and of held-out real ones: copying.METRICS.

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
    return means(columns, **draw) | means({"nearest_real": real_n[:, None]}, **draw)


def flat(values_pk: np.ndarray) -> np.ndarray:
    """(p, k, ...) as (p k, ...): a prompt's candidates side by side."""
    return values_pk.reshape(-1, *values_pk.shape[2:])


def means(columns: Mapping[str, np.ndarray], **draw: int) -> Values:
    """Means of (p, n) numbers, each with its interval over the p."""
    rows = {k: np.mean(v, axis=1, dtype=np.float64) for k, v in columns.items()}
    return bootstrap.means(rows, **draw)


def _of_sets(
    name: str,
    of: Callable[[np.ndarray], tuple[float, bootstrap.Statistic]],
    rows_pkd: np.ndarray,
    chosen: Picks,
    **draw: int,
) -> Values:
    """A statistic of each pick's rows, resampled by prompt."""
    values: Values = {}
    for suffix, pick_pn in chosen.items():
        rows_pnd = taken(rows_pkd, pick_pn)
        count, each = rows_pnd.shape[:2]
        value, of_rows = of(flat(rows_pnd))

        def of_prompts(weight_p, of_rows=of_rows, each=each):
            return of_rows(np.repeat(weight_p, each))

        values |= frechet.with_interval(name + suffix, value, of_prompts, count, **draw)
    return values


def taken(values_pk: np.ndarray, pick_pn: np.ndarray) -> np.ndarray:
    """The picked candidates' values (p, n, ...)."""
    count = len(values_pk)
    index_pn = np.broadcast_to(pick_pn, (count, pick_pn.shape[1]))
    return rerank.chosen(values_pk, index_pn)
