"""The demo's tiny plan: every stage, its files, and that nothing is done twice."""

import json
import pathlib

import nbformat
import numpy as np
import pytest

from mmjax import cli
from mmjax.inference import load
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


@pytest.mark.parametrize(
    ("name", "says"), [("tokenizer", "vqvae at step"), ("prior", "image_tokens")]
)
def test_the_notebook_opens_every_run(name, says, demo, capsys, monkeypatch):
    """In this process; tests/inference/load_test has a kernel run it on CLIP."""
    monkeypatch.setenv("MMJAX_WORKDIR", str(demo / name))
    book = nbformat.read(ROOT / "notebooks" / "inspect_params.ipynb", as_version=4)
    cells = [cell.source for cell in book.cells if cell.cell_type == "code"]
    held: dict = {}
    exec("\n".join(cells).replace("%matplotlib inline", ""), held)
    assert says in capsys.readouterr().out
    assert (held["figure"] is None) == (name == "prior")


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
