"""The generation evaluator on models that are right by construction."""

import json

import batch_fields
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.data import tokenizers
from mmjax.data.fields import image
from mmjax.data.records import BrokenRecord
from mmjax.data.sources import open_source
from mmjax.errors import UserError
from mmjax.evaluators import Env, Network, build, generation

CFG = image.Field(size=32, mode="squash")
SPEC = "shapes:val?size=32&count=9"
TRAIN = "shapes:train?size=32&count=40"
VARS = {}
TOKENIZER = tokenizers.build({"kind": "bytes", "context": 120})


def shapes_of(variables, batch):
    """What "sample" gives, for jax.eval_shape."""
    shape = batch["candidate"].shape
    return {
        "image": jnp.zeros((*shape, 32, 32, 3), jnp.uint8),
        "log_prob": jnp.zeros(shape),
    }


def knows_the_answers(source, every=2):
    """Candidate c of a prompt is its true image where c is a multiple of `every`."""
    records = [source[i] for i in range(len(source))]
    answers = {text: r["image"] for r in records for text in r["text"]}

    def sample(variables, batch):
        numbers = batch["candidate"]
        image = np.full((*numbers.shape, 32, 32, 3), 128, np.uint8)
        for r, row in enumerate(batch["tokens"]):
            for c, number in enumerate(numbers[r]):
                if number % every == 0:
                    image[r, c] = answers.get(TOKENIZER.decode(row), 128)
        return {"image": image, "log_prob": -1.0 * numbers}

    return sample


def colour_run(workdir):
    """A run whose embeddings are mean colours: flat grey pictures stand out."""

    def features(batch):
        return batch["image"].reshape(len(batch["image"]), -1)[:, :48] / 255

    def embed_image(batch):
        flat = (batch["image"] == 128).mean((1, 2, 3))
        return np.stack([flat < 0.9, flat > 0.9], 1).astype(np.float32)

    def embed_text(batch):
        return np.tile([[1.0, 0.0]], (len(batch["tokens"]), 1))

    def logits(batch):
        return np.eye(64)[batch["image"][:, 0, 0, 0] % 64]

    predict = {"embed_image": embed_image, "embed_text": embed_text, "logits": logits}
    return Network(
        name=workdir,
        task="fake",
        step=3,
        fingerprint="abcd",
        predict=predict | {"features": features},
        tokenizer=tokenizers.build({"kind": "bytes"}),
        image_cfg=CFG,
        batch_size=16,
    )


def make_env(sample=None, raw=shapes_of, **more):
    values = {
        "predict": {"sample": sample or knows_the_answers(open_source(SPEC))},
        "raw": {"sample": raw},
        "tokenizer": TOKENIZER,
        "image_cfg": CFG,
        "batch_size": 8,
        "open_source": open_source,
        "reads": ("image", "tokens"),
        "eval_batches": batch_fields.batches(TOKENIZER, CFG),
        "open_run": colour_run,
    }
    return Env(**values | more)


def test_every_judge_and_its_card():
    cfg = {
        "type": "generation",
        "source": SPEC,
        "judges": ("oracle", "clip", "classifier", "frechet", "copying"),
        "candidates": 4,
        "best_of": (1, 2, 4),
        "clip": "runs/clip",
        "features": "runs/classifier",
        "train": TRAIN,
        "known": [(f"{SPEC}&limit=2", 1.0), (f"{SPEC}&skip=2&limit=3", 1.0)],
        "resamples": 50,
        "frechet_resamples": 5,
    }
    evaluator = build("drawn", cfg, make_env())
    evaluator.check(VARS)
    got = evaluator.run(VARS)
    values = got.values
    assert values["oracle_all"] == 0.5  # candidates 0 and 2
    assert values["oracle_all_best1"] == values["oracle_all_best4"] == 1
    assert values["prompts_new"] == 4
    assert values["oracle_new"] == values["oracle_seen"] == 0.5
    assert values["oracle_new_best4"] == 1
    assert values["clip_score"] == 50 and values["clip_score_best2"] == 100
    assert values["copies"] == 0 and values["nearest"] > 0.02
    assert values["fid"] > 0.1 and values["fid_best1"] < 1e-6  # the reference itself
    assert values["inception_score"] >= 1 and "classifier_accuracy" in values
    for name, value in values.items():
        if f"{name}_lo" in values:
            assert values[f"{name}_lo"] <= value + 1e-12 <= values[f"{name}_hi"] + 2e-12
    assert got.arrays["image"].shape == (9, 4, 32, 32, 3)
    assert got.arrays["oracle"].tolist() == [[1, 0, 1, 0]] * 9
    assert got.arrays["clip"].shape == got.arrays["log_prob"].shape == (9, 4)
    card = json.loads(json.dumps(got.card))
    assert card["runs"] == {"clip": "runs/clip", "features": "runs/classifier"}
    known = {"task": "fake", "step": 3, "fingerprint": "abcd"}
    assert card["networks"] == {"clip": known, "features": known}
    counts = card["counts"]
    assert (counts["prompts"], counts["pictures"], counts["broken"]) == (9, 36, 0)
    assert (counts["reference"], counts["features"]) == (9, 48)
    assert (counts["training_pictures"], counts["held_out_pictures"]) == (40, 9)
    assert card["pictures_of"]["train"]["name"] == "shapes:train"
    assert card["interval"]["resampled"].startswith("prompts")
    described = set(card["metrics"])
    assert {n.split("_best")[0] for n in values if not n.endswith(("_lo", "_hi"))} == (
        described
    )


