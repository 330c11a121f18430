"""`mmjax finetune`: adapters that merge exactly, heads, weights between, bad input."""

import dataclasses
import json

import finetuning
import jax
import numpy as np
import pytest
import safetensors.numpy

from mmjax import cli, tree
from mmjax.data.sources import open_source
from mmjax.errors import UserError
from mmjax.finetune import forgotten, recipe
from mmjax.inference import load
from mmjax.nn import lora


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    return finetuning.untrained(tmp_path_factory.mktemp("start") / "clip")


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """Three classes of coloured images, without captions."""
    file = tmp_path_factory.mktemp("labelled") / "images.npz"
    rng = np.random.default_rng(0)
    label_n = np.arange(48) % 3
    image = rng.integers(0, 60, (48, 16, 16, 3), np.uint8)
    image[np.arange(48), :, :, label_n] += 180
    names = np.array(["red wall", "green field", "blue sea"])
    np.savez(file, image=image, label=label_n, class_names=names)
    return f"npz:{file}"


@pytest.fixture(scope="module")
def recipes(tmp_path_factory):
    file = tmp_path_factory.mktemp("recipes") / "small.py"
    file.write_text(finetuning.RECIPES)
    return file


@pytest.fixture(scope="module")
def adapted(start, labelled, recipes, tmp_path_factory):
    """The workdir of a LoRA run on labelled images."""
    workdir = tmp_path_factory.mktemp("adapted") / "run"
    given = ["--recipe", f"{recipes}:lora", "--data", labelled, "--test", labelled]
    given += ["--workdir", str(workdir), "--limit", "16", "--alpha", "0.5"]
    assert cli.main(["finetune", str(start), *given]) == 0
    return workdir


def embedded(place):
    """Images and texts as a run embeds them."""
    run = load.load_run(place)
    images = np.random.default_rng(1).integers(0, 256, (3, 16, 16, 3), np.uint8)
    return run.embed_images(list(images)), run.embed_texts(["red wall", "blue sea"])


def flat(place):
    return tree.flatten(jax.device_get(load.load_run(place).state.eval_vars().params))


def test_merged_weights_compute_what_the_adapter_does(start, adapted):
    of_adapter, of_merged = map(embedded, (adapted, adapted / "merged"))
    for ours, merged in zip(of_adapter, of_merged, strict=True):
        np.testing.assert_allclose(ours, merged, atol=1e-6)
    assert np.abs(of_merged[0] - embedded(start)[0]).max() > 1e-3
    change = {k: np.float64(v) for k, v in flat(adapted).items()}
    old, new = flat(start), flat(adapted / "merged")
    assert old.keys() == new.keys()
    for path, value in old.items():
        want = np.float64(value)
        if f"{path}/a" in change:
            want = want + 16.0 / 2 * change[f"{path}/a"] @ change[f"{path}/b"]
        np.testing.assert_allclose(new[path], want, atol=1e-5, err_msg=path)


def test_an_adapter_alone_is_small_and_fits_its_base_alone(
    start, adapted, tmp_path, capsys
):
    file = adapted / "adapter.safetensors"
    numbers = sum(v.size for v in safetensors.numpy.load_file(file).values())
    assert numbers < sum(v.size for v in flat(start).values()) / 3
    given = ["--adapter", str(file), "--workdir", str(tmp_path / "again")]
    assert cli.main(["finetune", str(start), *given]) == 0
    again, merged = flat(tmp_path / "again"), flat(adapted / "merged")
    for path, value in merged.items():
        np.testing.assert_array_equal(again[path], value, err_msg=path)
    other = finetuning.untrained(tmp_path / "other", seed=1)
    assert cli.main(["finetune", str(other), *given[:2], "--workdir", "x"]) == 2
    said = capsys.readouterr().err
    assert "changes weights with fingerprint" in said and str(other) in said
    assert cli.main(["finetune", str(adapted), "--data", "shapes:val", *given[2:]]) == 2
    assert "in the folder `merged`" in capsys.readouterr().err
    (tmp_path / "no.safetensors").write_bytes(b"no")
    given = ["--adapter", str(tmp_path / "no.safetensors"), "--workdir", "x"]
    assert cli.main(["finetune", str(start), *given]) == 2
    assert "is no adapter" in capsys.readouterr().err


