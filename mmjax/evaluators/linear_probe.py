"""Linear probe: logistic regression on frozen features, by CLIP's protocol.

Radford et al. 2021, appendix A.3: L-BFGS, the strength of the L2 penalty chosen on
validation data, then fitted again on training and validation data together.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from mmjax.evaluators import base
from mmjax.evaluators.common import probing, result_card
from mmjax.evaluators.probe import logistic
from mmjax.evaluators.probe import search as search_lib
from mmjax.evaluators.zero_shot import mean_per_class

_DEFINITIONS = {
    "top1": "label is the best class",
    "mean_per_class": "mean of top1 over the classes that occur",
    "l2": "lambda: sum of cross-entropies + lambda / 2 x |weights|^2",
}


@dataclass(frozen=True)
class Config(probing.ProbeConfig):
    """search: coarse_to_fine is the paper's, full tries all 97 weights of the penalty.

    refit: whether the test is of a fit on train and val together.
    """

    search: Literal["coarse_to_fine", "full"] = "coarse_to_fine"
    refit: bool = True


class Evaluator(probing.Probing):
    """Calls the predict function that `features` names; all splits need labels."""

    config_class = Config

    def run(self, variables: base.PyTree) -> base.Result:
        """top1 and mean_per_class of the test split, with intervals; l2, ...

        `arrays` holds index, label and prediction per test example, and of every l2
        tried (rising) its val_accuracy and iterations.
        """
        cfg, found = self.config, self.splits(variables)
        probe, path = self._fit(found)
        test = found["test"]
        prediction_n = probe.predict(test.features_nd)
        hit_n = (prediction_n == test.label_n).astype(np.float64)

        def accuracies(weight_n: np.ndarray) -> np.ndarray:
            top1 = np.average(hit_n, weights=weight_n)
            return np.asarray([top1, mean_per_class(hit_n, test.label_n, weight_n)])

        values = self.intervals(["top1", "mean_per_class"], accuracies, len(hit_n))
        values |= {
            "l2": probe.l2,
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
                "l2": path.l2_t,
                "val_accuracy": path.accuracy_t,
                "iterations": path.iterations_t,
            }
        card = self.card(
            counts,
            _DEFINITIONS,
            resampled="test examples; the fit stays",
            class_names=result_card.listing(self.class_names),
            features=cfg.features,
            search=cfg.search if cfg.l2 is None else cfg.l2,
            refit=cfg.refit,
            iterations=cfg.iterations,
            splits=self.splits_card(found),
        )
        return base.Result(values, card, arrays)

    def _fit(self, found: dict) -> tuple[logistic.Probe, search_lib.Chosen | None]:
        cfg, train = self.config, found["train"]
        how = {"iterations": cfg.iterations}
        path, l2 = None, cfg.l2
        if l2 is None:
            problem = logistic.Problem(train.features_nd, train.label_n)
            val = found["val"].features_nd, found["val"].label_n
            path = search_lib.choose(problem, *val, method=cfg.search, **how)
            l2 = path.l2
            if not cfg.refit:
                return path.probe, path
        parts = [train] + ([found["val"]] if "val" in found and cfg.refit else [])
        features_nd = np.concatenate([part.features_nd for part in parts])
        labels_n = np.concatenate([part.label_n for part in parts])
        problem = logistic.Problem(features_nd, labels_n)
        start = path and path.probe
        return problem.path([l2], start=start, **how)[0], path
