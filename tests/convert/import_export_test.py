"""Public weights to a workdir and back, without torch."""

import dataclasses
import json

import numpy as np
import pytest
import safetensors.numpy

from mmjax import cli
from mmjax.convert import formats, import_export, read
from mmjax.data.fields import image as image_field
from mmjax.errors import UserError
from mmjax.inference import load as load_lib
from mmjax.tasks import base as tasks


def load(folder, name="model.safetensors"):
    return safetensors.numpy.load_file(folder / name)


def assert_equal(a, b):
    assert a.keys() == b.keys()
    for key in a:
        assert a[key].dtype == b[key].dtype and a[key].shape == b[key].shape, key
        assert a[key].tobytes() == b[key].tobytes(), key


def test_in_and_out_again(hf_clip, tmp_path, capsys):
    run, out = tmp_path / "run", tmp_path / "out"
    assert cli.main(["convert", str(hf_clip), str(run)]) == 0
    assert "(hf_clip)" in capsys.readouterr().out
    assert cli.main(["convert", str(run), str(out)]) == 0
    assert_equal(load(hf_clip), load(out))
    again = formats.find("hf_clip").to_mmjax(read.read(out))
    first = formats.find("hf_clip").to_mmjax(read.read(hf_clip))
    assert again.task == first.task and again.image == first.image
    assert again.tokenizer.to_json() == first.tokenizer.to_json()


def test_a_run_like_any_other(hf_clip, tmp_path, capsys):
    run = tmp_path / "run"
    import_export.bring_in(str(hf_clip), run)
    seen = load_lib.load_run(run)
    assert seen.task.act == "gelu"
    assert seen.parts.image_cfg.method == "pil_bicubic"
    images = np.random.default_rng(0).integers(0, 256, (3, 9, 11, 3)).astype(np.uint8)
    found = seen.embed_images(list(images))
    assert found.shape == (3, 8)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert seen.classify(list(images), ["dog", "the cat"]).shape == (3, 2)
    assert cli.main(["inspect", str(run)]) == 0
    assert "task clip  step 0" in capsys.readouterr().out


def test_scanned_blocks_hold_the_same_numbers(hf_clip, tmp_path):
    import_export.bring_in(str(hf_clip), tmp_path / "a")
    scan = ["--config.task.scan=true"]
    import_export.bring_in(str(hf_clip), tmp_path / "b", overrides=scan)
    images = list(np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8))
    a, b = (load_lib.load_run(tmp_path / x) for x in "ab")
    assert any("/blocks/" in path for path in b.params)
    np.testing.assert_allclose(
        a.embed_images(images), b.embed_images(images), atol=1e-5
    )
    import_export.write_out(tmp_path / "b", tmp_path / "out")
    assert_equal(load(hf_clip), load(tmp_path / "out"))


def test_another_resolution_resizes_positions(hf_clip, tmp_path):
    """To 16 px, 4 x 4 patches in place of 2 x 2, and out again at that size."""
    size = ["--config.task.image_size=16", "--config.data.fields.image.size=16"]
    done = import_export.bring_in(str(hf_clip), tmp_path / "run", overrides=size)
    assert "resized from 2 x 2 to 4 x 4 patches (bicubic)" in done.lines[1]
    import_export.write_out(tmp_path / "run", tmp_path / "out")
    old, new = load(hf_clip), load(tmp_path / "out")
    name = "vision_model.embeddings.position_embedding.weight"
    assert old[name].shape == (5, 16) and new[name].shape == (17, 16)
    np.testing.assert_array_equal(old[name][0], new[name][0])
    for key in new.keys() - {name}:
        np.testing.assert_array_equal(old[key], new[key], key)
    vision = json.loads((tmp_path / "out" / "config.json").read_text())["vision_config"]
    assert vision["image_size"] == 16
    with pytest.raises(UserError, match="size is 8, and the model takes images of 16"):
        import_export.bring_in(str(hf_clip), tmp_path / "b", overrides=size[:1])


def test_prompt_templates_come_along(hf_clip, tmp_path):
    runs, out = [tmp_path / "a", tmp_path / "b"], tmp_path / "out"
    given = ['--config.data.templates=("a {}", "drei {}\N{EURO SIGN}")']
    import_export.bring_in(str(hf_clip), runs[0], overrides=given)
    import_export.write_out(runs[0], out)
    import_export.bring_in(str(out), runs[1])
    own = "a {}", "drei {}\N{EURO SIGN}"
    first, again = map(load_lib.load_run, runs)
    assert first.templates() == again.templates() == own
    images = list(np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8))
    chances = first.classify(images, ["dog", "the cat"])
    np.testing.assert_array_equal(chances, again.classify(images, ["dog", "the cat"]))
    assert not np.allclose(chances, again.classify(images, ["dog", "the cat"], "photo"))


