"""Cross-modal hashing: mean average precision of Hamming ranking, both ways.

The first view of test records looks among the second view of the gallery, and the other
way round, as Jiang and Li 2017, section 4, do with a database of other records. Closed
forms are fitted on the training rows' inputs.

Legend: n rows, k bits, q queries, g gallery.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from mmjax.evaluators import base
from mmjax.evaluators.common import views
from mmjax.metrics import average_precision, cca, clusters, embeddings, hashing

_METHODS = ("codes", "cca_itq", "scm", "real")
_MILLION = 10**6
_DEFINITIONS = {
    "METHOD_BITS_a2b_map": "mean average precision, first view to second, by Hamming "
    "distance; tied entries in the mean of all their orders",
    "METHOD_BITS_b2a_map": "second view to first",
    "METHOD_BITS_a2b_pN": "share of relevant entries among the N nearest",
    "real_BITS": "the same by cosine of as many canonical components, no bits",
    "codes": "signs of the model's own codes; real_codes: by their cosine",
    "chance": "share of the gallery that is relevant, the mean over queries",
    "METHOD_BITS_bytes": "bytes that the codes of a million entries take",
}
_NAMED = ("methods", "bits", "relevant", "clusters", "gallery", "precision", "reg")
Sides = list[tuple[np.ndarray, ...]]  # both views of the queries, and of the gallery


@dataclass(frozen=True)
class Config(base.EvalConfig):
    """train: the rows that closed forms are fitted on, and the database.

    methods: of codes (the model's own), cca_itq, scm, and real (canonical components
      as they are). bits: of closed forms, one or more.
    relevant: "pair", the query's own record; "label", entries of its class; "cluster",
      of its cluster, one of `clusters` of the training rows' second view.
    gallery: "source", the test records themselves, or "train".
    precision: every N of precision at N.
    reg: on the diagonals of covariances.
    """

    train: Any = None
    methods: tuple[str, ...] = ("codes",)
    bits: tuple[int, ...] = (16, 32, 64)
    relevant: Literal["label", "pair", "cluster"] = "label"
    clusters: int = 50
    gallery: Literal["source", "train"] = "source"
    precision: tuple[int, ...] = (100,)
    reg: float = 1e-3

    def __post_init__(self):
        super().__post_init__()
        self.at_least(clusters=2)
        wrong = [name for name in self.methods if name not in _METHODS]
        if wrong or not self.methods:
            raise ValueError(f"methods is {self.methods}: use {' or '.join(_METHODS)}")
        if self.train is None and (self.inputs or self.gallery == "train"):
            raise ValueError("'train' is missing; give the training rows' spec")
        if self.relevant == "pair" and self.gallery == "train":
            raise ValueError(
                "relevant is 'pair' and gallery 'train', which holds no query's record:"
                " set gallery to 'source'"
            )
        if self.relevant == "pair" and "scm" in self.methods:
            raise ValueError(
                "relevant is 'pair' and methods has 'scm', which learns from classes: "
                "leave it out, or set relevant to 'label' or 'cluster'"
            )
        for bits in self.bits if self.inputs else ():
            hashing.check_bits(bits)

    @property
    def inputs(self) -> bool:
        """Whether the views before hashing are needed."""
        return set(self.methods) != {"codes"} or self.relevant == "cluster"


class Evaluator(views.Evaluator):
    """Calls predict "codes" or "views": rows (b, k) by view, of which two count."""

    config_class = Config

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        cfg = self.config
        used = {"codes": "codes" in cfg.methods, "views": cfg.inputs}
        self.calls = {name: None for name, use in used.items() if use}
        self.train = None if cfg.train is None else self.open(cfg.train)
        if cfg.relevant == "label":
            self.require_classes()

    def check(self, vars_abstract: base.PyTree) -> None:
        """See the base. Bits beyond what a closed form can give are refused too."""
        super().check(vars_abstract)
        if {"cca_itq", "real"} & set(self.config.methods):
            shapes = self.output_shapes(vars_abstract)["views"].values()
            for bits in self.config.bits:
                hashing.check_bits(bits, min(x.shape[1] for x in list(shapes)[:2]))

    def run(self, variables: base.PyTree) -> base.Result:
        """The values of `_DEFINITIONS`, with intervals of the mAP.

        `arrays` holds METHOD_BITS_a2b_ap (q,), each query's average precision.
        """
        cfg, parts = self.config, {}
        for name in self.calls:
            train = self.train and self.rows(variables, name, self.train)
            parts[name] = self.rows(variables, name), train
        test, train = parts[name]
        class_q, class_n = self._classes(test, train)
        class_g = class_n if cfg.gallery == "train" else class_q
        relevant_qg = class_q[:, None] == class_g
        values, arrays = {"chance": float(relevant_qg.mean())}, {}
        for name, (test, train) in parts.items():
            gallery = train if cfg.gallery == "train" else test
            pairs = test.pair, gallery.pair
            coded = self._own(pairs)
            if name == "views":
                coded = self._closed_forms(pairs, train.pair, class_n)
            for method, sides, size in coded:
                some, kept = self._ranked(method, sides, relevant_qg)
                values, arrays = values | some, arrays | kept
                values[f"{method}_bytes"] = float(size * _MILLION)
        card = self.card(
            test.counts,
            _DEFINITIONS,
            resampled="queries; the gallery and the fits stay",
            fitted_on=self.train and self.train.fingerprint(),
            config={k: getattr(cfg, k) for k in _NAMED},
        )
        return base.Result(values, card, arrays)

    def _classes(
        self, test: views.Rows, train: views.Rows | None
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """What is relevant to what: numbers of test rows and of training rows."""
        cfg = self.config
        if cfg.relevant == "label":
            return test.label, train and train.label
        if cfg.relevant == "pair":
            return np.arange(len(test.pair[0])), None
        rows_nd, rows_qd = train.pair[1], test.pair[1]
        id_n = clusters.kmeans(rows_nd, cfg.clusters, restarts=3, seed=cfg.seed)
        own_nc = np.eye(cfg.clusters)[id_n]
        centre_cd = own_nc.T @ rows_nd / np.maximum(own_nc.sum(0), 1)[:, None]
        half_c = np.square(centre_cd).sum(1) / 2
        return (half_c - rows_qd @ centre_cd.T).argmin(1), id_n

    def _own(self, pairs: tuple) -> Iterator[tuple[str, Sides, int]]:
        """(method, codes, bytes of an entry) of the model's outputs.

        Codes are packed bits, uint8, or unit rows, float32.
        """
        width = pairs[0][0].shape[1]
        bits = [[hashing.packed(x > 0) for x in pair] for pair in pairs]
        yield f"codes_{width}", bits, width // hashing.BYTE
        rows = [[embeddings.unit(x) for x in pair] for pair in pairs]
        yield f"real_codes_{width}", rows, 4 * width

    def _closed_forms(
        self, pairs: tuple, train: tuple, class_n: np.ndarray | None
    ) -> Iterator[tuple[str, Sides, int]]:
        """The same of every closed form and length."""
        cfg = self.config
        for bits in cfg.bits:
            if "real" in cfg.methods:
                fitted = cca.fit(train, bits, reg=cfg.reg)
                codes = [fitted.codes(pair) for pair in pairs]
                rows = [[embeddings.unit(x) for x in part] for part in codes]
                yield f"real_{bits}", rows, 4 * bits
            made = {}
            if "cca_itq" in cfg.methods:
                made["cca_itq"] = hashing.cca_itq(
                    train, bits, reg=cfg.reg, seed=cfg.seed
                )
            if "scm" in cfg.methods:
                label_nc = np.eye(class_n.max() + 1)[class_n]
                made["scm"] = hashing.scm(train, bits, label_nc, reg=cfg.reg)
            for method, hashed in made.items():
                codes = [hashed.bits(pair) for pair in pairs]
                rows = [[hashing.packed(x) for x in part] for part in codes]
                yield f"{method}_{bits}", rows, bits // hashing.BYTE

    def _ranked(
        self, method: str, sides: Sides, relevant_qg: np.ndarray
    ) -> tuple[dict, dict]:
        """mAP and precision of both ways."""
        (query_a, query_b), (gallery_a, gallery_b) = sides
        values, arrays, at = {}, {}, self.config.precision
        ways = {"a2b": (query_a, gallery_b), "b2a": (query_b, gallery_a)}
        for way, (query, gallery) in ways.items():
            if query.dtype == np.uint8:
                distance_qg = hashing.hamming(query, gallery)
            else:
                distance_qg = -query @ gallery.T
            lines = list(zip(distance_qg, relevant_qg, strict=True))
            ap_q = np.array([average_precision.average_precision(*x) for x in lines])
            name = f"{method}_{way}"
            values |= self.intervals(
                [f"{name}_map"], lambda w, ap_q=ap_q: [w @ ap_q / w.sum()], len(ap_q)
            )
            share_qn = [average_precision.precision_at(*x, at) for x in lines]
            for n, share in zip(at, np.mean(share_qn, axis=0), strict=True):
                values[f"{name}_p{n}"] = float(share)
            arrays[f"{name}_ap"] = ap_q
        return values, arrays
