"""VQGAN's tokenizer with a Gumbel-softmax bottleneck, trained on squared errors.

taming-transformers' GumbelVQ without its discriminator and its perceptual loss.
Legend: b rows, h w pixels, n tokens of an image, d width of a code, v codes.
"""

import dataclasses

import jax.numpy as jnp

from mmjax.losses import categorical, quantize
from mmjax.models import images
from mmjax.models.gumbel_vq import GumbelVq
from mmjax.state import Ctx, Vars
from mmjax.tasks import stage1
from mmjax.tasks.base import pixels
from mmjax.tasks.stage1 import Batch, Forward


@dataclasses.dataclass(frozen=True)
class Task(stage1.Relaxed):
    """Fields are `config.task`. Defaults are those of the released f = 8 model.

    tokenizer: what `mmjax.models.image_tokenizer.build` takes, of kind "gumbel_vq".
    kl_weight: of the KL to even use of the codes, nats a token.
    decay: of the moving average of the pixel variance.
    """

    kl_weight: float = 1e-8
    decay: float = 0.99

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(GumbelVq, "gumbel_vq")

    def forward(self, variables: Vars, batch: Batch, ctx: Ctx) -> Forward:
        """Mean square of pixels in [-1, 1] under relaxed codes + kl_weight KL.

        Metrics: `reconstruction`; `kl`, nats a token, 0 to ln v; `psnr`, dB; `used` and
        `perplexity` of the batch's likeliest tokens.
        """
        x_bhw3 = pixels(batch)
        temperature = self._temperature(ctx.step)
        logits_bnv = self._apply(variables, "logits", x_bhw3)
        noise_bnv = categorical.gumbel(
            ctx.example_keys(len(x_bhw3)), logits_bnv.shape[1:]
        )
        soft_bnv = categorical.gumbel_softmax(logits_bnv, noise_bnv, temperature)
        code_bnd = soft_bnv @ self._apply(variables, "codes")
        y_bhw3 = self._apply(variables, "decode", code_bnd)
        reconstruction = jnp.square(y_bhw3 - (2.0 * x_bhw3 - 1.0)).mean()
        kl = categorical.kl_to_uniform(logits_bnv).mean()
        _, usage = self._usage(ctx.gather(jnp.argmax(logits_bnv, axis=-1)))
        square = stage1.square_error(images.shown(y_bhw3), x_bhw3, ctx)
        metrics = {
            "reconstruction": reconstruction,
            "kl": kl,
            "psnr": quantize.psnr(square),
            **usage,
            "temperature": temperature,
        }
        extra = variables.extra
        if ctx.train:
            likelihood = stage1.variance(variables, square, ctx, decay=self.decay)
            extra = {"likelihood": likelihood}
        loss = reconstruction + self.kl_weight * kl
        return Forward(loss, 0.5 * y_bhw3 + 0.5, extra, metrics)
