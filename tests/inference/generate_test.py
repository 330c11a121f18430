"""Samples and completions from a run: same candidates, whatever the call."""

import dataclasses
import json
import pathlib

import jax
import numpy as np
import pytest

from mmjax import cli, evaluators, parallel
from mmjax.data import image as image_lib
from mmjax.data.sources import open_source
from mmjax.errors import UserError
from mmjax.inference import generate, load
from mmjax.metrics import scenes
from mmjax.train import config, evaluate, loop

PROMPTS = ["a red star", "a cyan moon"]
SCENES = "shapes:val?size=16&count=3"  # of the run's evaluator as well


@pytest.fixture(scope="module")
def prior(tiny_prior: pathlib.Path) -> pathlib.Path:
    return tiny_prior


@pytest.fixture(scope="module")
def run(prior: pathlib.Path) -> load.Run:
    return load.load_run(prior)


def sample(run, prompts=PROMPTS, *, k=2, seed=0, **kwargs):
    return generate.Generator(run, **kwargs).sample(prompts, k=k, seed=seed).arrays


def test_a_candidate_does_not_depend_on_k_batch_or_company(run):
    many = sample(run, batch=8, k=6, seed=3)
    assert many["image"].shape == (2, 6, 16, 16, 3)
    assert many["image_tokens"].shape == (2, 6, 16)
    few = sample(run, PROMPTS[1:], batch=4, k=3, seed=3)
    np.testing.assert_array_equal(few["image_tokens"][0], many["image_tokens"][1, :3])
    np.testing.assert_allclose(few["log_prob"][0], many["log_prob"][1, :3], rtol=1e-4)
    assert len(np.unique(many["image_tokens"].reshape(12, -1), axis=0)) == 12
    other = sample(run, batch=8, k=2, seed=4)
    assert (other["image_tokens"] != many["image_tokens"][:, :2]).any()


@pytest.mark.parametrize(
    "config, devices", [({}, 1), ({}, 4), ({"mode": "pmap"}, 4), ({"mode": "pmap"}, 1)]
)
def test_the_evaluator_judges_what_the_command_draws(prior, run, config, devices):
    """The same images, by prompt, seed and candidate, of k and calls of other sizes."""
    config = parallel.ParallelConfig(**config)
    layout = parallel.Layout(config, jax.devices()[:devices])
    parts = dataclasses.replace(run.parts, layout=layout)
    state = run.state.replace(rng=None)
    state = jax.device_put(jax.device_get(state), layout.replicated)
    here = load.Run(prior, parts, state)
    source = open_source(SCENES)
    records = [source[i] for i in range(3)]
    texts = [record["text"][0] for record in records]
    result = evaluate.evaluate(parts, state.eval_vars(), ("drawn",))["drawn"]
    for k, batch in ((1, 3), (5, 64)):
        drawn = sample(here, texts[::-1], k=k, seed=7, batch=batch)["image"][::-1]
        both = min(k, 2)
        np.testing.assert_array_equal(drawn[:, :both], result.arrays["image"][:, :both])
    truths = [r["scene"] for r in records for _ in range(2)]
    images = drawn[:, :2].reshape(6, 16, 16, 3)
    for name, right_n in scenes.judge(images, truths).items():
        assert result.values[f"oracle_{name}"] == pytest.approx(right_n.mean())


def test_the_evaluator_sweeps_sampling_options(run):
    config = dict(run.parts.cfg.evals["drawn"])
    config["sampling"] = {"temperature": (0.5, 1.0), "top_k": 9}
    evaluator = evaluators.build("drawn", config, evaluate.env(run.parts))
    evaluator.check(run.state.eval_vars())
    result = evaluator.run(run.state.eval_vars())
    texts = evaluator.prompts
    for value in (0.5, 1.0):
        options = {"temperature": value, "top_k": 9}
        drawn = sample(run, texts, seed=7, sampling=options)["image"]
        tag = f"temperature={value}/"
        np.testing.assert_array_equal(result.arrays[f"{tag}image"], drawn)
        assert f"{tag}oracle_all_lo" in result.values
    assert result.card["sampling"] == {"temperature": [0.5, 1.0], "top_k": [9]}
    used = result.card["drawn_with"]
    assert [used[t]["temperature"] for t in sorted(used)] == [0.5, 1.0]
    assert {tuple(u[key] for key in ("top_k", "guidance")) for u in used.values()} == {
        (9, 1.0)
    }
    config["sampling"] = {"temprature": 1.0}
    with pytest.raises(UserError, match="'temprature'; did you mean 'temperature'"):
        evaluators.build("drawn", config, evaluate.env(run.parts))


def test_guidance_and_temperature_change_what_is_drawn(run):
    plain = sample(run)["image_tokens"]
    for options in ({"guidance": 60.0}, {"temperature": 0.5}, {"top_k": 2}):
        other = sample(run, sampling=options)["image_tokens"]
        assert (plain != other).any(), options


