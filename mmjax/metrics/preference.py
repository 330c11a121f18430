"""What votes between two things at a time say: shares, majorities, strengths.

Legend: m models, t tallies (of resamples), v votes.
"""

import math

import numpy as np

from mmjax.errors import UserError

_Z = 1.959963984540054  # the normal's 97.5 % point: intervals of 95 %
PRIOR = 0.1  # wins that every model has over every other before the first vote


def wilson(wins: float, count: float) -> tuple[float, float]:
    """The score interval of a share, 95 % (Wilson 1927); NaN of no votes.

    It takes the votes as independent, which those of one rater, or of one prompt, are
    not; `bootstrap.crossed` does not. `wins` may hold halves, where ties count so.
    """
    if not 0 <= wins <= count:
        raise UserError(f"{wins} wins of {count} votes: give 0 to {count}")
    if not count:
        return math.nan, math.nan
    share, square = wins / count, _Z**2 / count
    middle = (share + square / 2) / (1 + square)
    spread = math.sqrt(share * (1 - share) * square + square**2 / 4) / (1 + square)
    return max(middle - spread, 0.0), min(middle + spread, 1.0)


def majority(wins: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """1.0 where the first of a pair has most votes, 0.5 of a tie, 0.0 otherwise."""
    return (np.sign(2 * np.asarray(wins, np.float64) - counts) + 1) / 2


def bradley_terry(
    wins_tmm: np.ndarray, *, prior: float = PRIOR, tolerance: float = 1e-10
) -> np.ndarray:
    """Log strengths (..., m) with mean 0, from how often model i beat model j.

    P(i beats j) = 1 / (1 + exp(s_j - s_i)) (Bradley & Terry 1952), by the
    minorisation-maximisation of Hunter 2004, equation 3; the best is where each model's
    expected wins are its own.

    Args:
      wins_tmm: (..., m, m); the diagonal is not read.
      prior: Wins added both ways between every two models. Without any, a model that
        never lost has no finite strength.
    """
    wins_tmm = np.asarray(wins_tmm, np.float64)
    m = wins_tmm.shape[-1]
    if wins_tmm.ndim < 2 or wins_tmm.shape[-2] != m or m < 2:
        raise UserError(f"wins are {wins_tmm.shape}: give (m, m) of two models or more")
    off_mm = 1 - np.eye(m)
    wins_tmm = (wins_tmm + prior) * off_mm
    games_tmm = wins_tmm + np.swapaxes(wins_tmm, -1, -2)
    won_tm = wins_tmm.sum(-1)
    strength_tm = np.ones_like(won_tm)
    for _ in range(100_000):
        both_tmm = strength_tm[..., :, None] + strength_tm[..., None, :]
        new_tm = won_tm / (games_tmm / both_tmm).sum(-1)
        new_tm /= np.exp(np.log(new_tm).mean(-1, keepdims=True))
        moved = np.abs(np.log(new_tm / strength_tm)).max()
        strength_tm = new_tm
        if moved < tolerance:
            break
    return np.log(strength_tm)
