"""Whether a zero-shot classifier is right as often as it is sure.

Guo et al. 2017: confidence is the largest probability, the expected calibration error
is the mean gap of accuracy and confidence over bins of confidence, and one temperature,
fitted to other examples, mends most of it. Legend: n examples, c classes, d embedding,
m bins.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import optimize, special

from mmjax.evaluators import base, zero_shot
from mmjax.evaluators.common import forward
from mmjax.metrics import embeddings
from mmjax.report import figures

_DEFINITIONS = {
    "top1": "label is the best class",
    "confidence": "mean of the largest probability",
    "ece": "expected calibration error, {bins} equal bins",
    "nll": "mean negative log probability of the label, nats",
}
_FITTED = {
    "temperature": "divides logits; least nll on val",
    "ece_fitted": "the same, so divided",
    "nll_fitted": "the same, so divided",
}


@dataclass(frozen=True)
class Config(zero_shot.Config):
    """val: labelled examples to fit a temperature to; none: the model's own is judged.

    bins: of equal width, from 0 to 1.
    """

    val: Any = None
    bins: int = 15

    def __post_init__(self):
        super().__post_init__()
        self.at_least(bins=1)
        if isinstance(self.val, float):
            raise ValueError(f"val is {self.val}: give a source, not a share of one")


class Evaluator(zero_shot.Evaluator):
    """Calls predict "embed_image", "embed_text" and "scale"; sources need labels."""

    config_class = Config

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.val = None
        if self.config.val is not None:
            self.val = self.open(self.config.val, self.config.limit)
            val, own = self.val.class_names, self.source.class_names
            if val != own:
                raise self.error(
                    f"val has {len(val)} classes and the source {len(own)}, or other "
                    "ones: give parts of one set"
                )

    def check(self, vars_abstract: base.PyTree) -> None:
        """See the base."""
        super().check(vars_abstract)
        texts = forward.text_abstract(self.env, 1)
        forward.output_shape(self.env, "scale", vars_abstract, texts, self.where)

    def run(self, variables: base.PyTree) -> base.Result:
        """top1, confidence (its mean), ece, nll; with val temperature, ece_fitted,
        nll_fitted too: logits are divided by the temperature.

        `arrays` holds, per example, label, prediction, confidence; per bin, its
        confidence, accuracy and count.
        """
        classes_cd = self.class_embeddings(variables)
        logits_nc, label_n, counts = self._logits(variables, classes_cd)
        bins, metrics, task = self.config.bins, dict(_DEFINITIONS), {}
        scores, temperature = [_scores(logits_nc, label_n)], {}
        if self.val is not None:
            fitted = fit_temperature(*self._logits(variables, classes_cd, self.val)[:2])
            temperature["temperature"] = fitted
            scores.append(_scores(logits_nc / fitted, label_n))
            metrics |= _FITTED
            task["val"] = self.val.fingerprint()

        def statistics(weight_n):
            first, *rest = (_summary(*s, weight_n, bins) for s in scores)
            return np.array([*first, *(value for more in rest for value in more[2:])])

        names = [name for name in metrics if name != "temperature"]
        values = self.intervals(names, statistics, label_n.size) | temperature
        hit_n, confidence_n, _ = scores[0]
        arrays = {
            "label": label_n,
            "prediction": logits_nc.argmax(1),
            "confidence": confidence_n,
            **reliability(hit_n, confidence_n, np.ones(len(hit_n)), bins),
        }
        metrics["ece"] = metrics["ece"].format(bins=bins)
        card = self.card(counts, metrics, **self.prompt_card(), bins=bins, **task)
        return base.Result(values, card, arrays)

    def _logits(
        self, variables: base.PyTree, classes_cd: np.ndarray, source: Any = None
    ) -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
        """(n, c) cosines at the model's temperature, (n,) labels, counts."""
        one = {k: v[:1] for k, v in self.encoded.items()}
        scale = float(np.asarray(self.env.predict["scale"](variables, one)[0]))
        arrays, counts, _ = self.collect(variables, "embed_image", source=source)
        rows_nd = embeddings.unit(arrays["embed_image"])
        return scale * rows_nd @ classes_cd.T, arrays["label"], counts