def test_batch_size_changes_nothing_and_the_card_follows_the_question():
    cfg = {"source": SPEC, "candidates": 3, "resamples": 20}
    runs = [
        generation.Evaluator({**cfg, **more}, make_env()).run(VARS)
        for more in ({}, {"batch_size": 2}, {"batch_size": 100})
    ]
    for other in runs[1:]:
        assert other.values == runs[0].values
        assert other.card["id"] == runs[0].card["id"]
        np.testing.assert_array_equal(other.arrays["image"], runs[0].arrays["image"])
    ids = {runs[0].card["id"]}
    own = make_env(sampling={"heat": 1.0}, with_sampling=lambda options: make_env())
    assert generation.Evaluator(cfg, own).run(VARS).card["id"] in ids
    changes = [{"caption": 1}, {"sample_seed": 1}, {"candidates": 2}, {"limit": 4}]
    for more in (*changes, {"sampling": {"heat": 2.0}}):
        evaluator = generation.Evaluator({**cfg, **more}, own)
        ids.add(evaluator.run(VARS).card["id"])
    assert len(ids) == 6


def test_swept_options_name_the_values():
    """Only images drawn with heat 2 are right; `steps` has one value and no name."""
    right = knows_the_answers(open_source(SPEC), every=1)
    wrong = knows_the_answers(open_source(SPEC), every=9)

    def with_sampling(options):
        assert options["steps"] == 3
        sample = right if options["heat"] == 2 else wrong
        return make_env(sample=sample, sampling={"kind": "fake", **options})

    cfg = {"type": "generation", "source": SPEC, "candidates": 2, "resamples": 20}
    cfg["sampling"] = {"heat": (1, 2), "steps": 3}
    evaluator = build("drawn", cfg, make_env(with_sampling=with_sampling))
    evaluator.check(VARS)
    result = evaluator.run(VARS)
    assert result.values["heat=1/oracle_all"] == 0.5
    assert result.values["heat=2/oracle_all"] == 1
    assert result.arrays["heat=2/oracle"].all()
    card = json.loads(json.dumps(result.card))
    assert card["sampling"] == {"heat": [1, 2], "steps": [3]}
    assert card["drawn_with"]["heat=2"] == {"kind": "fake", "heat": 2, "steps": 3}
    cfg["sampling"] = {"heat": 2, "steps": 3}
    evaluator = build("drawn", cfg, make_env(with_sampling=with_sampling))
    assert evaluator.run(VARS).values["oracle_all"] == 1
    with pytest.raises(UserError, match="sampling cannot be changed from here"):
        build("drawn", cfg, make_env())


def test_labels_are_drawn_for_without_a_tokenizer():
    spec = f"{SPEC}&objects=1"
    source = open_source(spec)
    labels = [source[i]["label"] for i in range(9)]
    seeds = {}

    def sample(variables, batch):
        numbers = batch["candidate"]
        image = np.zeros((*numbers.shape, 32, 32, 3), np.uint8)
        image += batch["label"].astype(np.uint8)[:, None, None, None, None]
        for label, seed in zip(batch["label"], batch["seed"], strict=True):
            assert seeds.setdefault(int(label), int(seed)) == seed
        return {"image": image}

    cfg = {"source": spec, "judges": "classifier", "features": "r", "resamples": 9}
    env = make_env(sample=sample, raw=shapes_of, tokenizer=None)
    evaluator = generation.Evaluator(cfg | {"condition": "label"}, env)
    evaluator.check(VARS)
    result = evaluator.run(VARS)
    assert evaluator.prompts == labels and len(set(seeds.values())) == len(set(labels))
    assert result.values["classifier_accuracy"] == 1
    assert result.card["condition"] == "label" and result.card["tokenizer"] is None
    no_label = Holed(source, drop=("label",))
    evaluator = generation.Evaluator(
        cfg | {"condition": "label", "source": no_label}, env
    )
    with pytest.raises(UserError, match="has no label to draw for"):
        evaluator.check(VARS)


