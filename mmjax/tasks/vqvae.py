"""Stage 1 by vector quantisation: VQ-VAE (van den Oord et al. 2017).

Legend: b rows, h w pixels, n tokens of an image, d width of a code, k codes.
"""

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from mmjax.losses import quantize as losses
from mmjax.models import images
from mmjax.models.vqvae import VqVae
from mmjax.nn import quantize
from mmjax.nn.quantize import Codebook
from mmjax.state import Ctx, Vars
from mmjax.tasks import stage1
from mmjax.tasks.base import Predict, pixels
from mmjax.tasks.stage1 import Batch, Forward, Metrics, PyTree, Seen


@dataclasses.dataclass(frozen=True)
class Task(stage1.Tokenizer):
    """Fields are `config.task`.

    tokenizer: what `mmjax.models.image_tokenizer.build` takes, of kind "vqvae".
    loss_name: "l2" (the paper) or "l1", of pixels in [-1, 1], averaged over pixels and
      channels.
    edges: weight of the mean square of what the error changes by from pixel to pixel;
      0 in the paper. Sharper outlines for less exact flat colours.
    commitment: weight of the commitment term; 0.25 in the paper.
    codebook: weight of the codebook's term, where gradients learn it; 1 in the paper.
    decay, eps: of the codebook's moving averages; decay also of the pixel variance.
    kmeans: Lloyd's iterations that place the codes; 0 leaves them N(0, 1).
    start: the step whose batch they are placed by. Before it nothing is quantised: an
      autoencoder trains, and the codes find vectors that mean something.
    revive_below: codes used less than this share of even use move to vectors of the
      batch; 0 leaves them. This and k-means need `tokenizer.ema`.
    alarm: a batch of m tokens can use min(m, k) codes; the metric `collapsed` is 1
      where it uses less than this share of them.
    """

    tokenizer: dict
    loss_name: str = "l2"
    edges: float = 0.0
    commitment: float = 0.25
    codebook: float = 1.0
    decay: float = 0.99
    eps: float = 1e-5
    kmeans: int = 10
    start: int = 0
    revive_below: float = 0.01
    alarm: float = 0.1

    def __post_init__(self) -> None:
        stage1.pixel_error(self.loss_name)
        if not 0 <= self.decay < 1:
            raise ValueError(f"decay is {self.decay}: use at least 0 and less than 1")
        if self.start and not self.kmeans:
            raise ValueError(
                f"start is {self.start} and kmeans 0: codes that k-means does not "
                "place are used from the first step; set start to 0"
            )
        self._require(VqVae, "vqvae")
        if not self.model.ema and (self.kmeans or self.revive_below):
            raise ValueError(
                f"kmeans is {self.kmeans} and revive_below {self.revive_below}, but "
                "with tokenizer.ema=False the optimizer owns the codebook: set both "
                "to 0"
            )

    def forward(self, variables: Vars, batch: Batch, ctx: Ctx) -> Forward:
        """Reconstruction + commitment (+ the codebook's, where gradients learn it)."""
        z_bnd = self._apply(variables, "encode", pixels(batch))
        seen_bnd = jax.lax.stop_gradient(z_bnd)
        variables = self._placed(variables, lambda: seen_bnd, ctx)
        return self._settled(variables, self._look(variables, batch, z_bnd, ctx), ctx)

    def prepare(self, variables: Vars, slices: PyTree, ctx: Ctx) -> tuple[Vars, PyTree]:
        """Codes are placed by all slices of their batch, one encoded after another."""

        def encoded() -> jax.Array:
            z_abnd = jax.lax.map(
                lambda rows: self._apply(variables, "encode", pixels(rows)),
                {"image": slices["image"]},
            )
            return jnp.moveaxis(z_abnd, 0, 1).reshape(-1, *z_abnd.shape[2:])

        return self._placed(variables, encoded, ctx), slices

    def look(self, variables: Vars, batch: Batch, ctx: Ctx) -> Seen:
        """See Stage1; the codes are placed, if they are to be."""
        z_bnd = self._apply(variables, "encode", pixels(batch))
        return self._look(variables, batch, z_bnd, ctx)

    def _look(self, variables: Vars, batch: Batch, z_bnd: jax.Array, ctx: Ctx) -> Seen:
        x_bhw3, k = pixels(batch), self.model.vocab_size
        seen_bnd = jax.lax.stop_gradient(z_bnd)
        book = Codebook(**variables.extra["codebook"]) if self.model.ema else None
        codes_kd = book.codes if book else self._apply(variables, "codes")
        ids_bn = quantize.nearest(
            seen_bnd.reshape(-1, codes_kd.shape[1]), jax.lax.stop_gradient(codes_kd)
        ).reshape(z_bnd.shape[:2])
        e_bnd = codes_kd[ids_bn]
        if self.kmeans and ctx.train:
            e_bnd = jnp.where(book.initialised > 0, e_bnd, seen_bnd)
        through_bnd = quantize.straight_through(z_bnd, e_bnd)
        y_bhw3 = self._apply(variables, "decode", through_bnd)
        loss, metrics = self._terms(y_bhw3 - (2.0 * x_bhw3 - 1.0), z_bnd, e_bnd)
        square = stage1.square_error(images.shown(y_bhw3), x_bhw3)
        means, rows = {"square": square, **self.count(ids_bn, ctx)}, {}
        if book and ctx.train:
            means["count"], means["sum"] = quantize.usage(seen_bnd, ids_bn, k)
            keys_b = ctx.example_keys(len(z_bnd))
            if self.revive_below:
                rows["vector"] = quantize.candidates(keys_b, seen_bnd, e_bnd)
        return Seen(loss, 0.5 * y_bhw3 + 0.5, means, rows, metrics)

    def moved(
        self, variables: Vars, means: Metrics, rows: PyTree, ctx: Ctx
    ) -> tuple[PyTree, Metrics]:
        """See Stage1; `dead` are the codes that hardly anything used."""
        likelihood = stage1.variance(variables, means["square"], ctx, decay=self.decay)
        extra = {"likelihood": likelihood}
        if not self.model.ema:
            return extra, {}
        book = Codebook(**variables.extra["codebook"])
        book, dead = self._follow(book, means, rows, ctx)
        return extra | {"codebook": book._asdict()}, {"dead": dead}

    def _terms(
        self, off_bhw3: jax.Array, z_bnd: jax.Array, e_bnd: jax.Array
    ) -> tuple[jax.Array, Metrics]:
        """The loss, and its reconstruction and commitment before weighting."""
        reconstruction = stage1.pixel_error(self.loss_name)(off_bhw3).mean()
        commitment = losses.commitment(z_bnd, e_bnd)
        loss = reconstruction + self.commitment * commitment
        if self.edges:
            loss = loss + self.edges * losses.edges(off_bhw3)
        if not self.model.ema:
            loss = loss + self.codebook * losses.codebook(z_bnd, e_bnd)
        return loss, {"reconstruction": reconstruction, "commitment": commitment}

    def _placed(
        self, variables: Vars, encoded: Callable[[], jax.Array], ctx: Ctx
    ) -> Vars:
        """Variables whose codes k-means has placed if this is the step `start`.

        encoded: gives what the encoder makes of this device's rows, (b, n, d).
        """
        if not (self.kmeans and ctx.train):
            return variables

        def place(book: Codebook) -> Codebook:
            z_bnd = encoded()
            x_md = ctx.gather(z_bnd).reshape(-1, z_bnd.shape[-1])
            k, n = book.count.shape[0], z_bnd.shape[1]
            key = jax.random.fold_in(ctx.rng, 0)
            codes_kd = quantize.kmeans(key, x_md, k, iterations=self.kmeans)
            ids_1m = quantize.nearest(x_md, codes_kd)[None]
            count_k, _ = quantize.usage(x_md[None], ids_1m, k)
            count_k = count_k * (n / len(x_md))
            sum_kd = codes_kd * count_k[:, None]
            return Codebook(codes_kd, count_k, sum_kd, jnp.ones(()))

        book = Codebook(**variables.extra["codebook"])
        now = (ctx.step >= self.start) & (book.initialised == 0)
        book = jax.lax.cond(now, place, lambda book: book, book)
        extra = {**variables.extra, "codebook": book._asdict()}
        return variables._replace(extra=extra)

    def _follow(
        self, book: Codebook, means: Metrics, rows: PyTree, ctx: Ctx
    ) -> tuple[Codebook, jax.Array]:
        """The codebook after this batch, and how many dead codes it had."""
        new = quantize.follow(
            book, means["count"], means["sum"], decay=self.decay, eps=self.eps
        )
        if self.revive_below:
            key = jax.random.fold_in(ctx.rng, 1)
            below = self.revive_below
            new, dead = quantize.revive(key, new, rows["vector"], below=below)
        else:
            dead = (new.count < self.eps).sum().astype(jnp.float32)
        if not self.kmeans:
            return new, dead
        placed = book.initialised > 0  # codes that nothing used yet do not move
        new = jax.tree.map(lambda a, b: jnp.where(placed, a, b), new, book)
        return new, jnp.where(placed, dead, 0.0)

    def predict(self) -> dict[str, Predict]:
        """loss, encode, decode, reconstruct, elbo_terms."""
        return super().predict() | {"elbo_terms": self._elbo_terms}

    def _elbo_terms(self, variables: Vars, batch: Batch, ctx: Ctx) -> Metrics:
        """Nats per row: -ln p(x|z), and KL of the one z to the uniform prior."""
        x_bhw3 = pixels(batch)
        ids_bn = self._apply(variables, "encode_tokens", x_bhw3)
        kl = ids_bn.shape[1] * math.log(self.model.vocab_size)
        return {
            "reconstruction": self._apply(variables, "nll", x_bhw3, ids_bn),
            "kl": jnp.full((len(ids_bn),), kl),
        }