def test_a_filter_that_is_named_otherwise_there_is_said(hf_clip, tmp_path):
    other = ["--config.data.fields.image.method=bilinear"]
    import_export.bring_in(str(hf_clip), tmp_path / "run", overrides=other)
    done = import_export.write_out(tmp_path / "run", tmp_path / "out")
    assert any("resized by Pillow's bilinear there" in line for line in done.lines)


@pytest.mark.parametrize(
    ("found", "part"),
    [("photo", "expected a list"), (["a dog"], "has no {}"), ([3], "list of strings")],
)
def test_templates_that_are_none(found, part, hf_clip, tmp_path):
    rewrite(hf_clip, import_export.TEMPLATES, found)
    with pytest.raises(UserError, match=f"{import_export.TEMPLATES}: .*{part}"):
        import_export.bring_in(str(hf_clip), tmp_path / "run")


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_half_precision_comes_back(kind, hf_clip, tmp_path):
    import ml_dtypes

    dtype = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}[kind]
    arrays = load(hf_clip)
    arrays = {k: v.astype(dtype) if v.ndim > 1 else v for k, v in arrays.items()}
    position_ids = np.arange(12)[None]
    arrays["text_model.embeddings.position_ids"] = position_ids
    safetensors.numpy.save_file(arrays, hf_clip / "model.safetensors")
    import_export.bring_in(str(hf_clip), tmp_path / "run")
    params = load_lib.load_run(tmp_path / "run").params
    assert {str(p.dtype) for p in params.values()} == {"float32"}
    import_export.write_out(tmp_path / "run", tmp_path / "out")
    found = [read.read(place).tensors for place in (hf_clip, tmp_path / "out")]
    assert_equal(*found)
    assert kind in {str(value.dtype) for value in found[1].values()}


def change(folder, **arrays):
    kept = {k: v for k, v in (load(folder) | arrays).items() if v is not None}
    safetensors.numpy.save_file(kept, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("arrays", "part"),
    [
        ({"text_model.extra": np.ones(2, np.float32)}, "no rule for text_model.extra"),
        ({"logit_scale": None}, "nothing for params/logit_scale"),
        (
            {"visual_projection.weight": np.ones((9, 16), np.float32)},
            "image_proj/kernel is (16, 9), and (16, 8)",
        ),
        ({"logit_scale": np.ones((), np.int64)}, "logit_scale is int64"),
    ],
)
def test_what_does_not_fit_is_named(arrays, part, hf_clip, tmp_path):
    change(hf_clip, **arrays)
    with pytest.raises(UserError) as error:
        import_export.bring_in(str(hf_clip), tmp_path / "run")
    assert part in str(error.value)
    assert not (tmp_path / "run").exists()


def test_unknown_layouts(hf_clip, tmp_path, capsys):
    (hf_clip / "config.json").unlink()
    change(hf_clip, odd=np.ones(1, np.float32))
    assert cli.main(["convert", str(hf_clip), str(tmp_path / "run")]) == 2
    err = capsys.readouterr().err
    assert "hf_clip is the closest" in err and "odd" in err and err.count("\n") == 1
    safetensors.numpy.save_file({"a.b": np.ones(1)}, tmp_path / "x.safetensors")
    assert cli.main(["convert", f"{tmp_path}/x.safetensors", f"{tmp_path}/run"]) == 2
    assert "keys begin with a.b" in capsys.readouterr().err


def test_a_tokenizer_of_another_model(hf_clip, tmp_path):
    merges = (hf_clip / "merges.txt").read_text()
    (hf_clip / "merges.txt").write_text(merges + "c a\n")
    with pytest.raises(UserError, match="has 519 ids, the model 518"):
        import_export.bring_in(str(hf_clip), tmp_path / "run")


def test_a_model_that_was_trained_here(tiny_run, tmp_path, capsys):
    out, back = tmp_path / "out", tmp_path / "back"
    assert cli.main(["convert", str(tiny_run), str(out)]) == 2
    assert "--to is missing: a run of task clip" in capsys.readouterr().err
    assert cli.main(["convert", str(tiny_run), str(out), "--to", "open_clip"]) == 0
    import_export.bring_in(str(out), back)
    a, b = load_lib.load_run(tiny_run), load_lib.load_run(back)
    assert_equal(a.params, b.params)
    texts = ["a red circle", "two blue stars"]
    # two programs: one loops over its blocks
    np.testing.assert_allclose(a.embed_texts(texts), b.embed_texts(texts), atol=1e-6)
    assert (a.task.mean, a.task.act) == (b.task.mean, b.task.act)
    assert b.parts.image_cfg.mode == a.parts.image_cfg.mode == "squash"


