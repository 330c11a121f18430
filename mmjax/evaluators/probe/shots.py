"""Few examples a class: which ones, and how many of them a number is worth."""

from collections.abc import Sequence

import numpy as np

from mmjax.errors import UserError


def draw(
    labels_n: np.ndarray, shots: int, *, seed: int, names: Sequence[str]
) -> np.ndarray:
    """Positions, rising, of `shots` rows of every class of `names`.

    Of one seed the fewer are among the more: 2-shot holds the example of 1-shot.

    Raises:
      UserError: a class has fewer rows than shots.
    """
    count_c = np.bincount(labels_n, minlength=len(names))
    chosen = []
    for label, name in enumerate(names):
        if count_c[label] < shots:
            raise UserError(
                f"class {label} ({name!r}) has {count_c[label]} images, fewer than "
                f"{shots} shots: ask for {count_c.min()} at most, or give more "
                "training data"
            )
        rng = np.random.default_rng([seed, label])
        chosen.append(rng.permutation(np.flatnonzero(labels_n == label))[:shots])
    return np.sort(np.concatenate(chosen))


def worth(
    shots_s: Sequence[float], accuracy_s: Sequence[float], goal: float
) -> tuple[float, int]:
    """How many examples a class reach `goal`, and which side of the truth that is.

    Log-linear interpolation: accuracy is a straight line in log(shots) between
    neighbours (Radford et al. 2021, figure 7); the first crossing counts.

    Returns:
      (shots, 0); (the fewest, -1) where those do already, so at most that many; (the
      most, 1) where none do, so at least that many.
    """
    log_s = np.log(np.asarray(shots_s, np.float64))
    accuracy_s = np.asarray(accuracy_s, np.float64)
    if accuracy_s[0] > goal:
        return float(shots_s[0]), -1
    for i in range(1, len(log_s)):
        if accuracy_s[i] >= goal:
            low, high = accuracy_s[i - 1 : i + 1]
            share = (goal - low) / (high - low) if high > low else 0.0
            return float(np.exp(log_s[i - 1] + share * (log_s[i] - log_s[i - 1]))), 0
    return float(shots_s[-1]), 0 if accuracy_s[-1] == goal else 1
