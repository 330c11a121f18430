"""The evidence lower bound of a two-stage model, and what it is made of.

    ln p(x, y) >= E_q [ln p(x | y, z)] - beta KL(q(y, z | x) || p(y, z))

x is the image, y its text, z the image's tokens (Ramesh et al. 2021, eq. 1). Stage
1 alone has no text, and its prior over tokens is uniform. With stage 2, q puts all its
mass on the text that there is and on one z, so that the divergence is the prior's own
nats: -ln p(y) - ln p(z | y).

Legend: b rows, n examples.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import jax
import numpy as np

from mmjax.evaluators import base
from mmjax.evaluators.common import forward
from mmjax.metrics import bootstrap

RECONSTRUCTION = "reconstruction"
TERMS = {
    RECONSTRUCTION: "-ln p(x | y, z), of a density over pixels in [0, 1]: Gaussian "
    "with one variance, the average squared error in training (VQ-VAE), or "
    "logit-Laplace, moved from [0.1, 0.9] (dVAE)",
    "kl": "KL(q(z | x) || uniform)",
    "text_nll": "-ln p(y), of the text after its start token",
    "image_nll": "-ln p(z | y)",
}
_SETS = ({"kl"}, {"text_nll", "image_nll"})
_SUMS = {
    "divergence": "the terms but the reconstruction, added; nats an image",
    "elbo": "-(reconstruction + {beta} divergence)",
    "density_bits": "-elbo / (dims ln 2) + 8: the density at the pixels' values, "
    "in bits a value as if even over 1/256; no code's length, and may be negative",
    "image_density_bits": "density_bits without text_nll: given the text",
}
_E_Q = (
    "one z an image: drawn from q where q is spread (dVAE, stage 1 alone), the only "
    "one where it is not (VQ-VAE); with stage 2 the likeliest, q being a point there"
)


@dataclass(frozen=True)
class Config(base.EvalConfig):
    """beta: weight of the divergence; with less than 1 the sum is no bound."""

    beta: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.beta < 0:
            raise ValueError(f"beta is {self.beta}: use 0 or more")


class Evaluator(base.Evaluator):
    """Calls predict "elbo_terms": {image, and text where there is any} to nats (b,).

    The terms are `reconstruction` with `kl` (stage 1), or with `text_nll` and
    `image_nll` (both stages).
    """

    config_class, captions = Config, True
    calls = {"elbo_terms": forward.IMAGE + forward.TEXT}

    def check(self, vars_abstract: base.PyTree) -> None:
        """See the base."""
        terms = self.output_shapes(vars_abstract)["elbo_terms"]
        shapes = jax.tree.map(lambda x: x.shape, terms)
        names = set(terms) if isinstance(terms, Mapping) else set()
        legal = names - {RECONSTRUCTION} in _SETS and RECONSTRUCTION in names
        if not legal or set(shapes.values()) != {(self.size,)}:
            raise self.error(
                f"'elbo_terms' must give {RECONSTRUCTION} with kl, or with text_nll "
                f"and image_nll, ({self.size},) each; gives {shapes}"
            )

    def run(self, variables: base.PyTree) -> base.Result:
        """Means over examples, with intervals.

        In nats an image: the terms, `divergence` (their sum without the
        reconstruction) and `elbo`. `density_bits` is -elbo in bits a channel of a
        pixel of 8 bits; where there is text, `image_density_bits` leaves -ln p(y) out:
        of the image given its text. `arrays` holds every example's terms.
        """
        dims, beta = 0, self.config.beta

        def keep(outputs, batch, valid_b):
            nonlocal dims
            dims = math.prod(batch["image"].shape[1:])
            terms = {}
            for name, value_b in outputs["elbo_terms"].items():
                terms[name] = np.asarray(value_b, np.float64)[valid_b]
                if not np.isfinite(terms[name]).all():
                    raise self.error(
                        f"{name} is not finite; the weights are broken: go back to an "
                        "earlier checkpoint"
                    )
            return terms

        arrays, counts, _ = self.collect(variables, keep=keep)
        terms = {name: arrays[name] for name in TERMS if name in arrays}
        divergence_n = sum(terms[name] for name in terms if name != RECONSTRUCTION)
        minus_elbo_n = terms[RECONSTRUCTION] + beta * divergence_n
        rows = {**terms, "divergence": divergence_n, "elbo": -minus_elbo_n}
        rows["density_bits"] = bits(minus_elbo_n, dims)
        text = "text_nll" in terms
        if text:
            given_text_n = minus_elbo_n - beta * terms["text_nll"]
            rows["image_density_bits"] = bits(given_text_n, dims)
        metrics = {name: f"{TERMS[name]}; nats an image" for name in terms}
        sums = [name for name in rows if name not in terms]
        metrics |= {name: _SUMS[name].format(beta=beta) for name in sums}
        card = self.card(
            counts | {"dims": dims},
            metrics,
            text=text,
            beta=beta,
            bound=beta >= 1,
            expectation=_E_Q,
        )
        values = bootstrap.means(rows, **self.draw)
        return base.Result(values, card, {"index": arrays["index"], **terms})


def bits(nats_n: np.ndarray, dims: int) -> np.ndarray:
    """Bits a value of 8 bits, from nats of a density over `dims` values in [0, 1]."""
    return nats_n / (dims * math.log(2)) + 8.0
