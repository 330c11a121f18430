"""VQGAN's tokenizer with a Gumbel-softmax bottleneck, trained on squared errors.

taming-transformers' GumbelVQ without its discriminator and its perceptual loss.
Legend: b rows, h w pixels, n tokens of an image, d width of a code, v codes.
"""

import dataclasses

import jax
import jax.numpy as jnp

from mmjax import schema
from mmjax.losses import categorical, quantize
from mmjax.models import images
from mmjax.models.gumbel_vq import GumbelVq
from mmjax.state import Ctx, Vars
from mmjax.tasks import stage1
from mmjax.tasks.base import cosine, pixels
from mmjax.tasks.stage1 import Batch, Forward


@dataclasses.dataclass(frozen=True)
class Task(stage1.Tokenizer):
    """Fields are `config.task`. Defaults are those of the released f = 8 model.

    tokenizer: what `mmjax.models.image_tokenizer.build` takes, of kind "gumbel_vq".
    kl_weight: of the KL to even use of the codes, nats a token.
    temperature_start, temperature, temperature_steps: of the relaxation, along a
      cosine.
    decay: of the moving average of the pixel variance.
    """

    tokenizer: dict
    kl_weight: float = 1e-8
    temperature_start: float = 1.0
    temperature: float = 1 / 16
    temperature_steps: int = 150_000
    decay: float = 0.99

    def __post_init__(self) -> None:
        for name in ("temperature_start", "temperature"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}: use more than 0")
        schema.at_least(0, self, "kl_weight", "temperature_steps")
        self._require(GumbelVq, "gumbel_vq")

    def forward(self, variables: Vars, batch: Batch, ctx: Ctx) -> Forward:
        """Mean square of pixels in [-1, 1] under relaxed codes + kl_weight KL.

        Metrics: `reconstruction`; `kl`, nats a token, 0 to ln v; `psnr`, dB; `used` and
        `perplexity` of the batch's likeliest tokens.
        """
        x_bhw3, v = pixels(batch), self.model.vocab_size
        temperature = cosine(
            ctx.step, self.temperature_start, self.temperature, self.temperature_steps
        )
        logits_bnv = self._apply(variables, "logits", x_bhw3)
        noise_bnv = categorical.gumbel(
            ctx.example_keys(len(x_bhw3)), logits_bnv.shape[1:]
        )
        soft_bnv = categorical.gumbel_softmax(logits_bnv, noise_bnv, temperature)
        code_bnd = soft_bnv @ self._apply(variables, "codes")
        y_bhw3 = self._apply(variables, "decode", code_bnd)
        reconstruction = jnp.square(y_bhw3 - (2.0 * x_bhw3 - 1.0)).mean()
        kl = categorical.kl_to_uniform(logits_bnv).mean()
        ids_m = ctx.gather(jnp.argmax(logits_bnv, axis=-1)).reshape(-1)
        count_v = jax.ops.segment_sum(jnp.ones_like(ids_m, jnp.float32), ids_m, v)
        square = stage1.square_error(images.shown(y_bhw3), x_bhw3, ctx)
        metrics = {
            "reconstruction": reconstruction,
            "kl": kl,
            "psnr": quantize.psnr(square),
            "used": quantize.used(count_v),
            "perplexity": quantize.perplexity(count_v),
            "temperature": temperature,
        }
        extra = variables.extra
        if ctx.train:
            likelihood = stage1.variance(variables, square, ctx, decay=self.decay)
            extra = {"likelihood": likelihood}
        loss = reconstruction + self.kl_weight * kl
        return Forward(loss, 0.5 * y_bhw3 + 0.5, extra, metrics)
