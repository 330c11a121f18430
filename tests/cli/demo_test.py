"""The demo's tiny plan: every stage, its files, and that nothing is done twice."""

import functools
import json
import pathlib
import re
import shutil

import numpy as np
import pytest

import mmjax
import notebooks
from mmjax import cli
from mmjax.inference import load, model
from mmjax_demo import plan, samples, stages

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    return tmp_path_factory.mktemp("demo") / "demo"


def _main(demo, *more: str) -> int:
    return cli.main(["demo", "--plan", "tiny", "--workdir", str(demo), *more])


def test_it_may_end_after_clip(demo, capsys):
    assert _main(demo, "--until", "clip") == 0
    out = capsys.readouterr().out
    assert "zero-shot, 64 classes" in out and "95 % interval" in out
    summary = json.loads((demo / "summary.json").read_text())
    for name in ("zero_shot_val", "zero_shot_unseen", "retrieval_r1"):
        assert summary[f"{name}_lo"] <= summary[name] <= summary[f"{name}_hi"]
    assert summary["minutes"] > 0
    assert (demo / "zero_shot.png").read_bytes().startswith(b"\x89PNG")
    printed = out.partition("go on with\n")[2].splitlines()
    scene = f"{demo}/clip {demo}/scene.png"
    assert printed[0] == f'mmjax zeroshot {scene} --labels "red circle,blue star"'
    assert load.read_image(demo / "scene.png").shape == (16, 16, 3)
    assert not (demo / "tokenizer").exists()


def test_the_whole_pipeline(demo, capsys):
    assert _main(demo) == 0
    assert "best of 8 by CLIP" in capsys.readouterr().out
    summary = json.loads((demo / "summary.json").read_text())
    asked = "zero_shot_val zero_shot_unseen retrieval_r1 minutes oracle_k1 oracle_k8 "
    asked += "oracle_unseen_k1 oracle_unseen_k8 completion_oracle code_usage psnr"
    assert set(asked.split()) <= summary.keys()
    assert all(isinstance(value, (int, float)) for value in summary.values())
    for name in ("zero_shot", "samples_first", "samples_best", "unseen_best"):
        assert (demo / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert "oracle_k8" in (demo / "report.html").read_text()
    # Candidates are those that `mmjax sample` draws for the same prompt and seed.
    made = samples.load(demo, "val")
    assert made.images.shape == (6, 8, 16, 16, 3)
    from mmjax.inference.generate import Generator

    again = Generator(load.load_run(demo / "prior")).sample(made.prompts[2:3], k=2)
    np.testing.assert_array_equal(again.images[0], made.images[2, :2])


@pytest.fixture(scope="module")
def place(demo, tmp_path_factory):
    """A folder as after `make demo`, with what a sweep would have made."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "runs").mkdir()
    (folder / "runs" / "demo").symlink_to(demo)
    return folder


long = pytest.mark.long
OTHER = {"runs/demo/prior": "runs/demo/tokenizer"}
BOOKS = [
    ("clip_zero_shot", {}, 5),
    ("dalle_tokens", {}, 6),
    ("inspect_params", {}, 10),
    ("read_a_sweep", {}, 1),
    pytest.param("inspect_params", OTHER, 10, marks=long, id="tokenizer"),
    pytest.param("train_your_own", {"range(480)": "range(40)"}, 2, marks=long),
]


@pytest.mark.parametrize(("name", "changes", "count"), BOOKS)
def test_notebooks_run(name, changes, count, place, tiny_run, capsys, monkeypatch):
    """In this process, smaller; `make notebooks` runs them in a kernel as they are."""
    monkeypatch.chdir(place)
    monkeypatch.setattr(mmjax, "load", _load)
    book = notebooks.read(name)
    for old, new in changes.items():
        assert any(old in cell.source for cell in notebooks.code(book))
        for cell in notebooks.code(book):
            cell.source = cell.source.replace(old, new)
    _, shown = notebooks.run_here(book, functools.partial(_command, tiny_run, capsys))
    assert len(shown) == count


@functools.cache
def _load(workdir):
    """Loaded once for all notebooks."""
    return model.load(workdir)


def _command(tiny_run, capsys, words) -> int:
    """A command of a notebook, with a small model; a sweep's runs are copies of one."""
    assert words[0] == "mmjax"
    words = words[1:]
    if words[0] == "train":
        sizes = [f"--config.{key}=16" for key in ("batch_size", "task.image_size")]
        sizes += ["--config.data.fields.image.size=16", "--config.task.text.depth=1"]
        words += [*sizes, "--config.task.text.width=32", "--config.steps=2"]
    if words[0] == "sweep":
        capsys.readouterr()
        assert cli.main([*words, "--print"]) == 0
        for line in capsys.readouterr().out.splitlines():
            options = dict(re.findall(r"--(\S+?)[= ](\S+)", line))
            _copy(tiny_run, pathlib.Path(options["workdir"]), options)
        return 0
    return cli.main(words)


def _copy(run, workdir, options):
    """The run as if it had been trained with another learning rate and seed."""
    shutil.copytree(run, workdir)
    facts = json.loads((workdir / "run.json").read_text())
    facts["config"]["optim"]["lr"] = float(options["config.optim.lr"])
    facts["config"]["seed"] = int(options["config.seed"])
    (workdir / "run.json").write_text(json.dumps(facts))


def test_again_it_only_reads(demo, capsys):
    before = json.loads((demo / "summary.json").read_text())
    stamps = {p: p.stat().st_mtime_ns for p in demo.glob("samples_*.npz")}
    assert _main(demo) == 0
    assert json.loads((demo / "summary.json").read_text()) == before
    assert stamps == {p: p.stat().st_mtime_ns for p in demo.glob("samples_*.npz")}


def test_a_stop_in_the_middle_loses_nothing(demo, monkeypatch):
    samples.path_of(demo, "unseen").unlink()
    (demo / "results.json").unlink()
    before = samples.load(demo, "val")
    assert _main(demo, "--until", "samples") == 0
    np.testing.assert_array_equal(samples.load(demo, "val").images, before.images)
    assert samples.path_of(demo, "unseen").exists()


def test_the_full_plan_is_consistent():
    made = stages.Demo(plan.PLANS["full"], stages.pathlib.Path("runs/demo"))
    prior, tokenizer = made.config("prior"), made.config("tokenizer")
    assert prior.task.stage1.to_dict() == tokenizer.task.tokenizer.to_dict()
    assert (
        prior.data.fields.image.size == made.config("clip").data.fields.image.size == 32
    )
    assert made.plan.pools == (1, 8, 64)
