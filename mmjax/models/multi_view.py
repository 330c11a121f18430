"""An encoder for every view of a record, and decoders back to the views.

Legend: b rows, d columns of a view, k columns of its code.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax import schema
from mmjax.errors import UserError
from mmjax.models import presets
from mmjax.nn.activation import activation
from mmjax.nn.dense import Dense

_GLOROT = nn.initializers.glorot_uniform()


class Mlp(nn.Module):
    """Dense layers `hidden`, then one of `features`; rows of any shape are flattened.

    act: of the hidden layers; out_act: of the last, "" for none.
    """

    features: int
    hidden: tuple[int, ...] = (1024, 1024, 1024)
    act: str = "sigmoid"
    out_act: str = ""

    def setup(self) -> None:
        zero = nn.initializers.zeros
        self.layers = [
            Dense(width, kernel_init=_GLOROT, bias_init=zero)
            for width in (*self.hidden, self.features)
        ]
        acts = [activation(self.act)] * len(self.hidden)
        self.acts = [*acts, activation(self.out_act) if self.out_act else lambda x: x]

    def __call__(self, x: jax.Array) -> jax.Array:
        """(b, features) float32."""
        x = x.reshape(len(x), -1)
        for layer, act in zip(self.layers, self.acts, strict=True):
            x = act(layer(x))
        return x


class Conv(nn.Module):
    """A tower of images, then a dense map to `features`.

    shape: (height, width, channels), into which rows are put; () takes images.
    """

    tower: nn.Module
    features: int
    shape: tuple[int, ...] = ()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(b, features) float32."""
        x = x.reshape(-1, *self.shape) if self.shape else x
        return Dense(self.features, kernel_init=_GLOROT, name="head")(self.tower(x))


def encoder(given: Mapping[str, Any], features: int, where: str) -> nn.Module:
    """The encoder of a mapping with `kind` and the kind's own fields.

    given: `kind` "mlp" and fields of `Mlp`; or "conv", "resnet" or "vit", fields of
      that tower, and `shape` for views that are vectors.
    """
    given = dict(given)
    kind = given.pop("kind", "mlp")
    if kind == "mlp":
        legal = ("hidden", "act", "out_act")
        for key in given:
            if key not in legal:
                raise UserError(
                    f"{where} has no key {key!r}{schema.suggest(key, legal)}"
                )
        given["hidden"] = tuple(given.get("hidden", Mlp.hidden))
        return Mlp(features, **given)
    shape = tuple(given.pop("shape", ()))
    size = given.pop("image_size", shape[0] if shape else 32)
    act = given.pop("act", "gelu")
    tower = presets.image_tower(
        {"kind": kind, **given}, act=act, dtype="float32", image_size=size
    )
    return Conv(tower, features, shape)


def encoders(
    views: Sequence[str],
    shared: Mapping[str, Any],
    own: Mapping[str, Mapping[str, Any]],
    features: int,
) -> dict[str, nn.Module]:
    """The encoder of every view, of the keys that all share and the view's own.

    A view whose own `kind` is another shares none.
    """
    made = {}
    for view in views:
        given, kind = own.get(view, {}), shared.get("kind", "mlp")
        if given.get("kind", kind) == kind:
            given = {**shared, **given}
        made[view] = encoder(given, features, f"config.task.encoder of {view}")
    return made


def numbers(batch: Mapping[str, jax.Array], views: Sequence[str]) -> dict:
    """The views of a batch as float32 by name; images in [0, 1]."""
    rows = {view: batch[view] for view in views}
    return {
        view: x.astype(jnp.float32) / (255.0 if x.dtype == jnp.uint8 else 1.0)
        for view, x in rows.items()
    }


def whole(batch: Mapping[str, jax.Array], views: Sequence[str], who: str) -> dict:
    """`numbers` of views that every record must have.

    Raises:
      UserError: a view is optional, for which `who` has no rule.
    """
    for view in views:
        if f"{view}_present" in batch:
            raise UserError(
                f"config.data.fields.{view} is optional, and {who} has no rule for "
                "records without it: set optional to False, with a source of records "
                "that have all views"
            )
    return numbers(batch, views)


