"""Frozen networks whose features a perceptual loss compares, by name.

    network = build({"kind": "classifier", "classes": 10, "image_size": 64})
    stages = network.stages(variables, x_bhw3)

Legend: b images, h w pixels, g side of a stage's grid, c channels.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax import schema
from mmjax.errors import UserError
from mmjax.models import classifier
from mmjax.models.lpips import Lpips

Stages = dict[str, jax.Array]
_BLOCK = re.compile(r"(stage_\d+)_block_\d+")


@dataclasses.dataclass(frozen=True)
class FeatureNetwork:
    """A module and how its features are read.

    module: its variables are those of a trained run.
    stages: (variables, images float32 (b, h, w, 3) in [0, 1]) to features by stage,
      (b, g, g, c).
    weights: variables to the weights of the channels (c,) by stage; None: all weigh 1.
    """

    module: nn.Module
    stages: Callable[[Mapping, jax.Array], Stages]
    weights: Callable[[Mapping], Stages | None] = lambda variables: None


@dataclasses.dataclass(frozen=True)
class ClassifierSpec:
    """A trained classifier; all but `kind` are its `config.task`.

    image: the tower, of kind "conv" or "resnet"; its stages are compared, each by what
      its last block gives. mean, std: of pixels, as it was trained with.
    """

    classes: int
    image_size: int
    kind: str = "classifier"
    image: dict = dataclasses.field(default_factory=lambda: {"kind": "conv"})
    act: str = "gelu"
    dtype: str = "float32"
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.25, 0.25, 0.25)

    def network(self, where: str) -> FeatureNetwork:
        """See FeatureNetwork; UserError for a tower without stages."""
        kind = self.image["kind"] if "kind" in self.image else ""
        if kind not in ("conv", "resnet"):
            raise UserError(
                f"{where}.image.kind is {kind!r}, which has no stages to compare: use "
                "conv or resnet"
            )
        sizes = {"classes": self.classes, "image_size": self.image_size}
        module = classifier.build(self.image, **sizes, act=self.act, dtype=self.dtype)

        def stages(variables: Mapping, x_bhw3: jax.Array) -> Stages:
            x_bhw3 = (x_bhw3 - jnp.asarray(self.mean)) / jnp.asarray(self.std)
            return _last_blocks(module, variables, x_bhw3)

        return FeatureNetwork(module, stages)


@dataclasses.dataclass(frozen=True)
class LpipsSpec:
    """LPIPS (Zhang et al. 2018): weights by `mmjax convert`, or random ones.

    image_size: pixels a side. widths, depths: see `mmjax.models.lpips.Lpips`.
    """

    image_size: int
    kind: str = "lpips"
    widths: tuple[int, ...] = Lpips.widths
    depths: tuple[int, ...] = Lpips.depths
    dtype: str = "float32"

    def network(self, where: str) -> FeatureNetwork:
        """See FeatureNetwork; UserError for a side that cannot be halved so often."""
        factor = 2 ** (len(self.widths) - 1)
        if self.image_size % factor:
            raise UserError(
                f"{where}.image_size is {self.image_size}, and lpips halves it "
                f"{len(self.widths) - 1} times: use a multiple of {factor}"
            )
        module = Lpips(self.widths, self.depths, self.dtype)

        def weights(variables: Mapping) -> Stages:
            params, count = variables["params"], len(self.widths)
            return {f"stage_{k}": params[f"stage_{k}"] for k in range(count)}

        return FeatureNetwork(module, module.apply, weights)


KINDS = {"classifier": ClassifierSpec, "lpips": LpipsSpec}


def build(
    spec: Mapping[str, Any], where: str = "config.task.perceptual"
) -> FeatureNetwork:
    """The network of a spec: `kind`, and the keys that this kind knows."""
    kind = spec["kind"] if "kind" in spec else "classifier"
    if kind not in KINDS:
        raise UserError(f"{where}.kind is {kind!r}{schema.suggest(kind, KINDS)}")
    return schema.from_mapping(KINDS[kind], spec, where).network(where)


def _last_blocks(module: nn.Module, variables: Mapping, x_bhw3: jax.Array) -> Stages:
    """What the last block of every stage of a classifier's tower gives."""

    def block(inner: nn.Module, method: str) -> bool:
        return method == "__call__" and bool(_BLOCK.fullmatch(inner.name or ""))

    _, state = module.apply(
        variables,
        x_bhw3,
        method="features",
        capture_intermediates=block,
        mutable=["intermediates"],
    )
    blocks, stages = state["intermediates"]["tower"], {}
    for name in sorted(
        blocks, key=lambda name: [int(n) for n in name.split("_")[1::2]]
    ):
        stages[_BLOCK.fullmatch(name)[1]] = blocks[name]["__call__"][0]
    return stages
