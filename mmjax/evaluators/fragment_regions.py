"""The region that each fragment of a sentence picks: accuracy against gold, an image.

Legend: b rows, n regions, k fragments, g groups that are resampled.
"""

from dataclasses import dataclass

import numpy as np

from mmjax.evaluators import base
from mmjax.report import fragment_figure

_SHARP = {"attention": "mean attention of a fragment to the region that it picks"}
_DEFINITIONS = {
    "accuracy": "share of fragments whose most attended region is the gold one",
    "accuracy_equal": "share of fragments whose region has the same fragment as gold",
    "chance": "accuracy of a region at random",
    "chance_equal": "accuracy_equal of a region at random",
}


@dataclass(frozen=True)
class Config(base.EvalConfig):
    """png: an image of the first `examples` records; empty draws none."""

    png: str = ""
    examples: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least(examples=1)


class Evaluator(base.Evaluator):
    """Calls predict "picks": pairs of `regions` and `sentence` to (b, n, k)."""

    config_class, calls = Config, {"picks": None}

    def check(self, vars_abstract: base.PyTree) -> None:
        """See the base."""
        self.output_shapes(vars_abstract)

    def run(self, variables: base.PyTree) -> base.Result:
        """Accuracies with intervals over classes of the records where they have one.

        `arrays` holds index and, per record, pick and gold (k,), -1 where there is no
        fragment. Records without gold regions have `attention` and an image alone.
        """

        def keep(outputs: dict, batch: base.Batch, valid_b: np.ndarray) -> dict:
            mask_bk = np.asarray(batch["sentence_mask"])
            share_bnk = np.asarray(outputs["picks"])
            rows = {"pick": np.where(mask_bk, share_bnk.argmax(1), -1)}
            rows["attention"] = np.where(mask_bk, share_bnk.max(1), 0.0)
            rows["gold"] = np.where(mask_bk, batch["sentence_gold"], -1)
            rows["count"] = np.asarray(batch["regions_mask"]).sum(1)
            rows["fragment"] = np.asarray(batch["sentence"])
            return {key: value[valid_b] for key, value in rows.items()}

        found = self.collect(variables, keep=keep)
        arrays = found.arrays
        if self.config.png:
            self._draw(arrays)
        hits_n4, known_n = _hits(arrays)
        count = max(int((arrays["pick"] >= 0).sum()), 1)
        sharp = {"attention": float(arrays["attention"].sum() / count)}
        kept = {key: arrays[key] for key in ("index", "pick", "gold")}
        if not known_n.sum():
            card = self.card(found.counts, _SHARP, resampled="nothing")
            return base.Result(sharp, card, kept)
        group_n = arrays.get("label", np.arange(len(known_n)))
        names, group_n = np.unique(group_n, return_inverse=True)
        hits_g4 = np.stack([hits_n4[group_n == g].sum(0) for g in range(len(names))])
        known_g = np.bincount(group_n, weights=known_n)

        def shares(weight_g: np.ndarray) -> np.ndarray:
            return weight_g @ hits_g4 / max(weight_g @ known_g, 1e-12)

        values = self.intervals(list(_DEFINITIONS), shares, len(names))
        counts = found.counts | {"groups": len(names), "fragments": int(known_n.sum())}
        resampled = "classes of records" if "label" in arrays else "records"
        card = self.card(counts, _DEFINITIONS | _SHARP, resampled=resampled)
        return base.Result(values | sharp, card, kept)

    def _draw(self, arrays: dict[str, np.ndarray]) -> None:
        relations, words = self.env.fields["sentence"].vocabulary
        drawn = []
        for i in range(min(self.config.examples, len(arrays["pick"]))):
            record = self.source[int(arrays["index"][i])]
            missing = [key for key in ("image", "boxes") if key not in record]
            if missing:
                raise self.error(
                    f"png={self.config.png!r} draws boxes on images, and record "
                    f"{record['key']} has no {' and no '.join(missing)}: join a source "
                    "that has them by kind pairs, or set png to ''"
                )
            kept = arrays["pick"][i] >= 0
            texts = [
                " ".join([words[head], words[word]] if head > 1 else [words[word]])
                for _, head, word in arrays["fragment"][i][kept]
            ]
            pick = arrays["pick"][i][kept]
            drawn.append((record["image"], record["boxes"], texts, pick))
        fragment_figure.draw(self.config.png, drawn)


def _hits(arrays: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """(sums of `_DEFINITIONS` over fragments, (n, 4); fragments with gold (n,))."""
    hits, known = [], []
    parts = (arrays[key] for key in ("pick", "gold", "count", "fragment"))
    for pick_k, gold_k, count, fragment_k3 in zip(*parts, strict=True):
        has_k = gold_k >= 0
        of_region = {g: tuple(f) for g, f in zip(gold_k, fragment_k3, strict=True)}
        own = [tuple(f) for f in fragment_k3[has_k]]
        same = [sum(f == other for other in own) / max(count, 1) for f in own]
        equal = [of_region.get(p) == f for p, f in zip(pick_k[has_k], own, strict=True)]
        right = (pick_k == gold_k)[has_k].sum()
        hits.append([right, sum(equal), has_k.sum() / max(count, 1), sum(same)])
        known.append(has_k.sum())
    return np.asarray(hits, float), np.asarray(known)
