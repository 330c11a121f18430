"""Vector arithmetic: the nearest images of image - word + word, judged by class.

In a joint space an image of a blue car, less "blue", plus "red", lies near images of
red cars (Kiros et al. 2014, section 3.3). Class names of two words, such as "red
circle", make that a measurement: for every image one word of its class is swapped for
another, and the nearest other images should be of the class with the new word and the
old other one.

Legend: n images, q queries, c classes, d embedding, k nearest.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from mmjax.data.prompts import SLOT
from mmjax.evaluators import base
from mmjax.evaluators.common import forward, result_card
from mmjax.metrics import embeddings

SWAPS = ("first", "second")  # which word of a class name changes
_DEFINITION = {
    "SWAP_pK": "share of the K nearest other images that are of the target class",
    "SWAP_kept_pK": "share of them that have the word that stays",
    "SWAP_new_pK": "share of them that have the word that comes",
    "SWAP_image_pK": "as SWAP_pK, searched by the image alone",
    "SWAP_text_pK": "as SWAP_pK, searched by the target class's name alone",
    "SWAP_chance_pK": "as SWAP_pK, of images drawn by lot",
    "SWAP_ground_pK": "share of them with the query image's background, which no text "
    "names; for drawn scenes",
    "SWAP_text_ground_pK": "the same, searched by the target class's name alone",
}


@dataclass(frozen=True)
class Config(base.TemplateConfig):
    """weight: of the two texts, beside the image's 1.

    words: the texts that are subtracted and added.
      bare: the word that leaves and the word that comes, as in image - "red" + "blue".
      whole: the two class names.
    template: a sentence around them, and around the name of the text baseline.
    top: how many nearest images are judged.
    """

    weight: float = 1.0
    words: Literal["bare", "whole"] = "bare"
    top: int = 10

    def __post_init__(self):
        super().__post_init__()
        self.at_least(top=1)
        if not np.isfinite(self.weight):
            raise ValueError(f"weight must be finite, got {self.weight}")


class Swap(NamedTuple):
    """One word of every query's class for another; positions of images and classes."""

    word: int  # 0 or 1: which of the two
    query_q: np.ndarray
    target_q: np.ndarray


