"""Cross-modal hashing: mean average precision of Hamming ranking, both ways.

The first view of test records looks among the second view of the gallery, and the other
way round, as Jiang and Li 2017, section 4, do with a database of other records. Closed
forms are fitted on the training rows' inputs.

Legend: n rows, k bits, q queries, g gallery.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from mmjax.evaluators import base
from mmjax.evaluators.common import views
from mmjax.metrics import average_precision, cca, embeddings, hashing

_METHODS = ("codes", "cca_itq", "scm", "real")
_MILLION = 10**6
_DEFINITIONS = {
    "METHOD_BITS_a2b_map": "mean average precision, first view to second, by Hamming "
    "distance; tied entries in the mean of all their orders",
    "METHOD_BITS_b2a_map": "second view to first",
    "METHOD_BITS_a2b_pN": "share of relevant entries among the N nearest",
    "real_BITS": "the same by cosine of as many canonical components, no bits",
    "codes": "signs of the model's own codes; real_codes: by their cosine",
    "METHOD_BITS_bytes": "bytes that the codes of a million entries take",
}
_NAMED = ("methods", "bits", "relevant", "gallery", "precision", "reg")


@dataclass(frozen=True)
class Config(base.EvalConfig):
    """train: the rows that closed forms are fitted on, and the database.

    methods: of codes (the model's own), cca_itq, scm, and real (canonical components
      as they are). bits: of closed forms, one or more.
    relevant: "label", entries of the query's class, or "pair", the query's own record.
    gallery: "source", the test records themselves, or "train".
    precision: every N of precision at N.
    reg: on the diagonals of covariances.
    """

    train: Any = None
    methods: tuple[str, ...] = ("codes",)
    bits: tuple[int, ...] = (16, 32, 64)
    relevant: Literal["label", "pair"] = "label"
    gallery: Literal["source", "train"] = "source"
    precision: tuple[int, ...] = (100,)
    reg: float = 1e-3

    def __post_init__(self):
        super().__post_init__()
        wrong = [name for name in self.methods if name not in _METHODS]
        if wrong or not self.methods:
            raise ValueError(f"methods is {self.methods}: use {' or '.join(_METHODS)}")
        if self.train is None and (self.closed or self.gallery == "train"):
            raise ValueError("'train' is missing; give the training rows' spec")
        if self.relevant == "pair" and self.gallery == "train":
            raise ValueError(
                "relevant is 'pair' and gallery 'train', which holds no query's record:"
                " set gallery to 'source'"
            )
        for bits in self.bits if self.closed else ():
            hashing.check_bits(bits)

    @property
    def closed(self) -> bool:
        """Whether a method is a closed form."""
        return set(self.methods) != {"codes"}


class Evaluator(views.Evaluator):
    """Calls predict "codes" or "views": rows (b, k) by view, of which two count."""

    config_class = Config

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        cfg = self.config
        used = {"codes": "codes" in cfg.methods, "views": cfg.closed}
        self.calls = {name: None for name, used_ in used.items() if used_}
        self.train = None if cfg.train is None else self.open(cfg.train)
        if cfg.relevant == "label":
            self.require_classes()

    def check(self, vars_abstract: base.PyTree) -> None:
        """See the base. Bits beyond what a closed form can give are refused too."""
        super().check(vars_abstract)
        shapes = self.output_shapes(vars_abstract)
        if "cca_itq" in self.config.methods or "real" in self.config.methods:
            narrow = min(x.shape[1] for x in list(shapes["views"].values())[:2])
            for bits in self.config.bits:
                hashing.check_bits(bits, narrow)

    def run(self, variables: base.PyTree) -> base.Result:
        """The values of `_DEFINITIONS`, with intervals of the mAP.

        `arrays` holds METHOD_BITS_a2b_ap (q,), each query's average precision.
        """
        cfg, parts = self.config, {}
        for name in self.calls:
            test = self.rows(variables, name)
            fitted = name == "views" or cfg.gallery == "train"
            train = self.rows(variables, name, self.train) if fitted else None
            parts[name] = test, train
        values, arrays = {}, {}
        for name, (test, train) in parts.items():
            gallery = train if cfg.gallery == "train" else test
            relevant_qg = self._relevant(test, gallery)
            for method, sides, size in self._coded(name, test, gallery, train):
                some, kept = self._ranked(method, sides, relevant_qg)
                values, arrays = values | some, arrays | kept
                values[f"{method}_bytes"] = float(size * _MILLION)
        card = self.card(
            next(iter(parts.values()))[0].counts,
            _DEFINITIONS,
            resampled="queries; the gallery and the fits stay",
            fitted_on=self.train and self.train.fingerprint(),
            config={k: getattr(cfg, k) for k in _NAMED},
        )
        return base.Result(values, card, arrays)

    def _relevant(self, test: views.Rows, gallery: views.Rows) -> np.ndarray:
        """bool (q, g)."""
        if self.config.relevant == "pair":
            return np.eye(len(test.pair[0]), dtype=bool)
        return test.label[:, None] == gallery.label

    def _coded(
        self, name: str, test: views.Rows, gallery: views.Rows, train: views.Rows
    ) -> Any:
        """(method, (queries, gallery) of both views, bytes of an entry) of each code.

        Codes are packed bits, uint8, or unit rows, float32.
        """
        cfg = self.config
        if name == "codes":
            width = test.pair[0].shape[1]
            rows = [[x > 0 for x in part.pair] for part in (test, gallery)]
            yield f"codes_{width}", _packed(rows), width // hashing.BYTE
            rows = [[embeddings.unit(x) for x in part.pair] for part in (test, gallery)]
            yield f"real_codes_{width}", rows, 4 * width
            return
        label_nc = None
        if cfg.relevant == "label":
            label_nc = np.eye(len(self.class_names))[train.label]
        for bits in cfg.bits:
            for method in cfg.methods:
                if method == "real":
                    fitted = cca.fit(train.pair, bits, reg=cfg.reg)
                    codes = (fitted.codes(part.pair) for part in (test, gallery))
                    rows = [[embeddings.unit(x) for x in part] for part in codes]
                    yield f"real_{bits}", rows, 4 * bits
                elif method != "codes":
                    how = {"reg": cfg.reg}
                    if method == "cca_itq":
                        hashed = hashing.cca_itq(train.pair, bits, seed=cfg.seed, **how)
                    else:
                        hashed = hashing.scm(train.pair, bits, label_nc, **how)
                    rows = [hashed.bits(part.pair) for part in (test, gallery)]
                    yield f"{method}_{bits}", _packed(rows), bits // hashing.BYTE

    def _ranked(
        self, method: str, sides: Any, relevant_qg: np.ndarray
    ) -> tuple[dict, dict]:
        """mAP and precision of both ways."""
        (query_a, query_b), (gallery_a, gallery_b) = sides
        values, arrays = {}, {}
        for way, pair in (
            ("a2b", (query_a, gallery_b)),
            ("b2a", (query_b, gallery_a)),
        ):
            real = pair[0].dtype != np.uint8
            distance_qg = -pair[0] @ pair[1].T if real else hashing.hamming(*pair)
            lines = list(zip(distance_qg, relevant_qg, strict=True))
            ap_q = np.array([average_precision.average_precision(*x) for x in lines])
            name = f"{method}_{way}"
            values |= self.intervals(
                [f"{name}_map"], lambda w, ap_q=ap_q: [w @ ap_q / w.sum()], len(ap_q)
            )
            at = self.config.precision
            if at:
                share_qn = [average_precision.precision_at(*x, at) for x in lines]
                for n, share in zip(at, np.mean(share_qn, axis=0), strict=True):
                    values[f"{name}_p{n}"] = float(share)
            arrays[f"{name}_ap"] = ap_q
        return values, arrays


def _packed(rows: list[list[np.ndarray]]) -> list[list[np.ndarray]]:
    return [[hashing.packed(x) for x in part] for part in rows]