def test_the_prompt_is_the_caption_asked_for():
    env = make_env()
    source = open_source(SPEC)
    for caption in (0, 3):
        cfg = {"source": SPEC, "caption": caption, "limit": 3}
        evaluator = generation.Evaluator(cfg, env)
        wanted = [source[i]["text"][caption] for i in (0, 3, 6)]
        assert evaluator.prompts == wanted
        tokens = evaluator._rows["tokens"]
        assert [env.tokenizer.decode(row) for row in tokens] == wanted


class Holed:
    """A source whose second record cannot be read."""

    def __init__(self, source, drop=()):
        self.source, self.drop = source, drop
        self.name, self.class_names = "holed", source.class_names

    def __len__(self):
        return len(self.source)

    def __getitem__(self, i):
        if i == 1:
            raise BrokenRecord("place 1", "made so")
        return {k: v for k, v in self.source[i].items() if k not in self.drop}

    def texts(self):
        return self.source.texts()

    def fingerprint(self):
        return "holed"


def test_broken_prompts_are_left_out():
    source = Holed(open_source(SPEC))
    kept = [source[i] for i in range(9) if i != 1]
    env = make_env(sample=knows_the_answers(kept, every=1))
    got = generation.Evaluator({"source": source}, env).run(VARS)
    assert got.values["oracle_all"] == 1
    assert (got.card["counts"]["prompts"], got.card["counts"]["broken"]) == (8, 1)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"judges": "orakle"}, "no judge 'orakle'; did you mean 'oracle'"),
        ({"judges": ("clip",)}, "judge 'clip' needs clip"),
        ({"judges": "frechet"}, "judge 'frechet' needs features"),
        ({"judges": "copying"}, "judge 'copying' needs train"),
        ({"known": SPEC, "judges": "clip", "clip": "x"}, "known tells the oracle's"),
        ({"known": SPEC, "condition": "label"}, "known are captions"),
        ({"candidates": 0}, "candidates must be at least 1, got 0"),
        ({"candidates": 4, "best_of": (8,)}, "best_of 8 .* the 4 candidates"),
        ({"candidates": 8, "best_of": (8,)}, "workdir of a run as clip"),
        ({"guidance": 2.0}, "unknown key 'guidance'"),
    ],
)
def test_refuses_configs(more, words):
    with pytest.raises(UserError, match=words):
        generation.Evaluator({"source": SPEC, **more}, make_env(), "config.evals.x")


def test_check_finds_what_cannot_be_judged():
    def checked(env=None, **cfg):
        generation.Evaluator({"source": SPEC, **cfg}, env or make_env()).check(VARS)

    with pytest.raises(UserError, match="no tokenizer"):
        checked(make_env(tokenizer=None))
    with pytest.raises(UserError, match="no predict function 'sample'"):
        checked(make_env(predict={}))
    small = make_env(image_cfg=image.Field(size=16))
    with pytest.raises(UserError, match=r"image \(8, 1, 16, 16, 3\), gives \(8, 1, 32"):
        checked(small)
    no_scene = Holed(open_source(SPEC), drop=("scene",))
    with pytest.raises(UserError, match="no scene for the oracle"):
        checked(source=no_scene)
    with pytest.raises(UserError, match="has 5 captions, and caption 5"):
        checked(caption=5)
    with pytest.raises(UserError, match="no other run can be opened"):
        checked(make_env(open_run=None), judges="clip", clip="runs/x")
    with pytest.raises(UserError, match="shapes has no split 'trian'"):
        checked(judges="copying", train="shapes:trian")
    two = "shapes:val?size=32&count=4&objects=2"  # scenes without a class
    evaluator = generation.Evaluator(
        {"source": two, "judges": "classifier", "features": "r"}, make_env()
    )
    with pytest.raises(UserError, match="no record of 'shapes:val' has a label"):
        evaluator.run(VARS)


def test_shapes_are_checked_without_drawing():
    drawn = []
    env = make_env(sample=lambda variables, batch: drawn.append(1))
    evaluator = generation.Evaluator({"source": SPEC, "candidates": 3}, env)
    evaluator.check(jax.eval_shape(lambda: VARS))
    assert not drawn
