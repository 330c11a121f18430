"""DF-GAN: images from a sentence vector by two players (Tao et al. 2022).

Both players learn at every step, from one pass of the generator and at the same
parameters. The paper has the discriminator move first. So do groups of
`config.optim.groups` with `every` 2 and offsets 0 and 1, at twice the computation: the
gradient of the one that pauses is computed all the same, since XLA's CPU back-end
(jax 0.10) takes ten times as long over convolutions inside a `jax.lax.cond`.

Legend: b rows, s pixels a side, z numbers of noise, d of a condition, l tokens. While
sampling: p prompts, k candidates of each.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax import schema
from mmjax.losses import adversarial as losses
from mmjax.models import presets
from mmjax.models.df_gan import DfGan
from mmjax.sampling import candidates
from mmjax.state import Ctx, Vars
from mmjax.tasks import base
from mmjax.tasks.base import Batch, Metrics, Predict, PyTree, pixels


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How noise is drawn.

    truncation: normal numbers of at most this size alone (Brock et al. 2019, section
      3.1): less variety for better images; 0 is off.
    """

    truncation: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.truncation < math.inf:
            raise ValueError(
                f"truncation is {self.truncation}: use a positive number, or 0 for off"
            )

    def noise(self, key: jax.Array, size: int) -> jax.Array:
        """(z,)."""
        if not self.truncation:
            return jax.random.normal(key, (size,))
        most = self.truncation
        return jax.random.truncated_normal(key, -most, most, (size,))


