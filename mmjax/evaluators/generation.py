"""Pictures drawn for the captions of a source, and what judges say of them.

Legend: p prompts, k candidates of each, d features, m pictures.
"""

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmjax import schema
from mmjax.data.records import BrokenRecord, Record
from mmjax.errors import UserError
from mmjax.evaluators import base
from mmjax.evaluators.base import EvalConfig, Network, PyTree, Result
from mmjax.evaluators.common import candidates as candidates_lib
from mmjax.evaluators.common import forward, judge_network, result_card
from mmjax.evaluators.common.subset import View
from mmjax.metrics import bootstrap, copying, frechet
from mmjax.metrics import judges as judges_lib
from mmjax.sampling import rerank

JUDGES = {  # name: the keys of the config that it needs
    "oracle": (),
    "clip": ("clip",),
    "classifier": ("features",),
    "frechet": ("features",),
    "copying": ("train",),
}
_DEFINITIONS = {
    "oracle": {
        "oracle_all": "share of pictures in which the oracle reads the caption's scene",
        **{
            f"oracle_{name}": f"share of pictures whose {name} it reads right, of "
            "every object at once"
            for name in judges_lib.ORDER[1:]
        },
    },
    "clip": {"clip_score": "mean of max(100 cosine, 0) with the caption"},
    "classifier": {"classifier_accuracy": "share that the network calls the label"},
    "frechet": {
        "fid": "squared Frechet distance to the reference pictures in the features",
        "inception_score": "exp of mean KL(p(class | picture) || p(class)), one part; "
        "where the network has logits",
    },
    "copying": copying.METRICS,
}


@dataclass(frozen=True)
class Config(EvalConfig):
    """The source gives the prompts: one caption of each record.

    judges: one or more of oracle (the source's scenes, read back), clip, classifier
      (the prompts' labels), frechet (FID and inception score) and copying.
    candidates: pictures drawn for a prompt; all count, unless `best_of` picks.
    best_of: pools K; of the first K candidates the one that `clip` scores highest is
      judged as well, under names that end in _bestK.
    clip, features: workdirs of runs that judge: `clip` embeds images and texts,
      `features` offers "features", and "logits" for the classes.
    reference: real pictures that FID compares with; empty takes the prompts' own.
    train: the training pictures, where copies are looked for.
    caption: which caption of a record is the prompt; of shapes the first says all.
    sample_seed: of the first prompt's noise.
    frechet_resamples: of the bootstrap of FID and inception score, which are slow.
    """

    judges: str | tuple[str, ...] = ("oracle",)
    candidates: int = 1
    best_of: tuple[int, ...] = ()
    clip: str = ""
    features: str = ""
    reference: Any = ""
    train: Any = ""
    caption: int = 0
    sample_seed: int = 0
    frechet_resamples: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.named:
            if name not in JUDGES:
                raise ValueError(f"no judge {name!r}{schema.suggest(name, JUDGES)}")
            for key in JUDGES[name]:
                if not getattr(self, key):
                    raise ValueError(f"judge {name!r} needs {key}: give it")
        least = {"candidates": 1, "caption": 0, "frechet_resamples": 1}
        for name, low in least.items():
            if getattr(self, name) < low:
                got = getattr(self, name)
                raise ValueError(f"{name} must be at least {low}, got {got}")
        for pool in self.best_of:
            if not 1 <= pool <= self.candidates:
                raise ValueError(
                    f"best_of {pool} looks at more than the {self.candidates} "
                    f"candidates there are: set candidates to {max(self.best_of)}"
                )
        if self.best_of and not self.clip:
            raise ValueError("best_of picks by CLIP: give the workdir of a run as clip")

    @property
    def named(self) -> tuple[str, ...]:
        """The judges' names."""
        return (self.judges,) if isinstance(self.judges, str) else self.judges