@pytest.mark.parametrize(
    ("argv", "part"),
    [
        (["--to", "hf_clap"], "did you mean"),
        (["--to", "hf_siglip"], "SiglipModel has a pooled ViT"),
        (["--to", "hf_clip", "--json", "x.json"], "is a run"),
        (["--to", "hf_clip", "--step", "9"], "step 9"),
    ],
)
def test_writing_out_refuses(argv, part, tiny_run, tmp_path, capsys):
    assert cli.main(["convert", str(tiny_run), str(tmp_path / "out"), *argv]) == 2
    err = capsys.readouterr().err
    assert part in err and err.count("\n") == 1


def test_folders_that_are_not_empty(hf_clip, tiny_run, tmp_path):
    with pytest.raises(UserError, match="not an empty folder"):
        import_export.bring_in(str(hf_clip), hf_clip)
    with pytest.raises(UserError, match="not an empty folder"):
        import_export.write_out(tiny_run, hf_clip, "hf_clip")


def test_formats(capsys):
    assert cli.main(["convert", "--list"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in ("openai_clip", "open_clip", "hf_siglip"))
    for name in formats.names():
        family = formats.find(name)
        assert family.ABOUT and formats.table(name, []).unknown(["odd"]) == ["odd"]


def imported(folder):
    return formats.find("hf_clip").to_mmjax(read.read(folder))


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite(number, hf_clip, tmp_path, capsys):
    bad = load(hf_clip)["text_projection.weight"]
    bad[3, 2] = number
    change(hf_clip, **{"text_projection.weight": bad.astype(np.float16)})
    assert cli.main(["convert", str(hf_clip), str(tmp_path / "run")]) == 2
    err = capsys.readouterr().err
    assert "1 of 78 arrays hold NaN or Inf: text_projection.weight" in err
    assert not (tmp_path / "run").exists()


def test_a_run_that_is_not_finite_is_not_written_out(hf_clip, tmp_path, monkeypatch):
    run = tmp_path / "run"
    monkeypatch.setattr(formats, "finite", lambda *_: None)
    change(hf_clip, logit_scale=np.full((), np.nan, np.float32))
    import_export.bring_in(str(hf_clip), run)
    with pytest.raises(UserError, match="hold NaN or Inf: params/logit_scale"):
        import_export.write_out(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    seen = load_lib.load_run(run)
    images = [np.zeros((8, 8, 3), np.uint8)]
    with pytest.raises(UserError, match="holds NaN or Inf: the weights"):
        seen.classify(images, ["dog", "cat"])


def rewrite(folder, name, found):
    (folder / name).write_text(json.dumps(found))


@pytest.mark.parametrize(
    ("found", "part"),
    [
        ({"size": {"shortest_edge": 9}}, "for a model of 8 px"),
        ({"size": 8, "do_center_crop": False}, "not cropped"),
        ({"resample": 17}, "resample 17"),
        ({"resample": "bicubic"}, "resample bicubic"),
        ({"do_resize": False}, "do_resize off"),
        ({"do_rescale": False}, "do_rescale off"),
        ({"rescale_factor": 1.0}, "not 1/255"),
        ({"crop_size": {"height": 9, "width": 9}}, "cuts out"),
        ({"do_pad": True}, r"says do_pad \(True\)"),
        ({"do_thumbnail": True, "x": 0}, r"says do_thumbnail \(True\)"),
        ({"image_mean": "none"}, "image_mean: expected tuple"),
        ({"image_std": [0.5, None, 0.5]}, r"image_std\[1\]: expected float"),
        ({"image_processor": [1]}, "is no image processor's"),
    ],
)
def test_preprocessing_that_ours_has_not(found, part, hf_clip):
    rewrite(hf_clip, "preprocessor_config.json", found)
    with pytest.raises(UserError, match=part):
        imported(hf_clip)


def test_preprocessing_that_ours_has(hf_clip):
    clip = imported(hf_clip)
    assert clip.image == {"size": 8, "mode": "crop", "method": "pil_bicubic"}
    own = {"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 1, 1], "resample": 2}
    own |= {"size": {"height": 8, "width": 8}, "do_convert_rgb": True, "do_pad": False}
    rewrite(hf_clip, "processor_config.json", {"image_processor": own})
    seen = imported(hf_clip)
    assert seen.image == {"size": 8, "mode": "squash", "method": "pil_bilinear"}
    assert seen.task["mean"] == (0.1, 0.2, 0.3) and seen.task["std"] == (1, 1, 1)
    found = {"do_normalize": False, "resample": 0}
    rewrite(hf_clip, "preprocessor_config.json", found)
    seen = imported(hf_clip)
    assert seen.image["method"] == "pil_nearest"
    assert (seen.task["mean"], seen.task["std"]) == ((0, 0, 0), (1, 1, 1))


@pytest.mark.parametrize(
    ("tower", "changed", "part"),
    [
        ("text_config", {"num_hidden_layers": "2"}, "expected int, got '2'"),
        ("text_config", {"num_hidden_layers": 2.5}, "expected int, got 2.5"),
        ("text_config", {"hidden_size": None}, "expected int, got None"),
        ("text_config", {"hidden_size": 0}, "hidden_size is 0"),
        ("vision_config", {"layer_norm_eps": [1]}, "expected float"),
        ("vision_config", {"hidden_act": 3}, "expected str"),
        ("vision_config", {"image_size": -8}, "image_size is -8"),
        ("vision_config", {"rope_theta": 1e4}, r"says rope_theta \(10000.0\)"),
        (
            "vision_config",
            {"num_hidden_layers": 10**9},
            "image layers: the config says",
        ),
        ("text_config", {"num_hidden_layers": 10**9}, "says 1000000000, and .* have 2"),
        ("text_config", {"max_position_embeddings": 10**8}, "positions of text"),
        ("vision_config", {"image_size": 10**8}, "positions of an image"),
        ("vision_config", {"hidden_size": 2**40}, "hidden_size is 1099511627776"),
    ],
)
def test_a_config_of_wrong_values(tower, changed, part, hf_clip):
    config = json.loads((hf_clip / "config.json").read_text())
    config[tower] |= changed
    rewrite(hf_clip, "config.json", config)
    with pytest.raises(UserError, match=part):
        imported(hf_clip)


@pytest.mark.parametrize(
    "changed", [{"text_config": [1]}, {"vision_config": 3}, {"projection_dim": "8"}]
)
def test_a_config_of_wrong_sections(changed, hf_clip, tmp_path):
    config = json.loads((hf_clip / "config.json").read_text())
    rewrite(hf_clip, "config.json", config | changed)
    with pytest.raises(UserError, match=next(iter(changed))):
        import_export.bring_in(str(hf_clip), tmp_path / "run")


def test_what_a_format_does_not_expect_is_said(hf_clip, tmp_path, monkeypatch):
    def fail(source):
        raise ZeroDivisionError("odd numbers")

    monkeypatch.setattr(formats.find("hf_clip"), "to_mmjax", fail)
    with pytest.raises(UserError, match="describe no hf_clip .*odd numbers"):
        import_export.bring_in(str(hf_clip), tmp_path / "run")


@pytest.mark.parametrize(
    ("changed", "part"),
    [
        ({"size": [9, 9]}, "preprocess_cfg.size"),
        ({"mode": "L"}, "preprocess_cfg.mode"),
        ({"fill_color": 128}, "preprocess_cfg.fill_color"),
        ({"aa": True}, "preprocess_cfg.aa"),
        ({"resize_mode": "longest"}, "resize_mode is 'longest'"),
    ],
)
def test_open_clips_preprocessing_that_ours_has_not(changed, part, hf_clip, tmp_path):
    model, open_clip = imported(hf_clip), formats.find("open_clip")
    task = dataclasses.asdict(tasks.build(model.task))
    image = dataclasses.asdict(image_field.Field(**model.image))
    model = dataclasses.replace(model, task=task, image=image, kept={})
    export = open_clip.from_mmjax(model)
    [(name, tensors)] = export.tensors.items()
    config = json.loads(export.texts[open_clip.CONFIG])
    config["preprocess_cfg"] |= changed
    source = read.Source("x", tensors, {open_clip.CONFIG: config}, tmp_path)
    with pytest.raises(UserError, match=part):
        open_clip.to_mmjax(source)
    config["preprocess_cfg"] |= {"size": 8, "fill_color": 0, "resize_mode": "squash"}
    config["preprocess_cfg"] |= {"mode": "RGB", "aa": None}
    config["model_cfg"]["text_cfg"]["layers"] = 10**9
    with pytest.raises(UserError, match="text layers: the config says 1000000000"):
        open_clip.to_mmjax(source)
