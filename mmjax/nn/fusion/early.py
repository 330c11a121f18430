"""Early fusion: the columns of all parts, side by side. Legend: see the package."""

import flax.linen as nn

from mmjax.nn.dense import Dense
from mmjax.nn.fusion import base


class Block(base.Base):
    """Dense layers over all columns, each with a rectifier; () is linear."""

    hidden: tuple[int, ...] = (32,)

    @nn.compact
    def __call__(
        self, parts: base.Arrays, masks: base.Arrays, wanted: base.Wanted
    ) -> base.Fused:
        x_btw = base.side_by_side(parts)
        for number, width in enumerate(self.hidden):
            x_btw = nn.relu(Dense(width, name=f"hidden_{number}")(x_btw))
        return self.scored(x_btw, wanted)