@dataclasses.dataclass(frozen=True)
class Task:
    """Fields are `config.task`; the networks' are as in `mmjax.models.df_gan.DfGan`.

    tower: the text tower, as the `text` of a dual encoder (`mmjax.models.presets`);
      its weights are `frozen/text`, random until a CLIP's are put there. Its vector is
      brought to mean 0 and variance 1, so that no tower's scale weighs in the penalty.
    classes: labels that condition it, where there is no tower, as one-hot vectors.
    penalty, power: k and p of the matching-aware gradient penalty.
    sampling: see Sampling.
    """

    couples_rows = True  # an image's wrong text is that of the row before
    training_only = ("params/discriminator",)

    image_size: int
    width: int
    noise: int = 100
    base_blocks: int = 0
    patch: int = 1
    tower: dict = dataclasses.field(default_factory=dict)
    classes: int = 0
    penalty: float = 2.0
    power: float = 6.0
    sampling: Sampling = Sampling()

    def __post_init__(self) -> None:
        base.positive(self, "noise", "patch")
        schema.at_least(0, self, "penalty")
        schema.at_least(2, self, "power")
        if bool(self.tower) == bool(self.classes):
            raise ValueError(
                f"tower is {dict(self.tower)} and classes {self.classes}: give a "
                "tower, whose texts condition the images, or a number of classes"
            )
        _ = self.model.channels, self.text  # their numbers are checked here

    @property
    def reads(self) -> tuple[str, ...]:
        """See mmjax.tasks.base.Task."""
        return "image", "tokens" if self.tower else "label"

    @functools.cached_property
    def model(self) -> DfGan:
        """Both players' Linen module, a pure function of the fields."""
        names = {field.name for field in dataclasses.fields(DfGan)} - {"parent", "name"}
        return DfGan(**{key: getattr(self, key) for key in names})

    @functools.cached_property
    def text(self) -> nn.Module | None:
        """The text tower's Linen module."""
        return presets.text_tower(self.tower) if self.tower else None

    def check(self, spec: base.Spec) -> None:
        """See mmjax.tasks.base.Task."""
        base.check_image(spec, self.image_size, "image_size")
        if self.tower:
            base.check_tower(spec, self.text)
        else:
            base.check_classes(spec, self.classes)

    def init(self, key: jax.Array, batch: Batch) -> Vars:
        """See mmjax.tasks.base.Task."""
        of_model, of_text = jax.random.split(key)
        frozen = {}
        if self.tower:
            text = batch["tokens"][:1], batch["tokens_mask"][:1]
            frozen["text"] = self.text.init(of_text, *text)["params"]
        made = Vars(params={}, frozen=frozen)
        rows = {name: value[:1] for name, value in batch.items()}
        e_1d = self._condition(made, rows)
        params = self.model.init(of_model, jnp.zeros((1, self.noise)), e_1d)["params"]
        return made._replace(params=dict(params))

    def _condition(self, variables: Vars, batch: Batch) -> jax.Array:
        """(b, d)."""
        if self.classes:
            return jax.nn.one_hot(batch["label"], self.classes)
        params = {"params": variables.frozen["text"]}
        e_bd = self.text.apply(params, batch["tokens"], batch["tokens_mask"])
        return jax.nn.standardize(e_bd.astype(jnp.float32), axis=-1, epsilon=1e-12)

    def _apply(self, params: PyTree, method: str, *args: jax.Array) -> jax.Array:
        return self.model.apply({"params": params}, *args, method=method)

    def _noise(self, rows: int, ctx: Ctx) -> jax.Array:
        """(b, z)."""
        draw = functools.partial(Sampling().noise, size=self.noise)
        return jax.vmap(draw)(ctx.example_keys(rows))

    def grads(
        self, variables: Vars, batch: Batch, ctx: Ctx
    ) -> tuple[PyTree, PyTree, Metrics]:
        """Each player's gradient of its own loss.

        Metrics: `loss`, the discriminator's, with `penalty`; `generator`, the other's;
        `real_accuracy`, `fake_accuracy` and `mismatched_accuracy`, shares of rows on
        the right side of 0; `balance`, half the distance of the mean scores of real
        and generated images: 0 where the generator wins, 1 and more where the
        discriminator does; `spread`, the standard deviation over rows of generated
        pixels, as a share of that of real ones: near 0 all images are one.
        """
        real_bss3 = 2.0 * pixels(batch) - 1.0
        e_bd = self._condition(variables, batch)
        wrong_bd = ctx.mine(jnp.roll(ctx.gather(e_bd), 1, axis=0))
        noise_bz = self._noise(len(e_bd), ctx)
        params = variables.params

        def draw(player: PyTree) -> jax.Array:
            return self._apply({"generator": player}, "generate", noise_bz, e_bd)

        def judge(player: PyTree, x_bss3: jax.Array) -> jax.Array:
            return self._judge({"discriminator": player}, x_bss3, e_bd)[0]

        made_bss3, of_generator = jax.vjp(draw, params["generator"])
        fake_b, of_fake = jax.vjp(judge, params["discriminator"], made_bss3)
        generator, to_fake = jax.value_and_grad(losses.generator)(fake_b)
        fooled, from_fake = jax.value_and_grad(losses.hinge_fake)(fake_b)
        (real_loss, seen), at_real = jax.value_and_grad(self._real_loss, has_aux=True)(
            params["discriminator"], real_bss3, e_bd, wrong_bd
        )
        at_fake = of_fake(0.5 * from_fake)[0]
        grads = {
            "generator": of_generator(of_fake(to_fake)[1])[0],
            "discriminator": jax.tree.map(jnp.add, at_real, at_fake),
        }
        metrics = {
            "loss": real_loss + 0.5 * fooled,
            "generator": generator,
            "penalty": seen["penalty"],
            "real_accuracy": _share(seen["real"] > 0),
            "fake_accuracy": _share(fake_b < 0),
            "mismatched_accuracy": _share(seen["mismatched"] < 0),
            "balance": 0.5 * (seen["real"].mean() - fake_b.mean()),
            "spread": _deviation(made_bss3, ctx) / _deviation(real_bss3, ctx),
        }
        return grads, variables.extra, metrics

    def _judge(
        self, params: PyTree, x_bss3: jax.Array, e_bd: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """The discriminator's scores (b,) of images and texts, and its features."""
        features = self._apply(params, "features", x_bss3)
        return self._apply(params, "scores", features, e_bd), features

    def _real_loss(
        self,
        player: PyTree,
        real_bss3: jax.Array,
        e_bd: jax.Array,
        wrong_bd: jax.Array,
    ) -> tuple[jax.Array, Metrics]:
        """What the discriminator's loss has of real images (section 3.3)."""
        params = {"discriminator": player}
        penalty, real_b, features = losses.matching_penalty(
            functools.partial(self._judge, params),
            *(real_bss3, e_bd),
            weight=self.penalty,
            power=self.power,
        )
        wrong_b = self._apply(params, "scores", features, wrong_bd)
        # A row whose neighbour has the same text or label has no wrong one.
        differs_b = (wrong_bd != e_bd).any(-1)
        mismatched = losses.hinge_fake(jnp.where(differs_b, wrong_b, -1.0))
        loss = losses.hinge_real(real_b) + 0.5 * mismatched + penalty
        return loss, {"penalty": penalty, "real": real_b, "mismatched": wrong_b}

    def _sample(self, variables: Vars, batch: Batch, ctx: Ctx) -> Metrics:
        """See `predict`."""
        p, k = batch["candidate"].shape
        keys_b = candidates.row_keys(batch["seed"], batch["candidate"])
        draw = functools.partial(self.sampling.noise, size=self.noise)
        e_bd = jnp.repeat(self._condition(variables, batch), k, axis=0)
        x_bss3 = self._apply(variables.params, "generate", jax.vmap(draw)(keys_b), e_bd)
        image = base.eight_bit(0.5 * x_bss3 + 0.5)
        return {"image": image.reshape(p, k, *image.shape[1:])}

    def predict(self) -> Mapping[str, Predict]:
        """loss, sample.

        loss: of each row, (b,): `loss`, the discriminator's hinges without the penalty,
          `generator`, and the accuracies as in training; `diversity`, the distance of
          two images of the row's text, as a share of the mean distance of two real
          images of the batch, which have other texts: near 0 the noise does nothing.
        sample: {tokens (p, l) and tokens_mask, or label (p,), seed uint32 (p,),
          candidate int32 (p, k)} to {image uint8 (p, k, s, s, 3)}.
        """

        def loss(variables: Vars, batch: Batch, ctx: Ctx) -> Metrics:
            params, b = variables.params, len(batch["image"])
            real_bss3 = 2.0 * pixels(batch) - 1.0
            e_bd = self._condition(variables, batch)
            noise_nz = self._noise(2 * b, ctx)
            made_nss3 = self._apply(
                params, "generate", noise_nz, jnp.concatenate([e_bd, e_bd])
            )
            images = jnp.concatenate([real_bss3, made_nss3[:b]])
            features = self._apply(params, "features", images)
            wrong = features[:b], jnp.roll(e_bd, 1, axis=0)
            real_b, fake_b, wrong_b = (
                self._apply(params, "scores", *pair)
                for pair in ((features[:b], e_bd), (features[b:], e_bd), wrong)
            )
            fooled_b = 0.5 * (nn.relu(1.0 + fake_b) + nn.relu(1.0 + wrong_b))
            apart_b = _distance(made_nss3[:b], made_nss3[b:])
            real = _distance(real_bss3, jnp.roll(real_bss3, 1, axis=0)).mean()
            return {
                "loss": nn.relu(1.0 - real_b) + fooled_b,
                "generator": -fake_b,
                "real_accuracy": (real_b > 0).astype(jnp.float32),
                "fake_accuracy": (fake_b < 0).astype(jnp.float32),
                "mismatched_accuracy": (wrong_b < 0).astype(jnp.float32),
                "diversity": apart_b / jnp.maximum(real, 1e-12),
            }

        return {"loss": loss, "sample": self._sample}


def _share(true_b: jax.Array) -> jax.Array:
    """Of rows, ()."""
    return true_b.mean(dtype=jnp.float32)


def _deviation(x_bss3: jax.Array, ctx: Ctx) -> jax.Array:
    """Root mean square over pixels of the standard deviation over all rows, ()."""
    mean, square = ctx.mean((x_bss3.mean(0), jnp.square(x_bss3).mean(0)))
    return jnp.sqrt(jnp.maximum((square - jnp.square(mean)).mean(), 1e-12))


def _distance(x_bss3: jax.Array, y_bss3: jax.Array) -> jax.Array:
    """Root mean square of the difference of images, (b,)."""
    return jnp.sqrt(jnp.square(x_bss3 - y_bss3).mean((1, 2, 3)))
