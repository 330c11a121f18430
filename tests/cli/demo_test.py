"""The demo's tiny plan: every stage, its files, and that nothing is done twice."""

import json
import pathlib
import shutil
import tarfile

import nbformat
import numpy as np
import pytest

import mmjax
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
    assert 0 < summary["seconds_to_first_image"] <= 60 * summary["minutes"] + 0.6
    for name in ("zero_shot_step_2.png", "zero_shot.png"):
        assert (demo / name).read_bytes().startswith(b"\x89PNG")
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
    sheets = "zero_shot reconstructions samples_step_2 samples_first samples_best "
    for name in (sheets + "unseen_best completions").split():
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


def _stamps(folder) -> dict:
    return {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


def test_again_it_says_so_and_only_reads(demo, capsys, monkeypatch):
    before = _stamps(demo)
    monkeypatch.setattr("mmjax.train.loop.run", None)
    monkeypatch.setattr("mmjax.inference.load.load_run", None)
    assert _main(demo) == 0
    said = capsys.readouterr()
    assert f"{demo} is done already" in said.out and "best of 8 by CLIP" in said.out
    assert said.err.count("(done before)") == 6
    assert _main(demo, "--until", "clip") == 0  # and its summary is no shorter now
    assert _stamps(demo) == before


def test_what_is_missing_is_made_again_and_no_more(demo, capsys):
    shutil.rmtree(demo / "tokens")
    (demo / "samples_first.png").unlink()
    prior = _stamps(demo / "prior")
    assert _main(demo) == 0
    said = capsys.readouterr()
    assert said.err.count("(done before)") == 4 and "is done already" not in said.out
    assert (demo / "tokens" / "header.json").exists()
    assert (demo / "samples_first.png").exists()
    assert _stamps(demo / "prior") == prior  # the tokens are what they were


def test_what_was_made_of_other_things_is_made_anew(demo, capsys):
    path = demo / "stages.json"
    held = json.loads(path.read_text())
    held["stages"]["prior"]["of"]["tokens"] = "others"
    path.write_text(json.dumps(held))
    (demo / "prior" / "left.log").touch()
    assert _main(demo, "--until", "prior") == 0
    assert f"{demo / 'prior'} was made of other" in capsys.readouterr().err
    assert not (demo / "prior" / "left.log").exists()
    assert load.load_run(demo / "prior").step == 4


def test_a_demo_of_another_plan_is_left_alone(demo, capsys):
    before = _stamps(demo)
    assert cli.main(["demo", "--workdir", str(demo)]) == 2
    said = capsys.readouterr().err
    assert "clip trains 4 steps and not" in said and "--plan tiny" in said
    assert _stamps(demo) == before


def test_a_packed_demo_is_sampled_by_name(demo, tmp_path, capsys, monkeypatch):
    archive = tmp_path / "demo.tar"
    assert _main(demo, "--pack", str(archive)) == 0
    assert str(archive) in capsys.readouterr().out
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("MMJAX_DEMO", str(archive))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()  # as the checkout has one, which is no run
    assert cli.main(["sample", "demo", "a red circle", "-k", "2"]) == 0
    assert (tmp_path / "sample.png").read_bytes().startswith(b"\x89PNG")
    true = load.load_run(demo / "prior")
    packed = mmjax.load("demo")
    assert packed.step == true.step
    for path, array in true.params.items():
        np.testing.assert_allclose(packed.params[path], array, atol=1e-3)
    with tarfile.open(archive) as file:
        file.extractall(tmp_path, filter="data")
    recipe = json.loads((tmp_path / "demo" / "recipe.json").read_text())
    assert recipe["command"] == "mmjax demo --plan tiny" and recipe["results"]
    monkeypatch.setenv("MMJAX_DEMO", "demo")  # unpacked
    assert mmjax.load("demo/prior").workdir == packed.workdir
    assert _main(tmp_path / "demo") == 2
    assert "to be used as it is" in capsys.readouterr().err


@pytest.mark.parametrize("content", [None, b"", b"not a tar", b"\0" * 10240])
def test_where_no_demo_is_one_message_says_what_to_do(
    content, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MMJAX_DEMO", raising=False)
    if content is not None:
        (tmp_path / "demo.tar").write_bytes(content)
        monkeypatch.setenv("MMJAX_DEMO", "demo.tar")
    assert cli.main(["sample", "demo", "a red circle"]) == 2
    said = capsys.readouterr().err
    assert "train" in said and "MMJAX_DEMO" in said and "Traceback" not in said


def test_a_stop_in_the_middle_loses_nothing(demo, monkeypatch):
    samples.path_of(demo, "unseen").unlink()
    (demo / "results.json").unlink()
    before = samples.load(demo, "val")
    assert _main(demo, "--until", "samples") == 0
    np.testing.assert_array_equal(samples.load(demo, "val").images, before.images)
    assert samples.path_of(demo, "unseen").exists()


@pytest.mark.parametrize(("name", "pools"), [("quick", (1, 8)), ("full", (1, 8, 64))])
def test_the_large_plans_are_consistent(name, pools):
    made = stages.Demo(plan.PLANS[name], stages.pathlib.Path("runs/demo"))
    prior, tokenizer = made.config("prior"), made.config("tokenizer")
    assert prior.task.stage1.to_dict() == tokenizer.task.tokenizer.to_dict()
    assert (
        prior.data.fields.image.size == made.config("clip").data.fields.image.size == 32
    )
    assert made.plan.pools == pools