def fit_temperature(logits_nc: np.ndarray, label_n: np.ndarray) -> float:
    """The divisor of logits with the least negative log-likelihood, in 1e-3 .. 1e3."""

    least = optimize.minimize_scalar(
        lambda log: -float(_log_chance(logits_nc / np.exp(log), label_n).mean()),
        bounds=np.log((1e-3, 1e3)),
        method="bounded",
    )
    return float(np.exp(least.x))


def reliability(
    hit_n: np.ndarray, confidence_n: np.ndarray, weight_n: np.ndarray, bins: int
) -> dict[str, np.ndarray]:
    """Mean confidence, accuracy and weight of each bin (m,); NaN in empty ones."""
    bin_n = np.clip(np.ceil(confidence_n * bins).astype(int) - 1, 0, bins - 1)
    count_m = np.bincount(bin_n, weight_n, bins)
    rows = {"bin_confidence": confidence_n, "bin_accuracy": hit_n}
    with np.errstate(invalid="ignore"):
        means = {
            k: np.bincount(bin_n, weight_n * x, bins) / count_m for k, x in rows.items()
        }
    return means | {"bin_count": count_m}


def ece(
    hit_n: np.ndarray, confidence_n: np.ndarray, weight_n: np.ndarray, bins: int
) -> float:
    """Expected calibration error (Guo et al. 2017, equation 3)."""
    by_bin = reliability(hit_n, confidence_n, weight_n, bins)
    gap_m = np.abs(by_bin["bin_accuracy"] - by_bin["bin_confidence"])
    return float(np.nansum(gap_m * by_bin["bin_count"]) / weight_n.sum())


def _scores(logits_nc: np.ndarray, label_n: np.ndarray) -> tuple:
    """Per example: whether it is right, how sure, its label's log probability."""
    confidence_n = np.exp(_log_chance(logits_nc, logits_nc.argmax(1)))
    hit_n = logits_nc.argmax(1) == label_n
    return hit_n, confidence_n, _log_chance(logits_nc, label_n)


def _summary(hit_n, confidence_n, log_chance_n, weight_n, bins: int) -> tuple:
    """Weighted top1, confidence, ece, nll."""
    total = weight_n.sum()
    error = ece(hit_n, confidence_n, weight_n, bins)
    right, sure, nll = (
        weight_n @ x / total for x in (hit_n, confidence_n, -log_chance_n)
    )
    return right, sure, error, nll


def _log_chance(logits_nc: np.ndarray, class_n: np.ndarray) -> np.ndarray:
    chosen_n = logits_nc[np.arange(len(class_n)), class_n]
    return chosen_n - special.logsumexp(logits_nc, axis=1)


def figure(values: Mapping[str, float], arrays: Mapping, title: str) -> Any:
    """Accuracy over confidence, a bar a bin; the diagonal is calibrated."""
    figure, axes = figures.one(title, width=4.2, height=3.8)
    bins = len(arrays["bin_count"])
    left_m = np.arange(bins) / bins
    axes.bar(left_m, np.nan_to_num(arrays["bin_accuracy"]), 1 / bins, align="edge")
    axes.plot((0, 1), (0, 1), color=figures.INK, linewidth=0.8, linestyle="--")
    text = f"ECE {values['ece']:.3f}"
    if "ece_fitted" in values:
        fitted, temperature = values["ece_fitted"], values["temperature"]
        text += f", {fitted:.3f} at temperature x{temperature:.2f}"
    axes.text(0.03, 0.95, text, transform=axes.transAxes, fontsize=8, va="top")
    axes.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    return figure
