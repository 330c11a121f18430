"""Few-shot linear probes, and how many examples a class zero-shot is worth.

Heads that know the classes' texts too, Tip-Adapter and LP++, take the same draws.
Radford et al. 2021, section 3.1.5, figures 6 and 7. Legend: n test examples, r
repeats, s numbers of shots.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from mmjax.evaluators import base, zero_shot
from mmjax.evaluators.common import probing
from mmjax.evaluators.common.probing import Labelled
from mmjax.evaluators.probe import heads, logistic
from mmjax.evaluators.probe import shots as shots_lib
from mmjax.metrics import bootstrap, embeddings
from mmjax.report import figures

_DEFINITIONS = {
    "shot_k": "mean over repeats of top1 after k examples a class",
    "shot_full": "top1 after all training examples",
    "zero_shot_worth": "shots where the curve, straight in log(shots) between "
    "neighbours, first reaches zero_shot",
}


@dataclass(frozen=True)
class Config(probing.ProbeConfig):
    """shots: examples a class, rising.

    repeats: draws of them, seeded `seed`, `seed` + 1 and so on. `l2` is chosen on the
      whole of val for each draw (the paper does not say how), unless it is fixed.
    full: also a fit on all of train, as many shots as it has images a class on average.
    zero_shot: whether the same model's zero-shot accuracy on the same examples is
      measured, with `templates`.
    head: what is fitted: `linear`, or `tip_adapter` or `lp_plus_plus`, which begin from
      the texts of `templates` (mmjax.evaluators.probe.heads), want embed_image for
      `features`, and choose their own numbers by val.
    """

    shots: tuple[int, ...] = (1, 2, 4, 8, 16)
    repeats: int = 5
    full: bool = True
    zero_shot: bool = True
    templates: str | tuple[str, ...] = "photo"
    head: Literal["linear", "tip_adapter", "lp_plus_plus"] = "linear"

    def __post_init__(self):
        super().__post_init__()
        self.at_least(repeats=1)
        rising = all(a < b for a, b in zip(self.shots, self.shots[1:], strict=False))
        if not self.shots or self.shots[0] < 1 or not rising:
            raise ValueError(f"shots {self.shots} must be positive and rising")
        needs = {"features": "embed_image", "zero_shot": True, "l2": None}
        for key, value in needs.items() if self.head != "linear" else ():
            if getattr(self, key) != value:
                raise ValueError(
                    f"head is {self.head}, which compares images with texts: set "
                    f"{key} to {value!r}, got {getattr(self, key)!r}"
                )
        if self.head != "linear" and self.val is None:
            raise ValueError(f"'val' is missing, by which {self.head} is chosen")


class Evaluator(probing.Probing):
    """Calls the predict function of `features`, and what zero_shot calls."""

    config_class = Config

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._zero_shot = None
        if self.config.zero_shot:
            shared = ("source", "limit", "batch_size", "resamples", "seed", "templates")
            same = {key: getattr(self.config, key) for key in shared}
            self._zero_shot = zero_shot.Evaluator(same, self.env, self.where)

    def check(self, vars_abstract: base.PyTree) -> None:
        """See the base."""
        super().check(vars_abstract)
        if self.config.head != "linear" and "scale" not in self.env.predict:
            raise self.error(f"head {self.config.head} needs a task that has 'scale'")
        if self._zero_shot is not None:
            self._zero_shot.check(vars_abstract)

    def run(self, variables: base.PyTree) -> base.Result:
        """shot_1, shot_2 ... shot_full: mean top1 over repeats, with intervals.

        With zero-shot also `zero_shot` and `zero_shot_worth`, examples a class within
        what was tried; `zero_shot_worth_bound` is 0, -1 where the truth is no more (the
        fewest shots do better) and 1 where it is no less. `arrays` holds shots,
        top1 (repeats, shots), index, label and, with zero-shot, zero_shot_hit.
        """
        cfg, zero = self.config, self._zero_shot
        splits = self.splits(variables)
        test, train = splits["test"], splits["train"]
        zero_hit_n = None
        if zero is not None:
            # by rank and not by prediction: a tie is no hit
            rank_n = zero.run(variables).arrays["rank"]
            zero_hit_n = (rank_n == 0).astype(np.float64)
        hits_srn, unconverged = self._hits(splits, variables)
        names, shots_s = [f"shot_{k}" for k in cfg.shots], list(map(float, cfg.shots))
        if cfg.full:
            names.append("shot_full")
            shots_s.append(len(train.label_n) / len(np.unique(train.label_n)))
        values = summary(names, shots_s, hits_srn, zero_hit_n, **self.draw)
        arrays = {"index": test.index_n, "label": test.label_n}
        arrays["shots"] = np.asarray(shots_s)
        # the fit on all of train has no repeats: its accuracy fills its column
        top1_sr = [np.broadcast_to(h.mean(1), cfg.repeats) for h in hits_srn]
        arrays["top1"] = np.stack(top1_sr, 1)
        if zero_hit_n is not None:
            arrays["zero_shot_hit"] = zero_hit_n
        card = self.card(
            test.counts | {"unconverged": unconverged},
            _DEFINITIONS,
            resampled="repeats and test examples",
            text=zero is not None,
            templates=None if zero is None else zero.prompt_card()["templates"],
            search="coarse_to_fine" if cfg.l2 is None else cfg.l2,
            **({} if cfg.head == "linear" else {"head": cfg.head}),
            shots=list(cfg.shots),
            repeats=cfg.repeats,
            **self.probe_card(splits),
        )
        return base.Result(values, card, arrays)

    def _hits(
        self, splits: dict[str, Labelled], variables: base.PyTree
    ) -> tuple[list[np.ndarray], int]:
        """Per number of shots float (r, n), whether a repeat is right; unconverged."""
        cfg, known = self.config, ()
        if cfg.head != "linear":
            splits = {
                name: split._replace(features_nd=embeddings.unit(split.features_nd))
                for name, split in splits.items()
            }
            known = self._zero_shot.class_embeddings(variables), self._scale(variables)
        train, test = splits["train"], splits["test"]
        hits, unconverged = [], 0
        for shots in [*cfg.shots, *([None] if cfg.full else [])]:
            rows = []
            for repeat in range(1 if shots is None else cfg.repeats):
                chosen = np.arange(len(train.label_n))
                if shots is not None:
                    drawn = {"seed": cfg.seed + repeat, "names": self.class_names}
                    chosen = shots_lib.draw(train.label_n, shots, **drawn)
                rows_nd, label_n = train.features_nd[chosen], train.label_n[chosen]
                if known:
                    tried = heads.HEADS[cfg.head](rows_nd, label_n, *known)
                    val = splits["val"]
                    head = heads.best(tried, val.features_nd, val.label_n)
                    prediction_n = head(test.features_nd).argmax(1)
                    rows.append(prediction_n == test.label_n)
                    continue
                probe, _ = self.fit(logistic.Problem(rows_nd, label_n), splits)
                unconverged += not probe.converged
                rows.append(probe.predict(test.features_nd) == test.label_n)
            hits.append(np.asarray(rows, np.float64))
        return hits, unconverged

    def _scale(self, variables: base.PyTree) -> float:
        """What the model multiplies cosines by."""
        blank = {"tokens": np.zeros((self.size, self.env.tokenizer.context), np.int32)}
        return float(np.asarray(self.env.predict["scale"](variables, blank)[0]))


def summary(
    names: list[str],
    shots_s: list[float],
    hits_srn: list[np.ndarray],
    zero_hit_n: np.ndarray | None,
    *,
    resamples: int,
    seed: int,
) -> dict[str, float]:
    """Accuracies and what zero-shot is worth, with intervals.

    Repeats and test examples are both drawn anew: a draw of the shots and a draw of
    the test set both would have come out otherwise.
    """
    rng = np.random.default_rng([seed, 1])
    fresh = False

    def statistic(weight_n: np.ndarray) -> np.ndarray:
        row = []
        for hits_rn in hits_srn:
            repeats = len(hits_rn)
            weight_r = np.ones(repeats)
            if fresh:
                drawn = rng.integers(0, repeats, repeats)
                weight_r = np.bincount(drawn, minlength=repeats)
            row.append(weight_r @ hits_rn @ weight_n / weight_r.sum() / weight_n.sum())
        if zero_hit_n is not None:
            goal = zero_hit_n @ weight_n / weight_n.sum()
            row += [goal, shots_lib.worth(shots_s, row, goal)[0]]
        return np.asarray(row)

    count = hits_srn[0].shape[1]
    if zero_hit_n is not None:
        names = [*names, "zero_shot", "zero_shot_worth"]
    points = statistic(np.ones(count))
    fresh = True
    draw = {"resamples": resamples, "seed": seed}
    values = bootstrap.with_interval(names, statistic, count, points=points, **draw)
    if zero_hit_n is not None:
        curve = points[: len(shots_s)]
        side = shots_lib.worth(shots_s, curve, values["zero_shot"])[1]
        values["zero_shot_worth_bound"] = float(side)
    return values


def panels(results: Mapping[str, tuple[Mapping, Mapping]], title: str) -> Any:
    """Accuracy over shots with the line of zero-shot, {data set: (values, arrays)}."""
    figure, panels = figures.grid(len(results), width=3.1, height=2.8, columns=4)
    for axes, (name, (values, arrays)) in zip(panels, results.items(), strict=True):
        numbers = (k for k in values if k.startswith("shot_"))
        keys = [k for k in numbers if not k.endswith(("_lo", "_hi"))]
        x, y = arrays["shots"], [100 * values[key] for key in keys]
        reach = 100 * np.transpose([figures.reach(values, key) for key in keys])
        axes.errorbar(x, y, reach, fmt="o-", ms=3, capsize=2, label="linear probe")
        if "zero_shot" in values:
            ends = (values["zero_shot_lo"], values["zero_shot_hi"])
            axes.axhline(100 * values["zero_shot"], color="C1", label="zero-shot")
            axes.axhspan(*(100 * end for end in ends), color="C1", alpha=0.2, lw=0)
            sign = {-1.0: "≤ ", 0.0: "", 1.0: "≥ "}[values["zero_shot_worth_bound"]]
            worth = f"zero-shot is worth {sign}{values['zero_shot_worth']:.2g}"
            axes.set_xlabel(f"images a class\n({worth})", fontsize=8)
        axes.set_xscale("log", base=2)
        axes.set_xticks(x, [f"{k:g}" for k in np.round(x)])
        axes.set_title(name, fontsize=10)
        axes.tick_params(labelsize=7)
        axes.set_ylim(bottom=0)
    panels[0].set_ylabel("accuracy, %")
    panels[0].legend(fontsize=7, frameon=False)
    figure.suptitle(title, fontsize=11)
    return figure