def test_completion_keeps_what_is_given_and_sees_no_more(run):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (2, 16, 16, 3), dtype=np.uint8)
    known_ss = np.arange(16)[:, None] < np.full(16, 8)
    generator = generate.Generator(run)
    drawn = generator.complete(list(images), PROMPTS, known=known_ss, k=2)
    tokens = drawn.arrays["image_tokens"]
    seen = images.copy()
    seen[:, 8:] = seen[:, 7:8]
    encoded = run.parts.predict["encode"](run.state.eval_vars(), {"image": seen})
    given_pm = encoded["image_tokens"][:, :8]
    np.testing.assert_array_equal(tokens[:, 0, :8], given_pm)
    np.testing.assert_array_equal(tokens[:, 1, :8], given_pm)
    changed = images.copy()
    changed[:, 8:] = 255 - changed[:, 8:]
    other = generator.complete(list(changed), PROMPTS, known=known_ss, k=2)
    np.testing.assert_array_equal(other.images, drawn.images)
    columns_ss = known_ss.T
    each_pss = np.stack([known_ss, np.roll(known_ss, 4, axis=0)])
    for wrong in (known_ss | True, known_ss & False, columns_ss, each_pss):
        with pytest.raises(UserError, match="give the same top 4, 8, ... or 12 rows"):
            generator.complete(list(images), PROMPTS, known=wrong, k=1)
    with pytest.raises(UserError, match=r"known is \(8, 16\), the images \(16, 16\)"):
        generator.complete(list(images), PROMPTS, known=known_ss[:8], k=1)


@pytest.mark.parametrize(
    "prompts, said",
    [
        ([" "], "empty"),
        (["a red star " * 40], "has .* tokens .* reads 96: shorten"),
        ([3], "the prompt 3 is no text, and this run reads texts"),
        (["a", -1], "the prompt -1 is no text, and this run reads texts"),
        (["a \udcff"], "is no text: .* surrogates not allowed"),
    ],
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
    assert cli.main([*complete, "--rows", "8", "-k", "2", "--out", str(png)]) == 0
    assert "to 16 x 16" in capsys.readouterr().out
    assert cli.main([*command, "--top", "2"]) == 2
    assert "--clip" in capsys.readouterr().err
    for option, said in (
        ("top_p=1.5", "top_p is 1.5"),
        ("top_k", "give it as --set KEY=VALUE"),
        ("top_k=many", "sampling.top_k: expected int, got 'many'"),
        ("guidence=2", "unknown key 'guidence'; did you mean 'guidance'"),
    ):
        assert cli.main([*command, "--set", option]) == 2
        assert said in capsys.readouterr().err
    given = ["--set", "temperature=0.5", "--set", "dtype=bfloat16", "--set", "top_k=3"]
    assert cli.main([*command, *given]) == 0
    options = json.loads(png.with_suffix(".json").read_text())["sampling"]
    wanted = {"temperature": 0.5, "dtype": "bfloat16", "top_k": 3, "guidance": 1.0}
    assert options == wanted | {"top_p": 1.0}


@pytest.fixture(scope="module")
def diffusion(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A workdir of configs/diffusion.py:tiny, until its last layers are not zero."""
    workdir = tmp_path_factory.mktemp("diffusion") / "run"
    options = ["--config.optim.lr=0.05", "--config.optim.ema=0.0"]
    cfg = config.load("configs/diffusion.py:tiny", options)
    cfg.evals = {}
    loop.run(cfg, workdir)
    return workdir


@pytest.mark.long
def test_a_diffusion_model_from_the_command_line(diffusion, prior, tmp_path, capsys):
    rng = np.random.default_rng(0)
    scene, mask = tmp_path / "scene.png", tmp_path / "mask.png"
    pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
    scene.write_bytes(image_lib.encode_png(pixels))
    free = np.zeros((16, 16, 3), np.uint8)
    free[4:12, 4:12] = 255
    mask.write_bytes(image_lib.encode_png(free))
    out = ["--out", str(tmp_path / "out.png"), "-k", "2"]
    sample = ["sample", str(diffusion), PROMPTS[0], *out]
    assert cli.main([*sample, "--negative", PROMPTS[1]]) == 0
    assert cli.main([*sample, "--start", str(scene), "--set", "strength=0.4"]) == 0
    complete = ["complete", str(diffusion), str(scene), PROMPTS[0], *out]
    assert cli.main([*complete, "--mask", str(mask)]) == 0
    assert cli.main([*complete, "--rows", "7"]) == 0
    assert cli.main([*sample, "--negative", PROMPTS[1], "--set", "guidance=1"]) == 2
    assert "guidance is 1" in capsys.readouterr().err
    assert cli.main(["sample", str(prior), PROMPTS[0], *out, "--negative", "x"]) == 2
    assert "without 'negative'" in capsys.readouterr().err
    small = tmp_path / "small.png"
    small.write_bytes(image_lib.encode_png(free[:8]))
    assert cli.main([*complete, "--mask", str(small)]) == 2
    assert "16 x 8" in capsys.readouterr().err


def test_help_lists_the_sampling_options_of_a_run(diffusion, tiny_run, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["sample", "--help", str(diffusion)])
    said = capsys.readouterr().out
    assert ended.value.code == 0 and "--negative" in said
    assert (
        "steps=3" in said and "eta=0.5" in said
    )  # as configs/diffusion.py:tiny has it
    assert "strength: how much of a given image is drawn anew" in said
    assert cli.main(["sample", "-h", str(tiny_run)]) == 2
    assert "draws no images" in capsys.readouterr().err


def test_negative_texts_and_starts_change_what_is_drawn(diffusion):
    run = load.load_run(diffusion)
    generator = generate.Generator(run, sampling={"strength": 0.7})
    start = [np.full((16, 16, 3), c, np.uint8) for c in (0, 255)]
    drawn = [
        generator.sample(PROMPTS[:2], k=1, start=start, negative=text).images
        for text in ("", PROMPTS[1])
    ]
    assert (drawn[0] != drawn[1]).any()
    assert (drawn[0][0] != drawn[0][1]).any()
