"""`mmjax.load` and what a Model does, on runs of two steps."""

import math
import pathlib

import numpy as np
import pytest
from PIL import Image

import mmjax
from mmjax.convert import import_export
from mmjax.errors import UserError
from mmjax.inference import load
from mmjax.report import image_grid
from mmjax.retrieval import gallery


@pytest.fixture(scope="module")
def model(tiny_run):
    return mmjax.load(tiny_run)


@pytest.fixture(scope="module")
def prior(tiny_prior):
    return mmjax.load(str(tiny_prior))


def images(model, count=3):
    return [record["image"] for record in model.records(count)]


# -- opening -------------------------------------------------------------------
def test_a_model_says_itself_in_a_line(model, tiny_run):
    assert repr(model).startswith(f"Model({tiny_run}: clip, step 2, ")
    assert len(repr(model)) < 80 + len(str(tiny_run))
    assert model.steps() == [1, 2]


def test_a_checkpoint_is_a_place(model, tiny_run):
    earlier = mmjax.load(tiny_run / "checkpoints" / "1")
    assert earlier.step == 1 == model.at(1).step
    moved = model.raw_params.diff(earlier.raw_params).changes
    assert moved[0].relative > 0 and moved[0].relative == max(c.relative for c in moved)


@pytest.mark.parametrize(
    "place, said",
    [
        (["runs/x"], "was given a list: give one path"),
        (None, "was given a NoneType"),
        ("runs/none", "runs/none: there is no such folder or file"),
        ("hf://clip", "write hf://ORG/NAME"),
    ],
)
def test_places_that_are_none(place, said):
    with pytest.raises(UserError, match=said):
        mmjax.load(place)


@pytest.mark.parametrize("step", ["1", 1.0, -1])
def test_a_step_is_a_whole_number(step, tiny_run):
    with pytest.raises(UserError, match="step is .*: give a whole number, 0 or more"):
        mmjax.load(tiny_run, step)


def test_folders_that_are_no_run(tmp_path, tiny_run, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="is no run, and no public weights: .*holds no"):
        mmjax.load(tmp_path / "empty")
    with pytest.raises(UserError, match="is not a run of mmjax, and holds runs: give"):
        mmjax.load(tiny_run.parent)


