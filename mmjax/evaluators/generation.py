"""Images drawn for the prompts of a source, and what judges say of them.

Legend: p prompts, k candidates of each, d features, m images.
"""

import functools
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from mmjax import schema
from mmjax.data.records import BrokenRecord, Record
from mmjax.evaluators import base
from mmjax.evaluators.base import Env, EvalConfig, Network, PyTree, Result
from mmjax.evaluators.common import forward, judge_network
from mmjax.metrics import copying, frechet
from mmjax.metrics import judges as judges_lib
from mmjax.sampling import calls, rerank

JUDGES = {  # name: the keys of the config that it needs
    "oracle": (),
    "clip": ("clip",),
    "classifier": ("features",),
    "frechet": ("features",),
    "copying": ("train",),
}
_DEFINITIONS = {
    "oracle": {
        "oracle_all": "share of images in which the oracle reads the caption's scene",
        **{
            f"oracle_{name}": f"share of images whose {name} it reads right, of "
            "every object at once"
            for name in judges_lib.ORDER[1:]
        },
    },
    "clip": {"clip_score": "mean of max(100 cosine, 0) with the caption"},
    "classifier": {"classifier_accuracy": "share that the network calls the label"},
    "frechet": {
        "fid": "squared Frechet distance to the reference images in the features",
        "inception_score": "exp of mean KL(p(class | image) || p(class)), one part; "
        "where the network has logits",
    },
    "copying": copying.METRICS,
}
_NOVELTY = {  # where `known` is given
    "oracle_new": "oracle_all of prompts that are no caption of `known`",
    "oracle_seen": "oracle_all of prompts that are one",
    "prompts_new": "how many prompts are no caption of `known`",
}


@dataclass(frozen=True)
class Config(EvalConfig):
    """The source gives the prompts: one caption, or the label, of each record.

    judges: one or more of oracle (the source's scenes, read back), clip, classifier
      (the prompts' labels), frechet (FID and inception score) and copying.
    candidates: images drawn for a prompt; all count, unless `best_of` picks.
    best_of: pools K; of the first K candidates the one that `clip` scores highest is
      judged as well, under names that end in _bestK.
    clip, features: workdirs of runs that judge: `clip` embeds images and texts,
      `features` offers "features", and "logits" for the classes.
    reference: real images that FID compares with; empty takes the prompts' own.
    train: the training images, where copies are looked for.
    known: the training captions; the oracle's share is given of prompts that are none
      of them, word for word, and of the others, apart.
    condition: what is drawn for, "text" or "label".
    caption: which caption of a record is the prompt; of shapes the first says all.
    sampling: changes to the options that the task samples with. An option given
      several values is swept, and names the values: `temperature=0.7/oracle_all`.
    sample_seed: the images are those that `mmjax sample --seed` draws for the prompts.
    frechet_resamples: of the bootstrap of FID and inception score, which are slow.
    """

    judges: str | tuple[str, ...] = ("oracle",)
    candidates: int = 1
    best_of: tuple[int, ...] = ()
    clip: str = ""
    features: str = ""
    reference: Any = ""
    train: Any = ""
    known: Any = ""
    condition: Literal["text", "label"] = "text"
    caption: int = 0
    sampling: Mapping[str, Any] = field(default_factory=dict)
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
        self.at_least(candidates=1, caption=0, frechet_resamples=1)
        for pool in self.best_of:
            if not 1 <= pool <= self.candidates:
                raise ValueError(
                    f"best_of {pool} looks at more than the {self.candidates} "
                    f"candidates there are: set candidates to {max(self.best_of)}"
                )
        if self.known and "oracle" not in self.named:
            raise ValueError(
                f"known tells the oracle's share apart, and judges are {self.named}: "
                "add oracle, or leave known out"
            )
        if self.known and self.condition != "text":
            raise ValueError("known are captions, and condition is 'label': leave one")
        if self.best_of and not self.clip:
            raise ValueError("best_of picks by CLIP: give the workdir of a run as clip")

    @property
    def named(self) -> tuple[str, ...]:
        """The judges' names."""
        return (self.judges,) if isinstance(self.judges, str) else self.judges


