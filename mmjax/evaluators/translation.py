"""How near a series that was made from another is to the true one.

Its error is compared with what anybody could say: the mean of the training steps, the
mean of the same label's (the speaker's own face), and the step of the training record
whose source sounds most alike.

Legend: n records, s and t steps of source and target, d columns, k steps of a window.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from mmjax.errors import UserError
from mmjax.evaluators import base
from mmjax.evaluators.common import forward
from mmjax.report import image_grid

WAYS = ("error", "mean_error", "label_error", "nearest_error")
COLUMNS = 12  # steps of a record in the PNG
_DEFINITIONS = {
    "error": "mean squared error of all numbers of the target, over mean_error",
    "label_error": "that of the mean of the label's training steps, over mean_error",
    "nearest_error": "that of the training step (of the label, where there are labels) "
    "whose window of the source is nearest, over mean_error",
    "mean_error": "that of the mean of all training steps",
    "beats_label": "label_error - error",
    "beats_nearest": "nearest_error - error",
    "motion": "correlation with the true series, each less its own mean step",
    "nearest_motion": "the same of the nearest training steps",
}


class Series(NamedTuple):
    """One record: source (s, p), target (t, d), and its label, 0 without one."""

    source: np.ndarray
    target: np.ndarray
    label: int


@dataclass(frozen=True)
class Config(base.EvalConfig):
    """train: the training split's spec, from which the baselines are made.

    reach: steps of the source on either side that the nearest window has.
    png: a sheet of true and made steps; empty writes none. shown: records it has.
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
            raise self.error(f"'translated' gives {got}, and the target is {want}")

    def run(self, variables: base.PyTree) -> base.Result:
        """The numbers of `_DEFINITIONS` with intervals over records."""
        true: list[Series] = []
        made: list[np.ndarray] = []

        def keep(outputs: dict, batch: base.Batch, valid_b: np.ndarray) -> dict:
            for row in np.flatnonzero(valid_b):
                true.append(_series(batch, row))
                said_td = np.asarray(outputs["translated"][row], np.float32)
                made.append(said_td[: len(true[-1].target)])
            return {}

        arrays, counts, _ = self.collect(variables, keep=keep)
        train = self.open(self.config.train)
        known = [
            _series(batch, row)
            for batch in self.batches(train)
            for row in np.flatnonzero(forward.valid_rows(batch))
        ]
        found = nearest(known, true, reach=self.config.reach)
        mean_d, own = means(known)
        errors_4n = np.array(
            [
                [np.square(x - one.target).mean() for x in guesses]
                for one, *guesses in (
                    (one, said, mean_d, own.get(one.label, mean_d), near)
                    for one, said, near in zip(true, made, found, strict=True)
                )
            ]
        ).T
        motion_2n = np.array(
            [[correlation(x, one.target) for one, x in zip(true, of, strict=True)]
             for of in (made, found)]
        )  # fmt: skip

        def statistics(weight_n: np.ndarray) -> np.ndarray:
            error, mean, label, near = errors_4n @ weight_n / weight_n.sum()
            shares = np.array([error, label, near]) / mean
            apart = shares[1:] - shares[0]
            motion = motion_2n @ weight_n / weight_n.sum()
            return np.array([shares[0], *shares[1:], mean, *apart, *motion])

        values = self.intervals(list(_DEFINITIONS), statistics, len(true))
        if self.config.png:
            self._draw(true, made, found)
        about = {"train": train.fingerprint(), "reach": self.config.reach}
        card = self.card(counts, _DEFINITIONS, resampled="records", **about)
        errors = dict(zip(WAYS, errors_4n, strict=True))
        return base.Result(values, card, {"index": arrays["index"], **errors})

    def _draw(self, true: list, made: list, found: list) -> None:
        few = np.unique(np.linspace(0, len(true) - 1, self.config.shown).astype(int))
        rows, captions = [], []
        for n in few:
            versions = {"true": true[n].target, "made": made[n], "nearest": found[n]}
            steps = np.linspace(0, len(made[n]) - 1, COLUMNS).astype(int)
            for caption, steps_td in versions.items():
                captions.append(f"record {n}, {caption}")
                raw = self.env.fields["target"].raw(steps_td[steps])
                rows.append([_square(x.reshape(self.config.frames)) for x in raw])
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
    labels = {one.label for one in known}
    own = {k: [one.target for one in known if one.label == k] for k in labels}
    everything = np.concatenate([one.target for one in known])
    return everything.mean(0), {k: np.concatenate(v).mean(0) for k, v in own.items()}


def nearest(known: list[Series], asked: list[Series], *, reach: int) -> list:
    """For every series asked for, the known steps (t, d) that sound most alike.

    The window of a target's step is the source's steps around its end, `reach` on
    either side; beyond the ends they are zeros.

    Raises:
      UserError: no known series has the label of one that is asked for.
    """
    pool: dict[int, list[Series]] = {}
    for one in known:
        pool.setdefault(one.label, []).append(one)
    tables = {
        label: (
            np.concatenate([windows(one, reach) for one in several]),
            np.concatenate([one.target for one in several]),
        )
        for label, several in pool.items()
    }
    out = []
    for one in asked:
        if one.label not in tables:
            raise UserError(
                f"train has no record of label {one.label}, and the source has: give "
                "splits with the same labels, or leave the field label out"
            )
        window_mk, target_md = tables[one.label]
        window_tk = windows(one, reach)
        apart_tm = np.square(window_mk).sum(1) - 2 * window_tk @ window_mk.T
        out.append(target_md[apart_tm.argmin(1)])
    return out


def windows(one: Series, reach: int) -> np.ndarray:
    """(t, k): the source around the end of every step of the target."""
    s, t = len(one.source), len(one.target)
    end_t = np.minimum(-(-(np.arange(t) + 1) * s // t), s) - 1
    padded = np.pad(one.source, ((reach, reach), (0, 0)))
    return padded[end_t[:, None] + np.arange(2 * reach + 1)].reshape(t, -1)


def correlation(x_td: np.ndarray, y_td: np.ndarray) -> float:
    """Of two series, each less its own mean step; 0 where one is still."""
    x_td, y_td = (z - z.mean(0) for z in (x_td, y_td))
    norm = np.sqrt(np.square(x_td).sum() * np.square(y_td).sum())
    return float((x_td * y_td).sum() / norm) if norm > 1e-12 else 0.0


def _square(shade: np.ndarray) -> np.ndarray:
    """Shades (h, w), 0 to 1, in the middle of a square image."""
    h, w = shade.shape
    side = max(h, w)
    out = np.full((side, side), 1.0)
    top, left = (side - h) // 2, (side - w) // 2
    out[top : top + h, left : left + w] = shade
    return np.repeat(image_grid.eight_bit(out)[..., None], 3, -1)
