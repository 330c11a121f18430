"""What tasks share that train an image tokenizer or an autoencoder.

A task gives `look`, and `moved` where training moves more than parameters; the loss,
and all that may be predicted, follow from it.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax import schema
from mmjax.losses import quantize
from mmjax.models import image_tokenizer
from mmjax.state import Ctx, Vars
from mmjax.tasks.base import Predict, Spec, check_image, cosine, pixels, positive, split

PyTree = Any
Batch = Mapping[str, jax.Array]
Metrics = dict[str, jax.Array]


class Forward(NamedTuple):
    """What a stage-1 network makes of a batch, gradients included."""

    loss: jax.Array  # (), mean over the rows
    reconstruction: jax.Array  # float32 (b, h, w, 3), in [0, 1] but for clipping
    extra: PyTree  # the new `Vars.extra`
    metrics: Metrics


class Seen(NamedTuple):
    """What a slice of a batch gives: a `Forward` before anything moves."""

    loss: jax.Array  # (), mean over the rows
    reconstruction: jax.Array  # float32 (b, h, w, 3), in [0, 1] but for clipping
    means: Metrics  # over rows: `square` (see `square_error`), and what `moved` takes
    rows: PyTree  # arrays with the rows first
    metrics: Metrics


class Stage1:
    """A network that rebuilds images. Subclasses have `look` and the fields.

    SPEC: the field of `config.task` that says how the network is built.
    """

    couples_rows = False
    reads = ("image",)
    SPEC: ClassVar[str]
    model: nn.Module

    def check(self, spec: Spec) -> None:
        """See Task."""
        check_image(spec, self.model.image_size, f"{self.SPEC}.image_size")

    def init(self, key: jax.Array, batch: Batch) -> Vars:
        """See Task."""
        return split(self.model.init(key, pixels(batch)))

    def look(self, variables: Vars, batch: Batch, ctx: Ctx) -> Seen:
        """What uint8 images (b, h, w, 3) give, on this device."""
        raise NotImplementedError

    def moved(
        self, variables: Vars, means: Metrics, rows: PyTree, ctx: Ctx
    ) -> tuple[PyTree, Metrics]:
        """The new `extra` and metrics, from statistics of all rows of the step."""
        return variables.extra, {}

    def forward(self, variables: Vars, batch: Batch, ctx: Ctx) -> Forward:
        """The loss with all that it is made of, of uint8 images (b, h, w, 3)."""
        return self._settled(variables, self.look(variables, batch, ctx), ctx)

    def weigh(self, variables: Vars, error: jax.Array) -> jax.Array:
        """A loss of the image beside the task's own, as the task's enters `loss`."""
        return error

    def _settled(self, variables: Vars, seen: Seen, ctx: Ctx) -> Forward:
        extra, metrics = self.settle(variables, seen.means, seen.rows, ctx)
        metrics = seen.metrics | metrics
        return Forward(seen.loss, seen.reconstruction, extra, metrics)

    def prepare(self, variables: Vars, slices: PyTree, ctx: Ctx) -> tuple[Vars, PyTree]:
        """See Task."""
        return variables, slices

    def observe(self, variables: Vars, batch: Batch, ctx: Ctx) -> tuple:
        """See Task."""
        seen = self.look(variables, batch, ctx)
        return seen.loss, (seen.means, seen.rows), seen.metrics

    def settle(
        self, variables: Vars, means: Metrics, rows: PyTree, ctx: Ctx
    ) -> tuple[PyTree, Metrics]:
        """See Task; beside `psnr` the metrics are those of `usage` and `moved`."""
        means, rows = ctx.mean(means), ctx.gather(rows)
        metrics = {"psnr": quantize.psnr(means["square"]), **self.usage(means)}
        if not ctx.train:
            return variables.extra, metrics
        extra, more = self.moved(variables, means, rows, ctx)
        return extra, metrics | more

    def usage(self, means: Metrics) -> Metrics:
        """Metrics of how codes are used, where there are any."""
        return {}

    def loss(
        self, variables: Vars, batch: Batch, ctx: Ctx
    ) -> tuple[jax.Array, tuple[PyTree, Metrics]]:
        """See Task; the terms and the metrics are those of `forward`."""
        out = self.forward(variables, batch, ctx)
        return out.loss, (out.extra, out.metrics)

    def evaluate(self, variables: Vars, batch: Batch, ctx: Ctx) -> Metrics:
        """What predict "loss" gives: the loss beside the metrics."""
        loss, (_, metrics) = self.loss(variables, batch, ctx)
        return {"loss": loss, **metrics}

    def encode(self, variables: Vars, batch: Batch, ctx: Ctx) -> dict[str, jax.Array]:
        """{image} to codes, under the name that `decode` reads them by."""
        raise NotImplementedError

    def decode(self, variables: Vars, batch: Batch, ctx: Ctx) -> dict[str, jax.Array]:
        """Codes to {image}, float32 (b, h, w, 3) in [0, 1]."""
        raise NotImplementedError

    def reconstruct(
        self, variables: Vars, batch: Batch, ctx: Ctx
    ) -> dict[str, jax.Array]:
        """{image} to the image of its codes."""
        return self.decode(variables, self.encode(variables, batch, ctx), ctx)

    def predict(self) -> dict[str, Predict]:
        """loss, encode, decode, reconstruct."""
        return {
            "loss": self.evaluate,
            "encode": self.encode,
            "decode": self.decode,
            "reconstruct": self.reconstruct,
        }

    def _apply(self, variables: Vars, method: str, *args: jax.Array) -> Any:
        return self.model.apply(
            {"params": variables.params, **variables.extra}, *args, method=method
        )


class Tokenizer(Stage1):
    """A stage-1 network whose codes are tokens.

    tokenizer: what `mmjax.models.image_tokenizer.build` takes.
    """

    SPEC = "tokenizer"
    tokenizer: dict

    @functools.cached_property
    def model(self) -> nn.Module:
        """The Linen module, a pure function of the fields."""
        return image_tokenizer.build(self.tokenizer)

    def count(self, ids_bn: jax.Array, ctx: Ctx) -> Metrics:
        """Means for `usage`: uses of every code per image, and the step's tokens."""
        v, ids_m = self.model.vocab_size, ids_bn.reshape(-1)
        count_v = jax.ops.segment_sum(jnp.ones_like(ids_m, jnp.float32), ids_m, v)
        tokens = ctx.gather(ids_bn).size * ctx.stride
        return {"count": count_v / len(ids_bn), "tokens": jnp.float32(tokens)}

    def usage(self, means: Metrics) -> Metrics:
        """How well the codes are used; see `losses.quantize`."""
        count_v = means["count"]
        used = quantize.used(count_v)
        metrics = {"used": used, "perplexity": quantize.perplexity(count_v)}
        if hasattr(self, "alarm"):
            sizes = means["tokens"], self.model.vocab_size
            metrics["collapsed"] = collapsed(used, *sizes, alarm=self.alarm)
        return metrics

    def _require(self, kind: type[nn.Module], name: str) -> None:
        """Raises ValueError for a tokenizer that another task trains."""
        if not isinstance(self.model, kind):
            raise ValueError(
                f"tokenizer.kind is {self.tokenizer['kind']!r}: this task trains "
                f"{name!r}; name the task of that kind in config.task.name"
            )

    def encode(self, variables: Vars, batch: Batch, ctx: Ctx) -> dict[str, jax.Array]:
        """{image} to {image_tokens}, int32 (b, n)."""
        ids_bn = self._apply(variables, "encode_tokens", pixels(batch))
        return {"image_tokens": ids_bn}

    def decode(self, variables: Vars, batch: Batch, ctx: Ctx) -> dict[str, jax.Array]:
        """{image_tokens} to {image}."""
        return {"image": self._apply(variables, "decode_tokens", batch["image_tokens"])}

    def reconstruct(
        self, variables: Vars, batch: Batch, ctx: Ctx
    ) -> dict[str, jax.Array]:
        """{image} to the image of its tokens, the tokens and how many codes there are.

        `vocab_size` is a scalar, by which an evaluator counts the codes in use.
        """
        tokens = self.encode(variables, batch, ctx)
        codes = jnp.asarray(self.model.vocab_size, jnp.int32)
        return self.decode(variables, tokens, ctx) | tokens | {"vocab_size": codes}


