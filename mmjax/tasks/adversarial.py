"""VQGAN's stage: any stage-1 task, with a discriminator and a perceptual loss.

Esser et al. 2021, section 3.1 (taming-transformers' VQLPIPSWithDiscriminator), and
Rombach et al. 2022, appendix G, for autoencoders with a KL term. Both players learn
from one forward pass of a step; the originals run a second one for the discriminator,
after the generator's update.
Legend: b rows, h w pixels.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax import schema
from mmjax.errors import UserError
from mmjax.losses import adversarial as losses
from mmjax.losses import perceptual as perceptual_losses
from mmjax.models import discriminator as discriminator_lib
from mmjax.models import feature_network
from mmjax.models.discriminator import PatchDiscriminator
from mmjax.state import Ctx, Vars
from mmjax.tasks import base, stage1
from mmjax.tasks.base import Batch, Metrics, Predict, PyTree, Spec, pixels

PLAYER, STATS, FEATURES = "discriminator", "discriminator_stats", "features"
LAST_LAYERS = "decoder/conv_out/kernel", "decoder/out/kernel"


class _Game(NamedTuple):
    """What the discriminator makes of a step's images."""

    generator: jax.Array  # the generator's loss, ()
    to_image: jax.Array  # its gradient at the generated images, (b, h, w, 3)
    discriminator: jax.Array  # the discriminator's loss, ()
    grads: PyTree  # its gradient
    stats: PyTree  # the new batch statistics
    real_accuracy: jax.Array  # share of the patches that are told rightly, ()
    fake_accuracy: jax.Array


