"""The evidence lower bound of a two-stage model, and what it is made of.

    ln p(x, y) >= E_q [ln p(x | y, z)] - beta KL(q(y, z | x) || p(y, z))

x is the picture, y its text, z the picture's tokens (Ramesh et al. 2021, eq. 1). Stage
1 alone has no text, and its prior over tokens is uniform. With stage 2, q puts all its
mass on the text that there is and on one z, so that the divergence is the prior's own
nats: -ln p(y) - ln p(z | y).

Legend: b rows, n examples.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from mmjax import schema
from mmjax.errors import UserError
from mmjax.evaluators.base import Batch, Env, EvalConfig, PyTree, Result
from mmjax.evaluators.common import forward, result_card
from mmjax.evaluators.common.subset import open_view
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
_E_Q = (
    "one z a picture: drawn from q where q is spread (dVAE, stage 1 alone), the only "
    "one where it is not (VQ-VAE); with stage 2 the likeliest, q being a point there"
)


@dataclass(frozen=True)
class Config(EvalConfig):
    """beta: weight of the divergence; with less than 1 the sum is no bound."""

    beta: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.beta < 0:
            raise ValueError(f"beta is {self.beta}: use 0 or more")


class Evaluator:
    """Calls predict "elbo_terms": {image, and text where there is any} to nats (b,).

    The terms are `reconstruction` with `kl` (stage 1), or with `text_nll` and
    `image_nll` (both stages).
    """

    def __init__(self, cfg: Mapping[str, Any], env: Env, where: str = "elbo"):
        self.config = schema.from_mapping(Config, cfg, where)
        self._env, self._where = env, where
        self._size = self.config.batch_size or env.batch_size
        self._source = open_view(self.config.source, self.config.limit, env.open_source)

    def check(self, vars_abstract: PyTree) -> None:
        """See Evaluator.check of the base."""
        args = self._env, self._source, self._env.tokenizer, self._size, self._where
        batch = forward.abstract(_inputs(forward.peek(*args), self._where))
        args = self._env, "elbo_terms", vars_abstract, batch, self._where
        got = forward.output_shape(*args)
        shapes = jax.tree.map(lambda x: x.shape, got)
        names = set(got) if isinstance(got, Mapping) else set()
        good = names - {RECONSTRUCTION} in _SETS and RECONSTRUCTION in names
        if not good or set(shapes.values()) != {(self._size,)}:
            raise UserError(
                f"{self._where}: 'elbo_terms' must give {RECONSTRUCTION} with kl, or "
                f"with text_nll and image_nll, ({self._size},) each; gives {shapes}"
            )

    def run(self, variables: PyTree) -> Result:
        """Means over examples, with intervals.

        In nats a picture: the terms, `divergence` (their sum without the
        reconstruction) and `elbo`. `bits_per_dim` is -elbo in bits a channel of a
        pixel of 8 bits; where there is text, `image_bits_per_dim` leaves -ln p(y) out:
        the bound of the picture given its text. `arrays` holds every example's terms.
        """
        terms, index_n, dims, broken = self._terms(variables)
        rest = [name for name in terms if name != RECONSTRUCTION]
        divergence_n = sum(terms[name] for name in rest)
        minus_elbo_n = terms[RECONSTRUCTION] + self.config.beta * divergence_n
        rows = {**terms, "divergence": divergence_n, "elbo": -minus_elbo_n}
        rows["bits_per_dim"] = bits(minus_elbo_n, dims)
        if "text_nll" in terms:
            text_n = self.config.beta * terms["text_nll"]
            rows["image_bits_per_dim"] = bits(minus_elbo_n - text_n, dims)
        rows_kn = np.stack(list(rows.values()))

        def means(weight_n: np.ndarray) -> np.ndarray:
            return rows_kn @ weight_n / weight_n.sum()

        draw = {"resamples": self.config.resamples, "seed": self.config.seed}
        count = len(index_n)
        values = bootstrap.with_interval(list(rows), means, count, **draw)
        counts = {"examples": count, "broken": broken, "dims": dims}
        made = self._card(list(rows), counts, draw)
        return Result(values, made, {"index": index_n, **terms})

    def _terms(
        self, variables: PyTree
    ) -> tuple[dict[str, np.ndarray], np.ndarray, int, int]:
        """Every example's terms and index; values in a picture; broken records."""
        env, broken, dims = self._env, 0, 0
        index: list[np.ndarray] = []
        parts: dict[str, list[np.ndarray]] = {}
        batches = env.eval_batches(
            self._source, env.tokenizer, env.image_cfg, batch_size=self._size
        )
        for batch in batches:
            valid_b = forward.valid_rows(batch)
            broken += forward.broken_rows(batch)
            dims = math.prod(batch["image"].shape[1:])
            got = env.predict["elbo_terms"](variables, _inputs(batch, self._where))
            index.append(np.asarray(batch["_index"])[valid_b])
            for name, value_b in got.items():
                value_b = np.asarray(value_b, np.float64)[valid_b]
                if not np.isfinite(value_b).all():
                    raise UserError(
                        f"{self._where}: {name} is not finite; the weights are broken: "
                        "go back to an earlier checkpoint"
                    )
                parts.setdefault(name, []).append(value_b)
        index_n = np.concatenate(index)
        if not index_n.size:
            raise UserError(f"{self._where}: {broken} records, all of them broken")
        terms = {name: np.concatenate(parts[name]) for name in TERMS if name in parts}
        return terms, index_n, dims, broken

    def _card(self, names: list[str], counts: dict, draw: dict) -> dict[str, Any]:
        shown = {
            name: f"{TERMS[name]}; nats a picture" for name in names if name in TERMS
        }
        shown["divergence"] = "the terms but the reconstruction, added; nats a picture"
        shown["elbo"] = f"-(reconstruction + {self.config.beta} divergence)"
        shown["bits_per_dim"] = (
            "-elbo / (dims ln 2) + 8: bits a value of 8 bits, its density taken as "
            "even over 1/256"
        )
        if "image_bits_per_dim" in names:
            shown["image_bits_per_dim"] = (
                "bits_per_dim without text_nll: given the text"
            )
        return result_card.write(
            self.config,
            self._env,
            self._source,
            kind="elbo",
            counts=counts,
            interval=bootstrap.describe("examples", **draw),
            metrics=shown,
            task={
                "beta": self.config.beta,
                "bound": self.config.beta >= 1,
                "expectation": _E_Q,
            },
            text="text_nll" in names,
        )


def bits(nats_n: np.ndarray, dims: int) -> np.ndarray:
    """Bits a value of 8 bits, from nats of a density over `dims` values in [0, 1]."""
    return nats_n / (dims * math.log(2)) + 8.0


def _inputs(batch: Batch, where: str) -> dict[str, np.ndarray]:
    """What `elbo_terms` is called with."""
    if "image" not in batch:
        raise UserError(
            f"{where}: the records are tokens, and p(x | z) needs the pictures: give "
            "the source that the tokens were made of"
        )
    keys = ("image", "tokens", "tokens_mask")
    return {key: batch[key] for key in keys if key in batch}
