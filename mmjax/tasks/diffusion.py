"""Diffusion models of pixels, and of an autoencoder's latents (Rombach et al. 2022).

Legend: b rows, g side of what is noised and c its channels, l tokens. While sampling:
p prompts, k candidates of each, b = p*k.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax import schema
from mmjax.errors import UserError
from mmjax.losses import diffusion as losses
from mmjax.models import autoencoder_kl, denoiser, presets
from mmjax.models.denoiser import Condition, Conditioned
from mmjax.sampling import candidates, noise, solvers
from mmjax.sampling import diffusion as sampling_lib
from mmjax.sampling.diffusion import Sampling
from mmjax.sampling.noise import Schedule
from mmjax.state import Ctx, Vars
from mmjax.tasks import base
from mmjax.tasks.base import pixels

PyTree = Any
Metrics = dict[str, jax.Array]
Batch = Mapping[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Task:
    """Fields are `config.task`.

    net: the denoiser, as `mmjax.models.denoiser.build` takes it.
    stage1: the autoencoder whose latents are noised, as
      `mmjax.models.autoencoder_kl.build` takes it; empty for pixels. Its weights are
      `frozen/autoencoder`, random until another run's are put there.
    image_size: pixels a side; 0 is stage1's.
    tower: the text tower, as the `text` of a dual encoder (`mmjax.models.presets`);
      empty for none. Its weights are `frozen/text`, such as a CLIP's, unless
      `train_tower`.
    classes: labels that condition it, where there is no tower; 0 is none.
    read_padding, end_padding, pooled: see `mmjax.models.denoiser.Conditioned`.
    prediction: what the net gives: "eps", "v", "x0" or "flow"; see
      `mmjax.sampling.noise.TARGETS`.
    schedule: see `mmjax.sampling.noise.Schedule`.
    times, times_mean: of training, see `mmjax.losses.diffusion.time`; a "logit_normal"
      mean above 0 trains more on noise.
    weighting, gamma: of the square error, see `mmjax.losses.diffusion.weight`.
    offset_noise: share of noise that is one number a channel (Guttenberg 2023).
    caption_dropout: share of training rows that lose text or label, for guidance.
    sampling: see `mmjax.sampling.diffusion.Sampling`.
    """

    couples_rows = False

    net: dict
    stage1: dict = dataclasses.field(default_factory=dict)
    image_size: int = 0
    tower: dict = dataclasses.field(default_factory=dict)
    train_tower: bool = False
    classes: int = 0
    read_padding: bool = False
    end_padding: bool = False
    pooled: bool = False
    prediction: str = "eps"
    schedule: Schedule = Schedule()
    times: str = "uniform"
    times_mean: float = 0.0
    weighting: str = "none"
    gamma: float = 5.0
    offset_noise: float = 0.0
    caption_dropout: float = 0.1
    sampling: Sampling = Sampling()

    def __post_init__(self) -> None:
        names = dict(prediction=noise.TARGETS, weighting=losses.WEIGHTS)
        names["times"] = losses.TIMES
        for key, legal in names.items():
            if (value := getattr(self, key)) not in legal:
                raise ValueError(f"{key} is {value!r}{schema.suggest(value, legal)}")
        if not 0 <= self.caption_dropout <= 1:
            raise ValueError(f"caption_dropout is {self.caption_dropout}: use 0 to 1")
        schema.at_least(0, self, "gamma", "offset_noise")
        size = self.autoencoder.image_size if self.stage1 else self.image_size
        if not size or self.image_size not in (0, size):
            raise ValueError(
                f"image_size is {self.image_size}, and stage1 has {size or 'none'}: "
                "set image_size to that of the images, or to 0 for whatever stage1 has"
            )
        if self.tower and self.classes:
            raise ValueError(
                f"classes is {self.classes}, and there is a tower: a model reads "
                "texts or labels; set classes to 0, or leave out the tower"
            )
        if self.times_mean and self.times != "logit_normal":
            raise ValueError(
                f"times_mean is {self.times_mean} and times {self.times!r}: set times "
                "to 'logit_normal', or times_mean to 0"
            )
        if self.prediction == "eps" and self.schedule.ends_in_noise:
            raise ValueError(
                f"prediction is 'eps', and the schedule ({self.schedule.kind}) ends in "
                "noise alone, where eps says nothing of the data: use v, x0 or flow"
            )
        conditional = bool(self.tower or self.classes)
        if self.sampling.guided and not (self.caption_dropout and conditional):
            why = "without caption_dropout" if conditional else "with no prompts"
            raise UserError(
                f"sampling.guidance is {self.sampling.guidance}, and the model was "
                f"trained {why}: set guidance to 1, or train with caption_dropout=0.1"
            )
        _ = self.levels, self.model  # their numbers are checked here

    @property
    def reads(self) -> tuple[str, ...]:
        """See mmjax.tasks.base.Task."""
        rows = "image|latent" if self.stage1 else "image"
        condition = ("tokens",) * bool(self.tower) + ("label",) * bool(self.classes)
        return (rows, *condition)

    @functools.cached_property
    def autoencoder(self) -> autoencoder_kl.AutoencoderKl:
        """Stage 1's Linen module."""
        return autoencoder_kl.build(self.stage1, "config.task.stage1")

    @functools.cached_property
    def model(self) -> Conditioned:
        """The net with its text tower, a pure function of the fields."""
        g, c = self._shape[1:]
        names = "classes", "read_padding", "end_padding", "pooled"
        return Conditioned(
            net=denoiser.build(self.net, grid=g, channels=c),
            text=presets.text_tower(self.tower) if self.tower else None,
            **{name: getattr(self, name) for name in names},
        )

    @property
    def text(self) -> nn.Module | None:
        """The text tower's Linen module."""
        return self.model.text

    @property
    def _shape(self) -> tuple[int, int, int]:
        """Of a row that is noised."""
        if self.stage1:
            g = self.autoencoder.grid
            return g, g, self.autoencoder.code_dim
        return self.image_size, self.image_size, 3

    @functools.cached_property
    def levels(self) -> solvers.Levels:
        """Where the sampler stops; see mmjax.sampling.solvers."""
        return sampling_lib.levels(self.schedule, self.sampling)

    def check(self, spec: base.Spec) -> None:
        """See mmjax.tasks.base.Task."""
        key, size = "image_size", self.image_size
        if self.stage1:
            key, size = "stage1.image_size", self.autoencoder.image_size
        base.check_image(spec, size, key)
        if "latent" in spec and spec["latent"]["shape"] not in ((0,), self._shape):
            raise UserError(
                f"config.data.fields.latent has the shape {spec['latent']['shape']}, "
                f"and stage1 makes latents of {self._shape}: name the latents of this "
                "autoencoder, or set config.task.stage1 to theirs"
            )
        if self.tower:
            base.check_tower(spec, self.text)
        if self.classes:
            base.check_classes(spec, self.classes)

    def init(self, key: jax.Array, batch: Batch) -> Vars:
        """See mmjax.tasks.base.Task."""
        of_model, of_stage1 = jax.random.split(key)
        text = (batch["tokens"][:1], batch["tokens_mask"][:1]) if self.tower else None
        label = batch["label"][:1] if self.classes else None
        x, t = jnp.zeros((1, *self._shape)), jnp.zeros(1)
        made = self.model.init(of_model, x, t, text, label, method="all_of")
        params, frozen = dict(made["params"]), {}
        if self.tower and not self.train_tower:
            frozen["text"] = params.pop("text")
        if self.stage1:
            side = self.autoencoder.image_size
            stage1 = self.autoencoder.init(of_stage1, jnp.zeros((1, side, side, 3)))
            frozen["autoencoder"] = dict(stage1)
        return Vars(params=params, frozen=frozen)

    def _apply(self, variables: Vars, method: str, *args: Any, dtype: str = "") -> Any:
        params, model = dict(variables.params), self.model
        if "text" in variables.frozen:
            params["text"] = variables.frozen["text"]
        if dtype and dtype != model.net.dtype:
            model = model.clone(net=model.net.clone(dtype=dtype))
        return model.apply({"params": params}, *args, method=method)

    def _stage1(self, variables: Vars, method: str, x: jax.Array) -> Any:
        return self.autoencoder.apply(variables.frozen["autoencoder"], x, method=method)

    def _rows(self, variables: Vars, batch: Batch) -> jax.Array:
        """What is noised, (b, g, g, c): means of latents, or pixels in [-1, 1]."""
        if "latent" in batch:
            return batch["latent"]
        if not self.stage1:
            return 2.0 * pixels(batch) - 1.0
        mean, _ = self._stage1(variables, "moments", pixels(batch))
        return self._stage1(variables, "scaled", mean)

    def _image(self, variables: Vars, x_bggc: jax.Array) -> jax.Array:
        """Images of what was noised, uint8 (b, s, s, 3)."""
        if self.stage1:
            z_bggd = self._stage1(variables, "unscaled", x_bggc)
            x_bggc = self._stage1(variables, "decode", z_bggd)
        return base.eight_bit(0.5 * x_bggc + 0.5)

    def _condition(
        self, variables: Vars, batch: Batch, dropped_b: jax.Array | bool = False
    ) -> Condition:
        """Of a batch's rows, those that are dropped without text or label."""
        if self.classes:
            label_b = jnp.where(dropped_b, self.classes, batch["label"])
            return self._apply(variables, "of_label", label_b)
        if not self.tower:
            return Condition()
        text = batch["tokens"], batch["tokens_mask"]
        dropped_b1 = jnp.broadcast_to(dropped_b, len(text[0]))[:, None]
        pairs = zip(denoiser.empty_text(*text), text, strict=True)
        text = (jnp.where(dropped_b1, empty, full) for empty, full in pairs)
        return self._apply(variables, "of_text", *text)

    def loss(
        self, variables: Vars, batch: Batch, ctx: Ctx
    ) -> tuple[jax.Array, tuple[PyTree, Metrics]]:
        """Weighted square error of what the net predicts of rows, noised at random.

        Metrics: `square_error`, without weights; `x0_error`, of the data it implies.
        """
        x_0 = self._rows(variables, batch)
        b, c, form = len(x_0), x_0.shape[-1], self.prediction

        def draws(key: jax.Array) -> tuple[jax.Array, ...]:
            at, of_noise, of_channel, drop = jax.random.split(key, 4)
            time = losses.time(at, self.times, self.times_mean, self.schedule.steps)
            eps = jax.random.normal(of_noise, x_0.shape[1:])
            if self.offset_noise:
                eps += self.offset_noise * jax.random.normal(of_channel, (c,))
            return time, eps, jax.random.bernoulli(drop, self.caption_dropout)

        time_b, eps, dropped_b = jax.vmap(draws)(ctx.example_keys(b))
        alpha_b, sigma_b = self.schedule.levels(time_b)
        alpha, sigma = (x[:, None, None, None] for x in (alpha_b, sigma_b))
        x_t = noise.noised(x_0, eps, alpha, sigma)
        condition = self._condition(variables, batch, dropped_b & ctx.train)
        given = self._apply(variables, "__call__", x_t, time_b, condition)
        target = noise.TARGETS[form](x_0, eps, alpha, sigma)
        error_b = losses.square_error(given, target)
        weight_b = losses.weight(
            self.weighting, form, alpha_b, sigma_b, gamma=self.gamma
        )
        x0_b = error_b / losses.x0_error_in_form(form, alpha_b, sigma_b)
        metrics = {"square_error": error_b.mean(), "x0_error": x0_b.mean()}
        return (weight_b * error_b).mean(), (variables.extra, metrics)

    def _denoiser(self, variables: Vars, batch: Batch, k: int) -> solvers.Denoise:
        """The estimates (x_0, eps) of k rows for each prompt, guided."""
        options = self.sampling
        conditions = [self._condition(variables, batch)]
        if options.guided:
            if "negative_tokens" in batch:
                keys = ("tokens", "tokens_mask")
                negative = {key: batch[f"negative_{key}"] for key in keys}
                conditions += [self._condition(variables, negative)]
            else:
                conditions += [self._condition(variables, batch, dropped_b=True)]
        condition = jax.tree.map(
            lambda *parts: jnp.repeat(jnp.concatenate(parts), k, axis=0), *conditions
        )
        table = [jnp.asarray(x, jnp.float32) for x in self.levels]

        def denoise(x: jax.Array, i: jax.Array) -> tuple[jax.Array, jax.Array]:
            time, alpha, sigma = (column[i] for column in table)
            rows = jnp.concatenate([x] * len(conditions))
            times = jnp.full(len(rows), time)
            given = self._apply(
                variables, "__call__", rows, times, condition, dtype=options.dtype
            )
            if options.guided:
                given, without = jnp.split(given, 2)
                given = candidates.guide(given, without, options.guidance)
            x_0, eps = noise.estimates(self.prediction, given, x, alpha, sigma)
            if options.clip:
                x_0 = jnp.clip(x_0, -options.clip, options.clip)
                eps = (x - alpha * x_0) / sigma
            return x_0, eps

        return denoise

    def _sample(
        self, variables: Vars, batch: Batch, ctx: Ctx, known: tuple | None = None
    ) -> dict[str, jax.Array]:
        """See `predict`; known: rows (p, g, g, c) and mask that keep what is given."""
        options, (p, k) = self.sampling, batch["candidate"].shape
        keys_b = candidates.row_keys(batch["seed"], batch["candidate"])

        def normal(number: jax.Array | int) -> jax.Array:
            keys = jax.vmap(jax.random.fold_in, (0, None))(keys_b, number)
            return jax.vmap(lambda key: jax.random.normal(key, self._shape))(keys)

        eps = normal(0)
        if "noise" in batch:
            eps = batch["noise"].reshape(eps.shape)
        levels = sampling_lib.last(self.levels, options.strength)
        skipped = len(self.levels.time) - len(levels.time)
        alpha_m, sigma_m = (jnp.asarray(x, jnp.float32) for x in levels[1:])
        # Data of unit variance and no mean, which is all that is known of them here.
        x = jnp.hypot(alpha_m[0], sigma_m[0]) * eps
        if "image" in batch and known is None:
            start = self._rows(variables, {"image": batch["image"]})
            start = jnp.repeat(start, k, axis=0)
            x = noise.noised(start, eps, alpha_m[0], sigma_m[0])
        elif skipped:
            raise UserError(
                f"sampling.strength is {options.strength}, a share of the way from a "
                "whole image, and none is given: name one, or set strength to 1"
            )

        def after(x: jax.Array, i: jax.Array) -> jax.Array:
            if known is None:
                return x
            rows, mask = (jnp.repeat(part, k, axis=0) for part in known)
            return jnp.where(mask, alpha_m[i] * rows + sigma_m[i] * eps, x)

        denoise = self._denoiser(variables, batch, k)
        x = solvers.solve(
            options.sampler,
            lambda x, i: denoise(x, i + skipped),
            after(x, jnp.int32(0)),
            levels,
            noise=lambda i: normal(i + 1),
            after=after,
            eta=options.eta,
        )
        image = self._image(variables, x)
        return {"image": image.reshape(p, k, *image.shape[1:])}

    def _complete(
        self, variables: Vars, batch: Batch, ctx: Ctx
    ) -> dict[str, jax.Array]:
        """Inpainting, see `predict`: at every level the known part is the given one.

        Lugmayr et al. 2022, eq. 8, without their resampling, with the row's own noise.
        A latent is known where all of its pixels are; the autoencoder, which looks
        further, sees the known pixels' mean in place of the others.
        """
        known_pss1, g = batch["known"][..., None], self._shape[0]
        patch = known_pss1.shape[1] // g
        mask = known_pss1.reshape(-1, g, patch, g, patch, 1).all((2, 4))
        given = jnp.where(known_pss1, batch["image"], 0)
        count = jnp.maximum(known_pss1.sum((1, 2), keepdims=True), 1)
        mean = given.astype(jnp.float32).sum((1, 2), keepdims=True) / count
        rows = self._rows(variables, {"image": jnp.where(known_pss1, given, mean)})
        drawn = self._sample(variables, batch, ctx, known=(rows, mask))
        image = jnp.where(known_pss1[:, None], given[:, None], drawn["image"])
        return {**drawn, "image": image}

    def predict(self) -> Mapping[str, Any]:
        """loss, sample, complete, invert.

        sample: {tokens (p, l) and tokens_mask, or label (p,), seed uint32 (p,),
          candidate int32 (p, k)} to {image uint8 (p, k, s, s, 3)}. Also read, where
          they are given: image (p, s, s, 3), which is noised and drawn anew by the
          sampling's `strength`; negative_tokens and negative_tokens_mask (p, l), in
          place of the empty text that guidance leads away from; noise (p, k, g, g, c),
          in place of the candidates' own.
        complete: the same, of rows that also have known bool (p, s, s), the pixels of
          image that are given.
        invert: {image, and tokens or label} to {noise (b, 1, g, g, c)}, from which
          "sample" of "ddim" without guidance draws the image, nearly.
        """

        def invert(variables: Vars, batch: Batch, ctx: Ctx) -> Metrics:
            x = self._rows(variables, batch)
            plain = dataclasses.replace(self.sampling, guidance=1.0)
            task = dataclasses.replace(self, sampling=plain)
            denoise = task._denoiser(variables, batch, 1)
            x = solvers.invert(denoise, x, self.levels)
            size = math.hypot(self.levels.alpha[0], self.levels.sigma[0])
            return {"noise": x[:, None] / size}

        return {
            "loss": base.evaluated(self),
            "sample": self._sample,
            "complete": self._complete,
            "invert": invert,
        }
