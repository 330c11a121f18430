"""Zero-shot accuracy under shifts that leave the classes what they are.

Radford et al. 2021, section 3.3, compare accuracies under natural shifts; these are
made from the set itself (see mmjax.data.corruptions), so that the same pictures meet
every one of them. Legend: n examples, k conditions.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmjax.data import corruptions
from mmjax.data.sources.shifted import Shifted
from mmjax.errors import UserError
from mmjax.evaluators import zero_shot
from mmjax.evaluators.base import Env, PyTree, Result
from mmjax.evaluators.common import result_card
from mmjax.metrics import bootstrap
from mmjax.report import figures


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

    def __init__(self, cfg: Mapping[str, Any], env: Env, where: str = "robustness"):
        super().__init__(cfg, env, where)
        config = self.config
        self._conditions = [(s, v) for s in config.shifts for v in config.severities]

    def run(self, variables: PyTree) -> Result:
        """Top-1 clean, `<shift>_<severity>`, and `shifted`, the mean of all shifts.

        `kept` is shifted over clean. Intervals resample examples, the same ones under
        every condition. `arrays` holds label (n,) and hit (k, n), the clean row first.
        """
        classes_cd = self.class_embeddings(variables)
        hits, label_n, broken = [], None, 0
        for source in [self._source, *self._shifted()]:
            found, bad = self.rank_images(variables, classes_cd, source)
            broken = broken or bad
            label_n = found["label"]
            hits.append(found["rank"] == 0)
        if not label_n.size:
            raise UserError(f"{self._where}: {broken} records, all of them broken")
        hit_kn = np.stack(hits)

        def accuracies(weight_n):
            top1_k = hit_kn @ weight_n / weight_n.sum()
            shifted = top1_k[1:].mean()
            kept = shifted / top1_k[0] if top1_k[0] else np.nan
            return np.array([top1_k[0], shifted, kept, *top1_k[1:]])

        names = ["clean", "shifted", "kept"]
        names += [f"{shift}_{severity}" for shift, severity in self._conditions]
        draw = {"resamples": self.config.resamples, "seed": self.config.seed}
        values = bootstrap.with_interval(names, accuracies, label_n.size, **draw)
        counts = {"examples": int(label_n.size), "broken": broken}
        return Result(
            values, self._note(counts, draw), {"label": label_n, "hit": hit_kn}
        )

    def _shifted(self) -> list[Shifted]:
        seed = self.config.seed
        return [Shifted(self._source, *made, seed) for made in self._conditions]

    def _note(self, counts: dict, draw: dict) -> dict[str, Any]:
        given = self.config.templates
        return result_card.write(
            self.config,
            self._env,
            self._source,
            kind="robustness",
            counts=counts,
            interval=bootstrap.describe("examples", **draw),
            metrics={
                "clean": "top-1 of the pictures as they are",
                "shifted": "mean of top-1 over all shifts and severities",
                "kept": "shifted over clean",
                "<shift>_<severity>": "top-1 under that shift",
            },
            task={
                "class_names": result_card.listing(self.class_names),
                "templates": result_card.listing(
                    self.templates, given if isinstance(given, str) else None
                ),
                "shifts": list(self.config.shifts),
                "severities": list(self.config.severities),
                "shift_seed": self.config.seed,
            },
            text=True,
        )


def figure(values: Mapping[str, float], arrays: Mapping, title: str) -> Any:
    """Top-1 over severity, a line a shift, with its interval."""
    made, axes = figures.one(title, width=6, height=3.6)
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
    return made
