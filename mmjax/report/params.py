"""Figures of parameters, metrics and similarities, for notebooks."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmjax.report import figures


def singular_values(params: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """(k,) falling singular values of every matrix; kernels flatten to (rest, out)."""
    matrices = {
        path: np.asarray(value, np.float32).reshape(-1, value.shape[-1])
        for path, value in params.items()
        if value.ndim >= 2
    }
    return {p: np.linalg.svd(m, compute_uv=False) for p, m in matrices.items()}


def plot_norms(params: Mapping[str, np.ndarray]) -> Any:
    """A bar a parameter: its root mean square."""
    names = list(params)
    rms_n = [float(np.sqrt(np.mean(np.square(params[p])))) for p in names]
    figure, axes = figures.one("", width=8, height=1 + 0.16 * len(names))
    axes.barh(names, rms_n)
    axes.invert_yaxis()
    axes.tick_params(axis="y", labelsize=6)
    axes.set(xscale="log", xlabel="root mean square")
    return figure


def plot_histograms(params: Mapping[str, np.ndarray], *, columns: int = 4) -> Any:
    """A small histogram of each parameter's values."""
    figure, panels = figures.grid(len(params), width=3, height=1.8, columns=columns)
    for axes, (path, value) in zip(panels, params.items(), strict=True):
        axes.hist(np.asarray(value, np.float32).ravel(), bins=50)
        axes.set_title(path[-40:], fontsize=6)
        axes.tick_params(labelsize=6)
    return figure


def plot_singular_values(values: Mapping[str, np.ndarray]) -> Any:
    """A falling curve a matrix, each over its largest value."""
    figure, axes = figures.one("", width=8, height=5)
    for path, values_k in values.items():
        axes.plot(values_k / max(float(values_k[0]), 1e-30), label=path)
    axes.set(yscale="log", xlabel="rank", ylabel="singular value / largest")
    axes.set_ylim(bottom=1e-4)
    axes.legend(fontsize=5, ncols=2)
    return figure


def plot_metrics(rows: Sequence[Mapping[str, Any]], name: str = "loss") -> Any:
    """One logged metric over the steps."""
    points = [(row["step"], float(row[name])) for row in rows if name in row]
    figure, axes = figures.one("", width=7, height=3)
    axes.plot(*zip(*points, strict=True), marker=".")
    axes.set(xlabel="step", ylabel=name)
    return figure


def plot_images(rows: Sequence[np.ndarray]) -> Any:
    """Rows of images (n, S, S, 3) in [0, 1], below one another."""
    figure, panels = figures.grid(len(rows), width=12, height=1, columns=1)
    for axes, images in zip(panels, rows, strict=True):
        axes.imshow(np.clip(np.concatenate(list(images), axis=1), 0, 1))
        axes.set_axis_off()
    return figure


def plot_similarity(cosines_nm: np.ndarray, texts: Sequence[str] = ()) -> Any:
    """Cosines of images (rows) with texts (columns) as a coloured matrix."""
    figure, axes = figures.one("", width=7, height=6)
    shown = axes.imshow(cosines_nm, vmin=-1, vmax=1, cmap="RdBu_r")
    figure.colorbar(shown, ax=axes, label="cosine")
    axes.set(xlabel="text", ylabel="image")
    if texts:
        axes.set_xticks(range(len(texts)), texts, rotation=90, fontsize=6)
    return figure
