"""Linear probe: logistic regression on frozen features, by CLIP's protocol.

Radford et al. 2021, appendix A.3: L-BFGS, the strength of the L2 penalty chosen on
validation data, then fitted again on training and validation data together.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from mmjax.evaluators.base import EvalConfig, PyTree, Result
from mmjax.evaluators.common import probing, result_card
from mmjax.evaluators.probe import logistic
from mmjax.evaluators.probe import search as search_lib
from mmjax.evaluators.zero_shot import mean_per_class
from mmjax.metrics import bootstrap


@dataclass(frozen=True)
class Config(EvalConfig):
    """source: the test split. train, val: specs of the other two; val may be a share
      between 0 and 1 of every class of train, taken out of it.

    features: the predict function whose rows are classified: `features` are those
      before the projection to the joint space, `projected` those after it (CLIP's own
      example), `embed_image` the latter at length one.
    search: coarse_to_fine is the paper's, full tries all 97 strengths.
    strength: fixes lambda (scikit-learn's 1 / C); val is then only trained on.
    refit: whether the test is of a fit on train and val together.
    """

    train: Any = None
    val: Any = None
    features: str = "features"
    search: Literal["coarse_to_fine", "full"] = "coarse_to_fine"
    strength: float | None = None
    refit: bool = True
    iterations: int = logistic.ITERATIONS

    def __post_init__(self):
        super().__post_init__()
        if self.strength is not None and not self.strength > 0:
            raise ValueError(f"strength must be positive, got {self.strength}")
        if self.iterations < 1:
            raise ValueError(f"iterations must be at least 1, got {self.iterations}")


class Evaluator(probing.Probing):
    """Calls the predict function that `features` names; all splits need labels."""

    config_class = Config

    def run(self, variables: PyTree) -> Result:
        """top1 and mean_per_class of the test split, with intervals; strength, ...

        `arrays` holds index, label and prediction per test example, and of every
        strength tried (rising) its val_accuracy and iterations.
        """
        found = self.splits(variables)
        probe, path = self._fit(found)
        test = found["test"]
        prediction_n = probe.predict(test.features_nd)
        hit_n = (prediction_n == test.label_n).astype(np.float64)
        draw = {"resamples": self.config.resamples, "seed": self.config.seed}
        values = accuracies(hit_n, test.label_n, **draw)
        values |= {
            "strength": probe.strength,
            "train_objective": probe.objective,
            "iterations": float(probe.iterations),
        }
        counts = {"examples": len(hit_n), "broken": test.broken}
        counts |= {
            "features": test.features_nd.shape[1],
            "unconverged": int(not probe.converged),
        }
        arrays = {"index": test.index_n, "label": test.label_n}
        arrays["prediction"] = prediction_n
        if path is not None:
            values["val_top1"] = float(path.accuracy_t.max())
            counts["unconverged"] += path.unconverged
            arrays |= {
                "strengths": path.strengths_t,
                "val_accuracy": path.accuracy_t,
                "iterations": path.iterations_t,
            }
        return Result(values, self._card(counts, found, draw), arrays)

    def _fit(self, found: dict) -> tuple[logistic.Probe, search_lib.Chosen | None]:
        cfg, train = self.config, found["train"]
        how = {"iterations": cfg.iterations}
        path, strength = None, cfg.strength
        if strength is None:
            problem = logistic.Problem(train.features_nd, train.label_n)
            val = found["val"].features_nd, found["val"].label_n
            path = search_lib.choose(problem, *val, method=cfg.search, **how)
            strength = path.strength
            if not cfg.refit:
                return path.probe, path
        parts = [train] + ([found["val"]] if "val" in found and cfg.refit else [])
        features_nd = np.concatenate([part.features_nd for part in parts])
        labels_n = np.concatenate([part.label_n for part in parts])
        problem = logistic.Problem(features_nd, labels_n)
        start = path and path.probe
        return problem.path([strength], start=start, **how)[0], path

    def _card(self, counts: dict, found: dict, draw: dict) -> dict[str, Any]:
        cfg = self.config
        return result_card.write(
            cfg,
            self._env,
            self._views["test"],
            kind="linear_probe",
            counts=counts,
            interval=bootstrap.describe("test examples; the fit stays", **draw),
            metrics={
                "top1": "label is the best class",
                "mean_per_class": "mean of top1 over the classes that occur",
                "strength": "lambda: sum of cross-entropies + lambda / 2 x |weights|^2",
            },
            task={
                "class_names": result_card.listing(self.class_names),
                "features": cfg.features,
                "search": cfg.search if cfg.strength is None else cfg.strength,
                "refit": cfg.refit,
                "iterations": cfg.iterations,
                "splits": probing.splits_card(self._views, found, cfg),
            },
            text=False,
        )


def accuracies(
    hit_n: np.ndarray, label_n: np.ndarray, *, resamples: int, seed: int
) -> dict[str, float]:
    """top1 and mean_per_class with intervals over examples."""

    def both(weight_n: np.ndarray) -> np.ndarray:
        top1 = np.average(hit_n, weights=weight_n)
        return np.asarray([top1, mean_per_class(hit_n, label_n, weight_n)])

    names = ["top1", "mean_per_class"]
    draw = {"resamples": resamples, "seed": seed}
    return bootstrap.with_interval(names, both, len(hit_n), **draw)
