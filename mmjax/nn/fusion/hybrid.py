"""Hybrid fusion: an early expert among the late ones. Legend: see the package."""

from typing import Literal

import flax.linen as nn
import jax

from mmjax.nn.fusion import base, early, late

JOINT = "early-all"  # no name of a field


class Block(base.Base):
    """A perceptron over all parts votes beside an expert for each of them.

    rule: see `late`; joint: units of the perceptron.
    """

    rule: Literal["mean", "learned", "product"] = "learned"
    joint: int = 32

    @nn.compact
    def __call__(
        self, parts: base.Arrays, masks: base.Arrays, wanted: base.Wanted
    ) -> base.Fused:
        whole = early.Block((self.joint,), name="early")(parts, masks, wanted)
        given_bt = jax.tree.reduce(lambda a, b: a | b, dict(masks))
        voters = late.Block(self.rule, name="late")
        experts = {**parts, JOINT: whole.features}
        return voters(experts, {**masks, JOINT: given_bt}, wanted)
