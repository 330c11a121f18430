"""How close the two views of a record are in the common space."""

from dataclasses import dataclass

import numpy as np

from mmjax.evaluators import base


@dataclass(frozen=True)
class Config(base.EvalConfig):
    """share: of records whose own partner is among the nearest tenth."""

    share: float = 0.1


class Evaluator(base.Evaluator):
    """Calls predict "view_a" and "view_b"."""

    config_class, names = Config, ("view_a", "view_b")
    calls = {"view_a": ("view_a",), "view_b": ("view_b",)}

    def run(self, variables):
        """`distance` of partners, and `near`: they are among the nearest `share`."""
        rows = self.collect(variables)
        a_nd, b_nd = rows.arrays["view_a"], rows.arrays["view_b"]
        apart_nn = np.linalg.norm(a_nd[:, None] - b_nd[None], axis=-1)
        own_n = np.diag(apart_nn)
        near_n = (apart_nn < own_n[:, None]).mean(1) < self.config.share
        stacked_n2 = np.stack([own_n, near_n], 1)

        def means(weight_n):
            return np.average(stacked_n2, axis=0, weights=weight_n)

        values = self.intervals(["distance", "near"], means, len(own_n))
        definitions = {
            "distance": "mean L2 distance of partners",
            "near": f"share with fewer than {self.config.share:.0%} nearer",
        }
        return base.Result(values, self.card(rows.counts, definitions))
