"""Numbers of one shape: the part that vectors, latents, sequences and audio share.

Shape and statistics come from the training records once, and travel with a checkpoint.
"""

import dataclasses
from typing import Any, ClassVar, Literal, Self

import numpy as np

from mmjax.data.fields import base
from mmjax.data.records import BrokenRecord, Record, Source
from mmjax.errors import UserError

_LOOKED_AT = 1000  # records that may lack the value before the first that has it
_BLOCK = 4096  # rows of a column that are read together
_BLOCKS = 64  # of a column, evenly spaced, that are searched for NaN
_ROUNDING = 1e-14  # of a mean square: what float32 takes from a value's variance
_DEPENDENT = 1e-10  # of the largest: an eigenvalue whose direction does not vary


@dataclasses.dataclass(frozen=True)
class Numbers(base.Field):
    """Gives NAME float32 of one shape.

    normalize: `standard` (every number of the last axis to mean 0 and variance 1 over
      the training records), `whiten` (these also uncorrelated: ZCA-cor of Kessy et
      al. 2018, the whitening nearest to them), `pca` (principal components, all divided
      by one number that makes their mean variance 1) or empty. What does not vary in
      training becomes 0. The records are read through once, when training begins.
    components: how many principal components are kept, the first ones; with `whiten`,
      each of them has variance 1 (PCA whitening).
    """

    learned: ClassVar[tuple[int, ...]] = ()  # the shape that the training records have
    absent: ClassVar[bool] = False  # no training record that was looked at has one
    mean: ClassVar[np.ndarray | None] = None  # float64 (width,)
    scale: ClassVar[np.ndarray | None] = None  # float64 (width,) or (width, out)

    normalize: Literal["", "standard", "whiten", "pca"] = ""
    components: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        takes = {"pca": self.components > 0, "whiten": self.components >= 0}
        if not takes.get(self.normalize, self.components == 0):
            raise UserError(
                f"normalize {self.normalize!r} and components {self.components}: "
                "principal components need normalize 'pca', or 'whiten', and how many"
            )

    @property
    def out(self) -> tuple[int, ...]:
        """The shape of one element as a row has it."""
        return (*self.step[:-1], self.components) if self.components else self.step

    @property
    def step(self) -> tuple[int, ...]:
        """The shape of one element of `numbers`; () while it is not known."""
        return self.learned

    def numbers(self, name: str, record: Record) -> np.ndarray:
        """The record's value, not yet normalised: (n, *step), n = 1 unless a series."""
        raise NotImplementedError

    def shapes(self, name: str) -> base.Shapes:
        return {name: (self.out or (0,), "float32")}

    def row(self, name: str, record: Record, rng: Any, view: base.View) -> Any:
        values = self.numbers(name, record)
        if not np.isfinite(values).all():
            raise base.misfit(name, record, _not_finite(values))
        return {name: self.normal(values)[0]}

    def gather(self, name: str, values: np.ndarray) -> Any:
        fits = values.shape[1:] == self.step and values.dtype.kind in "buif"
        return {name: self.normal(values)} if fits else None

    def array(self, name: str, record: Record, value: Any) -> np.ndarray:
        """A value as float32; BrokenRecord where it is not an array of numbers."""
        try:
            array = np.asarray(value)
        except ValueError as error:  # lists of different lengths
            raise base.misfit(name, record, f"expected numbers: {error}") from error
        if array.dtype.kind in "buif":
            return array.astype(np.float32)
        reason = f"expected numbers, got {array.dtype} {array.shape}"
        raise base.misfit(name, record, reason)

    def normal(self, values: np.ndarray) -> np.ndarray:
        """(..., width) normalised, float32. The same bits alone as in a batch."""
        if self.mean is None:
            return values.astype(np.float32)
        values = values.astype(np.float32) - self.mean
        if self.scale.ndim == 1:
            return (values * self.scale).astype(np.float32)
        return (values[..., None, :] @ self.scale)[..., 0, :].astype(np.float32)

    def raw(self, values: np.ndarray) -> np.ndarray:
        """(..., out) as (..., width) before it was normalised: the nearest such."""
        if self.mean is None:
            return values
        if self.scale.ndim == 1:
            scale = np.where(self.scale == 0, np.inf, self.scale)  # back to the mean
            return (values / scale + self.mean).astype(np.float32)
        return (values @ np.linalg.pinv(self.scale) + self.mean).astype(np.float32)

    def facts(self, name: str) -> dict[str, Any]:
        return {"absent": True} if self.absent else {}

    def check(self, name: str, fields: Any, source: Source) -> None:
        """Raises UserError where a source's column has numbers that are not finite.

        Whole batches are cut from columns, so that no record would be called broken.
        """
        columns, count = getattr(source, "columns", None) or {}, len(source)
        for i in range(0, count, max(_BLOCK, count // _BLOCKS)):
            block = self.column(name, columns, slice(i, i + _BLOCK))
            if block is None or block.dtype.kind not in "fc":
                return
            bad = np.flatnonzero(~np.isfinite(block).reshape(len(block), -1).all(1))
            if bad.size:
                raise UserError(
                    f"{base.place(name)}: record {i + bad[0]} of {source.name} has "
                    f"{_not_finite(block[bad[0]])}: leave such records out, or fill "
                    "them in"
                )

    def open(self, name: str, source: Source) -> Self:
        field, moments, met = self, _Moments(self.normalize), False
        columns = getattr(source, "columns", None) or {}
        whole = self.column(name, columns, slice(0, _BLOCK)) is not None
        count = len(source) if self.normalize else min(len(source), _LOOKED_AT)
        for i in range(0, count, _BLOCK if whole else 1):
            try:
                if whole:
                    block = field.column(name, columns, slice(i, i + _BLOCK))
                elif self.value(name, record := source[i]) is None:
                    continue
                else:
                    block = field.numbers(name, record)
            except BrokenRecord:
                met = True
                continue  # the pipeline reports it
            field = field if field.learned else self.bound(learned=block.shape[1:])
            if not self.normalize:
                return field
            moments.add(block.reshape(-1, block.shape[-1]).astype(np.float64))
        if not moments.count:
            return self if met else self.bound(absent=True)
        if self.components > moments.sum.size:
            raise UserError(
                f"{base.place(name)}: components is {self.components}, and "
                f"{self.reads(name)!r} has {moments.sum.size} numbers: use as many or "
                "fewer"
            )
        mean, scale = moments.normal(self.components)
        if not (np.isfinite(mean).all() and np.isfinite(scale).all()):
            raise UserError(
                f"{base.place(name)}: normalize {self.normalize!r}, and "
                f"{self.reads(name)!r} in {source.name} has values that are not finite"
            )
        return field.bound(mean=mean, scale=scale)

    def saved(self) -> dict[str, Any]:
        parts = {"learned": self.learned, "mean": self.mean, "scale": self.scale}
        return {k: v if v is None else np.asarray(v).tolist() for k, v in parts.items()}

    def restored(self, saved: dict[str, Any]) -> Self:
        mean, scale = (
            v if v is None else np.asarray(v, np.float64)
            for v in (saved["mean"], saved["scale"])
        )
        return self.bound(learned=tuple(saved["learned"]), mean=mean, scale=scale)


def _not_finite(array: np.ndarray) -> str:
    bad = np.count_nonzero(~np.isfinite(array))
    return f"{bad} of {array.size} numbers that are not finite"


class _Moments:
    """Mean and (co)variance of rows that come in blocks."""

    def __init__(self, normalize: str):
        self.whiten, self.pca = normalize == "whiten", normalize == "pca"
        self.count = 0

    def add(self, rows_nw: np.ndarray) -> None:
        if not len(rows_nw):
            return
        if not self.count:  # near the mean, so that the squares do not cancel
            self.shift, self.sum, self.squares = rows_nw.mean(0), 0.0, 0.0
        rows_nw = rows_nw - self.shift
        self.count += len(rows_nw)
        self.sum = self.sum + rows_nw.sum(0)
        whole = self.whiten or self.pca
        squares = rows_nw.T @ rows_nw if whole else (rows_nw**2).sum(0)
        self.squares = self.squares + squares

    def normal(self, components: int) -> tuple[np.ndarray, np.ndarray]:
        """(mean, scale): rows - mean, times scale, have variance 1."""
        mean = self.sum / self.count
        if components:
            covariance = self.squares / self.count - np.outer(mean, mean)
            values, vectors_wk = _principal(covariance, components)
            scale = _inverse_root(values, _DEPENDENT * values[0])
            if self.pca:
                scale = _inverse_root(values.mean(keepdims=True), 0.0)
            return self.shift + mean, vectors_wk * scale
        square = self.squares.diagonal() if self.whiten else self.squares
        variance, mean_w = square / self.count - mean**2, self.shift + mean
        scale = _inverse_root(variance, _ROUNDING * (variance + mean_w**2))
        if not self.whiten or not np.isfinite(mean_w).all():
            return mean_w, scale
        covariance = self.squares / self.count - np.outer(mean, mean)
        values, vectors = np.linalg.eigh(covariance * np.outer(scale, scale))
        root = (vectors * _inverse_root(values, _DEPENDENT * values.max())) @ vectors.T
        return mean_w, scale[:, None] * root


def _principal(covariance: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The largest eigenvalues (count,), and their vectors (width, count).

    Each has the sign by which its largest number is positive.
    """
    values, vectors = np.linalg.eigh(covariance)
    values, vectors = values[::-1][:count], vectors[:, ::-1][:, :count]
    largest = vectors[np.abs(vectors).argmax(0), np.arange(count)]
    return values, vectors * np.sign(largest)


def _inverse_root(variance: np.ndarray, floor: Any) -> np.ndarray:
    """1 / sqrt(variance), and 0 up to `floor`."""
    varies = variance > floor
    return np.where(varies, 1 / np.sqrt(np.where(varies, variance, 1)), 0)
