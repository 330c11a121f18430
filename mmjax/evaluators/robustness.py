"""Zero-shot accuracy under shifts that leave the classes what they are.

Radford et al. 2021, section 3.3, compare accuracies under natural shifts; these are
made from the set itself (see mmjax.data.corruptions), so that the same images meet
every one of them. Legend: n examples, k conditions.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmjax.data import corruptions
from mmjax.data.sources.shifted import Shifted
from mmjax.evaluators import base, zero_shot
from mmjax.report import figures

_DEFINITIONS = {
    "clean": "top-1 of the images as they are",
    "shifted": "mean of top-1 over all shifts and severities",
    "kept": "shifted over clean",
    "<shift>_<severity>": "top-1 under that shift",
}


@dataclass(frozen=True)
class Config(zero_shot.Config):
    """shifts: names in mmjax.data.corruptions.SHIFTS; severities: 1 to 5 each."""

    shifts: tuple[str, ...] = tuple(corruptions.SHIFTS)
    severities: tuple[int, ...] = (1, 3, 5)

    def __post_init__(self):
        super().__post_init__()
        if not self.shifts or not self.severities:
            raise ValueError("give at least one of shifts and one of severities")
        for shift in self.shifts:
            for severity in self.severities:
                corruptions.check(shift, severity)


class Evaluator(zero_shot.Evaluator):
    """Calls predict "embed_image" and "embed_text"; the source needs labels."""

    config_class = Config

    def run(self, variables: base.PyTree) -> base.Result:
        """Top-1 clean, `<shift>_<severity>`, and `shifted`, the mean of all shifts.

        `kept` is shifted over clean. Intervals resample examples, the same ones under
        every condition. `arrays` holds label (n,) and hit (k, n), the clean row first.
        """
        cfg, classes_cd = self.config, self.class_embeddings(variables)
        conditions = [(s, v) for s in cfg.shifts for v in cfg.severities]
        arrays, counts, _ = self.rank_images(variables, classes_cd)
        hits = [arrays["rank"] == 0]
        for condition in conditions:
            shifted = Shifted(self.source, *condition, cfg.seed)
            ranks = self.rank_images(variables, classes_cd, shifted).arrays["rank"]
            hits.append(ranks == 0)
        hit_kn = np.stack(hits)

        def accuracies(weight_n):
            top1_k = hit_kn @ weight_n / weight_n.sum()
            shifted = top1_k[1:].mean()
            kept = shifted / top1_k[0] if top1_k[0] else np.nan
            return np.array([top1_k[0], shifted, kept, *top1_k[1:]])

        names = ["clean", "shifted", "kept"]
        names += [f"{shift}_{severity}" for shift, severity in conditions]
        values = self.intervals(names, accuracies, hit_kn.shape[1])
        card = self.card(
            counts,
            _DEFINITIONS,
            **self.prompt_card(),
            shifts=list(cfg.shifts),
            severities=list(cfg.severities),
            shift_seed=cfg.seed,
        )
        return base.Result(values, card, {"label": arrays["label"], "hit": hit_kn})


def figure(values: Mapping[str, float], arrays: Mapping, title: str) -> Any:
    """Top-1 over severity, a line a shift, with its interval."""
    figure, axes = figures.one(title, width=6, height=3.6)
    shifts: dict[str, list[int]] = {}
    for name in values:
        shift, _, severity = name.rpartition("_")
        if severity.isdigit():
            shifts.setdefault(shift, []).append(int(severity))
    for shift, severities in shifts.items():
        names = ["clean", *(f"{shift}_{n}" for n in severities)]
        figures.line(axes, [0, *severities], names, values, shift)
    axes.set(xlabel="severity (0: clean)", ylabel="top-1", ylim=(0, None))
    axes.legend(fontsize=7, ncols=2)
    return figure
