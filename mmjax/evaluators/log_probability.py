"""Held-out ln p of models known but for their partition function Z.

ln Z is estimated by annealed importance sampling (Neal 2001; Salakhutdinov and Murray
2008): the logarithm of the runs' mean weight. Its expectation is at most ln Z, so that
ln p comes out too high where the runs are few or the temperatures far apart; the
interval and `effective` say how much the runs differ.

Legend: n examples, r runs, t inverse temperatures.
"""

import math
from dataclasses import dataclass

import numpy as np

from mmjax.evaluators import base
from mmjax.metrics import bootstrap

_DEFINITIONS = {
    "log_probability": "mean over examples of ln p*(x) - ln Z, nats an example; a "
    "lower bound where ln p* is one (by mean field, or samples of directed layers)",
    "log_partition": "ln of the mean weight of the annealed runs",
    "effective": "(sum of weights)^2 / sum of squares: runs that count",
}


@dataclass(frozen=True)
class Config(base.EvalConfig):
    """runs: of annealed importance sampling.

    betas: inverse temperatures between 0 and 1, at the spacing of Salakhutdinov and
      Murray: 500 of 14,500 up to 0.5, 4,000 up to 0.9, 10,000 up to 1.
    """

    runs: int = 100
    betas: int = 14_500

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least(runs=2, betas=2)


class Evaluator(base.Evaluator):
    """Calls predict "log_score": {fields} to ln p* (b,), "log_partition": {seed uint32
    (p,), betas float32 (p, t), the same in all rows} to ln weights (p,).
    """

    config_class, calls = Config, {"log_score": None}

    def check(self, vars_abstract: base.PyTree) -> None:
        """See the base."""
        shape = getattr(self.output_shapes(vars_abstract)["log_score"], "shape", None)
        if shape != (self.size,):
            raise self.error(f"'log_score' must give ({self.size},), gives {shape}")

    def run(self, variables: base.PyTree) -> base.Result:
        """The values of `_DEFINITIONS`, the first two with intervals.

        They resample runs, and for log_probability examples as well. `arrays` holds
        index and log_score (n,), and log_weight (r,).
        """

        def keep(outputs, batch, valid_b):
            score_b = np.asarray(outputs["log_score"], np.float64)[valid_b]
            if not np.isfinite(score_b).all():
                raise self.error(
                    "log_score is not finite; the weights are broken: go back to an "
                    "earlier checkpoint"
                )
            return {"log_score": score_b}

        arrays, counts, _ = self.collect(variables, keep=keep)
        score_n, runs = arrays["log_score"], self.config.runs
        log_w_r = self._annealed(variables)
        drawn_r = np.random.default_rng(self.config.seed + 1)
        most = log_w_r.max()

        def partition(weight_r: np.ndarray) -> float:
            return most + math.log(np.exp(log_w_r - most) @ weight_r / weight_r.sum())

        def both(weight_n: np.ndarray) -> np.ndarray:
            weight_r = np.bincount(drawn_r.integers(0, runs, runs), minlength=runs)
            log_z = partition(weight_r)
            return np.array([weight_n @ score_n / weight_n.sum() - log_z, log_z])

        log_z = partition(np.ones(runs))
        values = bootstrap.with_interval(
            ["log_probability", "log_partition"],
            both,
            len(score_n),
            points=np.array([score_n.mean() - log_z, log_z]),
            **self.draw,
        )
        share_r = np.exp(log_w_r - most)
        values["effective"] = float(share_r.sum() ** 2 / np.square(share_r).sum())
        card = self.card(
            counts,
            _DEFINITIONS,
            resampled="examples and annealed runs",
            text=False,
            runs=runs,
            betas=self.config.betas,
        )
        return base.Result(values, card, arrays | {"log_weight": log_w_r})

    def _annealed(self, variables: base.PyTree) -> np.ndarray:
        """ln weights (r,), run by calls of `size` rows."""
        betas_t, size = spaced(self.config.betas), min(self.size, self.config.runs)
        size = -(-size // self.env.devices) * self.env.devices
        parts = []
        for start in range(0, self.config.runs, size):
            seed_p = (self.config.seed + start + np.arange(size)).astype(np.uint32)
            batch = {"seed": seed_p, "betas": np.tile(betas_t, (size, 1))}
            weights_p = self.env.predict["log_partition"](variables, batch)
            parts.append(np.asarray(weights_p, np.float64))
        return np.concatenate(parts)[: self.config.runs]


def spaced(count: int) -> np.ndarray:
    """(count,) float32 from 0 to 1, closer together towards 1."""
    at = np.array([0.0, 500, 4500, 14_500]) / 14_500
    return np.interp(np.linspace(0, 1, count), at, [0, 0.5, 0.9, 1]).astype(np.float32)
