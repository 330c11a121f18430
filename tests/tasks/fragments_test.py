"""Fragments find their regions without being told, through the evaluators; refusals."""

import dataclasses

import jax
import numpy as np
import pytest
from PIL import Image

from mmjax import evaluators
from mmjax.errors import UserError
from mmjax.metrics import ranking
from mmjax.state import Ctx
from mmjax.tasks import fragments
from mmjax.train import config as config_lib
from mmjax.train import evaluate, setup

NOUNS = ("dog", "cat", "car", "sun", "cup", "hat")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Specs: three regions a record, each a noun's direction; phrases name them."""
    folder = tmp_path_factory.mktemp("nouns")
    for part, n in (("train", 96), ("test", 24)):
        rng = np.random.default_rng(n)
        noun_n3 = np.stack([rng.permutation(len(NOUNS))[:3] for _ in range(n)])
        regions = np.eye(len(NOUNS))[noun_n3] + 0.1 * rng.normal(size=(n, 3, 6))
        phrases = np.array(NOUNS)[noun_n3]
        arrays = {"regions": regions.astype(np.float32), "phrases": phrases}
        arrays["captions"] = np.array([" ".join(p) for p in phrases])
        arrays["image"] = np.zeros((n, 8, 8, 3), np.uint8)
        arrays["boxes"] = np.tile(np.float32([0, 0, 4, 4]), (n, 3, 1))
        np.savez(folder / f"{part}.npz", **arrays)
    return lambda part: f"npz:{folder}/{part}.npz?text=captions"


@pytest.fixture(scope="module")
def run(data):
    """(env, variables) after some steps of the multiple-instance form."""
    given = [f"--config.data.train={data('train')}"]
    config = config_lib.load("fragments:tiny", given).unlock()
    config.batch_size = 24
    config.task.update(score="max", embed_dim=16, dropout=0.0, words=20)
    config.data.fields.regions = {"kind": "sequence", "length": 3, "width": 6}
    config.data.fields.sentence = {
        **{"kind": "fragments", "of": "phrases", "phrases": True},
        **{"count": 3, "least": 1},
    }
    config.evals = {}
    parts = setup.build(config)
    batch = parts.sample()
    source, fields = parts.source, parts.batch_fields
    from mmjax.data import pipeline

    rows = pipeline.TrainIterator(source, fields, batch_size=24, seed=0, threads=0)
    variables = parts.task.init(jax.random.key(0), batch)

    @jax.jit
    def step(variables, batch, number):
        ctx = Ctx(rng=jax.random.key(1), step=number, train=True)

        def loss(params):
            return parts.task.loss(variables._replace(params=params), batch, ctx)[0]

        value, grads = jax.value_and_grad(loss)(variables.params)
        params = jax.tree.map(lambda p, g: p - 0.1 * g, variables.params, grads)
        return variables._replace(params=params), value

    values = []
    for number in range(150):
        arrays = {k: v for k, v in next(rows).items() if k[0] != "_"}
        variables, value = step(variables, arrays, number)
        values.append(float(value))
    assert values[-1] < 0.5 * values[0]
    return evaluate.env(parts), variables


def evaluated(run, cfg):
    env, variables = run
    evaluator = evaluators.build("x", {"resamples": 20, **cfg}, env, "config.evals.x")
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), variables)
    evaluator.check(shapes)
    return evaluator.run(variables)


def test_phrases_find_their_regions(run, data, tmp_path):
    png = tmp_path / "fragments.png"
    cfg = {"type": "fragment_regions", "source": data("test"), "png": str(png)}
    result = evaluated(run, cfg)
    values = result.values
    assert values["accuracy"] > 0.8 and values["chance"] == pytest.approx(1 / 3)
    assert values["accuracy_equal"] == values["accuracy"]  # no noun comes twice
    assert values["accuracy"] == (result.arrays["pick"] == result.arrays["gold"]).mean()
    assert min(Image.open(png).size) > 100
    whole = {**cfg, "source": data("test") + "&columns=regions,phrases,captions"}
    with pytest.raises(UserError, match="has no image and no boxes: join a source"):
        evaluated(run, whole)


