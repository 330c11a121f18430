"""Few examples a class: which ones, and how many of them a number is worth."""

from collections.abc import Sequence

import numpy as np

from mmjax.errors import UserError


def draw(
    labels_n: np.ndarray, shots: int, *, seed: int, names: Sequence[str] = ()
) -> np.ndarray:
    """Positions, rising, of `shots` rows of every class.

    Of one seed the fewer are among the more: 2-shot holds the example of 1-shot.
    names: class names, for all labels that must be there; else those that occur.

    Raises:
      UserError: a class has fewer rows than shots.
    """
    labels_n = np.asarray(labels_n)
    top = max(len(names), int(labels_n.max(initial=-1)) + 1)
    count_c = np.bincount(labels_n, minlength=top)
    wanted = range(len(names)) if names else np.flatnonzero(count_c)
    chosen = []
    for label in wanted:
        if count_c[label] < shots:
            called = f" ({names[label]!r})" if names else ""
            raise UserError(
                f"class {label}{called} has {count_c[label]} images, fewer than "
                f"{shots} shots: ask for {count_c[list(wanted)].min()} at most, or "
                "give more training data"
            )
        rng = np.random.default_rng([seed, int(label)])
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
            found = log_s[i - 1] + share * (log_s[i] - log_s[i - 1])
            return float(np.exp(found)), 0
    reached = accuracy_s[-1] == goal
    return float(shots_s[-1]), 0 if reached else 1
