import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.inference import load
from mmjax.report import params as params_lib


@pytest.fixture(scope="module")
def run(tiny_run):
    return load.load_run(tiny_run)


def test_a_run_by_its_parts(run):
    assert run.step == 2
    assert run.config.data.train.startswith("shapes:train")
    assert run.config.parallel.mesh.data == -1
    assert run.tokenizer.context == 16
    assert all(isinstance(v, np.ndarray) for v in run.params.values())
    assert [row["step"] for row in run.metrics() if "loss" in row] == [1, 2]
    assert run.last_metrics()["step"] == 2


def test_params_are_the_averaged_ones(run):
    live = run.state.vars.params
    kept = run.state.ema
    assert live is not kept
    total = sum(float(np.abs(v).sum()) for v in run.params.values())
    flat = load.tree.flatten(kept)
    assert total == pytest.approx(sum(float(abs(v).sum()) for v in flat.values()))


def test_embeddings_do_not_depend_on_their_number(run):
    records = run.records(5)
    images = [record["image"] for record in records]
    five = run.embed_images(images)
    assert five.shape == (5, 16) and five.dtype == np.float32
    np.testing.assert_allclose(run.embed_images(images[3:4])[0], five[3], atol=1e-6)
    texts = [record["text"][0] for record in records]
    many = run.embed_texts(texts * 20)
    np.testing.assert_allclose(many[-5:], run.embed_texts(texts), atol=1e-6)


def test_combine_is_a_sum_of_unit_rows(run):
    images = [record["image"] for record in run.records(2)]
    got = run.combine(images, plus=["blue"], minus=["red"], weight=0.5)
    red, blue = run.embed_texts(["red", "blue"])
    want = run.embed_images(images).sum(0) + 0.5 * (blue - red)
    np.testing.assert_allclose(got, want / np.linalg.norm(want), atol=1e-5)
    np.testing.assert_allclose(run.combine(plus=["blue"]), blue, atol=1e-5)
    with pytest.raises(UserError, match="nothing to add up"):
        run.combine()


def test_classify_ensembles_templates(run):
    images = [record["image"] for record in run.records(3)]
    labels = ["red circle", "blue star"]
    one = run.classify(images, labels, ["a {}"])
    both = run.classify(images, labels, ["a {}", "the {}"])
    for chances in (one, both):
        np.testing.assert_allclose(chances.sum(1), 1, atol=1e-5)
    assert not np.allclose(one, both, atol=1e-7)


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32)]
)
def test_arrays_that_are_no_image(run, image):
    with pytest.raises(UserError, match=r"give uint8 \(H, W, 3\)"):
        run.embed_images([image])


def test_singular_values():
    params = {"a": 2 * np.eye(3, dtype=np.float32), "bias": np.ones(3)}
    values = params_lib.singular_values(params)
    assert list(values) == ["a"]
    np.testing.assert_allclose(values["a"], [2, 2, 2], atol=1e-6)