class Evaluator(base.Evaluator):
    """Calls predict "sample": see `candidates.draw`; its `image` is what is judged."""

    config_class, reads_text = Config, True

    @functools.cached_property
    def _records(self) -> tuple[list[Record], int]:
        """The prompts' records without their pictures, and how many are broken."""
        found, broken = [], 0
        for i in range(len(self.source)):
            try:
                record = self.source[i]
            except BrokenRecord:
                broken += 1
                continue
            self._check_record(record)
            found.append({k: v for k, v in record.items() if k != "image"})
        if not found:
            name = self.source.name
            raise UserError(f"{self.where}: {name!r} has no prompts, {broken} broken")
        return found, broken

    def _check_record(self, record: Record) -> None:
        count, name = len(record["text"]), self.source.name
        if count <= self.config.caption:
            raise UserError(
                f"{self.where}: record {record['key']!r} of {name!r} has {count} "
                f"captions, and caption {self.config.caption} is asked for"
            )
        if "oracle" in self.config.named and "scene" not in record:
            raise UserError(
                f"{self.where}: records of {name!r} carry no scene for the oracle: "
                "use shapes, or other judges"
            )

    @functools.cached_property
    def prompts(self) -> list[str]:
        """The captions that pictures are drawn for, in order."""
        return [r["text"][self.config.caption] for r in self._records[0]]

    @functools.cached_property
    def _encoded(self) -> dict[str, np.ndarray]:
        return forward.encode(self.env, self.prompts, self.where)

    @functools.cached_property
    def _clip_run(self) -> Network:
        needs = ("embed_image", "embed_text")
        return judge_network.load(self.env, self.config.clip, needs, self.where)

    @functools.cached_property
    def _features_run(self) -> Network:
        needs = {"frechet": "features", "classifier": "logits"}
        needs = [needs[name] for name in self.config.named if name in needs]
        return judge_network.load(self.env, self.config.features, needs, self.where)

    def check(self, vars_abstract: PyTree) -> None:
        """See Evaluator.check of the base."""
        k = self.config.candidates
        batch = candidates_lib.abstract(self._encoded, k=k, size=self.size)
        got = forward.output_shape(self.env, "sample", vars_abstract, batch, self.where)
        wanted = (*batch["candidate"].shape, *forward.image_shape(self.env, 1)[1:])
        shape = getattr(got.get("image"), "shape", None)
        if shape != wanted:
            raise UserError(
                f"{self.where}: 'sample' must give image {wanted}, gives {shape}"
            )
        if self.config.clip:
            forward.require_tokenizer(
                self._clip_run, f"{self.where}: {self.config.clip}"
            )
        if self.config.features:
            _ = self._features_run
        for spec in filter(None, (self.config.reference, self.config.train)):
            look = {"size": self.size, "where": self.where}
            forward.peek(self.env, self.open(spec), **look)

    def run(self, variables: PyTree) -> Result:
        """Each judge's numbers, of all candidates and of the picks.

        `arrays` holds image uint8 (p, k, S, S, 3), log_prob (p, k) where "sample" gives
        it, and by the judges asked for clip (p, k), the cosines, and oracle (p, k), 1
        where all is right.
        """
        cfg = self.config
        drawn = candidates_lib.draw(
            functools.partial(self.env.predict["sample"], variables),
            self._encoded,
            k=cfg.candidates,
            size=self.size,
            seed=cfg.sample_seed,
        )
        kept = ("image", "log_prob")
        arrays = {name: drawn[name] for name in kept if name in drawn}
        if cfg.clip:
            arrays["clip"] = self._cosines(arrays["image"])
        chosen = judges_lib.picks(cfg.candidates, arrays.get("clip"), cfg.best_of)
        values: dict[str, float] = {}
        facts: dict[str, int] = {}
        for name in cfg.named:
            values |= getattr(self, f"_{name}")(arrays, chosen, facts)
        return Result(values, self._card(facts), arrays)

    def _cosines(self, images: np.ndarray) -> np.ndarray:
        """(p, k) of each picture with its prompt, by the CLIP run."""
        images_pkd = self._rows(self._clip_run, "embed_image", images)
        texts_pd = judge_network.of_texts(self._clip_run, "embed_text", self.prompts)
        return rerank.clip_scores(images_pkd, texts_pd)

    # -- judges by name: (arrays, picks, facts for the card) -> values -----------
    def _oracle(self, arrays: dict, chosen: judges_lib.Picks, facts: dict) -> dict:
        truths = [record["scene"] for record in self._records[0]]
        args = arrays["image"], truths, chosen
        values, arrays["oracle"] = judges_lib.oracle(*args, **self.draw)
        return values

    def _clip(self, arrays: dict, chosen: judges_lib.Picks, facts: dict) -> dict:
        return judges_lib.clip_score(arrays["clip"], chosen, **self.draw)

    def _classifier(self, arrays: dict, chosen: judges_lib.Picks, facts: dict) -> dict:
        label_p = np.asarray([r.get("label", -1) for r in self._records[0]])
        facts["labelled"] = int((label_p >= 0).sum())
        if not facts["labelled"]:
            name = self.source.name
            raise UserError(f"{self.where}: no record of {name!r} has a label")
        logits_pkc = self._rows(self._features_run, "logits", arrays["image"])
        return judges_lib.classifier(logits_pkc, label_p, chosen, **self.draw)

    def _frechet(self, arrays: dict, chosen: judges_lib.Picks, facts: dict) -> dict:
        run, images = self._features_run, arrays["image"]
        real = self._pictures(self.config.reference or self.source)
        real_md = judge_network.of_images(run, "features", real)
        facts |= {"reference": len(real), "features": real_md.shape[1]}
        draw = self.draw | {"resamples": self.config.frechet_resamples}
        features_pkd = self._rows(run, "features", images)
        values = judges_lib.fid(features_pkd, real_md, chosen, **draw)
        if "logits" in run.predict:
            logits_pkc = self._rows(run, "logits", images)
            values |= judges_lib.inception_score(logits_pkc, chosen, **draw)
        return values

    def _copying(self, arrays: dict, chosen: judges_lib.Picks, facts: dict) -> dict:
        train = self._pictures(self.config.train)
        held_out = self._pictures(self.source)
        facts |= {"training_pictures": len(train), "held_out_pictures": len(held_out)}
        return judges_lib.copies(arrays["image"], train, held_out, **self.draw)

    def _rows(self, run: Network, name: str, images: np.ndarray) -> np.ndarray:
        """A function of another run, of all pictures: (p, k, d)."""
        rows_nd = judge_network.of_images(run, name, judges_lib.flat(images))
        return rows_nd.reshape(*images.shape[:2], -1)

    def _pictures(self, spec: Any) -> np.ndarray:
        """All good pictures of a source, uint8 (n, S, S, 3), as evaluated."""
        source = spec if isinstance(spec, View) else self.open(spec)
        batches = forward.open_batches(self.env, source, size=self.size)
        return np.concatenate([b["image"][forward.valid_rows(b)] for b in batches])

    def _card(self, facts: dict[str, int]) -> dict[str, Any]:
        cfg = self.config
        runs = {
            key: run
            for key, run in (
                ("clip", self._clip_run if cfg.clip else None),
                ("features", self._features_run if cfg.features else None),
            )
            if run is not None
        }
        sources = {
            key: {"name": view.name, "fingerprint": view.fingerprint()}
            for key, view in (
                ("reference", self.open(cfg.reference) if cfg.reference else None),
                ("train", self.open(cfg.train) if cfg.train else None),
            )
            if view is not None
        }
        definitions: dict[str, str] = {}
        for name in cfg.named:
            definitions |= _DEFINITIONS[name]
        interval = bootstrap.describe(judges_lib.UNIT, **self.draw)
        if "frechet" in cfg.named:
            interval |= {
                "frechet": frechet.INTERVAL,
                "frechet_resamples": cfg.frechet_resamples,
            }
        written = result_card.write(
            cfg,
            self.env,
            self.source,
            kind="generation",
            counts={
                "prompts": len(self.prompts),
                "pictures": len(self.prompts) * cfg.candidates,
                "broken": self._records[1],
                "prompts_fill_context": int(self._encoded["tokens_mask"].all(1).sum()),
                **facts,
            },
            interval=interval,
            metrics=definitions,
            task={
                "judges": list(cfg.named),
                "networks": {
                    key: judge_network.describe(run) for key, run in runs.items()
                },
                "pictures_of": sources,
                "candidates": cfg.candidates,
                "best_of": list(cfg.best_of),
                "caption": cfg.caption,
                "sample_seed": cfg.sample_seed,
            },
            text=True,
        )
        # where they lie is no part of what was measured, nor of the card's id
        return {**written, "runs": {key: run.name for key, run in runs.items()}}
