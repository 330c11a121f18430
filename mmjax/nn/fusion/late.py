"""Late fusion: every part has its own answer, and a rule makes one of them.

Kittler et al. 1998 for the rules. Legend: see the package; m experts.
"""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.nn.dense import Dense
from mmjax.nn.fusion import base

_ABSENT = -1e9  # the logarithm of an absent expert's weight


class Block(base.Base):
    """A linear expert for each part.

    rule: `mean` of the probabilities, `learned` with weights that are learned and sum
      to one, or `product` of the probabilities. Experts of absent parts have no say.
      Of numbers, scores are means; without classes there is no product.
    """

    rule: Literal["mean", "learned", "product"] = "mean"

    @nn.compact
    def __call__(
        self, parts: base.Arrays, masks: base.Arrays, wanted: base.Wanted
    ) -> base.Fused:
        names = sorted(parts)
        answer_btkm = jnp.stack(
            [Dense(wanted.outputs, name=f"expert_{k}")(parts[k]) for k in names], -1
        )
        given_btm = jnp.stack([masks[name] for name in names], -1)
        weight_m = jnp.zeros(len(names))
        if self.rule == "learned":
            weight_m = self.param("weight", nn.initializers.zeros, (len(names),))
        scores_btk = combined(
            answer_btkm, given_btm, weight_m, self.rule, classes=wanted.classes
        )
        features_btw = answer_btkm.reshape(*answer_btkm.shape[:2], -1)
        return base.Fused(features_btw, scores_btk)


def combined(
    answer_btkm: jax.Array,
    given_btm: jax.Array,
    weight_m: jax.Array,
    rule: str,
    *,
    classes: bool,
) -> jax.Array:
    """The scores (b, t, k) of all experts together.

    Where no expert is given, all are heard.

    Args:
      given_btm: bool, which experts have a part to look at.
      weight_m: logarithms of weights, of `mean` and `learned`.
    """
    log_btm = jnp.where(given_btm, 0.0, _ABSENT)
    if rule != "product":
        log_btm = jax.nn.log_softmax(log_btm + weight_m, -1)
    if not classes:
        return (answer_btkm * jnp.exp(log_btm)[..., None, :]).sum(-1)
    own_btkm = jax.nn.log_softmax(answer_btkm, axis=2)
    if rule == "product":
        heard_btm = given_btm | ~given_btm.any(-1, keepdims=True)
        return (own_btkm * heard_btm[..., None, :]).sum(-1)
    return jax.nn.logsumexp(own_btkm + log_btm[..., None, :], axis=-1)
