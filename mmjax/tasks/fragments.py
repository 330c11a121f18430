"""Deep fragment embeddings: parts of images and of sentences that find each other.

Karpathy et al. 2014; with `score` max, Karpathy and Fei-Fei 2015 (DVSA); with
`score` attention, stacked cross attention (Lee et al. 2018).

Legend: b m rows, n regions, k fragments, f features, d embedding.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from mmjax import schema
from mmjax.errors import UserError
from mmjax.losses import fragments as losses
from mmjax.models.fragments import FragmentEncoders
from mmjax.state import Ctx, Vars
from mmjax.tasks import base

PyTree = Any
# score -> what has embeddings of length 1
SCORES = {
    "sum": (),
    "max": (),
    "attention": ("regions", "fragments"),
    "cosine": ("regions",),
}


OBJECTIVES = ("ranking", "alignment", "supervised", "contrastive")


@dataclasses.dataclass(frozen=True)
class Task:
    """Fields are `config.task`; the data have `regions` (n, f) and `sentence` (k, 3).

    words, relations: at least as many as the field `sentence` numbers.
    embed_dim, word_dim, dropout, fragment_dropout: see `FragmentEncoders`.
    score: of an image and a sentence, see `losses.fragments.scores`; `attention` is
      `losses.fragments.attended`, of embeddings of length 1, and `cosine` `matched`, of
      regions of length 1. smooth: of sum and max. sharpness: of attention.
    contrastive: weight of CLIP's cross-entropy of scores times `scale`.
    ranking: weight of the global ranking objective. margin, hardest: its own.
    alignment: weight of the fragment alignment objective. multiple_instance: its own.
    supervised: weight of the cross-entropy with the gold region of each fragment.
    """

    couples_rows = True
    reads = ("regions", "sentence")

    words: int
    relations: int
    embed_dim: int = 256
    word_dim: int = 200
    dropout: float = 0.0
    fragment_dropout: float = 0.0
    score: str = "sum"
    smooth: float = 5.0
    sharpness: float = 9.0
    ranking: float = 1.0
    margin: float = 1.0
    hardest: bool = False
    alignment: float = 1.0
    multiple_instance: bool = True
    supervised: float = 0.0
    contrastive: float = 0.0
    scale: float = 20.0

    def __post_init__(self) -> None:
        if self.score not in SCORES:
            hint = schema.suggest(self.score, SCORES)
            raise ValueError(f"score is {self.score!r}{hint}")
        base.positive(self, "words", "relations", "sharpness", "scale")
        schema.at_least(
            0, self, "smooth", "margin", "ranking", "alignment", "supervised"
        )
        schema.at_least(0, self, "contrastive")
        for name in ("dropout", "fragment_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(
                    f"{name} is {getattr(self, name)}: use 0 to less than 1"
                )
        if not any(getattr(self, name) for name in OBJECTIVES):
            raise ValueError(f"{', '.join(OBJECTIVES)} are 0: give one weight")
        if SCORES[self.score] and self.alignment:
            raise ValueError(
                f"alignment is {self.alignment} and score {self.score!r}: products of "
                "embeddings of length 1 fit no hinge at 1; set alignment to 0"
            )

    @functools.cached_property
    def model(self) -> FragmentEncoders:
        """The Linen module, a pure function of the fields."""
        names = ("embed_dim", "words", "relations", "word_dim", "dropout")
        names += ("fragment_dropout",)
        unit = SCORES[self.score]
        return FragmentEncoders(unit=unit, **{k: getattr(self, k) for k in names})

    def check(self, spec: base.Spec) -> None:
        """See mmjax.tasks.base.Task."""
        for name, kinds in (("regions", "sequence"), ("sentence", "fragments")):
            shape = spec[name]["shape"]
            if len(shape) != 2 or (name == "sentence" and "words" not in spec[name]):
                raise UserError(
                    f"config.data.fields.{name} is of kind {spec[name]['kind']!r} with "
                    f"rows of {shape}: use kind {kinds}"
                )
        for key in ("words", "relations"):
            have, most = spec["sentence"][key], getattr(self, key)
            if have > most:
                raise UserError(
                    f"config.data.fields.sentence numbers {have} {key}, and the model "
                    f"{most}: set config.task.{key} to {have}, or the field's {key}"
                )

    def init(self, key: jax.Array, batch: base.Batch) -> Vars:
        """See mmjax.tasks.base.Task."""
        return base.split(self.model.init(key, batch["regions"], batch["sentence"]))

    def _codes(self, variables: Vars, batch: base.Batch, keys: Any = None) -> dict:
        """Embeddings by field, of those that the batch has."""
        codes, methods = {}, {"regions": "regions", "sentence": "fragments"}
        for i, (name, method) in enumerate(methods.items()):
            if name in batch:
                fold = jax.vmap(jax.random.fold_in, (0, None))
                args = batch[name], None if keys is None else fold(keys, i)
                params = {"params": variables.params}
                codes[name] = self.model.apply(params, *args, method=method)
        return codes

    def embed(
        self, variables: Vars, batch: base.Batch, ctx: Ctx
    ) -> tuple[dict[str, jax.Array], PyTree]:
        """Embeddings (b, n, d) and (b, k, d), and the extra as it is."""
        keys_b = ctx.example_keys(len(batch["regions"])) if ctx.train else None
        return self._codes(variables, batch, keys_b), variables.extra

    def _scores(self, codes: Mapping, region_mask: jax.Array, mask: jax.Array) -> tuple:
        """(scores (b, m), products (b, m, n, k))."""
        pair = codes["regions"], codes["sentence"]
        dots_bmnk = losses.products(*pair)
        if self.score == "attention":
            how = {"sharpness": self.sharpness}
            return losses.attended(*pair, region_mask, mask, **how), dots_bmnk
        if self.score == "cosine":
            return losses.matched(*pair, region_mask, mask), dots_bmnk
        how = {"form": self.score, "smooth": self.smooth}
        return losses.scores(dots_bmnk, region_mask, mask, **how), dots_bmnk

    def loss_of(
        self, variables: Vars, embedded: Mapping, batch: base.Batch, ctx: Ctx
    ) -> tuple[jax.Array, base.Metrics]:
        """The weighted sum of the objectives, and each of them."""
        keys = "regions_mask", "sentence_mask", "sentence_gold"
        codes, given = ctx.gather((dict(embedded), [batch[key] for key in keys]))
        region_mask_bn, mask_bk, gold_bk = given
        scores_bb, dots_bbnk = self._scores(codes, region_mask_bn, mask_bk)
        right_b = jnp.diagonal(scores_bb)
        metrics = {"hit": (right_b >= scores_bb.max(1)).astype(jnp.float32).mean()}
        if self.ranking:
            how = {"hardest": self.hardest}
            metrics["ranking"] = losses.ranking(scores_bb, self.margin, **how)
        if self.contrastive:
            metrics["contrastive"] = losses.contrastive(scores_bb, self.scale)
        if self.alignment:
            how = {"multiple_instance": self.multiple_instance}
            args = dots_bbnk, region_mask_bn, mask_bk
            metrics["alignment"] = losses.alignment(*args, **how)
        if self.supervised:
            own_bnk = jnp.einsum("bbnk->bnk", dots_bbnk) * self._heat
            args = own_bnk, region_mask_bn, gold_bk
            metrics["supervised"] = losses.supervised(*args)
        loss = sum(getattr(self, key) * metrics[key] for key in metrics if key != "hit")
        return loss, metrics

    @property
    def _heat(self) -> float:
        """Products times it are the logits of attention over regions."""
        return self.sharpness if self.score == "attention" else 1.0

    loss = base.embedded_loss

    def predict(self) -> Mapping[str, base.Predict]:
        """What evaluators call.

        codes: embeddings by field, of the fields given. scores: of codes and masks of
        b regions and b sentences, (b, b), images down. picks: of pairs, (b, n, k), the
        attention of every fragment over the regions.
        """

        def codes(variables: Vars, batch: base.Batch, ctx: Ctx) -> dict:
            return self._codes(variables, batch)

        def scores(variables: Vars, batch: base.Batch, ctx: Ctx) -> jax.Array:
            return self._scores(batch, batch["regions_mask"], batch["sentence_mask"])[0]

        def picks(variables: Vars, batch: base.Batch, ctx: Ctx) -> jax.Array:
            pair = self._codes(variables, batch)
            dots_bnk = jnp.einsum("bnd,bkd->bnk", pair["regions"], pair["sentence"])
            logits_bnk = jnp.where(
                batch["regions_mask"][..., None], dots_bnk * self._heat, -1e9
            )
            return jax.nn.softmax(logits_bnk, axis=1)

        own = {"codes": codes, "scores": scores, "picks": picks}
        return own | {"loss": base.evaluated(self)}
