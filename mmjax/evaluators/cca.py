"""Held-out canonical correlation of views, and what their common space is good for.

A linear CCA is fitted on the codes of training rows alone (Andrew et al. 2013, section
4) and judged on other rows: total correlation beside that of unpaired training rows,
retrieval between views, and classes from the first view by a linear SVM and by
clustering (Wang et al. 2015, section 4.2).

Legend: n rows, k components.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from mmjax.evaluators import base
from mmjax.metrics import cca, clusters, embeddings, linear_svm, ranking

_TOP = (1, 10)
_DEFINITIONS = {
    "correlation": "sum of the correlations of the components, fitted on train",
    "train_correlation": "the same of the training rows",
    "null": "mean correlation after fits on training rows with permuted partners",
    "null_max": "the largest of these",
    "p": "(1 + fits with permuted partners that are as good) / (1 + all of them)",
    "r@k": "share of rows with their own partner among the k best, by cosine",
    "svm_error": "share of wrong classes, linear SVM on the first view's components",
    "svm_c": "C of the SVM, the best on val",
    "clustering": "share of right classes under the best naming of clusters",
    "nmi": "mutual information of clusters and classes / the larger entropy",
}


_NAMED = (  # what moves the numbers
    *("features", "project", "components", "reg", "repeats"),
    *("kernel", "kernel_width", "kernel_scales", "svm", "svm_pairs", "clusters"),
)


@dataclass(frozen=True)
class Config(base.EvalConfig):
    """train: the rows that CCA is fitted on; val: rows that choose C of several.

    features: `codes` of the model, or its inputs, `views`, for CCA without a network.
    project: whether the components are those of a linear CCA; otherwise the first
      view's columns are classified as they are, and there is no correlation.
    kernel, kernel_width, kernel_scales: random features of every view before CCA; a
      scale for all or for each. See mmjax.metrics.cca.
    components: how many; None is as many as the narrowest view has columns.
    reg: on the diagonals of the covariances, for all views or for each.
    repeats: fits with permuted partners.
    svm: values of C; none leaves the SVM out. svm_pairs: whether it parts every pair of
      classes, as LIBSVM does. clusters: how rows are clustered.
    """

    train: Any = None
    val: Any = None
    features: Literal["codes", "views"] = "codes"
    project: bool = True
    kernel: Literal["", "fourier", "nystroem"] = ""
    kernel_width: int = 1000
    kernel_scales: tuple[float, ...] = ()
    components: int | None = None
    reg: tuple[float, ...] = (1e-4,)
    repeats: int = 5
    svm: tuple[float, ...] = ()
    svm_pairs: bool = False
    clusters: Literal["", "spectral", "kmeans"] = ""

    def __post_init__(self):
        super().__post_init__()
        self.at_least(components=1, repeats=0, kernel_width=1)
        if self.train is None:
            raise ValueError("'train' is missing; give the training rows' spec")
        if len(self.svm) > 1 and self.val is None:
            raise ValueError(
                f"svm has {len(self.svm)} values of C, and 'val' is missing, which "
                "chooses: give it, or one value"
            )
        if bool(self.kernel) != bool(self.kernel_scales):
            raise ValueError(
                f"kernel is {self.kernel!r} and kernel_scales {self.kernel_scales}: "
                "set both or neither"
            )


class Evaluator(base.Evaluator):
    """Calls the predict function `features`: rows by view, (b, ...)."""

    config_class = Config

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        cfg = self.config
        self.calls = {cfg.features: None}
        self.labelled = bool(cfg.svm or cfg.clusters)
        self.train = self.open(cfg.train)
        self.val = self.open(cfg.val) if cfg.val is not None and cfg.svm else None
        if self.labelled:
            self.class_names = self.source.class_names
            if not self.class_names:
                raise self.error(
                    f"source {self.source.name!r} has no class names, which svm and "
                    "clusters need: leave them out, or give a source of labelled rows"
                )

    def check(self, vars_abstract: base.PyTree) -> None:
        """See the base."""
        shapes = self.output_shapes(vars_abstract)[self.config.features]
        if not isinstance(shapes, Mapping) or (len(shapes) < 2 and self.config.project):
            raise self.error(
                f"{self.config.features!r} must give rows by view, of two views or "
                "more: set project to False for codes of one view"
            )

    def _rows(self, variables: base.PyTree, source: Any) -> tuple[list, Any, dict]:
        """(rows of every view, labels or None, counts) of a source."""

        def keep(outputs: dict, batch: base.Batch, valid_b: np.ndarray) -> dict:
            rows = outputs[self.config.features].items()
            return {
                f"view/{k}": np.asarray(x, np.float32)[valid_b].reshape(
                    valid_b.sum(), -1
                )
                for k, x in rows
            }

        arrays, counts, _ = self.collect(variables, keep=keep, source=source)
        views = [x for name, x in arrays.items() if name.startswith("view/")]
        for x_nd in views:
            embeddings.check_finite(x_nd, f"{self.where}: {self.config.features}")
        return views, arrays.get("label"), counts

    def run(self, variables: base.PyTree) -> base.Result:
        """Those numbers of `_DEFINITIONS` that the config asks for, with intervals.

        `arrays` holds the correlation of each component (k,), and `null` (repeats,).
        """
        cfg = self.config
        parts = {"train": self.train, "test": self.source, "val": self.val}
        rows = {
            name: self._rows(variables, source)
            for name, source in parts.items()
            if source is not None and (cfg.project or cfg.svm or name == "test")
        }
        views = {name: part[0] for name, part in rows.items()}
        values, arrays = {}, {}
        first = {name: part[0] for name, part in views.items()}
        if cfg.project:
            views = self._mapped(views)
            fitted = cca.fit(views["train"], cfg.components, reg=self._reg(views))
            codes = {name: fitted.codes(part) for name, part in views.items()}
            values, arrays = self._correlations(views, codes)
            values |= self._retrieval(codes["test"])
            first = {name: part[0] for name, part in codes.items()}
        labels = {name: part[1] for name, part in rows.items()}
        if cfg.svm:
            values |= self._svm(first, labels)
        if cfg.clusters:
            values |= self._clusters(first["test"], labels["test"])
        card = self.card(
            rows["test"][2],
            _DEFINITIONS,
            fitted_on={"rows": len(self.train), "data": self.train.fingerprint()},
            config={k: getattr(cfg, k) for k in _NAMED},
        )
        return base.Result(values, card, arrays)

    def _reg(self, views: Mapping[str, list]) -> Any:
        count, reg = len(views["train"]), self.config.reg
        if len(reg) not in (1, count):
            raise self.error(
                f"reg has {len(reg)} values of {count} views: give {count}"
            )
        return reg[0] if len(reg) == 1 else reg

    def _mapped(self, views: dict[str, list]) -> dict[str, list]:
        """Random features of every view, drawn by the training rows."""
        cfg = self.config
        if not cfg.kernel:
            return views
        count = len(views["train"])
        scales = cfg.kernel_scales
        if len(scales) not in (1, count):
            raise self.error(
                f"kernel_scales has {len(scales)} values of {count} views: give {count}"
            )
        make = getattr(cca, cfg.kernel)
        maps = [
            make(x_nd, width=cfg.kernel_width, scale=scale, seed=cfg.seed + i)
            for i, (x_nd, scale) in enumerate(
                zip(views["train"], np.broadcast_to(scales, count), strict=True)
            )
        ]
        return {
            name: [m(x) for m, x in zip(maps, part, strict=True)]
            for name, part in views.items()
        }

    def _correlations(self, views: dict, codes: dict) -> tuple[dict, dict]:
        cfg, test = self.config, codes["test"]
        statistic = cca.weighted(test)
        values = self.intervals(
            ["correlation"], lambda weight_n: [statistic(weight_n).sum()], len(test[0])
        )
        total = values["correlation"]
        values["train_correlation"] = float(cca.correlations(codes["train"]).sum())
        arrays = {"correlations": cca.correlations(test)}
        if cfg.repeats:
            how = {"reg": self._reg(views), "repeats": cfg.repeats, "seed": cfg.seed}
            null = cca.null(views["train"], views["test"], cfg.components, **how)
            values |= {"null": float(null.mean()), "null_max": float(null.max())}
            values["p"] = float((1 + (null >= total).sum()) / (1 + len(null)))
            arrays["null"] = null
        return values, arrays

    def _retrieval(self, codes: list[np.ndarray]) -> dict[str, float]:
        """Recalls between the first two views, both ways."""
        a_nk, b_nk = (embeddings.unit(x) for x in codes[:2])
        own_n = np.arange(len(a_nk))
        ways = {"a2b": (a_nk, b_nk), "b2a": (b_nk, a_nk)}
        hits, names = [], []
        for way, pair in ways.items():
            rank_n = ranking.ranks(*pair, own_n, own_n)
            for top in _TOP:
                hits.append(rank_n < top)
                names.append(f"{way}_r{top}")
        hits_kn = np.stack(hits).astype(np.float64)
        return self.intervals(names, lambda w: hits_kn @ w / w.sum(), len(own_n))

    def _svm(self, rows: dict, labels: dict) -> dict[str, float]:
        how = {"pairs": self.config.svm_pairs}
        fits = {
            c: linear_svm.fit(rows["train"], labels["train"], c=c, **how)
            for c in self.config.svm
        }

        def wrong(c: float, part: str) -> np.ndarray:
            return linear_svm.predict(*fits[c], rows[part], **how) != labels[part]

        best = next(iter(fits))
        if len(fits) > 1:
            best = min(fits, key=lambda c: wrong(c, "val").mean())
        wrong_n = wrong(best, "test")
        values = self.intervals(
            ["svm_error"], lambda w: [wrong_n @ w / w.sum()], len(wrong_n)
        )
        return values | {"svm_c": float(best)}

    def _clusters(self, x_nk: np.ndarray, label_n: np.ndarray) -> dict[str, float]:
        make = getattr(clusters, self.config.clusters)
        id_n = make(x_nk, len(np.unique(label_n)), seed=self.config.seed)
        accuracy, nmi = clusters.scores(id_n, label_n)
        return {"clustering": accuracy, "nmi": nmi}
