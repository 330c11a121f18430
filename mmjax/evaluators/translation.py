"""How near a series translated from another is to the true one.

Its error is compared with three baselines: the mean of the training steps, the mean of
the same label's steps (the speaker's own face), and retrieval, the training step of
that label whose source is nearest.

Legend: n records, s and t steps of source and target, d columns, k numbers of a window.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from mmjax.evaluators import base
from mmjax.evaluators.common import forward
from mmjax.report import image_grid

COLUMNS = 12  # steps of a record in the PNG
_DEFINITIONS = {
    "error": "mean squared error of all numbers of the target, over mean_error",
    "label_error": "that of the mean of the label's training steps, over mean_error",
    "nearest_error": "that of the label's training step whose window of the source is "
    "nearest, over mean_error",
    "mean_error": "that of the mean of all training steps",
    "beats_label": "label_error - error",
    "beats_nearest": "nearest_error - error",
    "motion": "correlation with the true series, each less its own mean step",
    "nearest_motion": "the same of the nearest training steps",
}


class Series(NamedTuple):
    """A record: source (s, p), target (t, d), label (0 without one)."""

    source: np.ndarray
    target: np.ndarray
    label: int


@dataclass(frozen=True)
class Config(base.EvalConfig):
    """train: the training split's spec, from which the baselines are made.

    reach: steps of the source on either side that the nearest window has.
    png: a sheet of true, translated and retrieved steps; empty writes none.
    shown: how many records it has.
    frames: (height, width) where the target's steps are images, which the sheet needs.
    """

    train: Any = None
    reach: int = 4
    png: str = ""
    shown: int = 4
    frames: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least(reach=0, shown=1)
        if self.train is None:
            raise ValueError("'train' is missing; give the training split's spec")
        if self.png and len(self.frames) != 2:
            raise ValueError(f"frames is {self.frames}: the sheet needs height, width")


class Evaluator(base.Evaluator):
    """Calls predict "translated": {source, ...} to (b, t, d)."""

    config_class, calls = Config, {"translated": None}

    def check(self, vars_abstract: base.PyTree) -> None:
        """See the base."""
        got = self.output_shapes(vars_abstract)["translated"].shape
        want = self.peek(self.source)["target"].shape
        if got != want:
            raise self.error(
                f"'translated' gives {got}, and the target is {want}: set the task's "
                "steps and out to the field's"
            )

    def run(self, variables: base.PyTree) -> base.Result:
        """The numbers of `_DEFINITIONS` with intervals over records."""
        true: list[Series] = []
        translated: list[np.ndarray] = []

        def keep(outputs: dict, batch: base.Batch, valid_b: np.ndarray) -> dict:
            for row in np.flatnonzero(valid_b):
                true.append(_series(batch, row))
                translated.append(outputs["translated"][row, : len(true[-1].target)])
            return {}

        arrays, counts, _ = self.collect(variables, keep=keep)
        train = self.open(self.config.train)
        known = [
            _series(batch, row)
            for batch in self.batches(train)
            for row in np.flatnonzero(forward.valid_rows(batch))
        ]
        strangers = {one.label for one in true} - {one.label for one in known}
        if strangers:
            raise self.error(
                f"train has no record of label {min(strangers)}, and the source has: "
                "give splits with the same labels, or leave the field label out"
            )
        retrieved = nearest(known, true, reach=self.config.reach)
        mean_d, own = means(known)
        rows = []
        for one, ours, near in zip(true, translated, retrieved, strict=True):
            guesses = ours, own[one.label], near, mean_d
            errors = [np.square(x - one.target).mean() for x in guesses]
            rows.append([*errors, *(correlation(x, one.target) for x in (ours, near))])
        rows_6n = np.array(rows).T

        def statistics(weight_n: np.ndarray) -> np.ndarray:
            mean_6 = rows_6n @ weight_n / weight_n.sum()
            shares, motions = mean_6[:3] / mean_6[3], mean_6[4:]
            beaten = shares[1:] - shares[0]
            return np.array([*shares, mean_6[3], *beaten, *motions])

        values = self.intervals(list(_DEFINITIONS), statistics, len(true))
        if self.config.png:
            self._draw(true, translated, retrieved)
        about = {"train": train.fingerprint(), "reach": self.config.reach}
        card = self.card(counts, _DEFINITIONS, resampled="records", **about)
        kept = {"index": arrays["index"], "error": rows_6n[0], "motion": rows_6n[4]}
        return base.Result(values, card, kept)

    def _draw(self, true: list, translated: list, retrieved: list) -> None:
        raw, rows, captions = self.env.fields["target"].raw, [], []
        few = np.linspace(0, len(true) - 1, self.config.shown).astype(int)
        for n in np.unique(few):
            at = np.linspace(0, len(translated[n]) - 1, COLUMNS).astype(int)
            versions = {"true": true[n].target, "translated": translated[n]}
            versions["retrieved"] = retrieved[n]
            for caption, steps_td in versions.items():
                captions.append(f"record {n}, {caption}")
                images = raw(steps_td[at]).reshape(COLUMNS, *self.config.frames)
                rows.append(list(image_grid.eight_bit(images)))
        image_grid.draw(self.config.png, rows, captions)


def _series(batch: base.Batch, row: int) -> Series:
    """A row of a batch without its padding."""
    source, target = (
        np.asarray(batch[name][row])[np.asarray(batch[f"{name}_mask"][row])]
        for name in ("source", "target")
    )
    return Series(source, target, int(batch["label"][row]) if "label" in batch else 0)


def means(known: list[Series]) -> tuple[np.ndarray, dict[int, np.ndarray]]:
    """The mean step (d,) of all series, and by label."""
    label_m = np.concatenate([np.full(len(one.target), one.label) for one in known])
    step_md = np.concatenate([one.target for one in known])
    labels = np.unique(label_m).tolist()
    return step_md.mean(0), {k: step_md[label_m == k].mean(0) for k in labels}


def nearest(known: list[Series], asked: list[Series], *, reach: int) -> list:
    """For every series asked for, the known steps (t, d) whose source is nearest.

    Steps are those of series of the same label. The window of a step is the source's
    steps around its end, `reach` on either side; beyond the ends they are zeros.
    """
    out = []
    for one in asked:
        pool = [other for other in known if other.label == one.label]
        window_mk = np.concatenate([windows(other, reach) for other in pool])
        cross_tm = windows(one, reach) @ window_mk.T
        best_t = (np.square(window_mk).sum(1) - 2 * cross_tm).argmin(1)
        out.append(np.concatenate([other.target for other in pool])[best_t])
    return out


def windows(one: Series, reach: int) -> np.ndarray:
    """(t, k): the source around the end of every step of the target."""
    s, t = len(one.source), len(one.target)
    end_t = -(-(np.arange(t) + 1) * s // t) - 1
    padded = np.pad(one.source, ((reach, reach), (0, 0)))
    return padded[end_t[:, None] + np.arange(2 * reach + 1)].reshape(t, -1)


def correlation(x_td: np.ndarray, y_td: np.ndarray) -> float:
    """Of two series, each less its own mean step; 0 where one is still."""
    x_td, y_td = (z - z.mean(0) for z in (x_td, y_td))
    norm = np.sqrt(np.square(x_td).sum() * np.square(y_td).sum())
    return float((x_td * y_td).sum() / norm) if norm > 1e-12 else 0.0
