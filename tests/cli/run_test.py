"""Verbs that read a run, on one trained for two steps (see conftest)."""

import json
import os
import shlex
import shutil

import numpy as np
import pytest
from PIL import Image

from mmjax import cli
from mmjax.cli import embed, inspect
from mmjax.data.sources import open_source
from mmjax.errors import UserError
from mmjax.inference import load


def call(capsys, *argv):
    """What a command that succeeds prints."""
    assert cli.main([str(a) for a in argv]) == 0
    return capsys.readouterr().out


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    source = open_source("shapes:val?size=16&count=3&objects=1")
    for i in range(3):
        Image.fromarray(source[i]["image"]).save(folder / f"{i}.png")
    return folder


def test_inspect(tiny_run, capsys):
    out = call(capsys, "inspect", tiny_run)
    assert "task clip  step 2" in out
    for word in ("path", "shape", "dtype", "norm", "bytes", "total", "logit_scale"):
        assert word in out
    assert "--config.optim.lr=0.0005" in out
    assert "--config.data.fields.tokens.tokenizer=bpe" in out
    assert "val/top1 = " in out and "  loss = " in out


def test_inspect_an_earlier_step(tiny_run, capsys):
    out = call(capsys, "inspect", tiny_run, "--step", 1)
    assert "step 1" in out
    assert "val/top1" not in out  # evaluated at step 2


def test_inspect_prints_config_as_it_is_taken(tiny_run):
    from mmjax.train import config

    run = load.load_run(tiny_run)
    lines = shlex.split(" ".join(inspect.config_lines(run.config)))
    again = config.override(run.config, lines)
    assert again.to_dict() == run.config.to_dict()


def test_a_step_that_was_not_saved(tiny_run, capsys):
    for verb in ("inspect", "eval"):
        assert cli.main([verb, str(tiny_run), "--step", "7"]) == 2
        err = capsys.readouterr().err
        assert "7" in err and "1, 2" in err and err.count("\n") == 1


def test_embed(tiny_run, pictures, capsys, tmp_path):
    (tmp_path / "lines.txt").write_text("a red circle\n\na blue star\n")
    out = tmp_path / "e.npz"
    texts = [tmp_path / "lines.txt", "a green cross"]
    said = call(
        capsys, "embed", tiny_run, "--images", pictures, "--texts", *texts, "--out", out
    )
    assert "3 images and 3 texts, 16 numbers each" in said
    made = np.load(out, allow_pickle=False)
    assert list(made["texts"]) == ["a red circle", "a blue star", "a green cross"]
    assert [p[-5:] for p in made["image_paths"]] == ["0.png", "1.png", "2.png"]
    for name in ("image_embeddings", "text_embeddings"):
        assert made[name].shape == (3, 16) and made[name].dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(made[name], axis=1), 1, atol=1e-5)


def test_zeroshot(tiny_run, pictures, capsys, tmp_path):
    argv = ["--labels", "red circle, blue star,green cross", "--templates", "a {}"]
    png = tmp_path / "deep" / "ranked.png"
    out = call(capsys, "zeroshot", tiny_run, pictures / "1.png", *argv, "--png", png)
    lines = out.splitlines()
    assert lines[0] == str(pictures / "1.png")
    chances = [float(line.split()[-2]) for line in lines[1:4]]
    assert chances == sorted(chances, reverse=True)
    assert sum(chances) == pytest.approx(100, abs=0.2)
    assert Image.open(png).size[0] > 100


