"""VQGAN's tokenizer with a Gumbel-softmax bottleneck, trained on squared errors.

taming-transformers' GumbelVQ without its discriminator and its perceptual loss.
Legend: b rows, h w pixels, n tokens of an image, d width of a code, v codes.
"""

import dataclasses

import jax
import jax.numpy as jnp

from mmjax.losses import categorical
from mmjax.models import images
from mmjax.models.gumbel_vq import GumbelVq
from mmjax.nn.quantize import straight_through
from mmjax.state import Ctx, Vars
from mmjax.tasks import stage1
from mmjax.tasks.base import pixels
from mmjax.tasks.stage1 import Batch, Metrics, PyTree, Seen


@dataclasses.dataclass(frozen=True)
class Task(stage1.Relaxed):
    """Fields are `config.task`.

    Defaults are those of the released f = 8 model: its temperature falls from 0.9 to
    1e-6 over 1,000,001 steps, and its codes are hard in both training and evaluation.

    tokenizer: what `mmjax.models.image_tokenizer.build` takes, of kind "gumbel_vq".
    kl_weight: of the KL to even use of the codes, nats a token.
    straight_through: whether training decodes the code of the largest relaxed weight,
      with the gradient of all of them, or their mixture.
    decay: of the moving average of the pixel variance.
    """

    temperature_start: float = 0.9
    temperature: float = 1e-6
    temperature_steps: int = 1_000_001
    kl_weight: float = 1e-8
    straight_through: bool = True
    decay: float = 0.99

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(GumbelVq, "gumbel_vq")

    def look(self, variables: Vars, batch: Batch, ctx: Ctx) -> Seen:
        """Mean square of pixels in [-1, 1] + kl_weight KL.

        Codes are drawn from q. In evaluation they are hard whatever the temperature, as
        in taming-transformers: the limit that training anneals to, at every step.

        Metrics: `reconstruction`; `kl`, nats a token, 0 to ln v; `psnr`, dB; `used` and
        `perplexity` of the batch's likeliest tokens; in training `temperature`.
        """
        x_bhw3 = pixels(batch)
        logits_bnv = self._apply(variables, "logits", x_bhw3)
        noise_bnv = categorical.gumbel(
            ctx.example_keys(len(x_bhw3)), logits_bnv.shape[1:]
        )
        codes_vd = self._apply(variables, "codes")
        code_bnd, how = codes_vd[categorical.gumbel_max(logits_bnv, noise_bnv)], {}
        if ctx.train:
            how["temperature"] = self._temperature(ctx.step)
            soft_bnv = categorical.gumbel_softmax(logits_bnv, noise_bnv, **how)
            if self.straight_through:
                hard_bnv = jax.nn.one_hot(soft_bnv.argmax(-1), soft_bnv.shape[-1])
                soft_bnv = straight_through(soft_bnv, hard_bnv)
            code_bnd = soft_bnv @ codes_vd
        y_bhw3 = self._apply(variables, "decode", code_bnd)
        reconstruction = jnp.square(y_bhw3 - (2.0 * x_bhw3 - 1.0)).mean()
        kl = categorical.kl_to_uniform(logits_bnv).mean()
        square = stage1.square_error(images.shown(y_bhw3), x_bhw3)
        means = self.count(jnp.argmax(logits_bnv, axis=-1), ctx) | {"square": square}
        metrics = {"reconstruction": reconstruction, "kl": kl, **how}
        loss = reconstruction + self.kl_weight * kl
        return Seen(loss, 0.5 * y_bhw3 + 0.5, means, {}, metrics)

    def moved(
        self, variables: Vars, means: Metrics, rows: PyTree, ctx: Ctx
    ) -> tuple[PyTree, Metrics]:
        """See Stage1: the pixel variance."""
        likelihood = stage1.variance(variables, means["square"], ctx, decay=self.decay)
        return {"likelihood": likelihood}, {}