def test_without_gold_there_is_no_accuracy(run, data):
    env, variables = run

    def batches(source, names, batch_size):
        for batch in env.eval_batches(source, names, batch_size=batch_size):
            yield {**batch, "sentence_gold": np.full_like(batch["sentence_gold"], -1)}

    without = dataclasses.replace(env, eval_batches=batches), variables
    cfg = {"type": "fragment_regions", "source": data("test")}
    values = evaluated(without, cfg).values
    assert values == {"attention": evaluated(run, cfg).values["attention"]}
    assert 1 / 3 < values["attention"] <= 1


@pytest.mark.parametrize(
    ("keys", "parts"),
    [
        ({"score": "attention", "alignment": 0.0, "hardest": True}, {"ranking"}),
        ({"supervised": 1.0, "ranking": 0.0}, {"alignment", "supervised"}),
        (
            {"score": "cosine", "ranking": 0.0, "alignment": 0.0, "contrastive": 1.0},
            {"contrastive"},
        ),
    ],
)
def test_objectives_are_metrics(keys, parts):
    task = fragments.Task(words=5, relations=2, embed_dim=4, **keys)
    shapes = {
        "regions": ((4, 3, 6), "float32"),
        "regions_mask": ((4, 3), "bool"),
        "sentence": ((4, 2, 3), "int32"),
        "sentence_mask": ((4, 2), "bool"),
        "sentence_gold": ((4, 2), "int32"),
    }
    batch = {key: np.ones(shape, dtype) for key, (shape, dtype) in shapes.items()}
    ctx = Ctx(rng=jax.random.key(1), step=0, train=True)
    variables = jax.eval_shape(task.init, jax.random.key(0), batch)
    loss, (_, metrics) = jax.eval_shape(lambda v: task.loss(v, batch, ctx), variables)
    assert loss.shape == () and metrics.keys() == parts | {"hit"}


def test_fragments_are_left_out_in_training_alone():
    task = fragments.Task(
        words=5, relations=2, embed_dim=64, score="cosine", alignment=0.0,
        fragment_dropout=0.5,
    )  # fmt: skip
    batch = {"regions": np.ones((64, 1, 6), np.float32)}
    batch["sentence"] = np.ones((64, 8, 3), np.int32)
    variables = task.init(jax.random.key(0), batch)
    codes = {}
    for train in (True, False):
        ctx = Ctx(rng=jax.random.key(1), step=0, train=train)
        embedded = task.embed(variables, batch, ctx)[0]["sentence"]
        codes[train] = np.asarray(embedded).any(-1)
    assert codes[False].all() and 0.4 < codes[True].mean() < 0.6
    assert len(np.unique(codes[True], axis=0)) > 32  # each row has its own


def test_ranks_of_scores_are_those_of_embeddings():
    rng = np.random.default_rng(0)
    query, gallery = rng.normal(size=(6, 3)), rng.normal(size=(9, 3))
    rows, columns = np.arange(6).repeat(2), rng.permutation(12) % 9
    got = ranking.of_scores(query @ gallery.T, rows, columns)
    np.testing.assert_array_equal(got, ranking.ranks(query, gallery, rows, columns))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"score": "maximum"}, "did you mean 'max'"),
        ({"score": "attention"}, "alignment is 1.0 and score 'attention'"),
        ({"score": "cosine"}, "alignment is 1.0 and score 'cosine'"),
        ({"ranking": 0, "alignment": 0}, "give one weight"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"fragment_dropout": 1.0}, "fragment_dropout is 1.0"),
        ({"margin": -1}, "margin"),
    ],
)
def test_bad_values(keys, message):
    with pytest.raises(ValueError, match=message):
        fragments.Task(words=5, relations=2, **keys)


def test_fields_that_do_not_fit():
    spec = {
        "regions": {"kind": "sequence", "shape": (4, 6), "dtype": "float32"},
        "sentence": {"kind": "fragments", "shape": (3, 3), "dtype": "int32"},
    }
    spec["sentence"] |= {"words": 9, "relations": 2}
    with pytest.raises(UserError, match="numbers 9 words, and the model 5"):
        fragments.Task(words=5, relations=2).check(spec)
    spec["regions"] |= {"kind": "vector", "shape": (6,)}
    with pytest.raises(UserError, match="of kind 'vector' with rows of .* sequence"):
        fragments.Task(words=9, relations=2).check(spec)
