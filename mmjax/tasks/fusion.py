"""Several modalities of a record, one answer: every neural fusion by one task.

`config.task.members` models of different initial weights train side by side, each
`folds` times without a part of the records: a cross-validation with its seeds is one
run. Parameters have an axis of models first.

Legend: b rows, t steps, d columns of a field, k outputs, n members, f folds, m = n f
models, a model's number being member * folds + fold.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Literal

import jax
import jax.numpy as jnp

from mmjax.errors import UserError
from mmjax.losses import crf
from mmjax.models import fusion
from mmjax.nn.fusion import Wanted
from mmjax.state import Ctx, Vars
from mmjax.tasks import base

INDEX = "index"


@dataclasses.dataclass(frozen=True)
class Task:
    """Fields are `config.task`.

    inputs: names of fields of numbers, vectors or series; records may lack those that
      are optional, and `drop` of a field is its modality dropout.
    outputs: how many classes there are, or numbers.
    target: the field of labels: of kind label, or a sequence of class numbers of one
      column, where -1 is none; for numbers, a vector or a sequence.
    objective: "classes", cross-entropy, or "numbers", squared error.
    per: whether there is a label for every "step" of a record, or one a "record".
    block: `kind`, a module of mmjax.nn.fusion, and its own fields.
    columns, pool, chain: see `mmjax.models.fusion.Fusion`.
    noise: standard deviation of Gaussian noise on a field in training, by name.
    members: models with weights of their own; folds: each of them trains so many times,
      without the records whose number, by the field index, leaves the rest `fold`.
    """

    couples_rows = False

    inputs: tuple[str, ...]
    outputs: int
    target: str = "label"
    objective: Literal["classes", "numbers"] = "classes"
    per: Literal["record", "step"] = "record"
    block: dict = dataclasses.field(default_factory=lambda: {"kind": "early"})
    columns: int = 32
    pool: Literal["mean", "flat"] = "mean"
    chain: bool = False
    noise: dict[str, float] = dataclasses.field(default_factory=dict)
    members: int = 1
    folds: int = 1

    def __post_init__(self) -> None:
        base.positive(self, "outputs", "members", "folds")
        if not self.inputs or len(set(self.inputs)) < len(self.inputs):
            raise ValueError(f"inputs are {self.inputs}: name one field or more, once")
        if self.chain and not (self.classes and self.per == "step"):
            raise ValueError(
                f"chain is True, objective {self.objective!r} and per {self.per!r}: a "
                "chain is over classes of steps; set chain to False"
            )
        if getattr(self.model.block, "rule", "") == "product" and not self.classes:
            raise ValueError(
                "block.rule is 'product' and objective 'numbers': a product is of "
                "probabilities; use mean or learned"
            )
        for name, std in self.noise.items():
            if name not in self.inputs or std < 0:
                raise ValueError(
                    f"noise is {std} of {name!r}: use 0 or more, of one of "
                    f"{', '.join(self.inputs)}"
                )

    @property
    def classes(self) -> bool:
        """Whether answers are classes."""
        return self.objective == "classes"

    @property
    def reads(self) -> tuple[str, ...]:
        """See mmjax.tasks.base.Task."""
        return (*self.inputs, self.target, *((INDEX,) if self.folds > 1 else ()))

    @functools.cached_property
    def model(self) -> fusion.Fusion:
        """The Linen module of one model, a pure function of the fields."""
        return fusion.Fusion(
            fusion.block(self.block, "config.task.block"),
            Wanted(self.outputs, self.per == "step", self.classes),
            self.columns,
            self.pool,
            self.chain,
        )

    def check(self, spec: base.Spec) -> None:
        """See mmjax.tasks.base.Task."""
        series, takes = {}, self.model.block.TAKES
        for name in self.inputs:
            shape, dtype = tuple(spec[name]["shape"]), spec[name]["dtype"]
            place = f"config.data.fields.{name}"
            if spec[name].get("absent"):
                raise UserError(
                    f"{place} has a row of {shape}, and no training record its value: "
                    "name another with of, or leave it out of config.task.inputs"
                )
            if dtype != "float32" or len(shape) not in (1, 2):
                raise UserError(
                    f"{place} is {dtype} {shape}, of kind {spec[name]['kind']!r}, and "
                    "fusion takes numbers, (d,) or (t, d): use kind vector, pixels, "
                    "sequence or audio"
                )
            if len(shape) == 2:
                series[name] = shape[0]
            elif takes == "aligned" and self.per == "record":
                raise UserError(
                    f"{place} has rows of {shape}, and the block {self.block['kind']} "
                    "takes series (t, d): use kind sequence, or another block"
                )
        shape = tuple(spec[self.target]["shape"])
        columns = 1 if self.classes else self.outputs
        wanted = () if self.classes else (columns,)
        if self.per == "step":
            if not series:
                raise UserError(
                    f"config.task.per is 'step', and {', '.join(self.inputs)} have no "
                    "steps: name a field of kind sequence, or set per to 'record'"
                )
            steps = next(iter(series.values()))
            wanted = (shape[0] if len(shape) == 2 else steps, columns)
            series[self.target] = wanted[0]
        if shape != wanted:
            raise UserError(
                f"config.data.fields.{self.target} has rows of {shape}, and of "
                f"{self.objective} per {self.per} they are {wanted}: use kind "
                "label, vector or sequence, or set config.task.objective and per"
            )
        if len(set(series.values())) > 1 and (takes == "aligned" or self.per == "step"):
            told = ", ".join(f"{name} {steps}" for name, steps in series.items())
            why = f"the block {self.block['kind']} takes series of one length"
            if self.per == "step":
                why = f"{self.target} has a label for every step of each"
            raise UserError(
                f"config.data.fields have series of {told} steps, and {why}: set their "
                "length to one number, or resample them with a source of kind series"
            )
        names = len(spec[self.target].get("class_names", ()))
        if names > self.outputs and self.per == "record":
            raise UserError(
                f"config.task.outputs is {self.outputs}, and the data have {names} "
                f"classes: set it to {names}"
            )

    def _given(self, batch: base.Batch, ctx: Ctx) -> tuple[dict, dict]:
        """Fields as series (b, t, d), and masks (b, t); noisy in training."""
        inputs, masks = {}, {}
        for number, name in enumerate(self.inputs):
            x, rows = batch[name], len(batch[name])
            x_btd = x if x.ndim == 3 else x[:, None]
            mask_bt = batch.get(f"{name}_mask", jnp.ones(x_btd.shape[:2], bool))
            if f"{name}_present" in batch:
                mask_bt = mask_bt & batch[f"{name}_present"][:, None]
            if ctx.train and self.noise.get(name):
                keys = ctx.example_keys(rows)
                normal = jax.vmap(
                    lambda key, n=number, s=x_btd.shape[1:]: jax.random.normal(
                        jax.random.fold_in(key, n), s
                    )
                )
                x_btd = x_btd + self.noise[name] * normal(keys)
            inputs[name], masks[name] = x_btd, mask_bt
        return inputs, masks

    def _steps(self, inputs: Mapping[str, jax.Array]) -> int:
        """Labels in a row: those of the series."""
        if self.per == "record":
            return 1
        return max(x_btd.shape[1] for x_btd in inputs.values())

    def init(self, key: jax.Array, batch: base.Batch) -> Vars:
        """See mmjax.tasks.base.Task; every model has a key of its own."""
        args = self._given(batch, Ctx(rng=key, step=jnp.int32(0)))
        keys_m = jax.random.split(key, self.members * self.folds)
        fresh = jax.vmap(lambda key: self.model.init(key, *args, self._steps(args[0])))
        return Vars(fresh(keys_m)["params"])

    def _fused(self, variables: Vars, batch: base.Batch, ctx: Ctx) -> tuple:
        """Scores (m, b, t, k) and transitions (m, k, k) of all models."""
        inputs, masks = self._given(batch, ctx)

        def one(params: base.PyTree) -> tuple:
            steps = self._steps(inputs)
            fused, chain_kk = self.model.apply({"params": params}, inputs, masks, steps)
            return fused.scores, chain_kk

        return jax.vmap(one)(variables.params)

    def _labels(self, batch: base.Batch) -> tuple[jax.Array, jax.Array]:
        """Labels (b, t) of classes or (b, t, k) of numbers; which of them count."""
        label = batch[self.target]
        label = label if self.per == "step" else label[:, None]
        counts_bt = batch.get(f"{self.target}_mask", jnp.ones(label.shape[:2], bool))
        if f"{self.target}_present" in batch:
            counts_bt = counts_bt & batch[f"{self.target}_present"][:, None]
        if not self.classes:
            return label, counts_bt
        label_bt = label[..., 0] if label.ndim == 3 else label
        label_bt = jnp.round(label_bt).astype(jnp.int32)
        return label_bt, counts_bt & (label_bt >= 0)

    def _loss_rows(
        self, scores_btk: jax.Array, chain_kk: jax.Array, batch: base.Batch
    ) -> tuple[jax.Array, jax.Array]:
        """Of a model: loss and share of right classes (or error) of rows, both (b,).

        Steps count alike: a row's loss is their sum over the steps of the longest.
        """
        label, counts_bt = self._labels(batch)
        steps, count_b = counts_bt.shape[1], jnp.maximum(counts_bt.sum(1), 1)
        if not self.classes:
            error_bt = jnp.square(scores_btk - label).mean(-1) * counts_bt
            return error_bt.sum(1) / steps, error_bt.sum(1) / count_b
        right_bt = (scores_btk.argmax(-1) == label) & counts_bt
        if self.chain:
            nll_b = crf.nll(scores_btk, label, counts_bt, chain_kk)
        else:
            log_btk = jax.nn.log_softmax(scores_btk)
            # mode fill: NaN for a label beyond the classes, where a clamp would hide it
            place = jnp.maximum(label, 0)[..., None]
            own_bt = jnp.take_along_axis(log_btk, place, -1, mode="fill")[..., 0]
            nll_b = -jnp.where(counts_bt, own_bt, 0.0).sum(1)
        return nll_b / steps, right_bt.sum(1) / count_b

    def loss(
        self, variables: Vars, batch: base.Batch, ctx: Ctx
    ) -> tuple[jax.Array, tuple[base.PyTree, base.Metrics]]:
        """The sum over models, so that each trains as if it were alone.

        Metrics are means over the models and the rows that they see.
        """
        scores_mbtk, chain_mkk = self._fused(variables, batch, ctx)
        rows = jax.vmap(lambda s, c: self._loss_rows(s, c, batch))
        loss_mb, right_mb = rows(scores_mbtk, chain_mkk)
        seen_mb = jnp.ones(loss_mb.shape)
        if self.folds > 1:
            fold_m1 = jnp.arange(len(loss_mb))[:, None] % self.folds
            seen_mb = 1.0 * (batch[INDEX] % self.folds != fold_m1)
        share = self.folds / (self.folds - 1) if self.folds > 1 else 1.0
        name = "accuracy" if self.classes else "error"
        metrics = {
            "model_loss": share * (loss_mb * seen_mb).mean(),
            name: share * (right_mb * seen_mb).mean(),
        }
        loss = (loss_mb * seen_mb).mean(1).sum()
        return loss, (variables.extra, metrics)

    def predict(self) -> Mapping[str, base.Predict]:
        """Of each member (b, n, t, ...), by the model that has not seen the record.

        scores: (b, n, t, k), with a chain those of single steps. answers: classes
          float32 (b, n, t), with a chain the best path; numbers (b, n, t, k). Where
          there are folds, the field index says which model is asked; records that are
          none of the training source's should be asked of a run without. loss: of all.
        """

        def held_out(variables: Vars, batch: base.Batch, ctx: Ctx) -> tuple:
            """Scores (n, b, t, k) and transitions (n, b, k, k)."""
            shape = self.members, self.folds
            scores, chain = jax.tree.map(
                lambda x: x.reshape(*shape, *x.shape[1:]),
                self._fused(variables, batch, ctx),
            )
            fold_b = jnp.zeros(scores.shape[2], jnp.int32)
            if self.folds > 1:
                fold_b = batch[INDEX] % self.folds
            fold_b1 = fold_b[None, None, :, None, None]
            scores_nbtk = jnp.take_along_axis(scores, fold_b1, axis=1)[:, 0]
            return scores_nbtk, chain[:, fold_b]

        def scores(variables: Vars, batch: base.Batch, ctx: Ctx) -> jax.Array:
            return jnp.moveaxis(held_out(variables, batch, ctx)[0], 0, 1)

        def answers(variables: Vars, batch: base.Batch, ctx: Ctx) -> jax.Array:
            out, chain_nbkk = held_out(variables, batch, ctx)
            if self.chain:
                masks = [batch[k] for k in batch if k.endswith("_mask") and k[0] != "_"]
                there_bt = functools.reduce(jnp.logical_or, masks)
                there_bt = batch.get(f"{self.target}_mask", there_bt)

                def row(scores_tk: jax.Array, there_t: jax.Array, chain_kk: jax.Array):
                    return crf.viterbi(scores_tk[None], there_t[None], chain_kk)[0]

                rows = jax.vmap(row)
                out = jax.vmap(rows, (0, None, 0))(out, there_bt, chain_nbkk)
            elif self.classes:
                out = out.argmax(-1)
            return jnp.moveaxis(out, 0, 1).astype(jnp.float32)

        return {"scores": scores, "answers": answers, "loss": base.evaluated(self)}