class Evaluator(base.Evaluator):
    """Calls predict "embed_image" and "embed_text"; the source needs labels.

    Every image is a query twice: its first word swapped, and its second, for one drawn
    by `seed` among those whose class has `top` images or more, so that 1 can be
    reached. A query's own image is never among its nearest.
    """

    config_class = Config
    calls = {"embed_image": forward.IMAGE, "embed_text": forward.TEXT}
    reads_text = labelled = True

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.class_names = self.source.class_names
        self.pairs = [tuple(name.split()) for name in self.class_names]
        if not self.pairs:
            raise self.error("the source names no classes to swap words of")
        for name, pair in zip(self.class_names, self.pairs, strict=True):
            if len(pair) != 2:
                raise self.error(
                    f"class {name!r} has {len(pair)} words, and a swap changes one of "
                    "two, as in 'red circle': use shapes with objects=1"
                )

    def run(self, variables: base.PyTree) -> base.Result:
        """first_p10, ... (see _DEFINITION), with intervals over images.

        `arrays` holds, per image: index and label; per query: query (position of its
        image), swap (0 or 1), target (class), and the shares of each metric.
        """
        images = self.collect(variables, "embed_image")
        index_n, label_n = images.arrays["index"], images.arrays["label"]
        image_nd = embeddings.unit(images.arrays["embed_image"])
        ground_n = self._grounds(index_n)
        cfg, names = self.config, [" ".join(pair) for pair in self.pairs]
        classes_cd = self._embed(variables, names)
        arrays: dict[str, list[np.ndarray]] = defaultdict(list)
        values: dict[str, float] = {}
        for word, title in enumerate(SWAPS):
            swap = self._draw(label_n, word)
            words_cd = classes_cd
            if cfg.words == "bare":
                words_cd = self._embed(variables, [pair[word] for pair in self.pairs])
            image_qd = image_nd[swap.query_q]
            new_qd, old_qd = words_cd[swap.target_q], words_cd[label_n[swap.query_q]]
            terms = [(1.0, image_qd), (cfg.weight, new_qd), (-cfg.weight, old_qd)]
            queries = {"": embeddings.combine(terms), "image_": image_qd}
            queries["text_"] = classes_cd[swap.target_q]
            shares = self._judge(swap, queries, image_nd, label_n, ground_n)
            titles = [f"{title}_{part}p{cfg.top}" for part in shares]
            shares_mq, query_q = np.stack(list(shares.values())), swap.query_q

            def means(weight_n, shares_mq=shares_mq, query_q=query_q):
                weight_q = weight_n[query_q]
                return shares_mq @ weight_q / max(weight_q.sum(), 1e-9)

            values |= self.intervals(titles, means, len(label_n))
            rows = {"query": swap.query_q, "target": swap.target_q}
            rows["swap"] = np.full_like(swap.query_q, word)
            for name, array in {**rows, **shares}.items():
                arrays[name.rstrip("_") or "hit"].append(array)
        flat = {name: np.concatenate(parts) for name, parts in arrays.items()}
        counts = {"images": len(label_n), "queries": len(flat["swap"])}
        counts |= {"broken": images.counts["broken"]}
        counts |= {"classes_present": len(np.unique(label_n))}
        card = self.card(
            counts,
            _DEFINITION,
            resampled="images, each with its two queries; the gallery stays whole",
            class_names=result_card.listing(names),
            weight=cfg.weight,
            words=cfg.words,
            template=cfg.template,
            top=cfg.top,
            targets_seed=cfg.seed,
            ties="in the order of records",
        )
        return base.Result(values, card, flat | {"index": index_n, "label": label_n})

    def _judge(
        self,
        swap: Swap,
        queries: Mapping[str, np.ndarray],
        image_nd: np.ndarray,
        label_n: np.ndarray,
        ground_n: np.ndarray | None,
    ) -> dict[str, np.ndarray]:
        """Shares (q,) of the nearest that are right, by metric."""
        words_c2 = np.asarray(self.pairs)
        target_q1, own_q = swap.target_q[:, None], swap.query_q
        shares: dict[str, np.ndarray] = {}
        for form, query_qd in queries.items():
            args = query_qd, image_nd, self.config.top
            near_qk = embeddings.nearest(*args, skip_q=own_q)
            class_qk = label_n[near_qk]
            shares[form] = (class_qk == target_q1).mean(1)
            if not form:
                right_qk2 = words_c2[class_qk] == words_c2[target_q1]
                shares["kept_"] = right_qk2[..., 1 - swap.word].mean(1)
                shares["new_"] = right_qk2[..., swap.word].mean(1)
            if ground_n is not None and form != "image_":
                same_qk = ground_n[near_qk] == ground_n[own_q][:, None]
                shares[f"{form}ground_"] = same_qk.mean(1)
        count_c = np.bincount(label_n, minlength=len(self.pairs))
        shares["chance_"] = count_c[swap.target_q] / (len(label_n) - 1)
        return shares

    def _grounds(self, index_n: np.ndarray) -> np.ndarray | None:
        """Backgrounds (n,), where the source draws its scenes."""
        scenes = self.source.scenes
        if not all(int(i) in scenes for i in index_n):
            return None
        return np.asarray([scenes[int(i)].background for i in index_n])

    def _embed(self, variables: base.PyTree, texts: Sequence[str]) -> np.ndarray:
        """(len(texts), d) unit rows, the template around every text."""
        filled = [self.config.template.replace(SLOT, text) for text in texts]
        return np.concatenate(list(self.embed_texts(variables, self.encode(filled))))

    def _draw(self, label_n: np.ndarray, word: int) -> Swap:
        """A target class for every image that has one; UserError where none has."""
        top, seed = self.config.top, self.config.seed
        count_c = np.bincount(label_n, minlength=len(self.pairs))
        chance_n = np.random.default_rng([seed, word]).random(len(label_n))
        targets = [
            [
                c
                for c, pair in enumerate(self.pairs)
                if pair[1 - word] == own[1 - word]
                and pair[word] != own[word]
                and count_c[c] >= top
            ]
            for own in self.pairs
        ]
        chosen = {
            n: targets[c][int(chance_n[n] * len(targets[c]))]
            for n, c in enumerate(label_n)
            if targets[c]
        }
        if not chosen:
            raise self.error(
                "no image has a class that differs from its own in the "
                f"{SWAPS[word]} word alone and has {top} images: use more images, or "
                "a lower top"
            )
        positions = list(chosen), list(chosen.values())
        return Swap(word, *(np.asarray(listed, np.int64) for listed in positions))