@dataclasses.dataclass(frozen=True)
class Task:
    """Fields are `config.task`.

    Parameters are those of the stage-1 task, and `discriminator`, which
    `config.optim.groups` gives an optimizer of its own; extra variables are that
    task's, and `discriminator_stats`, the running averages of batch norms; frozen is
    `features`, the perceptual loss' network, random until a run's is put there.

    stage1: the task that it trains, as `config.task` names it: vqvae, dvae, gumbel_vq
      or autoencoder_kl. Its predict functions are this task's.
    discriminator: the fields of `mmjax.models.discriminator.Spec`.
    weight: of the generator's loss beside the adaptive weight, which makes its gradient
      at the last layer as long as that of the reconstruction; 0.8 in VQGAN, 0.5 in the
      latent-diffusion autoencoders.
    start: the step from which on the generator sees the discriminator.
    warmup: for so many steps before, the discriminator learns alone; 0 in the
      originals.
    perceptual: what `mmjax.models.feature_network.build` takes, and `weight`, 1 in the
      originals; {} is no perceptual loss.
    last_layer: path of the kernel of the generator's last layer; "" looks for it under
      the names that our decoders give it.
    alarm: the metric `unbalanced` is 1 where the discriminator tells a larger share of
      the patches rightly, real and generated alike, while the generator learns from it.
    """

    couples_rows = True  # by the adaptive weight, a quotient of sums over rows
    reads = ("image",)
    training_only = (f"params/{PLAYER}", STATS)

    stage1: dict
    discriminator: dict = dataclasses.field(default_factory=dict)
    weight: float = 0.8
    start: int = 0
    warmup: int = 0
    perceptual: dict = dataclasses.field(default_factory=dict)
    last_layer: str = ""
    alarm: float = 0.98

    def __post_init__(self) -> None:
        schema.at_least(0, self, "weight", "start", "warmup", "perceptual_weight")
        if self.warmup > self.start:
            raise ValueError(
                f"warmup is {self.warmup} and start {self.start}: the discriminator "
                "cannot learn before step 0; use at most start"
            )
        size, depth = self.model.image_size, self.player.spec.depth
        if self.player.spec.side(size) < 1:
            raise ValueError(
                f"discriminator.depth is {depth}, and images of {size} pixels are too "
                "small for it: use a smaller depth"
            )
        if self.network is not None:
            sees = self.perceptual["image_size"]
            if sees != size:
                raise ValueError(
                    f"perceptual.image_size is {sees}, and the images are of {size}: "
                    "use a classifier of that size"
                )

    @functools.cached_property
    def inner(self) -> stage1.Stage1:
        """The stage-1 task."""
        task = base.build(self.stage1, "config.task.stage1")
        if not isinstance(task, stage1.Stage1):
            raise UserError(
                f"config.task.stage1.name is {self.stage1['name']!r}, which rebuilds "
                "no images: use vqvae, dvae, gumbel_vq or autoencoder_kl"
            )
        return task

    @property
    def model(self) -> nn.Module:
        """The stage-1 task's Linen module."""
        return self.inner.model

    @functools.cached_property
    def player(self) -> PatchDiscriminator:
        """The discriminator's Linen module."""
        where = "config.task.discriminator"
        spec = schema.from_mapping(discriminator_lib.Spec, self.discriminator, where)
        return PatchDiscriminator(spec)

    @functools.cached_property
    def network(self) -> feature_network.FeatureNetwork | None:
        """The perceptual loss' network, where there is one."""
        if not self.perceptual:
            return None
        own = {k: self.perceptual[k] for k in self.perceptual if k != "weight"}
        return feature_network.build(own, "config.task.perceptual")

    @property
    def features(self) -> nn.Module | None:
        """Its Linen module."""
        return self.network and self.network.module

    @property
    def perceptual_weight(self) -> float:
        """Of the perceptual loss."""
        return self.perceptual["weight"] if "weight" in self.perceptual else 1.0

    def check(self, spec: Spec) -> None:
        """See Task."""
        try:
            self.inner.check(spec)
        except UserError as error:
            told = str(error).replace("config.task.", "config.task.stage1.")
            raise UserError(told) from None

    def init(self, key: jax.Array, batch: Batch) -> Vars:
        """See Task."""
        keys, x_bhw3 = jax.random.split(key, 3), pixels(batch)
        made = self.inner.init(keys[0], batch)
        player = base.split(self.player.init(keys[1], x_bhw3[:1]))
        frozen = dict(made.frozen)
        if self.features is not None:
            frozen[FEATURES] = dict(self.features.init(keys[2], x_bhw3[:1]))
        params, extra = {**made.params, PLAYER: player.params}, dict(made.extra)
        self._last(made.params)
        if player.extra:
            extra[STATS] = player.extra["batch_stats"]
        return Vars(params=params, extra=extra, frozen=frozen)

    def learned(self, variables: Vars) -> Vars:
        """The stage-1 task's own variables."""
        params, extra = dict(variables.params), dict(variables.extra)
        params.pop(PLAYER)
        extra.pop(STATS, None)
        return Vars(params=params, extra=extra)

    def grads(
        self, variables: Vars, batch: Batch, ctx: Ctx
    ) -> tuple[PyTree, PyTree, Metrics]:
        """The gradient of each player's own loss; see mmjax.tasks.base.Task.

        The generator's: the stage-1 task's loss + perceptual.weight perceptual
        + weight adaptive_weight adversarial, the last from step `start` on. The
        discriminator's: the mean of the hinge losses of real and generated images.

        Metrics beside the stage-1 task's: `perceptual`, unweighted; `adversarial`, the
        generator's loss; `discriminator`, the other's; `adaptive_weight`, 0 before
        `start`; `real_accuracy` and `fake_accuracy`, shares of patches that the
        discriminator puts on the right side of 0; `unbalanced`, see `alarm`.
        """
        if ctx.stride > 1:
            raise UserError(
                f"config.optim.accum is {ctx.stride}, and the adaptive weight needs "
                "all rows of a step at once: set it to 1"
            )
        held, x_bhw3 = self.learned(variables), pixels(batch)

        def forward(params: PyTree) -> tuple:
            whole = held._replace(params=params)
            out = self.inner.forward(whole, batch, ctx)
            share = self.inner.weigh(whole, jnp.ones(()))
            return (out.loss, out.reconstruction, share), (out.extra, out.metrics)

        outputs, pull, (extra, metrics) = jax.vjp(forward, held.params, has_aux=True)
        loss, y_bhw3, share = outputs
        perceived, to_image = self._perceived(variables, x_bhw3, y_bhw3)
        sees, game = ctx.step >= self.start, self._play(variables, x_bhw3, y_bhw3, ctx)

        def last(of_loss: jax.Array, of_image: jax.Array) -> jax.Array:
            """The gradient at the last layer, of all rows."""
            grads = pull((of_loss, of_image, jnp.zeros_like(share)))[0]
            return ctx.mean(self._last(grads))

        one = jnp.ones_like(loss)
        adaptive = losses.adaptive_weight(
            last(one, share * to_image), last(0 * one, game.to_image)
        )
        adaptive = jnp.where(sees, adaptive, 0.0)
        weight = self.weight * adaptive
        grads = pull((one, share * to_image + weight * game.to_image, perceived))[0]
        total = loss + share * perceived + weight * game.generator
        metrics |= {
            "loss": total,
            "adversarial": game.generator,
            "discriminator": game.discriminator,
            "adaptive_weight": adaptive,
            **self._balance(game, sees, ctx),
        }
        if self.features is not None and self.perceptual_weight:
            metrics["perceptual"] = perceived / self.perceptual_weight
        if STATS in variables.extra:
            extra = {**extra, STATS: game.stats}
        return {**grads, PLAYER: game.grads}, extra, metrics

    def _last(self, params: PyTree) -> jax.Array:
        """The kernel of the last layer, or its gradient."""
        for path in (self.last_layer,) if self.last_layer else LAST_LAYERS:
            leaf = params
            for key in path.split("/"):
                leaf = leaf[key] if isinstance(leaf, dict) and key in leaf else None
            if leaf is not None and not isinstance(leaf, dict):
                return leaf
        raise UserError(
            f"config.task.last_layer is {self.last_layer!r}: give the path of the "
            f"kernel of the generator's last layer, such as {LAST_LAYERS[0]}"
        )

    def _perceived(
        self, variables: Vars, x_bhw3: jax.Array, y_bhw3: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """The weighted perceptual loss, and its gradient at the generated images."""
        if self.network is None:
            return jnp.zeros(()), jnp.zeros_like(y_bhw3)
        frozen = variables.frozen[FEATURES]
        real = self.network.stages(frozen, x_bhw3)

        def distance(y_bhw3: jax.Array) -> jax.Array:
            generated = self.network.stages(frozen, y_bhw3)
            weights = self.network.weights(frozen)
            apart = perceptual_losses.distance(generated, real, weights)
            return self.perceptual_weight * apart

        return jax.value_and_grad(distance)(y_bhw3)

    def _play(
        self, variables: Vars, x_bhw3: jax.Array, y_bhw3: jax.Array, ctx: Ctx
    ) -> _Game:
        """Zeros until the discriminator learns: it computes nothing before."""
        params = variables.params[PLAYER]
        stats = variables.extra[STATS] if STATS in variables.extra else {}

        def scores(params: PyTree, stats: PyTree, image: jax.Array) -> tuple:
            full = {"params": params, **({"batch_stats": stats} if stats else {})}
            out, moved = self.player.apply(
                full, 2 * image - 1, train=True, axis=ctx.axis, mutable=["batch_stats"]
            )
            return out, moved["batch_stats"] if stats else {}

        def play() -> _Game:
            real, of_real, moved = jax.vjp(
                lambda params: scores(params, stats, x_bhw3), params, has_aux=True
            )
            fake, of_fake, moved = jax.vjp(
                lambda params, image: scores(params, moved, image),
                *(params, y_bhw3),
                has_aux=True,
            )
            hinge = [
                jax.value_and_grad(loss)(out)
                for loss, out in ((losses.hinge_real, real), (losses.hinge_fake, fake))
            ]
            generator, to_fake = jax.value_and_grad(losses.generator)(fake)
            grads = of_real(hinge[0][1])[0], of_fake(hinge[1][1])[0]
            return _Game(
                generator=generator,
                to_image=of_fake(to_fake)[1],
                discriminator=0.5 * (hinge[0][0] + hinge[1][0]),
                grads=jax.tree.map(lambda a, b: 0.5 * (a + b), *grads),
                stats=moved,
                real_accuracy=(real > 0).mean(dtype=jnp.float32),
                fake_accuracy=(fake < 0).mean(dtype=jnp.float32),
            )

        if self.start <= self.warmup:
            return play()
        none = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(play))
        none = none._replace(stats=stats)
        return jax.lax.cond(ctx.step >= self.start - self.warmup, play, lambda: none)

    def _balance(self, game: _Game, sees: jax.Array, ctx: Ctx) -> Metrics:
        told = ctx.mean(jnp.minimum(game.real_accuracy, game.fake_accuracy))
        return {
            "real_accuracy": game.real_accuracy,
            "fake_accuracy": game.fake_accuracy,
            "unbalanced": (sees & (told > self.alarm)).astype(jnp.float32),
        }

    def loss(
        self, variables: Vars, batch: Batch, ctx: Ctx
    ) -> tuple[jax.Array, tuple[PyTree, Metrics]]:
        """The stage-1 task's: what is left of the loss where nobody plays."""
        loss, (extra, metrics) = self.inner.loss(self.learned(variables), batch, ctx)
        kept = {k: v for k, v in variables.extra.items() if k == STATS}
        return loss, ({**extra, **kept}, metrics)

    def predict(self) -> dict[str, Predict]:
        """Those of the stage-1 task."""

        def of_inner(call: Predict) -> Callable[..., Any]:
            return lambda variables, *rest: call(self.learned(variables), *rest)

        return {name: of_inner(call) for name, call in self.inner.predict().items()}
