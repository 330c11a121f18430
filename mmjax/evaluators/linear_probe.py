"""Linear probe: logistic regression on frozen features, by CLIP's protocol.

Radford et al. 2021, appendix A.3: L-BFGS, the weight of the L2 penalty chosen on
validation data, then fitted again on training and validation data together.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from mmjax.evaluators import base
from mmjax.evaluators.common import probing
from mmjax.evaluators.probe import logistic
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
        cfg, splits = self.config, self.splits(variables)
        train, val, test = (splits.get(name) for name in ("train", "val", "test"))
        refit, path = val is not None and cfg.refit, None
        if cfg.l2 is None or not refit:
            problem = logistic.Problem(train.features_nd, train.label_n)
            probe, path = self.fit(problem, splits, method=cfg.search)
        if refit:
            features_nd = np.concatenate([train.features_nd, val.features_nd])
            label_n = np.concatenate([train.label_n, val.label_n])
            problem = logistic.Problem(features_nd, label_n)
            how = {"start": path and path.probe, "iterations": cfg.iterations}
            probe = problem.path([path.probe.l2 if path else cfg.l2], **how)[0]
        prediction_n = probe.predict(test.features_nd)
        hit_n = (prediction_n == test.label_n).astype(np.float64)

        def accuracies(weight_n: np.ndarray) -> np.ndarray:
            top1 = np.average(hit_n, weights=weight_n)
            return np.asarray([top1, mean_per_class(hit_n, test.label_n, weight_n)])

        values = self.intervals(["top1", "mean_per_class"], accuracies, len(hit_n))
        values |= {"l2": probe.l2, "train_objective": probe.objective}
        values["iterations"] = float(probe.iterations)
        counts = test.counts | {"unconverged": int(not probe.converged)}
        arrays = {"index": test.index_n, "label": test.label_n}
        arrays["prediction"] = prediction_n
        if path is not None:
            values["val_top1"] = float(path.accuracy_t.max())
            counts["unconverged"] += path.unconverged
            arrays |= {"l2": path.l2_t, "val_accuracy": path.accuracy_t}
            arrays["iterations"] = path.iterations_t
        card = self.card(
            counts,
            _DEFINITIONS,
            resampled="test examples; the fit stays",
            search=cfg.search if cfg.l2 is None else cfg.l2,
            refit=cfg.refit,
            **self.probe_card(splits),
        )
        return base.Result(values, card, arrays)
