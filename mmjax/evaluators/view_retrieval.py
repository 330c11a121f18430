"""Retrieval between views of records, in the order of cosines, both ways.

Without a network, a map of one view into the other can be fitted on training rows:
"ridge", least squares; or "conse", where a view is the mean of the other view's class
means, weighted by the class posteriors (Norouzi et al. 2014).

Legend: n rows, m rows with both views, d columns of a view, c classes.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from mmjax.evaluators import base
from mmjax.evaluators.common import views
from mmjax.metrics import co_training, embeddings, ranking

_DEFINITIONS = {
    "A_to_B_rK": "share of rows of view A with their own row of B among the K nearest",
    "A_to_B_chance_rK": "K / the rows that have both views",
    "A_to_B_median_rank": "median rank of the own row, from 1",
}
_NAMED = ("features", "links", "top", "fit", "reg", "seen")


@dataclass(frozen=True)
class Config(base.EvalConfig):
    """train: of a fit, the rows that it is fitted on.

    features: `codes` of the model, or its inputs, `views`.
    links: pairs of views, each looked for both ways; empty is the first two.
    top: every K of recall at K.
    fit: how a link's first view is mapped into its second; empty takes both as they
      are. "conse" needs classes of train.
    reg: of ridge, on the diagonal of the covariance.
    seen: of conse, how many of the likeliest classes count.
    """

    train: Any = None
    features: Literal["codes", "views"] = "codes"
    links: tuple[tuple[str, str], ...] = ()
    top: tuple[int, ...] = (1, 5, 10)
    fit: Literal["", "ridge", "conse"] = ""
    reg: float = 1.0
    seen: int = 10

    def __post_init__(self):
        super().__post_init__()
        self.at_least(seen=1)
        if bool(self.fit) != (self.train is not None):
            raise ValueError(f"fit is {self.fit!r} and train {self.train}: set both")
        if not self.reg > 0:
            raise ValueError(f"reg is {self.reg}: use more than 0")


class Evaluator(views.Evaluator):
    """Calls the predict function `features`: rows by view, and NAME_present."""

    config_class = Config

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.calls = {self.config.features: None}
        self.train = self.open(self.config.train) if self.config.fit else None

    def run(self, variables: base.PyTree) -> base.Result:
        """The values of `_DEFINITIONS`, with intervals of the recalls.

        `arrays` holds A_to_B_rank (m,), from 0.
        """
        cfg = self.config
        test = self.rows(variables, cfg.features)
        train = self.train and self.rows(variables, cfg.features, self.train)
        values, arrays = {}, {}
        for link in cfg.links or (tuple(test.views)[:2],):
            pair = [self.view(test, name) for name in link]
            both_n = test.present[link[0]] & test.present[link[1]]
            if not both_n.any():
                raise self.error(f"no record has both views {link[0]} and {link[1]}")
            pair = [x[both_n] for x in pair]
            if cfg.fit:
                pair[0] = self._mapped(pair[0], train, link)
            a_md, b_md = (embeddings.unit(x, self.where) for x in pair)
            if a_md.shape != b_md.shape:
                raise self.error(
                    f"{link[0]} has {a_md.shape[1]} columns and {link[1]} "
                    f"{b_md.shape[1]}: use features='codes', or a fit"
                )
            for name, ends in (
                ("{}_to_{}".format(*link), (a_md, b_md)),
                ("{1}_to_{0}".format(*link), (b_md, a_md)),
            ):
                own_m = np.arange(len(a_md))
                rank_m = ranking.ranks(*ends, own_m, own_m)
                hits = np.stack([rank_m < k for k in cfg.top]).astype(float)
                values |= self.intervals(
                    [f"{name}_r{k}" for k in cfg.top],
                    lambda w, hits=hits: hits @ w / w.sum(),
                    len(own_m),
                )
                for k in cfg.top:
                    values[f"{name}_chance_r{k}"] = min(k / len(own_m), 1.0)
                values[f"{name}_median_rank"] = float(np.median(rank_m)) + 1
                arrays[f"{name}_rank"] = rank_m
        card = self.card(
            test.counts,
            _DEFINITIONS,
            resampled="queries; the gallery stays whole",
            fitted_on=self.train and self.train.fingerprint(),
            ties=ranking.TIES,
            config={k: getattr(cfg, k) for k in _NAMED},
        )
        return base.Result(values, card, arrays)

    def _mapped(
        self, x_md: np.ndarray, train: views.Rows, link: tuple[str, str]
    ) -> np.ndarray:
        """Rows of the link's first view as the fit sees them in the second."""
        cfg = self.config
        both_n = train.present[link[0]] & train.present[link[1]]
        a_nd, b_ne = (
            self.view(train, name)[both_n].astype(np.float64) for name in link
        )
        if cfg.fit == "ridge":
            mean_d, mean_e = a_nd.mean(0), b_ne.mean(0)
            centred_nd = a_nd - mean_d
            square_dd = centred_nd.T @ centred_nd / len(a_nd)
            square_dd[np.diag_indices(len(square_dd))] += cfg.reg
            map_de = np.linalg.solve(
                square_dd, centred_nd.T @ (b_ne - mean_e) / len(a_nd)
            )
            return (x_md - mean_d) @ map_de + mean_e
        if train.label is None:
            raise self.error("conse needs classes: add config.data.fields.label")
        _, label_n = np.unique(train.label[both_n], return_inverse=True)
        classes = label_n.max() + 1
        scale_d = np.maximum(a_nd.std(0), 1e-6)
        model = co_training.fit(a_nd / scale_d, label_n, classes)
        posterior_mc = np.exp(model.log_posterior(x_md / scale_d))
        least_m1 = -np.sort(-posterior_mc, axis=1)[:, [min(cfg.seen, classes) - 1]]
        posterior_mc[posterior_mc < least_m1] = 0
        own_nc = np.eye(classes)[label_n]
        return posterior_mc @ (own_nc.T @ b_ne / own_nc.sum(0)[:, None])
