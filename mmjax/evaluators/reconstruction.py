"""Pictures through a tokenizer and back: what is lost, and which codes are used.

Legend: b batch, s side, n pictures, t tokens of a picture, k codes.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmjax import schema
from mmjax.errors import UserError
from mmjax.evaluators.base import Env, EvalConfig, PyTree, Result
from mmjax.evaluators.common import forward, result_card
from mmjax.evaluators.common.subset import open_view
from mmjax.metrics import bootstrap
from mmjax.report import image_grid

log = logging.getLogger(__name__)
LEAST = 1e-10  # mean squared error that counts as none: 100 dB
COLUMNS = 8  # pictures in a row of the PNG
_DEFINITIONS = {
    "psnr": "mean over pictures of -10 log10(mse) in dB, at most 100; mse over a "
    "picture's pixels and channels, in [0, 1] and not rounded",
    "mse": "mean squared error of pixels in [0, 1]",
    "perplexity": "exp of the entropy of the use of codes over all pictures",
    "codes": "how many codes occur in these pictures",
    "used": "codes as a share of the codebook",
    "dead": "codes of the codebook that do not occur",
}


@dataclass(frozen=True)
class Config(EvalConfig):
    """alarm: t tokens can use min(t, k) of k codes; a warning is logged where they use
      less than this share of them.

    picture: a PNG to write, originals above their reconstructions; "" writes none.
    pictures: how many it shows, the source's first.
    """

    alarm: float = 0.1
    picture: str = ""
    pictures: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.alarm <= 1:
            raise ValueError(f"alarm is {self.alarm}: use a share from 0 to 1")
        if self.pictures < 1:
            raise ValueError(f"pictures must be at least 1, got {self.pictures}")


class Evaluator:
    """Calls predict "reconstruct": {image} to {image float (b, s, s, 3) in [0, 1]}.

    Where it also gives `image_tokens` (b, t), the use of codes is counted; with
    `vocab_size` (), as a share of the codebook.
    """

    def __init__(self, cfg: Mapping[str, Any], env: Env, where: str = "reconstruction"):
        self.config = schema.from_mapping(Config, cfg, where)
        self._env, self._where = env, where
        self._size = self.config.batch_size or env.batch_size
        self._source = open_view(self.config.source, self.config.limit, env.open_source)

    def check(self, vars_abstract: PyTree) -> None:
        """See Evaluator.check of the base."""
        batch = forward.peek(self._env, self._source, None, self._size, self._where)
        images = forward.abstract(forward.image_batch(batch))
        args = self._env, "reconstruct", vars_abstract, images, self._where
        got = forward.output_shape(*args)
        shape = getattr(got.get("image"), "shape", None) if hasattr(got, "get") else got
        wanted = images["image"].shape
        if shape != wanted:
            raise UserError(
                f"{self._where}: 'reconstruct' must give image {wanted}, gives {shape}"
            )

    def run(self, variables: PyTree) -> Result:
        """psnr and mse with intervals; codes, perplexity, used and dead where known.

        `arrays` holds index, psnr and mse of every picture, and `count` of every code.
        """
        arrays, broken, shown = self._reconstruct(variables)
        count_n = len(arrays["mse"])

        def means(weight_n: np.ndarray) -> np.ndarray:
            rows_2n = np.stack([arrays["psnr"], arrays["mse"]])
            return rows_2n @ weight_n / weight_n.sum()

        draw = {"resamples": self.config.resamples, "seed": self.config.seed}
        values = bootstrap.with_interval(["psnr", "mse"], means, count_n, **draw)
        if "count" in arrays:
            values |= usage(arrays["count"], arrays.pop("vocab_size", None))
            self._warn(values, int(arrays["count"].sum()))
        if self.config.picture:
            image_grid.draw(self.config.picture, *_rows(shown[: self.config.pictures]))
        names = [name for name in _DEFINITIONS if name in values]
        made = result_card.write(
            self.config,
            self._env,
            self._source,
            kind="reconstruction",
            counts={"examples": count_n, "broken": broken},
            interval=bootstrap.describe("examples", **draw),
            metrics={name: _DEFINITIONS[name] for name in names},
            task={},
            text=False,
        )
        return Result(values, made, arrays)

    def _reconstruct(
        self, variables: PyTree
    ) -> tuple[dict[str, np.ndarray], int, list[tuple[np.ndarray, np.ndarray]]]:
        """Arrays of all pictures, broken records, and pairs to show."""
        env, broken, shown = self._env, 0, []
        index, mse, count_k, codes = [], [], np.zeros(0, np.int64), None
        batches = env.eval_batches(
            self._source, None, env.image_cfg, batch_size=self._size
        )
        for batch in batches:
            valid_b = forward.valid_rows(batch)
            broken += forward.broken_rows(batch)
            got = env.predict["reconstruct"](variables, forward.image_batch(batch))
            made_bss3 = np.asarray(got["image"], np.float32)[valid_b]
            self._check_finite(made_bss3)
            real_bss3 = np.asarray(batch["image"])[valid_b]
            off_bss3 = made_bss3 - real_bss3.astype(np.float32) / 255.0
            mse.append(np.square(off_bss3, dtype=np.float64).mean((1, 2, 3)))
            index.append(np.asarray(batch["_index"])[valid_b])
            if "image_tokens" in got:
                tokens_bt = np.asarray(got["image_tokens"])[valid_b]
                codes = int(got["vocab_size"]) if "vocab_size" in got else None
                count_k = _add(count_k, tokens_bt, codes or 0)
            for pair in zip(real_bss3, made_bss3, strict=True):
                if len(shown) < self.config.pictures:
                    shown.append(pair)
        mse_n = np.concatenate(mse)
        if not mse_n.size:
            raise UserError(f"{self._where}: {broken} records, all of them broken")
        arrays = {"index": np.concatenate(index), "mse": mse_n, "psnr": psnr(mse_n)}
        if count_k.size:
            arrays["count"] = count_k
            if codes is not None:
                arrays["vocab_size"] = np.asarray(codes)
        return arrays, broken, shown

    def _check_finite(self, made_bss3: np.ndarray) -> None:
        bad = int((~np.isfinite(made_bss3)).any((1, 2, 3)).sum())
        if bad:
            raise UserError(
                f"{self._where}: reconstruct gave NaN or Inf in {bad} of "
                f"{len(made_bss3)} pictures; the weights are broken: go back to an "
                "earlier checkpoint"
            )

    def _warn(self, values: Mapping[str, float], tokens: int) -> None:
        if "used" not in values:
            return
        codes, dead = int(values["codes"]), int(values["dead"])
        possible = min(tokens, codes + dead)
        if codes >= self.config.alarm * possible:
            return
        log.warning(
            "%s: %d tokens use %d of %d codes, %.1f %% (alarm under %.1f %%): the "
            "codebook has collapsed or is on its way. Let dead codes be moved, or cool "
            "and weigh the code's distribution more slowly; a lower learning rate "
            "helps both",
            self._where,
            tokens,
            codes,
            codes + dead,
            100 * codes / possible,
            100 * self.config.alarm,
        )


def psnr(mse_n: np.ndarray) -> np.ndarray:
    """-10 log10(mse) in dB, of pixels in [0, 1]; at most 100."""
    return -10.0 * np.log10(np.maximum(mse_n, LEAST))


def usage(count_k: np.ndarray, codes: Any = None) -> dict[str, float]:
    """codes and perplexity of counts; used and dead of a codebook of `codes`."""
    present_k = count_k[count_k > 0]
    share_k = present_k / present_k.sum()
    values = {
        "codes": float(len(present_k)),
        "perplexity": float(np.exp(-(share_k * np.log(share_k)).sum())),
    }
    if codes is None:
        return values
    used = len(present_k) / int(codes)
    return values | {"used": used, "dead": float(int(codes) - len(present_k))}


def _add(count_k: np.ndarray, tokens_bt: np.ndarray, codes: int) -> np.ndarray:
    """Counts with those of more tokens, as long as the largest number asks."""
    more_k = np.bincount(tokens_bt.reshape(-1), minlength=max(codes, len(count_k)))
    more_k[: len(count_k)] += count_k
    return more_k


def _rows(
    shown: list[tuple[np.ndarray, np.ndarray]],
) -> tuple[list[list[np.ndarray]], list[str]]:
    """Rows of originals and of what became of them, and their captions."""
    rows, captions = [], []
    for start in range(0, len(shown), COLUMNS):
        real, made = zip(*shown[start : start + COLUMNS], strict=True)
        eight_bit = [np.rint(255 * np.clip(x, 0, 1)).astype(np.uint8) for x in made]
        rows += [list(real), eight_bit]
        captions += ["originals", "reconstructions"]
    return rows, captions
