"""How good captions are: a run's own, and those of captioners without a decoder.

Legend: b batch, i images, m words, n cells.
"""

import dataclasses
import pathlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mmjax import schema
from mmjax.evaluators import base, captioners
from mmjax.evaluators.common import forward
from mmjax.metrics import captions as metrics
from mmjax.report import attention_maps, figures, image_grid

_BLEU = {
    "bleuN": "BLEU-N in percent, N 1 to 4, all captions of an image its references",
    "bleuN_no_penalty": "the same without the brevity penalty, as Xu et al. 2015 print",
    "words": "words of a caption, the mean",
}
_MORE = {
    "rouge_l": "ROUGE-L in percent, the mean over images, beta 1.2",
    "cider_d": "CIDEr-D times 10, idf of these images' references",
    "meteor": "METEOR 1.5 in percent, the mean over images",
}
_OWN = "model"


@dataclass(frozen=True)
class Config(base.EvalConfig):
    """The source has images with captions, which are the references.

    methods: model, the run's own captions, and any of `captioners.METHODS`, which see
      the run's "features" and name their numbers: `consensus/bleu4`.
    train, options: the examples of these, and `captioners.Options`.
    sampling: changes to how the run finds captions, such as k and length_norm.
    metrics: beside BLEU, any of rouge_l, cider_d and meteor, which needs Java.
    png: a sheet of images with captions, of `shown` records, evenly spaced.
    attention: a folder for maps of where the run looked, one PNG of each of them.
    """

    methods: tuple[str, ...] = (_OWN,)
    train: Any = ""
    options: captioners.Options = field(default_factory=captioners.Options)
    sampling: dict = field(default_factory=dict)
    metrics: tuple[str, ...] = ("rouge_l", "cider_d")
    png: str = ""
    shown: int = 8
    attention: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least(shown=1)
        ways = (_OWN, *captioners.METHODS)
        for given, known in ((self.metrics, tuple(_MORE)), (self.methods, ways)):
            for name in given:
                if name not in known:
                    raise ValueError(f"no {name!r}{schema.suggest(name, known)}")
        if set(self.methods) - {_OWN} and not self.train:
            raise ValueError(f"methods are {self.methods}, of examples: give train")


