"""Stage 1 of DALL-E: a discrete VAE by the Gumbel-softmax relaxation.

Ramesh et al. 2021, section 2.1 and appendix A. Legend: b rows, h w pixels, n tokens of
an image, v codes, d = h*w*3 numbers of an image.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mmjax import schema
from mmjax.losses import categorical, quantize
from mmjax.models.dvae import DVae
from mmjax.nn import logit_laplace
from mmjax.state import Ctx, Vars
from mmjax.tasks import stage1
from mmjax.tasks.base import Predict, cosine, pixels
from mmjax.tasks.stage1 import Batch, Metrics, PyTree, Seen


class _Terms(NamedTuple):
    """What a batch of images gives under relaxed codes."""

    nll_b: jax.Array  # -ln p of mapped pixels, nats per image
    kl_b: jax.Array  # KL(q || uniform), nats per image
    logits_bnv: jax.Array
    noise_bnv: jax.Array  # Gumbel
    shown_bhw3: jax.Array  # the reconstruction, in [0, 1]


@dataclasses.dataclass(frozen=True)
class Task(stage1.Relaxed):
    """Fields are `config.task`. Defaults are the paper's.

    tokenizer: what `mmjax.models.image_tokenizer.build` takes, of kind "dvae".
    kl_weight, kl_steps: the weight of the KL term rises from 0 along a cosine, and is
      `kl_weight` from that step on.
    alarm: a batch of m tokens can use min(m, v) codes; the metric `collapsed` is 1
      where it uses less than this share of them.
    """

    kl_weight: float = 6.6
    kl_steps: int = 5000
    alarm: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        schema.at_least(0, self, "kl_steps")
        self._require(DVae, "dvae")

    def _relaxed(
        self, variables: Vars, x_bhw3: jax.Array, temperature: jax.Array, ctx: Ctx
    ) -> _Terms:
        logits_bnv = self._apply(variables, "logits", x_bhw3)
        keys_b = ctx.example_keys(len(x_bhw3))
        noise_bnv = categorical.gumbel(keys_b, logits_bnv.shape[1:])
        soft_bnv = categorical.gumbel_softmax(logits_bnv, noise_bnv, temperature)
        out = self._apply(variables, "decode", soft_bnv)
        mapped_bhw3 = logit_laplace.map_pixels(x_bhw3)
        return _Terms(
            nll_b=logit_laplace.nll(mapped_bhw3, *out).sum((1, 2, 3)),
            kl_b=categorical.kl_to_uniform(logits_bnv).sum(-1),
            logits_bnv=logits_bnv,
            noise_bnv=noise_bnv,
            shown_bhw3=logit_laplace.pixels(out.mean),
        )

    def look(self, variables: Vars, batch: Batch, ctx: Ctx) -> Seen:
        """`(nll + kl_weight * KL) / d`, both summed over an image (appendix A.2).

        Metrics: `reconstruction` nll / d of mapped pixels, as in the loss; `kl` nats
        per token, 0 to ln v; `elbo` nats / d, unweighted, of pixels in [0, 1]; `psnr`
        dB; all these under relaxed codes. `used` (a share), `perplexity` and `dead` (a
        number) say how the batch's likeliest tokens use the codes.
        """
        x_bhw3 = pixels(batch)
        beta = cosine(ctx.step, 0.0, self.kl_weight, self.kl_steps)
        temperature = self._temperature(ctx.step)
        terms = self._relaxed(variables, x_bhw3, temperature, ctx)
        d = x_bhw3[0].size
        loss = (terms.nll_b + beta * terms.kl_b).mean() / d
        reconstruction_bhw3, terms = terms.shown_bhw3, jax.lax.stop_gradient(terms)
        likeliest_bn = jnp.argmax(terms.logits_bnv, axis=-1)
        metrics = {
            "reconstruction": terms.nll_b.mean() / d,
            "kl": terms.kl_b.mean() / terms.logits_bnv.shape[1],
            "elbo": self._elbo(terms.nll_b, terms.kl_b, d).mean(),
            "kl_weight": beta,
            "temperature": temperature,
        }
        square = stage1.square_error(reconstruction_bhw3, x_bhw3)
        means = {"square": square, **self.count(likeliest_bn, ctx)}
        return Seen(loss, reconstruction_bhw3, means, {}, metrics)

    def moved(
        self, variables: Vars, means: Metrics, rows: PyTree, ctx: Ctx
    ) -> tuple[PyTree, Metrics]:
        """See Stage1: the temperature that evaluation goes by."""
        relaxation = {"temperature": self._temperature(ctx.step)}
        return {**variables.extra, "relaxation": relaxation}, {}

    @staticmethod
    def _elbo(nll_b: jax.Array, kl_b: jax.Array, d: int) -> jax.Array:
        """(ln p(x|z) - KL) / d, (b,), from the nll of mapped pixels."""
        return -(logit_laplace.from_unit(nll_b, d) + kl_b) / d

    def usage(self, means: Metrics) -> Metrics:
        """See Tokenizer; and how many codes nothing used."""
        dead = (means["count"] == 0).sum().astype(jnp.float32)
        return super().usage(means) | {"dead": dead}

    def evaluate(self, variables: Vars, batch: Batch, ctx: Ctx) -> Metrics:
        """What relaxed codes give beside what sampled ones do, (b,) each.

        Relaxed codes are those of the temperature last trained at. The samples are
        their limit under the same noise, so that `gap = elbo - elbo_hard` is due to
        the relaxation alone; `elbo_hard` is a bound on ln p(x), `elbo` is none. `loss`
        is the training loss with the last KL weight.
        """
        x_bhw3 = pixels(batch)
        temperature = variables.extra["relaxation"]["temperature"]
        terms = self._relaxed(variables, x_bhw3, temperature, ctx)
        ids_bn = categorical.gumbel_max(terms.logits_bnv, terms.noise_bnv)
        out = self._apply(variables, "decode", ids_bn)
        mapped_bhw3 = logit_laplace.map_pixels(x_bhw3)
        hard_b = logit_laplace.nll(mapped_bhw3, *out).sum((1, 2, 3))

        def psnr(shown_bhw3: jax.Array) -> jax.Array:
            return quantize.psnr(jnp.square(shown_bhw3 - x_bhw3).mean((1, 2, 3)))

        d = x_bhw3[0].size
        elbo_b = self._elbo(terms.nll_b, terms.kl_b, d)
        elbo_hard_b = self._elbo(hard_b, terms.kl_b, d)
        return {
            "loss": (terms.nll_b + self.kl_weight * terms.kl_b) / d,
            "reconstruction": terms.nll_b / d,
            "reconstruction_hard": hard_b / d,
            "kl": terms.kl_b / ids_bn.shape[1],
            "elbo": elbo_b,
            "elbo_hard": elbo_hard_b,
            "gap": elbo_b - elbo_hard_b,
            "psnr": psnr(terms.shown_bhw3),
            "psnr_hard": psnr(logit_laplace.pixels(out.mean)),
            **self.usage(self.count(jnp.argmax(terms.logits_bnv, axis=-1), ctx)),
        }

    def predict(self) -> dict[str, Predict]:
        """loss (see `evaluate`), encode, decode, reconstruct, elbo_terms."""
        return super().predict() | {"elbo_terms": self._elbo_terms}

    def _elbo_terms(self, variables: Vars, batch: Batch, ctx: Ctx) -> Metrics:
        """Nats per row under a sample of q: -ln p(x|z) over pixels in [0, 1], and KL
        to the uniform prior.
        """
        x_bhw3 = pixels(batch)
        logits_bnv = self._apply(variables, "logits", x_bhw3)
        keys_b = ctx.example_keys(len(x_bhw3))
        noise_bnv = categorical.gumbel(keys_b, logits_bnv.shape[1:])
        ids_bn = categorical.gumbel_max(logits_bnv, noise_bnv)
        return {
            "reconstruction": self._apply(variables, "nll", x_bhw3, ids_bn),
            "kl": categorical.kl_to_uniform(logits_bnv).sum(-1),
        }
