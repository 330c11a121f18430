"""Captions of images: Show and Tell, soft and hard attention, transformers.

Legend: b rows, l tokens, m words that are said, n cells, v ids. While decoding: p
images, k captions of each.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp

from mmjax import schema
from mmjax.errors import UserError
from mmjax.losses import captions as losses
from mmjax.losses import tokens
from mmjax.models import caption
from mmjax.sampling import autoregressive, beam
from mmjax.state import Ctx, Vars
from mmjax.tasks import base

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Decoding:
    """How captions are found.

    method: beam (the most probable ones) or sample (drawn).
    k: beams, or captions drawn, of an image; one beam is greedy decoding.
    length_norm: of beam, see `mmjax.sampling.beam.search`.
    temperature, top_k, top_p: of sample, see `mmjax.sampling.autoregressive.Sampling`.
    seed: of sample; draws follow it and the image's place in the batch.
    forbid: ids that are never said, such as 0 and 1 of a vocabulary of words: padding,
      and the mark of an unknown word.
    """

    method: Literal["beam", "sample"] = "beam"
    k: int = 3
    length_norm: float = 0.0
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    forbid: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        schema.at_least(1, self, "k")
        schema.at_least(0, self, "length_norm")
        self.draws  # noqa: B018  (says what is wrong with its numbers)

    @property
    def draws(self) -> autoregressive.Sampling:
        """What sample draws from."""
        return autoregressive.Sampling(
            temperature=self.temperature, top_k=self.top_k, top_p=self.top_p
        )


@dataclasses.dataclass(frozen=True)
class Task:
    """Fields are `config.task`.

    decoder: `kind` lstm, soft, hard or transformer, and the kind's fields; see
      `mmjax.models.caption.build`.
    vocab_size, context: those of the field `tokens`; its last two ids are its marks.
    image: a tower of `kind` vit, such as CLIP's; empty for a field `features` in place
      of images.
    doubly: of soft and hard, the weight of `losses.captions.doubly_stochastic`.
    reinforce: of hard, the weight of the gradient of the cells that are drawn, and
      entropy that of their entropy inside of it.
    """

    couples_rows = False

    decoder: dict
    vocab_size: int
    context: int
    image: dict = dataclasses.field(default_factory=dict)
    image_size: int = 0
    act: str = "gelu"
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.25, 0.25, 0.25)
    doubly: float = 0.0
    reinforce: float = 1.0
    entropy: float = 0.01
    sampling: Decoding = Decoding()

    def __post_init__(self) -> None:
        schema.at_least(0, self, "doubly", "reinforce", "entropy")
        if bool(self.image) != bool(self.image_size):
            raise ValueError(
                f"image is {self.image} and image_size {self.image_size}: give both, "
                "or neither for features"
            )
        if self.doubly and self.kind not in ("soft", "hard"):
            raise ValueError(
                f"doubly is {self.doubly} and decoder.kind {self.kind!r}: set it to 0"
            )
        self.model  # noqa: B018  (says what is wrong with its parts)

    @property
    def kind(self) -> str:
        """The decoder's."""
        return self.decoder["kind"] if "kind" in self.decoder else ""

    @property
    def reads(self) -> tuple[str, ...]:
        """See mmjax.tasks.base.Task."""
        return ("image" if self.image else "features", "tokens")

    @functools.cached_property
    def model(self) -> caption.Captioner:
        """The Linen module, a pure function of the fields."""
        names = ("image", "vocab_size", "context", "image_size", "act")
        return caption.build(self.decoder, **{n: getattr(self, n) for n in names})

    def check(self, spec: base.Spec) -> None:
        """See mmjax.tasks.base.Task."""
        if self.image:
            base.check_image(spec, self.image_size, "image_size")
        words = {"vocab_size": self.vocab_size, "context": self.context}
        base.check_text(spec, **words, exact=True)
        self.check_beams(spec["tokens"].get("vocab_size", self.vocab_size))

    def check_beams(self, ids: int) -> None:
        """Raises UserError where there are more beams than ids to say."""
        how, most = self.sampling, ids - len(self.sampling.forbid)
        if how.method == "beam" and how.k > most:
            raise UserError(
                f"config.task.sampling.k is {how.k} beams, and the vocabulary has "
                f"{most} ids to choose from: use {most} or fewer"
            )

    def _input(self, batch: base.Batch) -> jax.Array:
        if not self.image:
            return batch["features"].astype(jnp.float32)
        return (base.pixels(batch) - jnp.asarray(self.mean)) / jnp.asarray(self.std)

    def _apply(self, variables: Vars, *args: Any, **how: Any) -> Any:
        return self.model.apply({"params": variables.params}, *args, **how)

    def init(self, key: jax.Array, batch: base.Batch) -> Vars:
        """See mmjax.tasks.base.Task."""
        variables = self.model.init(key, self._input(batch), batch["tokens"][:, :-1])
        extra = {"baseline": jnp.float32(0.0)} if self.kind == "hard" else {}
        return Vars(params=variables["params"], extra=extra)

    def _rows(self, variables: Vars, batch: base.Batch, ctx: Ctx) -> tuple:
        """By row: nats of the caption, of a word, and what else is minimised."""
        ids_bl, counted_bm = batch["tokens"], batch["tokens_mask"][:, 1:]
        keys_b = ctx.example_keys(len(ids_bl)) if ctx.train else None
        args = self._input(batch), ids_bl[:, :-1], keys_b
        logits_bmv, look = self._apply(variables, *args)
        nats_bm = tokens.nll(logits_bmv, ids_bl[:, 1:])
        nats_b, more_b = losses.total(nats_bm, counted_bm), jnp.zeros(len(ids_bl))
        if self.doubly:
            seen_b = losses.doubly_stochastic(look.weight, counted_bm)
            more_b += self.doubly * seen_b
        if self.kind == "hard" and ctx.train:
            more_b += self.reinforce * losses.reinforce(
                nats_b,
                look.log_place,
                look.entropy,
                counted_bm,
                baseline=variables.extra["baseline"],
                entropy_weight=self.entropy,
            )
        return nats_b, tokens.row_mean(nats_bm, counted_bm), more_b

    def loss(
        self, variables: Vars, batch: base.Batch, ctx: Ctx
    ) -> tuple[jax.Array, tuple[PyTree, base.Metrics]]:
        """Mean nats of a caption, and what else the kind asks for."""
        nats_b, word_b, more_b = self._rows(variables, batch, ctx)
        extra = variables.extra
        if extra and ctx.train:  # Xu et al. 2015, section 4.1
            extra = {"baseline": 0.9 * extra["baseline"] - 0.1 * word_b.mean()}
        return (nats_b + more_b).mean(), (extra, {"word_nats": word_b.mean()})

    def _caption(self, variables: Vars, batch: base.Batch, ctx: Ctx) -> dict:
        """See `predict`."""
        how, ids_pl = self.sampling, batch["tokens"]
        end = ids_pl.max()
        memory, state = self._apply(
            variables, self._input(batch), how.k, method="begin"
        )

        def step(state: PyTree, ids_b: jax.Array, index: jax.Array) -> tuple:
            args = memory, state, ids_b, index + 1
            return self._apply(variables, *args, method="step")[:2]

        start_b = jnp.repeat(ids_pl[:, 0], how.k)
        first_bv, state = step(state, start_b, jnp.int32(-1))
        first_pv, length = first_bv[:: how.k], self.context - 1
        if how.method == "beam":
            shape = {"beam": how.k, "length": length, "end": end}
            numbers = {"length_norm": how.length_norm, "forbid": how.forbid}
            ids_pkm, score_pk = beam.search(first_pv, step, state, **shape, **numbers)
            return {"caption": ids_pkm, "score": score_pk}
        keys_p = ctx.replace(rng=jax.random.key(how.seed)).example_keys(len(ids_pl))
        fold = jax.vmap(jax.vmap(jax.random.fold_in, (None, 0)), (0, None))
        ids_bm, score_b = autoregressive.generate(
            beam.without(first_pv, how.forbid),
            beam.ended(step, end, how.forbid),
            state,
            fold(keys_p, jnp.arange(how.k)).reshape(-1),
            start=0,
            length=length,
            options=how.draws,
        )
        shape = len(ids_pl), how.k
        return {"caption": ids_bm.reshape(*shape, -1), "score": score_b.reshape(shape)}

    def _attention(self, variables: Vars, batch: base.Batch, ctx: Ctx) -> jax.Array:
        """See `predict`."""
        said_mb = jnp.concatenate([batch["tokens"][:, :1], batch["caption"]], axis=1).T
        memory, state = self._apply(variables, self._input(batch), method="begin")

        def body(state: PyTree, at: tuple) -> tuple[PyTree, jax.Array]:
            _, state, seen_bn = self._apply(
                variables, memory, state, *at, method="step"
            )
            return state, seen_bn

        index_m = jnp.arange(len(said_mb) - 1)
        _, seen_mbn = jax.lax.scan(body, state, (said_mb[:-1], index_m))
        return jnp.swapaxes(seen_mbn, 0, 1)

    def predict(self) -> Mapping[str, base.Predict]:
        """caption, features, loss; and attention of decoders that look.

        caption: {image or features, tokens (p, l) of any text, for its marks} to
          {caption int32 (p, k, m), the best or the first drawn first, score (p, k)}.
        attention: {the same, caption int32 (b, m)} to (b, m, n), where each word of the
          caption was looked for.
        features: (b, d), the mean of the cells.
        loss: by row, loss (nats of the caption) and word_nats.
        """

        def loss(variables: Vars, batch: base.Batch, ctx: Ctx) -> base.Metrics:
            nats_b, word_b, more_b = self._rows(variables, batch, ctx)
            return {"loss": nats_b + more_b, "word_nats": word_b}

        def cells(variables: Vars, batch: base.Batch, ctx: Ctx) -> jax.Array:
            x = self._input(batch)
            return self._apply(variables, x, method="cells").mean(1)

        calls = {"caption": self._caption, "features": cells, "loss": loss}
        if self.model.decoder.attends:
            calls["attention"] = self._attention
        return calls
