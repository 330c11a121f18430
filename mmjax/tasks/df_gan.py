"""DF-GAN: images from a sentence vector by two players (Tao et al. 2022).

The players take turns: at even steps the discriminator learns, at odd ones the
generator, against the discriminator as it is then. So does the paper, whose step is two
of ours; here the generator's turn has a batch of its own. Both gradients at the same
parameters would be cheaper, by a forward pass, but alternating steps converge where
simultaneous ones circle (Gidel et al. 2019, arXiv 1807.04740). `config.optim.groups`
has to say the same, or a player that pauses moves on by its optimizer's momentum:

    generator: match "^generator/", every 2, offset 1
    discriminator: match "^discriminator/", every 2, offset 0

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
from mmjax.errors import UserError
from mmjax.losses import adversarial as losses
from mmjax.models import presets
from mmjax.models.df_gan import DfGan
from mmjax.sampling import autoregressive
from mmjax.state import Ctx, Vars
from mmjax.tasks import base
from mmjax.tasks.base import Batch, Metrics, Predict, PyTree, pixels

PLAYERS = "generator", "discriminator"
# What only the discriminator's turn measures: `extra` keeps it for the other's.
_KEPT = ("loss", "penalty", "real_score", "real_accuracy", "mismatched_accuracy")


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
    """Fields are `config.task`; those of the networks as in `mmjax.models.df_gan.DfGan`.

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
            context = getattr(self.text, "context", 0)
            size = self.text.vocab_size
            base.check_text(spec, vocab_size=size, context=context, exact=False)
        elif len(names := spec["label"].get("class_names", ())) > self.classes:
            raise UserError(
                f"config.task.classes is {self.classes}, and the data have "
                f"{len(names)} classes: set it to {len(names)}"
            )

    def init(self, key: jax.Array, batch: Batch) -> Vars:
        """See mmjax.tasks.base.Task."""
        of_model, of_text = jax.random.split(key)
        frozen = {}
        if self.tower:
            text = batch["tokens"][:1], batch["tokens_mask"][:1]
            frozen["text"] = self.text.init(of_text, *text)["params"]
        extra = {"last": dict.fromkeys(_KEPT, jnp.zeros(()))}
        made = Vars(params={}, extra=extra, frozen=frozen)
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
        """The gradient of the player whose turn it is, and zeros for the other.

        Metrics: `loss`, the discriminator's, with `penalty`; `generator`, the other's;
        `real_accuracy`, `fake_accuracy` and `mismatched_accuracy`, shares of rows on
        the right side of 0; `balance`, half the distance of the mean scores of real
        and generated images: 0 where the generator wins, 1 and more where the
        discriminator does; `spread`, the standard deviation over rows of generated
        pixels, as a share of that of real ones: near 0 all images are one. What the
        generator's turn does not measure is as it was the turn before.
        """
        real_bss3 = 2.0 * pixels(batch) - 1.0
        e_bd = self._condition(variables, batch)
        wrong_bd = ctx.mine(jnp.roll(ctx.gather(e_bd), 1, axis=0))
        noise_bz = self._noise(len(e_bd), ctx)
        params = variables.params

        def moved(player: str, grads: PyTree) -> PyTree:
            zeros = {p: jax.tree.map(jnp.zeros_like, params[p]) for p in PLAYERS}
            return {**zeros, player: grads}

        def judges() -> tuple:
            made_bss3 = self._apply(params, "generate", noise_bz, e_bd)

            def loss(player: PyTree) -> tuple:
                whole = {**params, "discriminator": player}
                return self._judged(whole, real_bss3, made_bss3, e_bd, wrong_bd)

            grads, (last, fake_b) = jax.grad(loss, has_aux=True)(
                params["discriminator"]
            )
            return moved("discriminator", grads), last, fake_b, made_bss3

        def draws() -> tuple:
            def loss(player: PyTree) -> tuple:
                whole = {**params, "generator": player}
                made_bss3 = self._apply(whole, "generate", noise_bz, e_bd)
                features = self._apply(whole, "features", made_bss3)
                fake_b = self._apply(whole, "scores", features, e_bd)
                return losses.generator(fake_b), (fake_b, made_bss3)

            grads, (fake_b, made_bss3) = jax.grad(loss, has_aux=True)(
                params["generator"]
            )
            return moved("generator", grads), variables.extra["last"], fake_b, made_bss3

        turn = ctx.step % 2 == 0
        grads, last, fake_b, made_bss3 = jax.lax.cond(turn, judges, draws)
        metrics = last | {
            "generator": losses.generator(fake_b),
            "fake_accuracy": (fake_b < 0).mean(dtype=jnp.float32),
            "balance": 0.5 * (last["real_score"] - fake_b.mean()),
            "spread": _deviation(made_bss3, ctx) / _deviation(real_bss3, ctx),
        }
        del metrics["real_score"]
        return grads, {"last": last}, metrics

    def _judged(
        self,
        params: PyTree,
        real_bss3: jax.Array,
        made_bss3: jax.Array,
        e_bd: jax.Array,
        wrong_bd: jax.Array,
    ) -> tuple[jax.Array, tuple[Metrics, jax.Array]]:
        """The discriminator's loss (section 3.3), what it measured, scores of fakes."""

        def score(x_bss3: jax.Array, e_bd: jax.Array) -> tuple[jax.Array, jax.Array]:
            features = self._apply(params, "features", x_bss3)
            return self._apply(params, "scores", features, e_bd), features

        penalty, real_b, features = losses.matching_penalty(
            score, real_bss3, e_bd, weight=self.penalty, power=self.power
        )
        wrong_b = self._apply(params, "scores", features, wrong_bd)
        fake_b, _ = score(made_bss3, e_bd)
        # A row whose neighbour has the same text or label has no wrong one.
        differs_b = (wrong_bd != e_bd).any(-1)
        mismatched = losses.hinge_fake(jnp.where(differs_b, wrong_b, -1.0))
        fooled = 0.5 * (losses.hinge_fake(fake_b) + mismatched)
        loss = losses.hinge_real(real_b) + fooled + penalty
        last = {
            "loss": loss,
            "penalty": penalty,
            "real_score": real_b.mean(),
            "real_accuracy": (real_b > 0).mean(dtype=jnp.float32),
            "mismatched_accuracy": (wrong_b < 0).mean(dtype=jnp.float32),
        }
        return loss, (last, fake_b)

    def _sample(self, variables: Vars, batch: Batch, ctx: Ctx) -> Metrics:
        """See `predict`."""
        p, k = batch["candidate"].shape
        keys_b = autoregressive.row_keys(batch["seed"], batch["candidate"])
        draw = functools.partial(self.sampling.noise, size=self.noise)
        e_bd = jnp.repeat(self._condition(variables, batch), k, axis=0)
        x_bss3 = self._apply(variables.params, "generate", jax.vmap(draw)(keys_b), e_bd)
        image = jnp.round(127.5 * (x_bss3 + 1.0)).astype(jnp.uint8)
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


def _deviation(x_bss3: jax.Array, ctx: Ctx) -> jax.Array:
    """Root mean square over pixels of the standard deviation over all rows, ()."""
    mean, square = ctx.mean((x_bss3.mean(0), jnp.square(x_bss3).mean(0)))
    return jnp.sqrt(jnp.maximum((square - jnp.square(mean)).mean(), 1e-12))


def _distance(x_bss3: jax.Array, y_bss3: jax.Array) -> jax.Array:
    """Root mean square of the difference of images, (b,)."""
    return jnp.sqrt(jnp.square(x_bss3 - y_bss3).mean((1, 2, 3)))