class Evaluator(base.Evaluator):
    """Calls predict "caption" (mmjax.tasks.caption), "attention" and "features"."""

    config_class = Config
    reads_text = True

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        cfg = self.config
        if cfg.sampling:
            self.env = self.env.with_sampling(cfg.sampling)
        self.others = [name for name in cfg.methods if name != _OWN]
        wanted = {"caption": _OWN in cfg.methods, "features": bool(self.others)}
        self.calls = {name: None for name, used in wanted.items() if used}
        self.examples = self.open(cfg.train) if self.others else None

    def check(self, vars_abstract: base.PyTree) -> None:
        """See the base."""
        self.output_shapes(vars_abstract)
        cfg = self.config
        if cfg.attention and "attention" not in self.env.raw:
            raise self.error(
                f"attention is {cfg.attention!r}, and the run's decoder looks nowhere: "
                "leave it empty, or train one that attends"
            )
        if (cfg.png or cfg.attention) and "image" not in self.source[0]:
            raise self.error(
                f"png is {cfg.png!r}, attention {cfg.attention!r}, and records of "
                f"{self.source.name!r} have no image to draw: leave both empty"
            )

    def run(self, variables: base.PyTree) -> base.Result:
        """The numbers for every method, with intervals over images, and the files."""

        def keep(outputs: dict, batch: base.Batch, valid_b: np.ndarray) -> dict:
            kept = {name: x for name, x in outputs.items() if name == "features"}
            if "caption" in outputs:
                kept["said"] = said_bm = np.asarray(outputs["caption"]["caption"])[:, 0]
                if self.config.attention:
                    given = forward.inputs(batch, "attention", None, self.where)
                    given["caption"] = said_bm
                    kept["seen"] = self.env.predict["attention"](variables, given)
            return {name: np.asarray(x)[valid_b] for name, x in kept.items()}

        arrays, counts, _ = self.collect(variables, keep=keep)
        references = [self._references(self.source, i) for i in arrays["index"]]
        said = {}
        if "said" in arrays:
            said[""] = [self.env.tokenizer.decode(row) for row in arrays["said"]]
        if self.others:
            rows, _, _ = self.collect(
                variables, "features", keep=keep, source=self.examples
            )
            captions = [self._references(self.examples, i) for i in rows["index"]]
            args = arrays["features"], rows["features"], captions, self.config.options
            said |= {f"{name}/": captioners.say(name, *args) for name in self.others}
        values = {
            f"{prefix}{name}": value
            for prefix, texts in said.items()
            for name, value in self._measure(texts, references).items()
        }
        self._draw(arrays, said, references)
        kept = {f"caption_{name[:-1] or _OWN}": np.array(t) for name, t in said.items()}
        kept["index"] = arrays["index"]
        return base.Result(values, self._card(counts), kept)

    def _references(self, source: Any, index: int) -> list[list[str]]:
        """A record's captions as words, but for those without any."""
        listed = [metrics.words(caption) for caption in source.captions(int(index))]
        if not any(listed):
            raise self.error(
                f"record {index} of {source.name!r} has {len(listed)} captions, none "
                "with a word in it: give a source of captioned images"
            )
        return [words for words in listed if words]

    def _measure(self, texts: list[str], references: list) -> dict[str, float]:
        said = [metrics.words(text) for text in texts]
        pairs = list(zip(said, references, strict=True))
        counts_ic = np.array([metrics.bleu_counts(*pair) for pair in pairs])
        measures = {
            "rouge_l": lambda: [metrics.rouge_l(*pair) for pair in pairs],
            "cider_d": lambda: metrics.cider_d(said, references),
            "meteor": lambda: metrics.meteor(said, references),
        }
        rows = {name: measures[name]() for name in self.config.metrics}
        rows["words"] = counts_ic[:, 8]
        rows_ri = np.array(list(rows.values()))

        def statistic(weight_i: np.ndarray) -> np.ndarray:
            summed = weight_i @ counts_ic
            bleu = [metrics.bleu(summed, brevity=b) for b in (True, False)]
            return np.concatenate([*bleu, rows_ri @ weight_i / weight_i.sum()])

        ends, orders = ("", "_no_penalty"), range(1, metrics.ORDERS + 1)
        names = [f"bleu{n}{end}" for end in ends for n in orders]
        return self.intervals([*names, *rows], statistic, len(said))

    def _card(self, counts: dict[str, int]) -> dict[str, Any]:
        cfg, more = self.config, {}
        if self.others:
            more["options"] = dataclasses.asdict(cfg.options)
            more["train"] = {
                "name": self.examples.name,
                "fingerprint": self.examples.fingerprint(),
            }
        return self.card(
            counts,
            _BLEU | {name: _MORE[name] for name in cfg.metrics},
            resampled="images, each with its references",
            methods=list(cfg.methods),
            sampling=dict(self.env.sampling),
            words="lower case, without punctuation",
            **more,
        )

    def _draw(self, arrays: dict, said: dict, references: list) -> None:
        """The files that the config asks for."""
        cfg, view = self.config, self.env.image_cfg
        if not cfg.png and not cfg.attention:
            return
        few = np.linspace(0, len(arrays["index"]) - 1, cfg.shown).astype(int)
        images, titles = [], []
        for row in np.unique(few):
            record = self.source[int(arrays["index"][row])]
            image = view.evaluate(record["image"]) if view else record["image"]
            images.append([image])
            ways = [texts[row] for texts in said.values()]
            titles.append(" | ".join([*ways, f"({' '.join(references[row][0])})"]))
            if cfg.attention:
                drawn = attention_maps.draw(
                    image, said[""][row].split(), arrays["seen"][row]
                )
                name = pathlib.PurePath(record["key"]).name
                figures.save(drawn, pathlib.Path(cfg.attention) / f"{name}.png")
        if cfg.png:
            image_grid.draw(cfg.png, images, titles)
