"""Images through a tokenizer and back: what is lost, and which codes are used.

Legend: b batch, s side, n images, t tokens of an image, k codes.
"""

import functools
import logging
import math
from dataclasses import dataclass

import numpy as np

from mmjax.evaluators import base
from mmjax.evaluators.common import forward, judge_network
from mmjax.metrics import bootstrap, embeddings, frechet, judges
from mmjax.report import image_grid

log = logging.getLogger(__name__)
LEAST = 1e-10  # mean squared error that counts as none: 100 dB
COLUMNS = 8  # images in a row of the PNG
_DEFINITIONS = {
    "psnr": "mean over images of -10 log10(mse) in dB, at most 100; mse over an "
    "image's pixels and channels, in [0, 1] and not rounded",
    "mse": "mean squared error of pixels in [0, 1]",
    "perplexity": "exp of the entropy of the use of codes over all images",
    "codes": "how many codes occur in these images",
    "used": "codes as a share of the codebook",
    "dead": "codes of the codebook that do not occur",
    "fid": "squared Frechet distance of the reconstructions to their originals in the "
    "features, of 8 bits a channel",
}


@dataclass(frozen=True)
class Config(base.EvalConfig):
    """alarm: t tokens can use min(t, k) of k codes; a warning is logged where they use
      less than this share of them.

    png: a file to write, originals above their reconstructions; "" writes none.
    images: how many it shows, the source's first.
    features: workdir of a run that offers "features", for FID; "" is none.
    frechet_resamples: of the bootstrap of FID, which is slow.
    """

    alarm: float = 0.1
    png: str = ""
    images: int = 16
    features: str = ""
    frechet_resamples: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.alarm <= 1:
            raise ValueError(f"alarm is {self.alarm}: use a share from 0 to 1")
        self.at_least(images=1, frechet_resamples=1)


class Evaluator(base.Evaluator):
    """Calls predict "reconstruct": {image} to {image float (b, s, s, 3) in [0, 1]}.

    Where it also gives `image_tokens` (b, t), the use of codes is counted; with
    `vocab_size` (), as a share of the codebook.
    """

    config_class, calls = Config, {"reconstruct": forward.IMAGE}

    @functools.cached_property
    def _judge(self) -> base.Network | None:
        """The run whose features FID compares."""
        args = self.config.features, ["features"], self.where
        return judge_network.load(self.env, *args) if self.config.features else None

    def check(self, vars_abstract: base.PyTree) -> None:
        """See the base."""
        shape = self.output_shapes(vars_abstract)["reconstruct"]
        if hasattr(shape, "get"):
            shape = getattr(shape.get("image"), "shape", None)
        side = self.env.image_cfg.size
        wanted = self.size, side, side, 3
        if shape != wanted:
            raise self.error(f"'reconstruct' must give image {wanted}, gives {shape}")
        _ = self._judge  # a workdir that is no run says so before the first step

    def run(self, variables: base.PyTree) -> base.Result:
        """psnr, mse and fid with intervals; codes, perplexity, used, dead where known.

        `arrays` holds index, psnr and mse of every image, and `count` of every code.
        """
        shown: list[tuple[np.ndarray, np.ndarray]] = []
        count_k, codes = np.zeros(0, np.int64), None
        judge, features = self._judge, {"real": [], "rebuilt": []}

        def keep(outputs, batch, valid_b):
            nonlocal count_k, codes
            output = outputs["reconstruct"]
            rebuilt_bss3 = np.asarray(output["image"], np.float32)[valid_b]
            flat_bd = rebuilt_bss3.reshape(-1, math.prod(rebuilt_bss3.shape[1:]))
            embeddings.check_finite(flat_bd, f"{self.where}: reconstruct")
            real_bss3 = np.asarray(batch["image"])[valid_b]
            off_bss3 = rebuilt_bss3 - real_bss3.astype(np.float32) / 255.0
            if "image_tokens" in output:
                codes = int(output["vocab_size"]) if "vocab_size" in output else None
                tokens_n = np.asarray(output["image_tokens"])[valid_b].ravel()
                before_k = count_k
                count_k = np.bincount(tokens_n, minlength=max(codes or 0, len(count_k)))
                count_k[: len(before_k)] += before_k
            if judge is not None:
                pair = real_bss3, image_grid.eight_bit(rebuilt_bss3)
                for rows, images in zip(features.values(), pair, strict=True):
                    rows.append(judge_network.of_images(judge, "features", images))
            room = self.config.images - len(shown)
            shown.extend(list(zip(real_bss3, rebuilt_bss3, strict=True))[:room])
            return {"mse": np.square(off_bss3, dtype=np.float64).mean((1, 2, 3))}

        arrays, counts, _ = self.collect(variables, keep=keep)
        arrays["psnr"] = -10.0 * np.log10(np.maximum(arrays["mse"], LEAST))
        rows = {name: arrays[name] for name in ("psnr", "mse")}
        values = bootstrap.means(rows, **self.draw)
        if count_k.size:
            arrays["count"] = count_k
            values |= self._usage(count_k, codes)
        if judge is not None:
            values |= self._fid(**{k: np.concatenate(v) for k, v in features.items()})
        if self.config.png:
            image_grid.draw(self.config.png, *_rows(shown))
        metrics = {name: text for name, text in _DEFINITIONS.items() if name in values}
        if judge is None:
            return base.Result(values, self.card(counts, metrics), arrays)
        card = self.card(counts, metrics, network=judge_network.describe(judge))
        card["interval"] |= {
            "frechet": frechet.INTERVAL,
            "frechet_resamples": self.config.frechet_resamples,
        }
        return base.Result(values, card | {"runs": {"features": judge.name}}, arrays)

    def _fid(self, real: np.ndarray, rebuilt: np.ndarray) -> dict[str, float]:
        """fid of features (n, d), with its interval over reconstructions."""
        draw = self.draw | {"resamples": self.config.frechet_resamples}
        return judges.fid(rebuilt[:, None], real, judges.picks(1), **draw)

    def _usage(self, count_k: np.ndarray, codes: int | None) -> dict[str, float]:
        """codes and perplexity of counts; used and dead of a codebook of `codes`."""
        present_k = count_k[count_k > 0]
        share_k = present_k / present_k.sum()
        present = len(present_k)
        values = {
            "codes": float(present),
            "perplexity": float(np.exp(-(share_k * np.log(share_k)).sum())),
        }
        if codes is None:
            return values
        tokens, alarm = int(count_k.sum()), self.config.alarm
        possible = min(tokens, codes)
        if present < alarm * possible:
            log.warning(
                "%s: %d tokens use %d of %d codes, %.1f %% (alarm under %.1f %%): the "
                "codebook has collapsed or is on its way. Let dead codes be moved, or "
                "cool and weigh the code's distribution more slowly; a lower learning "
                "rate helps both",
                *(self.where, tokens, present, codes),
                *(100 * present / possible, 100 * alarm),
            )
        return values | {"used": present / codes, "dead": float(codes - present)}


def _rows(
    shown: list[tuple[np.ndarray, np.ndarray]],
) -> tuple[list[list[np.ndarray]], list[str]]:
    """Rows of originals and of their reconstructions, and their captions."""
    rows, captions = [], []
    for start in range(0, len(shown), COLUMNS):
        real, rebuilt = zip(*shown[start : start + COLUMNS], strict=True)
        rows += [list(real), list(image_grid.eight_bit(np.stack(rebuilt)))]
        captions += ["originals", "reconstructions"]
    return rows, captions
