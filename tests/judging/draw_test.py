"""`mmjax judge new` and the automated judges, on tiny runs."""

import json
import pathlib
import re
import types

import numpy as np
import pytest

from mmjax import cli
from mmjax.data.sources import open_source
from mmjax.errors import UserError
from mmjax.inference import generate, load
from mmjax.judging import automatic, draw, votes
from mmjax.judging import study as studies
from mmjax.train import config, loop

SCENES = "shapes:val?size=16&count=6"


@pytest.fixture(scope="module")
def prior(tmp_path_factory) -> pathlib.Path:
    workdir = tmp_path_factory.mktemp("run") / "prior"
    given = ["--config.steps=2", "--config.optim.ema=0.0"]
    given += [f"--config.{k}.context=96" for k in ("task", "data.fields.tokens")]
    cfg = config.load("configs/prior.py:tiny", given)
    cfg.evals = {}
    loop.run(cfg, workdir)
    return workdir


@pytest.fixture(scope="module")
def prompts(tmp_path_factory) -> pathlib.Path:
    source = open_source(SCENES)
    path = tmp_path_factory.mktemp("prompts") / "prompts.txt"
    path.write_text("\n".join(source[i]["text"][0] for i in range(6)))
    return path


@pytest.fixture(scope="module")
def new(prior, prompts, tmp_path_factory):
    """A study by the command line: one run with two temperatures."""
    folder = tmp_path_factory.mktemp("studies") / "one"
    command = ["judge", "new", str(folder), f"warm={prior}", f"cool={prior}"]
    command += ["--set", "cool.temperature=0.25", "--set", "top_k=9"]
    assert cli.main([*command, "--prompts", str(prompts), "--seed", "3"]) == 0
    return folder


def test_the_images_are_those_of_sample(new, prior, prompts):
    study = studies.open_study(new)
    assert [model.name for model in study.models] == ["warm", "cool"]
    assert study.prompts == studies.read_prompts(prompts)
    wanted = [{"temperature": t, "top_k": 9} for t in (1.0, 0.25)]
    for model, options in zip(study.models, wanted, strict=True):
        assert model.sampling.items() >= options.items()
    generator = generate.Generator(load.load_run(prior), sampling=wanted[1])
    drawn = generator.sample(study.prompts, k=1, seed=3).images[:, 0]
    np.testing.assert_array_equal(studies.images_of(new, study, 1), drawn)
    assert len(study.of("noise")) == len(study.of("caption")) == 6


def test_clip_chooses_among_k(prior, tiny_run, prompts):
    texts, clip = studies.read_prompts(prompts), load.load_run(tiny_run)
    generator = generate.Generator(load.load_run(prior))
    drawer = draw.Drawer(studies.Model("a", "a", 2, "f", {}), generator)
    (best,) = draw.draw([drawer], texts, k=4, seed=1, clip=clip)
    drawn = generator.sample(texts, k=4, seed=1)
    images_pkd, texts_pd = generate.embeddings(clip, drawn)
    for p in range(len(texts)):
        c = int(np.argmax(images_pkd[p] @ texts_pd[p]))
        np.testing.assert_array_equal(best[p], drawn.images[p, c])


def test_automated_judges(new, tiny_run):
    study, clip = studies.open_study(new), load.load_run(tiny_run)
    plain = study.of("plain")
    cast = [votes.Vote(1, name, "match", "a", 1.0, 0.0) for name in plain]
    args = {"clip": clip, "source": SCENES, "resamples": 20}
    numbers = automatic.judge(new, study, cast, **args)
    json.dumps(numbers, allow_nan=False)
    assert numbers["prompts_with_scene"] == 6 and numbers["real_images"] == 6
    images = [studies.images_of(new, study, m) for m in range(2)]
    texts_pd = clip.embed_texts(study.prompts)
    cosine_mp = np.stack(
        [(clip.embed_images(list(i)) * texts_pd).sum(1) for i in images]
    )
    for m, name in enumerate(("warm", "cool")):
        values = numbers["models"][name]
        assert {"clip_score", "fid", "oracle_all", "oracle_all_lo"} <= set(values)
        wanted = np.maximum(100 * cosine_mp[m], 0).mean()
        assert values["clip_score"] == pytest.approx(wanted, rel=1e-4)
    (row,) = numbers["preferences"]["clip"]
    first_p, tie_p = cosine_mp[0] > cosine_mp[1], cosine_mp[0] == cosine_mp[1]
    assert row["share"] == pytest.approx((first_p + tie_p / 2).mean())
    assert row["with_people"] == pytest.approx(first_p[~tie_p].mean())
    assert row["pairs"] == (~tie_p).sum()
    with pytest.raises(UserError, match="no record with a scene has a prompt of this"):
        source = "shapes:train?size=16&count=2"
        automatic.judge(new, study, cast, source=source)