def flat(rows: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """Every view's rows as vectors, (b, d)."""
    return {view: x.reshape(len(x), -1) for view, x in rows.items()}


def check_views(
    spec: Mapping[str, Mapping[str, Any]],
    views: Sequence[str],
    modules: Mapping[str, nn.Module],
) -> None:
    """Raises UserError where a field is no view, or does not fit its encoder."""
    for view in views:
        dtype, shape = spec[view]["dtype"], tuple(spec[view]["shape"])
        if dtype not in ("float32", "uint8") or not shape:
            raise UserError(
                f"config.data.fields.{view} is {dtype} {shape}, of kind "
                f"{spec[view]['kind']!r}: a view is numbers or an image; use kind "
                "vector, words, pixels, latents or image"
            )
        module = modules.get(view)
        if isinstance(module, Conv) and not module.shape and len(shape) != 3:
            raise UserError(
                f"config.data.fields.{view} is {shape}, and its encoder takes images: "
                "set config.task.encoders to a shape (h, w, c) for it"
            )


class MultiView(nn.Module):
    """Parameters: `encoders_VIEW/...`, and `decoder_VIEW/...` of views in `decoded`.

    decoded: view -> hidden widths of its decoder. A view without an encoder is decoded
      from the code of the first view (SplitAE of Wang et al. 2015).
    """

    encoders: Mapping[str, nn.Module]
    decoded: Mapping[str, tuple[int, ...]]
    act: str = "sigmoid"

    def encode(self, views: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        """Codes (b, k) of every view that has an encoder."""
        return {view: encoder(views[view]) for view, encoder in self.encoders.items()}

    @nn.compact
    def __call__(
        self, views: Mapping[str, jax.Array]
    ) -> tuple[dict[str, jax.Array], jax.Array]:
        """Codes, and every row's squared error (b,), summed over `decoded`."""
        codes = self.encode(views)
        first = next(iter(codes.values()))
        error_b = jnp.zeros(len(first))
        for view, hidden in self.decoded.items():
            x_bd = views[view].reshape(len(first), -1)
            decode = Mlp(x_bd.shape[1], hidden, self.act, name=f"decoder_{view}")
            error_b += jnp.square(decode(codes.get(view, first)) - x_bd).sum(-1)
        return codes, error_b

    @nn.compact
    def denoise(
        self, views: Mapping[str, jax.Array], keys_b: jax.Array, noise: float
    ) -> tuple[dict[str, jax.Array], jax.Array]:
        """As `__call__`, of denoising autoencoders, one a layer, with tied weights.

        Each restores its clean input from one with noise of standard deviation `noise`
        (Andrew et al. 2013, section 3), and no gradient goes to the layer below: all
        layers learn side by side. Errors are means over columns. Parameters:
        `back_VIEW_LAYER`, biases.
        """
        codes, error_b = {}, jnp.zeros(len(keys_b))
        for number, (view, mlp) in enumerate(self.encoders.items()):
            x_bd = views[view].reshape(len(keys_b), -1)
            keys_b = jax.vmap(lambda k, i=number: jax.random.fold_in(k, i))(keys_b)
            for i, (layer, act) in enumerate(zip(mlp.layers, mlp.acts, strict=True)):
                x_bd, width = jax.lax.stop_gradient(x_bd), x_bd.shape[1]
                kernel, bias = layer.weights(width)
                noise_bd = jax.vmap(
                    lambda k, i=i, d=width: jax.random.normal(
                        jax.random.fold_in(k, i), (d,)
                    )
                )(keys_b)
                code_bk = act((x_bd + noise * noise_bd) @ kernel + bias)
                back = self.param(f"back_{view}_{i}", nn.initializers.zeros, (width,))
                error_b += jnp.square(code_bk @ kernel.T + back - x_bd).mean(-1)
                x_bd = act(x_bd @ kernel + bias)
            codes[view] = x_bd
        return codes, error_b
