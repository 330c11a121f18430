"""`mmjax data encode`, by a tokenizer trained for two steps."""

import batch_fields
import jax
import numpy as np
import pytest

from mmjax import cli, errors
from mmjax.data import pipeline, token_cache
from mmjax.data.sources import open_source
from mmjax.inference import load
from mmjax.train import config, loop

BATCH = 16


@pytest.fixture(scope="module")
def stage1(tmp_path_factory):
    """A workdir with two checkpoints of configs/vqvae.py:tiny."""
    workdir = tmp_path_factory.mktemp("stage1") / "run"
    overrides = ["--config.steps=2", "--config.checkpoint.every=1"]
    cfg = config.load("configs/vqvae.py:tiny", overrides)
    cfg.optim.warmup, cfg.batch_size = 1, BATCH
    cfg.evals = type(cfg.evals)()
    loop.run(cfg, workdir)
    return workdir


@pytest.fixture(scope="module")
def run(stage1):
    return load.load_run(stage1)


@pytest.fixture(scope="module")
def spec(run):
    return f"shapes:train?size={run.parts.image_cfg.size}&count=50"


def call(*argv, verb="encode"):
    return cli.main(["data", verb, *map(str, argv)])


def test_a_run_from_the_cache_sees_what_encoding_on_the_fly_gives(
    stage1, run, spec, tmp_path, capsys
):
    out = tmp_path / "tokens"
    assert call(stage1, spec, "--out", out) == 0
    said = capsys.readouterr().out
    assert f"tokens:{out}" in said and "50 records" in said
    variables = run.state.eval_vars()
    weights = {"params": variables.params, **variables.extra}
    cache = open_source(f"tokens:{out}")
    assert cache.stage1 == {
        "fingerprint": token_cache.fingerprint(jax.device_get(weights)),
        "grid": run.task.model.grid,
        "vocab_size": run.task.model.vocab_size,
    }
    assert cache.header.about["step"] == 2
    iterators = [
        pipeline.TrainIterator(
            source,
            batch_fields.of(source, None, run.parts.image_cfg),
            batch_size=BATCH,
            seed=1,
            threads=0,
        )
        for source in (open_source(spec), cache)
    ]
    for _ in range(5):  # into the second epoch
        live, cached = map(next, iterators)
        batch = {"image": live["image"]}
        tokens = run.parts.predict["encode"](variables, batch)["image_tokens"]
        np.testing.assert_array_equal(tokens, cached["image_tokens"])
        np.testing.assert_array_equal(live["label"], cached["label"])
    assert call(stage1, spec, "--out", out) == 0  # the same again is nothing to do
    capsys.readouterr()
    assert call(stage1, spec, "--out", out, "--step", 1) == 2
    err = capsys.readouterr().err
    assert f"fingerprint {cache.stage1['fingerprint']}, not " in err


def test_sources_come_one_after_another(stage1, spec, tmp_path):
    specs = [spec, spec.replace("train", "val").replace("50", "7")]
    assert call(stage1, *specs, "--out", tmp_path / "t", "--batch-size", 8) == 0
    cache = open_source(f"tokens:{tmp_path / 't'}")
    parts = [open_source(s) for s in specs]
    keys = [source[i]["key"] for source in parts for i in range(len(source))]
    assert [cache[i]["key"] for i in range(57)] == keys
    # tokens are neither looked at nor encoded
    again = f"tokens:{tmp_path / 't'}"
    assert call(stage1, again, "--out", tmp_path / "u") == 2
    sheet = str(tmp_path / "sheet.png")
    assert cli.main(["data", "check", again, "--out", sheet]) == 2


@pytest.mark.parametrize(
    ("argv", "part"),
    [
        (["--batch-size", "0"], "--batch-size 0"),
        (["--step", "9"], "no checkpoint of step 9"),
    ],
)
def test_refuses(stage1, spec, tmp_path, capsys, argv, part):
    assert call(stage1, spec, "--out", tmp_path / "t", *argv) == 2
    err = capsys.readouterr().err
    assert part in err and err.count("\n") == 1


def test_a_run_that_encodes_nothing(tiny_run, spec, tmp_path, capsys):
    assert call(tiny_run, spec, "--out", tmp_path / "t") == 2
    assert "task clip, which encodes no images" in capsys.readouterr().err


@pytest.mark.long
def test_latents_are_what_the_autoencoder_gives_and_a_diffusion_model_reads(
    tmp_path, capsys
):
    cfg = config.load("configs/autoencoder_kl.py:tiny", ["--config.steps=2"])
    cfg.evals = type(cfg.evals)()
    loop.run(cfg, tmp_path / "kl")
    out, spec = tmp_path / "latents", "shapes:train?size=16&count=40"
    assert call(tmp_path / "kl", spec, "--out", out, verb="tokenize") == 0
    assert f"latents:{out}" in capsys.readouterr().out
    autoencoder, cache = load.load_run(tmp_path / "kl"), open_source(f"latents:{out}")
    image = np.stack([open_source(spec)[i]["image"] for i in range(40)])
    want = autoencoder.parts.predict["encode"](
        autoencoder.state.eval_vars(), {"image": image}
    )["latent"]
    got = np.stack([cache[i]["latent"] for i in range(40)])
    np.testing.assert_allclose(got, want, atol=2e-3 * np.abs(want).max())
    assert cache.captions(7) == open_source(spec)[7]["text"]
    assert call(tmp_path / "kl", f"latents:{out}", "--out", tmp_path / "b") == 2
    with pytest.raises(errors.UserError, match="holds latents.*latents:"):
        open_source(f"tokens:{out}")

    graft = [f"--config.graft.autoencoder={tmp_path / 'kl'}", "--config.steps=2"]
    reads = [f"--config.data.train=latents:{out}"]
    cfg = config.load("configs/diffusion.py:tiny", [*graft, *reads])
    cfg.evals = {}
    loop.run(cfg, tmp_path / "diffusion")
    frozen = load.load_run(tmp_path / "diffusion").state.vars.frozen["autoencoder"]
    assert token_cache.fingerprint(frozen) == cache.stage1["fingerprint"]
    cfg = config.load("configs/diffusion.py:tiny", reads)  # another autoencoder's
    cfg.evals = {}
    with pytest.raises(errors.UserError, match="fingerprint"):
        loop.run(cfg, tmp_path / "other")