def test_what_was_forgotten_is_measured_on_the_same_examples(start, adapted):
    rows = forgotten.read(adapted)
    assert [(r["set"], r["alpha"]) for r in rows] == [
        (name, alpha) for alpha in (0.0, 0.5, 1.0) for name in ("target", "val")
    ]
    first = {row["set"]: row["top1"] for row in rows if row["alpha"] == 0}
    for row in rows:
        assert row["change"] == pytest.approx(row["top1"] - first[row["set"]])
        assert row["top1_lo"] <= row["top1"] <= row["top1_hi"]
        assert row["examples"] == (48 if row["set"] == "target" else 16)
    about = json.loads((adapted / "forgotten.json").read_text())
    assert about["fingerprint"] == load.load_run(start).fingerprint
    assert (adapted / "forgotten.png").stat().st_size > 5000
    old, half, new = map(flat, (start, adapted / "alpha-0.5", adapted / "merged"))
    for path, value in half.items():
        np.testing.assert_allclose(value, (old[path] + new[path]) / 2, atol=1e-6)


def test_what_belongs_to_the_weights_comes_along(start, adapted):
    before, after = load.load_run(start), load.load_run(adapted / "merged")
    assert after.tokenizer.to_json() == before.tokenizer.to_json()
    assert after.parts.image_cfg == before.parts.image_cfg
    assert after.task.act == before.task.act
    config = load.load_run(adapted).config
    assert config.data.train.template == "|".join(before.templates())
    assert after.templates() == before.templates() != ("a photo of a {}.",)
    assert config.task.base.equal_captions == "positive"


@pytest.mark.long
def test_a_head_is_trained_alone_and_then_with_its_tower(
    start, labelled, recipes, tmp_path
):
    given = ["--recipe", f"{recipes}:lpft", "--data", labelled, "--limit", "8"]
    given += ["--workdir", str(tmp_path / "run"), "--test", labelled]
    assert cli.main(["finetune", str(start), *given]) == 0
    old, probe, new = map(flat, (start, tmp_path / "run/probe", tmp_path / "run"))
    towers = [path for path in new if path.startswith("tower/")]
    assert len(towers) > 10 and new["head/kernel"].shape == (16, 3)
    for path in towers:
        own = old[path.replace("tower/", "image/", 1)]
        np.testing.assert_array_equal(probe[path], own, err_msg=path)
    assert any(np.abs(new[path] - probe[path]).max() > 0 for path in towers)
    rows = forgotten.read(tmp_path / "run")
    assert {row["set"] for row in rows} == {"target", "val"}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--recipe", "lorra", "--data", "D"], "no preset 'lorra'"),
        (["--data", "D", "--test", "shapes:val"], "3 classes in --data and 64 in"),
        (["--data", "D", "--config.optim.lrr=1"], "unknown key 'lrr'; did you mean"),
        (["--data", "D", "--adapter", "x"], "not both"),
        (["--data", "D", "--alpha", "2"], "--alpha is 2.0: use 0 to 1"),
        (["--data", "D", "--beside", "nowhere"], "holds no forgotten.json"),
        (["--data", "D", "--templates", "gtsrbb"], "no prompt set is called"),
        (["--data", "D?shots=17"], "shots=17: class 'red wall'"),
        (["--data", "D", "--others", "suites:tiny", "--limit", "0"], "use 1 or more"),
        (
            ["--data", "D", "--recipe", "lit", "--config.optim.freeze=^imagee/"],
            "'^imagee/' matches none",
        ),
    ],
)
def test_bad_input_is_one_message(given, said, start, labelled, tmp_path, capsys):
    given = [text.replace("D", labelled, text[:1] == "D") for text in given]
    words = ["finetune", str(start), "--workdir", str(tmp_path / "w"), *given]
    assert cli.main(words) == 2
    message = capsys.readouterr().err
    assert said in message and message.count("\n") == 1
    assert not (tmp_path / "w" / "checkpoints").exists()