@pytest.fixture
def one_broken(pictures, tmp_path):
    """Three whole images and one that is cut short."""
    folder = tmp_path / "set"
    shutil.copytree(pictures, folder)
    data = (folder / "1.png").read_bytes()
    (folder / "1b.png").write_bytes(data[: len(data) // 2])
    return folder


def test_embed_leaves_out_what_is_broken(
    tiny_run, pictures, one_broken, caplog, capsys, tmp_path
):
    out = [tmp_path / "whole.npz", tmp_path / "part.npz"]
    call(capsys, "embed", tiny_run, "--images", pictures, "--out", out[0])
    argv = ["embed", tiny_run, "--images", one_broken, "--out", out[1]]
    assert cli.main([str(a) for a in argv]) == 3
    said = capsys.readouterr().out
    assert "3 images and 0 texts" in said and "1 images were left out" in said
    assert caplog.text.count("left out:") == 1 and "set/1b.png" in caplog.text
    whole, part = (np.load(path) for path in out)
    assert [p[-5:] for p in part["image_paths"]] == ["0.png", "1.png", "2.png"]
    np.testing.assert_array_equal(part["image_embeddings"], whole["image_embeddings"])


@pytest.mark.parametrize("verb", ["embed", "zeroshot"])
def test_what_a_folder_holds_beside_images_is_said(
    verb, tiny_run, pictures, caplog, tmp_path
):
    folder = tmp_path / "set"
    shutil.copytree(pictures, folder)
    options = {
        "embed": ["--images", folder, "--out", tmp_path / "x.npz"],
        "zeroshot": [folder, "--labels", "red,blue", "--templates", "plain"],
    }
    argv = [str(a) for a in [verb, tiny_run, *options[verb]]]
    assert cli.main(argv) == 0
    (folder / "photo.heic").write_bytes(b"another kind")
    assert cli.main(argv) == 3
    assert "photo.heic: its suffix .heic is none that is read" in caplog.text


def test_embed_lists_a_folder_as_its_source_does(pictures, tmp_path):
    (tmp_path / "deep").mkdir()
    data = (pictures / "1.png").read_bytes()
    for name in ("a.JPG", "deep/b.tiff", "c.ppm", "notes.txt"):
        (tmp_path / name).write_bytes(data)
    source = open_source(f"folder:{tmp_path}?label=none")
    found, left = embed.image_files([tmp_path, pictures / "1.png"])
    assert left == len(source.left_out) == 1
    assert found[-1] == pictures / "1.png"
    listed = [str(path.relative_to(tmp_path)) for path in found[:-1]]
    assert listed == source.files == ["a.JPG", "c.ppm", "deep/b.tiff"]
    with pytest.raises(UserError, match="holds no images"):
        (tmp_path / "empty").mkdir()
        embed.image_files([tmp_path / "empty"])


def test_images_that_are_no_files(tmp_path):
    os.mkfifo(tmp_path / "x.png")
    for path in (tmp_path / "x.png", "/dev/zero"):
        with pytest.raises(UserError, match="it is no file"):
            load.read_image(path)


def test_embed_says_what_it_cuts(tiny_run, capsys, caplog, tmp_path):
    long, out = "a red star " * 40, tmp_path / "e.npz"
    texts = ["a ring", long + "moon", long + "circle"]
    argv = ["embed", tiny_run, "--texts", *texts, "--out", out]
    assert cli.main([str(a) for a in argv]) == 3
    assert "and 2 texts cut" in capsys.readouterr().out
    said = [r.getMessage() for r in caplog.records if "is cut off" in r.getMessage()]
    assert len(said) == 2 and "moon" in said[0] and "the model reads 16" in said[0]
    assert np.load(out)["texts_cut"].tolist() == [False, True, True]


def test_zeroshot_goes_on_past_what_is_broken(
    tiny_run, pictures, one_broken, capsys, caplog
):
    options = ["--labels", "red circle,blue star", "--templates", "a {}"]
    whole = call(capsys, "zeroshot", tiny_run, pictures, *options)
    argv = ["zeroshot", tiny_run, one_broken, *options]
    assert cli.main([str(a) for a in argv]) == 3
    part = capsys.readouterr().out
    assert part == whole.replace(str(pictures), str(one_broken))
    assert "set/1b.png" in caplog.text
    argv = ["zeroshot", tiny_run, pictures, "--labels", f"{'red ' * 99},blue"]
    assert cli.main([str(a) for a in argv]) == 3
    assert "is cut off" in caplog.text


def test_zeroshot_takes_the_runs_own_templates(tiny_run, pictures, capsys):
    argv = ["zeroshot", tiny_run, pictures / "1.png", "--labels", "red star,blue ring"]
    said = []
    for options in ([], ["--templates", "shapes"]):
        # 3: "a drawing of a blue ring" is longer than the 16 tokens of the tiny form
        assert cli.main([str(a) for a in [*argv, *options]]) == 3
        said.append(capsys.readouterr().out)
    assert said[0] == said[1]


def test_zeroshot_on_what_is_no_image(tiny_run, capsys, tmp_path):
    (tmp_path / "x.png").write_bytes(b"no picture")
    argv = ["zeroshot", tiny_run, tmp_path / "x.png", "--labels", "a,b"]
    assert cli.main([str(a) for a in argv]) == 2
    err = capsys.readouterr().err
    assert "x.png" in err and err.count("\n") == 1


def test_eval(tiny_run, capsys):
    out = call(capsys, "eval", tiny_run, "--evals", "val")
    assert "val" in out and "retrieval" not in out
    assert "top1" in out and "95 % interval" in out


def test_eval_on_other_data_as_json(tiny_run, capsys):
    source = "shapes:unseen?size=16&count=20&objects=1"
    argv = ["--evals", "val", "--source", source, "--json"]
    argv += ["--config.evals.val.templates=plain", "--config.evals.val.limit=10"]
    found = json.loads(call(capsys, "eval", tiny_run, *argv))
    assert list(found) == ["val"]
    assert found["val"]["step"] == 2
    assert found["val"]["card"]["counts"]["examples"] == 10
    assert found["val"]["card"]["source"]["name"] == "shapes:unseen"
    assert found["val"]["card"]["templates"]["name"] == "plain"


@pytest.mark.parametrize(
    ("argv", "part"),
    [
        (["--evals", "vall"], "did you mean 'val'"),
        (["--config.optim.lr=1"], "takes --config.evals"),
        (["--evals", "val", "--config.evals.val.templates=clip8"], "'clip80'"),
    ],
)
def test_eval_refuses(argv, part, tiny_run, capsys):
    assert cli.main(["eval", str(tiny_run), *argv]) == 2
    err = capsys.readouterr().err
    assert part in err and err.count("\n") == 1


def test_training_on_changes_nothing_that_is_done(tiny_run, capsys, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(tiny_run, copy)
    argv = ["train", "--config", "configs/clip.py:tiny", "--workdir", copy]
    same = ["--config.steps=2", "--config.checkpoint.every=1"]
    assert cli.main([str(a) for a in [*argv, *same]]) == 0
    assert (copy / "metrics.jsonl").read_text() == (
        tiny_run / "metrics.jsonl"
    ).read_text()
    capsys.readouterr()
    other = "--config.task.text.width=64"
    assert cli.main([str(a) for a in [*argv, *same, other]]) == 2
    err = capsys.readouterr().err
    assert "config.task.text.width was 32" in err and "is 64 now" in err
