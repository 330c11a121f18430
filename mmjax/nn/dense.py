"""Linear maps with plain 2-D kernels and torch's default initialisation."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.nn.init import Initializer, torch_default


class Dense(nn.Module):
    """`x @ kernel + bias`, kernel (in, features) in float32, computed in `dtype`.

    Kernels are 2-D whatever the use, so that one table of path rules can shard them.
    `kernel_init` and `bias_init` default to torch's U(+-in^-1/2). `out_dtype` is that
    of the sums and of the result where it is not `dtype`: "float32" for logits.
    """

    features: int
    use_bias: bool = True
    kernel_init: Initializer | None = None
    bias_init: Initializer | None = None
    dtype: str = "float32"
    out_dtype: str | None = None

    @nn.compact
    def weights(self, width: int) -> tuple[jax.Array, jax.Array | None]:
        """(kernel, bias or None) in `dtype`, for callers that use parts of them."""
        init = torch_default(width)
        kernel = self.param(
            "kernel", self.kernel_init or init, (width, self.features), jnp.float32
        ).astype(self.dtype)
        if not self.use_bias:
            return kernel, None
        bias = self.param(
            "bias", self.bias_init or init, (self.features,), jnp.float32
        ).astype(self.dtype)
        return kernel, bias

    def __call__(self, x: jax.Array) -> jax.Array:
        kernel, bias = self.weights(x.shape[-1])
        # Rows in one axis: of a gradient that contracts several axes, XLA's CPU
        # back-end writes a transposed copy first (a sixth of a ResNet's step).
        rows = x.astype(self.dtype).reshape(-1, x.shape[-1])
        y = jnp.matmul(rows, kernel, preferred_element_type=self.out_dtype)
        y = y if bias is None else y + bias
        return y.reshape(*x.shape[:-1], self.features)
