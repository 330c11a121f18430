"""A discriminator stays behind: from a tokenizer into its stage, and on to a prior."""

import pathlib

import jax
import numpy as np
import pytest

from mmjax import tree
from mmjax.data import token_cache
from mmjax.errors import UserError
from mmjax.inference import load, tokenize
from mmjax.train import config as config_lib
from mmjax.train import init_from, loop, restore, setup

PLACES = ("params", "codebook", "likelihood")


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, pathlib.Path]:
    """A classifier, a VQ-VAE, and a stage that started from both, one step each."""
    folder, made = tmp_path_factory.mktemp("runs"), {}
    for name in ("classifier", "vqvae", "adversarial"):
        given = ["steps=1", "optim.warmup=0", "batch_size=8"]
        if name == "adversarial":
            given += ["task.start=0", "task.warmup=0"]
            given += [f"graft.{place}={made['vqvae']}" for place in PLACES]
            given.append(f"graft.features={made['classifier']}")
        config = config_lib.load(f"{name}:tiny", [f"--config.{text}" for text in given])
        config.evals = {}
        loop.run(config, folder / name)
        made[name] = folder / name
    return made


def learned(workdir):
    variables = restore.restore(workdir)[1].eval_vars()
    return tree.flatten({"params": variables.params, **variables.extra})


def started(spec, *given):
    """Variables of a fresh run after grafting, and its parts."""
    parts = setup.build(config_lib.load(spec, [f"--config.{text}" for text in given]))
    state = parts.layout.init(parts.update.init, jax.random.key(7), parts.example())
    return parts, state, init_from.init_from(parts, state)


def test_a_tokenizer_starts_its_stage_and_the_discriminator_is_fresh(runs):
    given = [f"graft.{place}={runs['vqvae']}" for place in PLACES]
    parts, fresh, state = started("adversarial:tiny", *given)
    want, own = learned(runs["vqvae"]), tree.flatten(fresh.vars.params)
    now = tree.flatten({"params": state.vars.params, **state.vars.extra})
    assert any(path.startswith("params/discriminator/") for path in now)
    for path, value in now.items():
        fresh_one = own.get(path.removeprefix("params/"))
        spare = path.startswith("params/discriminator/")
        np.testing.assert_array_equal(value, fresh_one if spare else want[path], path)


def test_a_stage_starts_a_stage_with_its_discriminator(runs):
    given = [f"graft.{place}={runs['adversarial']}" for place in PLACES]
    given.append(f"graft.features={runs['classifier']}")
    _, _, state = started("adversarial:tiny", *given)
    for path, value in learned(runs["adversarial"]).items():
        now = tree.flatten({"params": state.vars.params, **state.vars.extra})[path]
        np.testing.assert_array_equal(now, value, path)


def test_a_prior_takes_the_tokenizer_alone_and_reads_its_tokens(runs, tmp_path):
    """By graft and by a cache: both say that it is the same tokenizer."""
    run = load.load_run(runs["adversarial"])
    spec = config_lib.load("adversarial:tiny").task.stage1.tokenizer
    config = config_lib.load("prior:tiny", [f"--config.graft.tokenizer={run.workdir}"])
    config.task.stage1, config.evals = spec, {}
    parts = setup.build(config)
    fresh = parts.layout.init(parts.update.init, jax.random.key(7), parts.example())
    state = init_from.init_from(parts, fresh)
    frozen = tree.flatten(state.vars.frozen["tokenizer"])
    want = learned(run.workdir)
    own = {k: v for k, v in want.items() if "discriminator" not in k}
    assert own.keys() == frozen.keys() and len(own) < len(want)
    for path, value in own.items():
        np.testing.assert_array_equal(frozen[path], value, path)
    held = token_cache.fingerprint(jax.device_get(state.vars.frozen["tokenizer"]))
    assert held == run.fingerprint
    source = "shapes:train?size=16&count=8"
    header = tokenize.tokenize(run.workdir, [source], tmp_path / "cache", batch_size=8)
    assert header.stage1.fingerprint == held


def test_a_plain_tokenizer_goes_on_from_a_stage(runs):
    given = [f"graft.{place}={runs['adversarial']}" for place in PLACES]
    _, _, state = started("vqvae:tiny", *given)
    now = tree.flatten({"params": state.vars.params, **state.vars.extra})
    want = learned(runs["adversarial"])
    for path, value in now.items():
        np.testing.assert_array_equal(value, want[path], path)


def test_a_classifier_of_another_size_is_refused(runs):
    given = [f"graft.features={runs['classifier']}", "task.perceptual.classes=9"]
    with pytest.raises(UserError, match="graft.features: .*head.*64.*9"):
        started("adversarial:tiny", *given)
