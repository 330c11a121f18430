"""The memory fusion network (Zadeh et al. 2018, MFN). Legend: see the package."""

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.nn.dense import Dense
from mmjax.nn.fusion import base


class Step(nn.Module):
    """One step of all LSTMs and of the memory between them (sections 3.2 to 3.4)."""

    width: int
    memory: int

    @nn.compact
    def __call__(self, carry: tuple, step: tuple) -> tuple[tuple, jax.Array]:
        (cells, memory_bm), (parts, masks) = carry, step
        moved: dict[str, tuple[jax.Array, jax.Array]] = {}
        for name in sorted(parts):
            (cell_bw, out_bw), keep_b1 = cells[name], masks[name][:, None]
            seen_bd = jnp.concatenate([parts[name], out_bw], -1)
            gates_bw4 = Dense(4 * self.width, name=f"lstm_{name}")(seen_bd)
            into, forget, new, out = jnp.split(gates_bw4, 4, -1)
            next_bw = nn.sigmoid(forget) * cell_bw + nn.sigmoid(into) * jnp.tanh(new)
            said_bw = nn.sigmoid(out) * jnp.tanh(next_bw)
            moved[name] = (
                jnp.where(keep_b1, next_bw, cell_bw),
                jnp.where(keep_b1, said_bw, out_bw),
            )
        # Delta-memory attention: what the cells hold, before and after.
        both_bd = jnp.concatenate(
            [state[name][0] for state in (cells, moved) for name in sorted(parts)], -1
        )

        def two(x_bd: jax.Array, width: int, name: str) -> jax.Array:
            hidden_bm = nn.relu(Dense(self.memory, name=f"{name}_1")(x_bd))
            return Dense(width, name=f"{name}_2")(hidden_bm)

        seen_bd = nn.softmax(two(both_bd, both_bd.shape[-1], "attention")) * both_bd
        said_bm = jnp.tanh(two(seen_bd, self.memory, "say"))
        with_memory_bd = jnp.concatenate([seen_bd, memory_bm], -1)
        keep_bm = nn.sigmoid(two(with_memory_bd, self.memory, "keep"))
        write_bm = nn.sigmoid(two(with_memory_bd, self.memory, "write"))
        any_b1 = jax.tree.reduce(lambda a, b: a | b, masks)[:, None]
        new_bm = keep_bm * memory_bm + write_bm * said_bm
        memory_bm = jnp.where(any_b1, new_bm, memory_bm)
        tops = [moved[name][1] for name in sorted(parts)]
        return (moved, memory_bm), jnp.concatenate([*tops, memory_bm], -1)


class Block(base.Base):
    """An LSTM of `width` a part, and a memory of `memory` that watches their cells.

    All series have one length. Steps where a part's mask is False leave its LSTM as it
    is; the answer of a row is that of the last step.
    """

    TAKES: ClassVar[str] = "aligned"

    width: int = 16
    memory: int = 16

    @nn.compact
    def __call__(
        self, parts: base.Arrays, masks: base.Arrays, wanted: base.Wanted
    ) -> base.Fused:
        rows = len(next(iter(parts.values())))
        zeros_bw = jnp.zeros((rows, self.width))
        cells = {name: (zeros_bw, zeros_bw) for name in parts}
        walk = nn.scan(
            Step,
            variable_broadcast="params",
            split_rngs={"params": False},
            in_axes=1,
            out_axes=1,
        )(self.width, self.memory, name="step")
        carry = cells, jnp.zeros((rows, self.memory))
        _, features_btw = walk(carry, (dict(parts), dict(masks)))
        return self.scored(
            features_btw if wanted.steps else features_btw[:, -1:], wanted
        )
