"""The demo's tiny plan: every stage, its files, and that nothing is done twice."""

import functools
import json
import pathlib
import re
import shutil
import tarfile

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


def _candidates(demo):
    return samples.load(demo, "val", load.load_run(demo / "tokenizer"))


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
    made = _candidates(demo)
    assert samples.path_of(demo, "val").stat().st_size < made.images.nbytes / 8
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
    before = _candidates(demo)
    assert _main(demo, "--until", "samples") == 0
    np.testing.assert_array_equal(_candidates(demo).images, before.images)
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