def test_unlabelled_images_have_nothing_to_learn_from(start, tmp_path):
    np.savez(tmp_path / "bare.npz", image=np.zeros((8, 16, 16, 3), np.uint8))
    run, words = load.load_run(start), {"templates": ("a {}",)}
    with pytest.raises(UserError, match="needs class names, and it has 0"):
        recipe.plan(
            run, recipe.read("lpft"), f"npz:{tmp_path}/bare.npz", tmp_path, **words
        )


def test_prompts_are_spare_ids_before_the_names(start, labelled, tmp_path):
    run = load.load_run(start)
    given = {"templates": ("a {}",)}
    coop = dataclasses.replace(recipe.read("coop"), shots=4, context=3)
    plan = recipe.plan(run, coop, labelled, tmp_path, **given)
    ((_, config),) = plan.stages
    learned, words = config.task.learned, run.tokenizer
    assert len(learned) == 3 and max(learned) < words.sot
    for ids, name in zip(
        config.task.sentences, ("red wall", "green field", "blue sea"), strict=True
    ):
        assert ids[1:4] == learned and ids[0] == words.sot and ids[-1] == words.eot
        assert words.decode(ids[4:]) == f"{name} ."
        assert not set(ids[4:]) & set(learned)
    assert plan.plain.task.name == "clip" and not plan.back
    many = dataclasses.replace(coop, context=40)
    with pytest.raises(UserError, match="the longest class name has"):
        recipe.plan(run, many, labelled, tmp_path, **given)


def test_shots_are_so_many_of_every_class(labelled):
    few, more = (open_source(f"{labelled}?shots={k}") for k in (2, 5))
    for source, k in ((few, 2), (more, 5)):
        labels = [source[i]["label"] for i in range(len(source))]
        np.testing.assert_array_equal(np.bincount(labels), [k, k, k])
    assert {few.at(i) for i in range(6)} < {more.at(i) for i in range(15)}
    other = open_source(f"{labelled}?shots=2&draw=1")
    assert other.positions != few.positions
    assert other.fingerprint() != few.fingerprint()


@pytest.mark.parametrize("shape", [(4, 6), (3, 4, 6), (3, 3, 4, 6)])
def test_a_merged_weight_by_hand(shape):
    rng = np.random.default_rng(0)
    params = {"x": {"kernel": rng.normal(size=shape).astype(np.float32)}}
    change = lora.init(jax.random.key(0), params, ["kernel"], 2)
    assert np.all(
        lora.merge(params, change, 3.0)["x"]["kernel"] == params["x"]["kernel"]
    )
    b = change["x"]["kernel"]["b"]
    change["x"]["kernel"]["b"] = rng.normal(size=b.shape).astype(np.float32)
    a, b = (np.float64(change["x"]["kernel"][name]) for name in "ab")
    if len(shape) == 3:  # layers on top of each other, one after another
        product = np.stack([a[n] @ b[n] for n in range(3)])
    else:  # one matrix of the taps' inputs
        product = (a.reshape(-1, 2) @ b).reshape(shape)
    want = params["x"]["kernel"] + 3.0 * product
    np.testing.assert_allclose(
        lora.merge(params, change, 3.0)["x"]["kernel"], want, atol=1e-5
    )
    rank = np.linalg.matrix_rank(product.reshape(-1, 6) if len(shape) != 3 else product)
    assert np.all(rank == 2)


@pytest.mark.parametrize(
    ("targets", "also", "said"),
    [
        (["kernell"], [], "'kernell' matches none of 2 parameters"),
        (["bias"], [], r"'bias' matches x/bias of shape \(6,\), which is no matrix"),
        (["kernel"], ["x/"], "matches x/kernel, which a regex of targets matches"),
    ],
)
def test_targets_that_do_not_fit(targets, also, said):
    params = {"x": {"kernel": np.zeros((4, 6)), "bias": np.zeros(6)}}
    with pytest.raises(UserError, match=said):
        lora.init(jax.random.key(0), params, targets, 2, also)