def test_a_clip_does_not_judge_its_own_choice(new, tiny_run):
    path, clip = new / studies.FILE, load.load_run(tiny_run)
    text = path.read_text()
    held = json.loads(text)
    held["drawn"] |= {"clip": "runs/c", "clip_fingerprint": clip.fingerprint}
    try:
        path.write_text(json.dumps(held))
        with pytest.raises(UserError, match="would judge its own choice"):
            automatic.judge(new, studies.open_study(new), [], clip=clip)
    finally:
        path.write_text(text)


@pytest.mark.parametrize(
    "options, said",
    [
        (["{prior}"], r"1 run \(prior\): judges compare, give two or more"),
        (["{prior}", "{prior}"], "2 runs are called 'prior': name them"),
        (["a={prior}", "b={prior}"], "a and b are the same weights with the same opt"),
        (["a={prior}", "={prior}"], "give it as RUN or NAME=RUN"),
        (["a={prior}", "b={clip}"], "'clip' model, which draws no images"),
        (
            ["a={prior}", "b={prior}", "--set", "c.top_k=3"],
            "no run is called 'c', only",
        ),
        (["a={prior}", "b={prior}", "--set", "b.top_x=3"], "unknown key 'top_x'"),
        (["a={prior}", "b={prior}", "--votes", "0"], "--votes 0: give 1 or more"),
        (["a={prior}", "b={prior}", "-k", "0"], "-k 0: give 1 or more"),
        (["a={prior}", "b={prior}", "-k", "2"], "-k 2 needs somebody to choose"),
    ],
)
def test_bad_studies(prior, tiny_run, prompts, tmp_path, capsys, options, said):
    words = [word.format(prior=prior, clip=tiny_run) for word in options]
    command = ["judge", "new", str(tmp_path / "s"), *words, "--prompts", str(prompts)]
    assert cli.main(command) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(said, error), error
    assert not (tmp_path / "s" / studies.FILE).exists()


def drawer(name: str, tokenizer, check=lambda prompts: None) -> draw.Drawer:
    """A run that is not there, but for what is asked before it draws."""
    parts = types.SimpleNamespace(tokenizer=tokenizer)
    generator = types.SimpleNamespace(parts=parts, check_prompts=check)
    return draw.Drawer(studies.Model(name, name, 2, name, {}), generator)


def test_runs_that_disagree_on_prompts():
    def too_long(prompts):
        raise UserError("the prompt 'a' has 99 tokens, and the model reads 96")

    text, label = drawer("text", "bpe"), drawer("label", None)
    draw._check([text, drawer("other", "bytes")], ["a red star"])
    draw._check([label, drawer("other", None)], ["3"])
    with pytest.raises(UserError, match="disagree on prompts: text read texts, and la"):
        draw._check([text, label], ["a red star"])
    with pytest.raises(UserError, match="'a red star' is no label, and this run reads"):
        draw._check([label, drawer("other", None)], ["a red star"])
    with pytest.raises(UserError, match="b cannot draw what text should draw too: the"):
        draw._check([text, drawer("b", "bytes", too_long)], ["a"])


def test_a_study_is_not_drawn_over(new, prompts, capsys):
    command = ["judge", "new", str(new), "a", "b", "--prompts", str(prompts)]
    assert cli.main(command) == 2
    assert "holds a study already: give another folder" in capsys.readouterr().err
