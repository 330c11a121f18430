"""Samples and completions from a run: same candidates, whatever the call."""

import json
import pathlib

import numpy as np
import pytest

from mmjax import cli
from mmjax.data.sources import open_source
from mmjax.errors import UserError
from mmjax.inference import generate, load
from mmjax.metrics import scenes
from mmjax.train import config, evaluate, loop

PROMPTS = ["a red star", "a cyan moon"]
SCENES = "shapes:val?size=16&count=3"


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    workdir = tmp_path_factory.mktemp("run") / "prior"
    given = ["--config.steps=2", "--config.optim.ema=0.0"]
    given += [f"--config.{k}.context=96" for k in ("task", "data.fields.tokens")]
    cfg = config.load("configs/prior.py:tiny", given)
    cfg.evals = {}
    cfg.evals["drawn"] = {"type": "generation", "source": SCENES, "candidates": 2}
    loop.run(cfg, workdir)
    return workdir


@pytest.fixture(scope="module")
def run(prior: pathlib.Path) -> load.Run:
    return load.load_run(prior)


def test_a_candidate_does_not_depend_on_k_batch_or_company(run):
    many = generate.Generator(run, batch=8).sample(PROMPTS, k=6, seed=3)
    assert many.images.shape == (2, 6, 16, 16, 3) and many.tokens.shape == (2, 6, 16)
    few = generate.Generator(run, batch=4).sample(PROMPTS[1:], k=3, seed=3)
    np.testing.assert_array_equal(few.tokens[0], many.tokens[1, :3])
    np.testing.assert_allclose(few.log_probs[0], many.log_probs[1, :3], rtol=1e-4)
    assert len(np.unique(many.tokens.reshape(12, -1), axis=0)) == 12
    other = generate.Generator(run, batch=8).sample(PROMPTS, k=2, seed=4)
    assert (other.tokens != many.tokens[:, :2]).any()


@pytest.mark.parametrize(
    "p, k, batch, devices",
    [(1, 512, 64, 1), (3, 5, 64, 1), (1, 10, 64, 4), (7, 3, 8, 4), (2, 9, 4, 2)],
)
def test_calls_draw_every_candidate_once(run, p, k, batch, devices):
    generator = generate.Generator(run, batch=batch)
    generator.devices = devices
    seen = []
    for prompt_u, candidate_uk, real in generator._calls(p, k):
        assert len(prompt_u) % devices == 0
        assert candidate_uk.size <= max(batch, devices)
        for prompt, candidate_k in zip(
            prompt_u[:real], candidate_uk[:real], strict=True
        ):
            seen += [(int(prompt), int(c)) for c in candidate_k if c < k]
    assert seen == [(i, c) for i in range(p) for c in range(k)]


def test_the_evaluator_judges_what_the_task_draws(run):
    result = evaluate.evaluate(run.parts, run.state.eval_vars(), ("drawn",))["drawn"]
    source = open_source(SCENES)
    records = [source[i] for i in range(3)]
    tokens, mask = run.parts.tokenizer.encode([r["text"][0] for r in records])
    rows = {"tokens": tokens, "tokens_mask": mask}
    rows |= {"seed": np.arange(3, dtype=np.uint32)}
    rows |= {"candidate": np.tile(np.arange(2, dtype=np.int32), (3, 1))}
    made = run.parts.predict["sample"](run.state.eval_vars(), rows)
    truths = [r["scene"] for r in records for _ in range(2)]
    images = np.asarray(made["image"]).reshape(6, 16, 16, 3)
    for name, right_n in scenes.judge(images, truths).items():
        assert result.values[f"oracle_{name}"] == pytest.approx(right_n.mean())


def test_guidance_and_temperature_change_what_is_drawn(run):
    plain = generate.Generator(run).sample(PROMPTS, k=2)
    for options in ({"guidance": 60.0}, {"temperature": 0.5}, {"top_k": 2}):
        other = generate.Generator(run, sampling=options).sample(PROMPTS, k=2)
        assert (plain.tokens != other.tokens).any(), options


def test_completion_keeps_what_is_given_and_sees_no_more(run):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (2, 16, 16, 3), dtype=np.uint8)
    generator = generate.Generator(run)
    got = generator.complete(list(images), PROMPTS, rows=2, k=2)
    given_pm = generator.prefix(images, 2)
    np.testing.assert_array_equal(got.tokens[:, 0, :8], given_pm)
    np.testing.assert_array_equal(got.tokens[:, 1, :8], given_pm)
    changed = images.copy()
    changed[:, 8:] = 255 - changed[:, 8:]
    np.testing.assert_array_equal(generator.prefix(changed, 2), given_pm)
    with pytest.raises(UserError, match="1 to 3 of the 4 rows"):
        generator.complete(list(images), PROMPTS, rows=4, k=1)


@pytest.mark.parametrize(
    "prompts, said",
    [([" "], "empty"), (["a red star " * 40], "has .* tokens .* reads 96: shorten")],
)
def test_bad_prompts(run, prompts, said):
    with pytest.raises(UserError, match=said):
        generate.Generator(run).sample(prompts, k=1)


def test_a_run_that_draws_nothing(tiny_run):
    with pytest.raises(UserError, match="'clip' model, which draws no images"):
        generate.Generator(load.load_run(tiny_run))


def test_the_command_line(prior, tiny_run, tmp_path, capsys):
    png = tmp_path / "grid.png"
    command = ["sample", str(prior), PROMPTS[0], "-k", "3", "--out", str(png)]
    assert cli.main(command) == 0
    assert png.stat().st_size > 100
    about = json.loads(png.with_suffix(".json").read_text())
    shown = about["prompts"][0]["shown"]
    assert [one["candidate"] for one in shown] == [0, 1, 2]
    assert cli.main([*command, "--clip", str(tiny_run), "--top", "2"]) == 0
    about = json.loads(png.with_suffix(".json").read_text())
    shown = about["prompts"][0]["shown"]
    assert len(shown) == 2 and shown[0]["clip"] >= shown[1]["clip"]
    png.rename(tmp_path / "scene.png")
    complete = ["complete", str(prior), str(tmp_path / "scene.png"), PROMPTS[0]]
    assert cli.main([*complete, "--rows", "2", "-k", "2", "--out", str(png)]) == 0
    assert "to 16 x 16" in capsys.readouterr().out
    assert cli.main([*command, "--top", "2"]) == 2
    assert "--clip" in capsys.readouterr().err
    assert cli.main([*command, "--top-p", "1.5"]) == 2
    assert "top_p is 1.5" in capsys.readouterr().err
