"""Hidden Markov models of several series that run side by side.

Every chain has a state at each step, and emits the series of its own: Gaussians with
diagonal covariances, independent given the state. One chain that emits all series is
the multistream HMM; one chain a series, where each chain's next state depends on the
states of all, is the coupled HMM (Brand et al. 1997; Nefian et al. 2002 for speech). It
is an HMM over tuples of states, which is how it is computed, exactly.

A series that is left out of `series` is missing: nothing is emitted.

Legend: n sequences, t steps, d columns, c chains, s states of a chain, j tuples of
states.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from mmjax.errors import UserError

Series = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Hmm:
    """What `fit` and `supervised` give.

    chains: the names of the series that each chain emits. states: of each chain.
    start: (s,) by chain. move: (j, s) by chain, from a tuple to the chain's next state.
    mean, variance: (s, d) by name.
    """

    chains: tuple[tuple[str, ...], ...]
    states: int
    start: tuple[np.ndarray, ...]
    move: tuple[np.ndarray, ...]
    mean: Series
    variance: Series

    @property
    def tuples(self) -> np.ndarray:
        """The state of every chain in each tuple, int (j, c)."""
        return tuples(self.states, len(self.chains))

    def emitted(self, series: Series) -> np.ndarray:
        """Log-densities of every step in each tuple, (n, t, j)."""
        total = 0.0
        for place_j, names in zip(self.tuples.T, self.chains, strict=True):
            for name in names:
                if name in series:
                    apart_ntsd = series[name][:, :, None] - self.mean[name]
                    own_nts = -0.5 * (
                        np.square(apart_ntsd) / self.variance[name]
                        + np.log(2 * np.pi * self.variance[name])
                    ).sum(-1)
                    total = total + own_nts[..., place_j]
        if isinstance(total, float):
            raise UserError(
                f"no series of {', '.join(series) or 'none'} is emitted: the model has "
                f"{', '.join(name for names in self.chains for name in names)}"
            )
        return total

    def _joint(self) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities of the first tuple (j,), and from tuple to tuple (j, j)."""
        places = self.tuples.T
        start = [p[place] for p, place in zip(self.start, places, strict=True)]
        move = [p[:, place] for p, place in zip(self.move, places, strict=True)]
        return np.prod(start, 0), np.prod(move, 0)

    def walked(
        self, series: Series, mask_nt: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Forward and backward (Rabiner 1989), each step scaled.

        mask_nt: bool, the first steps of each sequence.

        Returns:
          log p (n,); the tuples' posteriors (n, t, j), zeros after the end; and how
          often tuple follows tuple, expected, (j, j), over all sequences.
        """
        log_ntj = self.emitted(series)
        top_nt = log_ntj.max(-1)
        density_ntj = np.where(
            mask_nt[..., None], np.exp(log_ntj - top_nt[..., None]), 1
        )
        start_j, move_jj = self._joint()
        (n, steps), j = mask_nt.shape, len(start_j)
        forward, scale_nt = np.zeros((n, steps, j)), np.ones((n, steps))
        for t in range(steps):
            past_nj = forward[:, t - 1] @ move_jj if t else start_j
            now_nj = past_nj * density_ntj[:, t]
            scale_nt[:, t] = np.where(mask_nt[:, t], now_nj.sum(1), 1)
            now_nj = now_nj / np.maximum(now_nj.sum(1, keepdims=True), 1e-300)
            on_n1 = mask_nt[:, t, None]
            forward[:, t] = np.where(on_n1, now_nj, forward[:, t - 1] if t else 0)
        backward_nj, moved_jj = np.ones((n, j)), np.zeros((j, j))
        posterior = np.zeros((n, steps, j))
        for t in range(steps - 1, -1, -1):
            posterior[:, t] = forward[:, t] * backward_nj * mask_nt[:, t, None]
            if t:
                after_nj = density_ntj[:, t] * backward_nj / scale_nt[:, t, None]
                after_nj = after_nj * mask_nt[:, t, None]
                moved_jj += forward[:, t - 1].T @ after_nj * move_jj
                on_n1 = mask_nt[:, t, None]
                backward_nj = np.where(on_n1, after_nj @ move_jj.T, backward_nj)
        log_n = ((np.log(scale_nt) + top_nt) * mask_nt).sum(1)
        return log_n, posterior, moved_jj


def tuples(states: int, chains: int) -> np.ndarray:
    """All tuples of states, int (j, c)."""
    return np.array(list(itertools.product(range(states), repeat=chains)))


def learned(
    chains: Sequence[Sequence[str]],
    states: int,
    posterior_ntj: np.ndarray,
    moved_jj: np.ndarray,
    series: Series,
    *,
    floor: float = 0.1,
    prior: float = 0.1,
) -> Hmm:
    """The model of expected states: EM's M step, and all of it where states are known.

    Args:
      posterior_ntj, moved_jj: as `walked` gives them.
      floor: what is added to variances. prior: to counts; above 0 where not every tuple
      of states is met.
    """
    place_jc = tuples(states, len(chains))
    start, move, mean, variance = [], [], {}, {}
    for place_j, names in zip(place_jc.T, chains, strict=True):
        into_js = (place_j[:, None] == np.arange(states)).astype(float)
        own_nts = posterior_ntj @ into_js
        first_s, next_js = own_nts[:, 0].sum(0) + prior, moved_jj @ into_js + prior
        start.append(first_s / first_s.sum())
        move.append(next_js / next_js.sum(1, keepdims=True))
        weight_s1 = np.maximum(own_nts.sum((0, 1)), 1e-12)[:, None]
        for name in names:
            x_ntd = np.asarray(series[name], np.float64)
            sums_sd = np.einsum("nts,ntd->sd", own_nts, x_ntd)
            squares_sd = np.einsum("nts,ntd->sd", own_nts, np.square(x_ntd))
            mean[name] = sums_sd / weight_s1
            spread_sd = squares_sd / weight_s1 - np.square(mean[name])
            variance[name] = np.maximum(spread_sd, 0) + floor
    whole = tuple(tuple(names) for names in chains)
    return Hmm(whole, states, tuple(start), tuple(move), mean, variance)


def fit(
    series: Series,
    mask_nt: np.ndarray,
    *,
    chains: Sequence[Sequence[str]],
    states: int,
    iterations: int = 10,
    **how: float,
) -> Hmm:
    """EM from states that divide each sequence evenly, in order.

    Args:
      series: float (n, t, d) by name, all with the same steps. mask_nt: bool, the first
        steps of each. how: keywords of `learned`.
    """
    count_n1 = np.maximum(mask_nt.sum(1, keepdims=True), 1)
    step_nt = np.minimum(np.arange(mask_nt.shape[1]) * states // count_n1, states - 1)
    form = {"chains": chains, "states": states}
    hmm = supervised(series, mask_nt, step_nt, **form, **how)
    for _ in range(iterations):
        _, posterior, moved_jj = hmm.walked(series, mask_nt)
        hmm = learned(chains, states, posterior, moved_jj, series, **how)
    return hmm


def supervised(
    series: Series,
    mask_nt: np.ndarray,
    state_nt: np.ndarray,
    *,
    chains: Sequence[Sequence[str]],
    states: int,
    **how: float,
) -> Hmm:
    """The model where the state is known, the same of all chains: counts and means."""
    same_s = [(tuples(states, len(chains)) == s).all(1).argmax() for s in range(states)]
    own_nt = np.asarray(same_s)[np.asarray(state_nt, int)]
    posterior = np.eye(states ** len(chains))[own_nt] * mask_nt[..., None]
    moved_jj = np.einsum("nti,ntj->ij", posterior[:, :-1], posterior[:, 1:])
    return learned(chains, states, posterior, moved_jj, series, **how)