class Evaluator(base.Evaluator):
    """Calls predict "sample" (mmjax.tasks.base.Task); its `image` is what is judged."""

    config_class = Config

    def __init__(self, cfg: Mapping[str, Any], env: Env, where: str = ""):
        super().__init__(cfg, env, where)
        if self.config.condition == "text":
            forward.require_tokenizer(env, self.where)
        self._swept = {  # option: its values
            name: value if isinstance(value, (tuple, list)) else (value,)
            for name, value in self.config.sampling.items()
        }
        self._envs = dict(map(self._sampler, itertools.product(*self._swept.values())))

    def _sampler(self, values: tuple) -> tuple[str, Env]:
        """(what leads the names of values, the Env) of one choice of the options."""
        options = dict(zip(self._swept, values, strict=True))
        if not options:
            return "", self.env
        if self.env.with_sampling is None:
            raise self.error("sampling cannot be changed from here")
        varied = [k for k in options if len(self._swept[k]) > 1]
        tag = ",".join(f"{name}={options[name]}" for name in varied)
        return f"{tag}/" if tag else "", self.env.with_sampling(options)

    @functools.cached_property
    def _records(self) -> tuple[list[Record], int]:
        """The prompts' records without their images, and how many are broken."""
        records, broken = [], 0
        for i in range(len(self.source)):
            try:
                record = self.source[i]
            except BrokenRecord:
                broken += 1
                continue
            self._check_record(record)
            records.append({k: v for k, v in record.items() if k != "image"})
        if not records:
            raise self.error(f"{self.source.name!r} has no prompts, {broken} broken")
        return records, broken

    def _check_record(self, record: Record) -> None:
        cfg, name = self.config, self.source.name
        place = f"record {record['key']!r} of {name!r}"
        count, texts = len(record["text"]), cfg.condition == "text" or cfg.clip
        if texts and count <= cfg.caption:
            raise self.error(
                f"{place} has {count} captions, and caption {cfg.caption} is asked for"
            )
        if cfg.condition == "label" and record.get("label", -1) < 0:
            raise self.error(f"{place} has no label to draw for")
        if "oracle" in cfg.named and "scene" not in record:
            raise self.error(
                f"records of {name!r} carry no scene for the oracle: use shapes, or "
                "other judges"
            )

    @property
    def prompts(self) -> list[str] | list[int]:
        """The captions or labels that images are drawn for, in order."""
        if self.config.condition == "label":
            return [int(record["label"]) for record in self._records[0]]
        return self._captions

    @property
    def _captions(self) -> list[str]:
        return [r["text"][self.config.caption] for r in self._records[0]]

    @functools.cached_property
    def _rows(self) -> dict[str, np.ndarray]:
        """What "sample" is called with, but for the candidates: a row a prompt."""
        seed = self.config.sample_seed
        return calls.conditions(self.prompts, self.env.tokenizer, seed=seed)

    @property
    def _calls(self) -> dict[str, int]:
        shape = {"k": self.config.candidates, "size": self.size}
        return shape | {"devices": self.env.devices}

    @functools.cached_property
    def _networks(self) -> dict[str, Network]:
        """The runs that judge, by their key of the config."""
        cfg = self.config
        features = {"frechet": "features", "classifier": "logits"}
        needs = {
            "clip": ["embed_image", "embed_text"],
            "features": [features[name] for name in cfg.named if name in features],
        }
        return {
            key: judge_network.load(self.env, getattr(cfg, key), names, self.where)
            for key, names in needs.items()
            if getattr(cfg, key)
        }

    def check(self, vars_abstract: PyTree) -> None:
        """See Evaluator.check of the base."""
        rows, _ = next(calls.batches(self._rows, **self._calls))
        batch, side = forward.abstract(rows), self.env.image_cfg.size
        wanted = (*batch["candidate"].shape, side, side, 3)
        for env in self._envs.values():
            out = forward.output_shape(env, "sample", vars_abstract, batch, self.where)
            shape = getattr(out.get("image"), "shape", None)
            if shape != wanted:
                raise self.error(f"'sample' must give image {wanted}, gives {shape}")
        clip = self._networks.get("clip")
        if clip is not None:
            forward.require_tokenizer(clip, f"{self.where}: {self.config.clip}")
        for spec in filter(None, (self.config.reference, self.config.train)):
            self.peek(self.open(spec))

    def run(self, variables: PyTree) -> Result:
        """Each judge's numbers, of all candidates and of the picks.

        `arrays` holds image uint8 (p, k, S, S, 3), log_prob (p, k) where "sample" gives
        it, and by the judges asked for clip (p, k), the cosines, and oracle (p, k), 1
        where all is right. Where options are swept, all names begin with their values.
        """
        values: dict[str, float] = {}
        arrays: dict[str, np.ndarray] = {}
        facts: dict[str, int] = {}
        for tag, env in self._envs.items():
            sample = functools.partial(env.predict["sample"], variables)
            drawn = calls.draw(sample, self._rows, **self._calls)
            drawn = {k: v for k, v in drawn.items() if k in ("image", "log_prob")}
            if self.config.clip:
                drawn["clip"] = self._cosines(drawn["image"])
            args = self.config.candidates, drawn.get("clip"), self.config.best_of
            chosen = judges_lib.picks(*args)
            for name in self.config.named:
                numbers = getattr(self, f"_{name}")(drawn, chosen, facts)
                values |= {f"{tag}{name}": value for name, value in numbers.items()}
            arrays |= {f"{tag}{name}": array for name, array in drawn.items()}
        return Result(values, self._card(facts), arrays)

    def _cosines(self, images: np.ndarray) -> np.ndarray:
        """(p, k) of each image with its prompt, by the CLIP run."""
        images_pkd = self._of_images("clip", "embed_image", images)
        clip = self._networks["clip"]
        texts_pd = judge_network.of_texts(clip, "embed_text", self._captions)
        return rerank.clip_scores(images_pkd, texts_pd)

    # -- judges by name: (arrays, picks, facts for the card) -> values -----------
    def _oracle(self, arrays: dict, chosen: judges_lib.Picks, facts: dict) -> dict:
        truths = [record["scene"] for record in self._records[0]]
        args = arrays["image"], truths, chosen
        values, arrays["oracle"] = judges_lib.oracle(*args, **self.draw)
        if self.config.known:
            columns = {
                f"oracle_{{}}{suffix}": judges_lib.taken(arrays["oracle"], pick_pn)
                for suffix, pick_pn in chosen.items()
            }
            values |= judges_lib.by_novelty(columns, self._new, **self.draw)
        return values

    @functools.cached_property
    def _new(self) -> np.ndarray:
        """(p,) whether a prompt is no caption of `known`."""
        texts = set(self.open(self.config.known).texts())
        return np.array([prompt not in texts for prompt in self._captions])

    def _clip(self, arrays: dict, chosen: judges_lib.Picks, facts: dict) -> dict:
        return judges_lib.clip_score(arrays["clip"], chosen, **self.draw)

    def _classifier(self, arrays: dict, chosen: judges_lib.Picks, facts: dict) -> dict:
        label_p = np.asarray([r.get("label", -1) for r in self._records[0]])
        facts["labelled"] = int((label_p >= 0).sum())
        if not facts["labelled"]:
            raise self.error(f"no record of {self.source.name!r} has a label")
        logits_pkc = self._of_images("features", "logits", arrays["image"])
        return judges_lib.classifier(logits_pkc, label_p, chosen, **self.draw)

    def _frechet(self, arrays: dict, chosen: judges_lib.Picks, facts: dict) -> dict:
        real_md, images = self._real_features, arrays["image"]
        facts |= {"reference": len(real_md), "features": real_md.shape[1]}
        draw = self.draw | {"resamples": self.config.frechet_resamples}
        features_pkd = self._of_images("features", "features", images)
        values = judges_lib.fid(features_pkd, real_md, chosen, **draw)
        if "logits" in self._networks["features"].predict:
            logits_pkc = self._of_images("features", "logits", images)
            values |= judges_lib.inception_score(logits_pkc, chosen, **draw)
        return values

    @functools.cached_property
    def _real_features(self) -> np.ndarray:
        """(m, d) of the reference images, whatever options are swept."""
        real = self._images(self.config.reference)
        return judge_network.of_images(self._networks["features"], "features", real)

    def _copying(self, arrays: dict, chosen: judges_lib.Picks, facts: dict) -> dict:
        train, held_out = self._images(self.config.train), self._images()
        facts |= {"training_pictures": len(train), "held_out_pictures": len(held_out)}
        return judges_lib.copies(arrays["image"], train, held_out, **self.draw)

    def _of_images(self, key: str, name: str, images: np.ndarray) -> np.ndarray:
        """A function of another run, of all images: (p, k, d)."""
        network = self._networks[key]
        rows_nd = judge_network.of_images(network, name, judges_lib.flat(images))
        return rows_nd.reshape(*images.shape[:2], -1)

    def _images(self, spec: Any = None) -> np.ndarray:
        """All good images of a spec or the prompts' source, uint8 (n, S, S, 3)."""
        batches = self.batches(self.open(spec) if spec else self.source)
        return np.concatenate([b["image"][forward.valid_rows(b)] for b in batches])

    def _card(self, facts: dict[str, int]) -> dict[str, Any]:
        cfg, runs = self.config, self._networks
        specs = {"reference": cfg.reference, "train": cfg.train, "known": cfg.known}
        views = {key: self.open(spec) for key, spec in specs.items() if spec}
        mask_pl = self._rows.get("tokens_mask", np.zeros((0, 1)))
        counts = {
            "prompts": len(self.prompts),
            "pictures": len(self.prompts) * cfg.candidates,
            "broken": self._records[1],
            "prompts_fill_context": int(mask_pl.all(1).sum()),
        }
        described = [_DEFINITIONS[name] for name in cfg.named]
        described += [_NOVELTY] if cfg.known and "oracle" in cfg.named else []
        card = self.card(
            counts | facts,
            {k: text for part in described for k, text in part.items()},
            resampled=judges_lib.UNIT,
            text=cfg.condition == "text",
            judges=list(cfg.named),
            networks={key: judge_network.describe(run) for key, run in runs.items()},
            pictures_of={
                key: {"name": view.name, "fingerprint": view.fingerprint()}
                for key, view in views.items()
            },
            candidates=cfg.candidates,
            best_of=list(cfg.best_of),
            condition=cfg.condition,
            caption=cfg.caption,
            sampling={name: list(given) for name, given in self._swept.items()},
            sample_seed=cfg.sample_seed,
        )
        if "frechet" in cfg.named:
            card["interval"] |= {
                "frechet": frechet.INTERVAL,
                "frechet_resamples": cfg.frechet_resamples,
            }
        # Where judges lie and what the model's own options are is no part of what was
        # measured, nor of the card's id.
        used = {tag.rstrip("/"): dict(env.sampling) for tag, env in self._envs.items()}
        names = {key: run.name for key, run in runs.items()}
        return {**card, "runs": names, "drawn_with": used}