@dataclasses.dataclass(frozen=True)
class Relaxed(Tokenizer):
    """A tokenizer whose codes are relaxed by Gumbel noise while it learns.

    temperature_start, temperature, temperature_steps: of the relaxation, which falls
      along a cosine, and is `temperature` from that step on.
    """

    tokenizer: dict
    temperature_start: float = 1.0
    temperature: float = 1 / 16
    temperature_steps: int = 150_000

    def __post_init__(self) -> None:
        positive(self, "temperature_start", "temperature")
        schema.at_least(0, self, "kl_weight", "temperature_steps")

    def _temperature(self, step: jax.Array) -> jax.Array:
        return cosine(
            step, self.temperature_start, self.temperature, self.temperature_steps
        )


def pixel_error(loss_name: str) -> Callable[[jax.Array], jax.Array]:
    """The function of a difference that "l1" or "l2" names; ValueError for others."""
    errors = {"l1": jnp.abs, "l2": jnp.square}
    if loss_name not in errors:
        raise ValueError(f"loss_name is {loss_name!r}: use l1 or l2")
    return errors[loss_name]


def collapsed(
    used: jax.Array, tokens: jax.Array | int, codes: int, *, alarm: float
) -> jax.Array:
    """1.0 where tokens use less than the share `alarm` of the codes they could."""
    could = jnp.minimum(tokens, codes) / codes
    return (used < alarm * could).astype(jnp.float32)


def square_error(shown_bhw3: jax.Array, x_bhw3: jax.Array) -> jax.Array:
    """Mean square of images in [0, 1] off the batch's; no gradient."""
    return jnp.square(jax.lax.stop_gradient(shown_bhw3) - x_bhw3).mean()


def variance(variables: Vars, square: jax.Array, ctx: Ctx, *, decay: float) -> PyTree:
    """The collection `likelihood`: moving average of the squared error of a pixel."""
    old = variables.extra["likelihood"]["variance"]
    new = jnp.where(ctx.step == 0, square, old + (1 - decay) * (square - old))
    return {"variance": jnp.maximum(new, 1e-6)}