def test_public_weights_are_converted_once(tiny_run, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    import_export.write_out(tiny_run, tmp_path / "public", "open_clip")
    model = mmjax.load(tmp_path / "public")
    assert model.workdir.is_relative_to(tmp_path / "cache") and model.step == 0
    written = (model.workdir / "run.json").stat().st_mtime_ns
    again = mmjax.load(tmp_path / "public")
    assert (again.workdir / "run.json").stat().st_mtime_ns == written
    assert [p.name for p in model.workdir.parent.iterdir()] == [model.workdir.name]
    chances = again.classify(np.zeros((9, 9, 3), np.uint8), ["a dog", "a cat"])
    assert chances.shape == (1, 2)


# -- images and texts ----------------------------------------------------------
def test_an_image_may_be_a_file_pillows_or_an_array(model, tmp_path):
    pixels = images(model, 1)[0]
    path = tmp_path / "a.png"
    Image.fromarray(pixels).save(path)
    want = model.embed_images([pixels])
    for image in (pixels, path, str(path), Image.open(path), [Image.open(path)]):
        np.testing.assert_allclose(model.embed_images(image), want, atol=1e-6)
    stacked = model.embed_images(np.stack([pixels, pixels]))
    np.testing.assert_allclose(stacked, np.repeat(want, 2, 0), atol=1e-6)


def test_one_text_is_one_row(model):
    one = model.embed_texts("a dog")
    assert one.shape == (1, 16)
    np.testing.assert_array_equal(one, model.embed_texts(["a dog"]))


@pytest.mark.parametrize(
    "given, said",
    [
        ([], "there are no images: give one or more"),
        (None, "images are NoneType: give a path, a Pillow image or"),
        ([b"\x89PNG"], "an image is bytes: give a path"),
        (b"\x89PNG", "images are bytes: give a path"),
        ({"image": "a.png"}, "images are dict: give a path"),
        (np.zeros((0, 4, 3), np.uint8), r"no pixels: it is \(0, 4, 3\)"),
        (Image.new("RGB", (0, 4)), r"no pixels: it is \(0, 4\)"),
        ([["a.png"]], "an image is list: give a path"),
        ("none.png", "cannot read image none.png: No such file"),
        (Image.new("F", (4, 4)), r"mode 'F' cannot be read .*convert\(\"RGB\"\)"),
        (np.zeros((4, 4), np.uint8), r"give uint8 \(H, W, 3\)"),
    ],
)
def test_what_is_no_image(model, given, said):
    with pytest.raises(UserError, match=said):
        model.embed_images(given)


@pytest.mark.parametrize("given", [[], [3], ["a", None], 3, None, b"a dog"])
def test_what_is_no_text(model, given):
    with pytest.raises(UserError, match="give strings, one or more"):
        model.embed_texts(given)


@pytest.mark.parametrize(
    "labels, said",
    [
        ("dog,cat", "give a list of two or more names"),
        (["dog"], "give a list of two or more names"),
        (["dog", "dog"], "give a list of two or more names"),
        ([], "labels are .*: give strings"),
        ([1, 2], "labels are .*: give strings"),
        ([["dog"], ["cat"]], "labels are .*: give strings"),
        (None, "labels are None: give strings"),
    ],
)
def test_labels_are_two_names_or_more(model, labels, said):
    with pytest.raises(UserError, match=said):
        model.classify(images(model), labels)


def test_what_a_batch_lacks(model):
    with pytest.raises(UserError, match="reads 'image', and the batch has only imag"):
        model.predict("embed_image", {"imag": np.zeros((4, 16, 16, 3), np.uint8)})
    with pytest.raises(UserError, match="give arrays by field"):
        model.predict("embed_image", {})
    with pytest.raises(UserError, match="batch 1 must split over 4 devices: use 4"):
        model.grads({key: rows[:1] for key, rows in model.batch().items()})


def test_classify_takes_the_runs_own_templates(model):
    labels = ["red circle", "blue star"]
    own = model.classify(images(model), labels)
    np.testing.assert_array_equal(own, model.classify(images(model), labels, "shapes"))
    with pytest.raises(UserError, match="no prompt set is called 'shape'"):
        model.classify(images(model), labels, "shape")


# -- parameters ----------------------------------------------------------------
def test_the_average_and_the_last_update(model):
    assert set(model.params) == set(model.raw_params)
    diff = model.params.diff(model.raw_params)
    assert diff.changes[0].relative > 0
    assert {p.removeprefix("params/") for p in model.variables} == set(model.params)


def test_slots_have_the_shapes_of_parameters(model):
    momenta = model.slots.select("/mu/")
    assert len(momenta) == len(model.params)
    for path, array in momenta.items():
        assert array.shape == model.params[path.partition("/mu/")[2]].shape


def test_gradients_are_those_of_the_next_update(model):
    """At the first checkpoint: its norm and momenta, as the second update left them."""
    earlier = model.at(1)
    grads, logged = earlier.grads(), model.metrics()
    norm = math.hypot(*grads.norms().values())
    assert norm == pytest.approx(logged[1]["grad_norm"], rel=1e-4)
    b1 = model.config.optim.b1
    for path, before in earlier.slots.select("/mu/").items():
        after, grad = model.slots[path], grads[path.partition("/mu/")[2]]
        np.testing.assert_allclose(after, b1 * before + (1 - b1) * grad, atol=1e-5)


def test_gradients_of_a_batch_of_ones_own(model):
    batch = model.batch(7)
    assert batch["image"].shape[0] == model.config.batch_size
    ours, other = model.grads(batch), model.grads()
    assert ours.diff(other).changes[0].relative > 0


def test_attention_maps_of_both_towers(model):
    batch = model.batch()
    few = {key: batch[key][:2] for key in ("image", "tokens", "tokens_mask")}
    maps = mmjax.Params.of(model.predict("attention_maps", few))
    layers = [path.rpartition("/attn/")[0] for path in maps]
    towers = ("image/transformer", "text/transformer")
    assert layers == [f"{tower}/block_{i}" for tower in towers for i in (0, 1)]
    for map_bhqt in maps.values():
        np.testing.assert_allclose(map_bhqt.sum(-1), 1, atol=1e-5)
    alone = model.predict("attention_maps", {"image": few["image"]})
    assert set(alone) == {"image"}


# -- other verbs ---------------------------------------------------------------
def test_evaluators(model):
    values = model.evaluate("val", limit=8, resamples=10)
    assert list(values) == ["val"] and 0 <= values["val"].values["top1"] <= 1
    with pytest.raises(UserError, match="no evaluator 'vel'.*did you mean 'val'"):
        model.evaluate("vel")
    with pytest.raises(UserError, match="evaluate: .*'source'"):
        model.evaluate("val", source=["a"])
    with pytest.raises(UserError, match="limits"):
        model.evaluate("val", limits=8)


def test_an_index_is_of_one_model(model, tmp_path):
    built = model.index(tmp_path / "idx", "shapes:val?size=16&count=6")
    hits = built.search(model.embed_texts("a red circle"), 2)
    again = model.index(tmp_path / "idx")
    same = model.index(str(tmp_path / "idx"), "shapes:val?size=16&count=6")
    assert same.store.id == again.store.id
    with pytest.raises(UserError, match="is an index of shapes:.*=6, and not of .*=5"):
        model.index(tmp_path / "idx", "shapes:val?size=16&count=5")
    assert hits == again.search(model.embed_texts("a red circle"), 2)
    assert isinstance(again, gallery.Gallery)
    with pytest.raises(UserError, match="search it with the model that made it"):
        model.at(1).index(tmp_path / "idx")


def test_samples_ranked_and_saved(prior, model, tmp_path):
    drawn = prior.sample("a red star", k=3, temperature=0.5)
    assert repr(drawn).startswith("Candidates(3 of 1 prompts: ")
    ranked = drawn.ranked(model)
    scores = ranked.arrays["clip"][0]
    assert (np.diff(scores) <= 0).all()
    order = ranked.arrays["candidate"][0]
    np.testing.assert_array_equal(ranked.images[0], drawn.images[0, order])
    want = model.embed_images(drawn.images[0]) @ model.embed_texts("a red star")[0]
    np.testing.assert_allclose(scores, np.sort(want)[::-1], atol=1e-5)
    saved = Image.open(ranked.save(tmp_path / "best.png", top=2))
    assert saved.width < 3 * 64 + 40 and saved.size == ranked.sheet(2).size
    with pytest.raises(UserError, match="ranked takes a model, and not 'runs/clip'"):
        drawn.ranked("runs/clip")
    with pytest.raises(UserError, match="end its name in .png"):
        drawn.save(tmp_path / "best")
    assert image_grid.LEAST == 64


def test_completions(prior):
    side = prior.parts.image_cfg.size
    given = np.full((side, side, 3), 200, np.uint8)
    top = prior.complete(given, "a red star", k=2, rows=8)
    known = np.zeros((side, side), bool)
    known[:8] = True
    same = prior.complete(Image.fromarray(given), "a red star", k=2, known=known)
    np.testing.assert_array_equal(top.images, same.images)
    with pytest.raises(UserError, match="either rows=N or known=array"):
        prior.complete(given, "a red star")


@pytest.mark.parametrize(
    "call, said",
    [
        (lambda prior: prior.sample([]), "there are no prompts"),
        (lambda prior: prior.sample(" "), "the prompt is empty"),
        (lambda prior: prior.sample("red " * 200), "and the model reads 96: shorten"),
        (lambda prior: prior.sample("a", temprature=1), "temprature"),
        (lambda prior: prior.sample("a", k=0), "ask for one candidate or more"),
        (lambda prior: prior.sample("a", k="3"), "k is '3': ask for one candidate"),
        (lambda prior: prior.sample(None), "the prompt None is no text"),
        (lambda prior: prior.sample(b"a"), "the prompt b'a' is no text"),
        (lambda prior: prior.complete(images(prior, 1), "a", rows="8"), "rows is '8'"),
        (lambda prior: prior.params.diff("runs/x"), "diff takes parameters.* a str"),
        (lambda prior: mmjax.Params({}).plot_norms(), "nothing to draw"),
        (lambda prior: prior.evaluate([]), "evals are .*: give strings, one or more"),
        (lambda prior: prior.evaluate("drawn", limit="3"), "limit: expected .* '3'"),
        (
            lambda prior: prior.index(["x"]),
            "index takes one path, and was given a list",
        ),
        (lambda prior: mmjax.read_logs(["x"]), "read_logs takes one path.* a list"),
        (lambda prior: mmjax.differing("runs"), "differing takes logs.*: read_logs"),
        (lambda prior: prior.caption("a.png"), "no caption head"),
        (lambda prior: prior.embed_texts("a"), "offers no 'embed_text'"),
    ],
)
def test_what_a_prior_refuses(prior, call, said):
    with pytest.raises(UserError, match=said):
        call(prior)


# -- logs ----------------------------------------------------------------------
def test_logs_of_several_runs(tiny_run, tiny_prior):
    (log,) = mmjax.read_logs(tiny_run)
    assert log.last_metrics()["step"] == 2 and log.config.steps == 2
    differ = mmjax.differing([log, mmjax.Log(tiny_prior)])
    assert differ["task/name"] == ["clip", "prior"] and "steps" not in differ
    assert [one.workdir for one in mmjax.read_logs(tiny_run.parent)] == [tiny_run]
    with pytest.raises(UserError, match="is no run and no folder of runs"):
        mmjax.read_logs(pathlib.Path(tiny_run, "checkpoints"))


def test_a_run_is_what_the_library_hands_about(model):
    assert isinstance(model, load.Run)
