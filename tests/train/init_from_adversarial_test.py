"""A discriminator stays behind: from a tokenizer into its stage, and on to a prior."""

import pathlib
import types

import jax
import numpy as np
import pytest

from mmjax import tree
from mmjax.data import token_cache
from mmjax.errors import UserError
from mmjax.inference import encode, load
from mmjax.state import Vars
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


@pytest.mark.long
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


@pytest.mark.long
def test_a_stage_starts_a_stage_with_its_discriminator(runs):
    given = [f"graft.{place}={runs['adversarial']}" for place in PLACES]
    given.append(f"graft.features={runs['classifier']}")
    _, _, state = started("adversarial:tiny", *given)
    for path, value in learned(runs["adversarial"]).items():
        now = tree.flatten({"params": state.vars.params, **state.vars.extra})[path]
        np.testing.assert_array_equal(now, value, path)


@pytest.mark.long
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
    header = encode.encode(run.workdir, [source], tmp_path / "cache", batch_size=8)
    assert header.stage1.fingerprint == held


@pytest.mark.long
def test_a_plain_tokenizer_goes_on_from_a_stage(runs):
    given = [f"graft.{place}={runs['adversarial']}" for place in PLACES]
    _, _, state = started("vqvae:tiny", *given)
    now = tree.flatten({"params": state.vars.params, **state.vars.extra})
    want = learned(runs["adversarial"])
    for path, value in now.items():
        np.testing.assert_array_equal(value, want[path], path)


@pytest.mark.long
def test_a_classifier_of_another_size_is_refused(runs):
    given = [f"graft.features={runs['classifier']}", "task.perceptual.classes=9"]
    with pytest.raises(UserError, match="graft.features: .*head.*64.*9"):
        started("adversarial:tiny", *given)


PLAIN = types.SimpleNamespace()
STAGE = types.SimpleNamespace(training_only=("params/player", "stats"))


@pytest.mark.parametrize(
    ("theirs", "ours", "want"),
    [
        (STAGE, PLAIN, {"params": {"net": 1}, "book": 2}),
        (PLAIN, STAGE, {"params": {"net": 1, "player": 30}, "book": 2, "stats": 40}),
        (STAGE, STAGE, {"params": {"net": 1, "player": 3}, "book": 2, "stats": 4}),
    ],
)
def test_what_only_training_needs(theirs, ours, want):
    def variables(task, factor):
        """Of a whole run, frozen or not."""
        spare = {"player": 3 * factor} if task is STAGE else {}
        more = {"stats": 4 * factor} if task is STAGE else {}
        return {"params": {"net": factor, **spare}, "book": 2 * factor, **more}

    args = variables(theirs, 1), variables(ours, 10), (theirs, ""), (ours, "")
    assert init_from._without_spare(*args) == want
    new, old = args[0]["params"], args[1]["params"]
    part = init_from._without_spare(new, old, (theirs, "params"), (ours, "params"))
    assert part == want["params"]


def test_what_nobody_lists_stays_and_is_refused_later():
    new, old = {"net": 1, "player": 3}, {"net": 1}
    sides = (PLAIN, "params"), (PLAIN, "params")
    assert init_from._without_spare(new, old, *sides) is new
    assert init_from._without_spare(1, 2, (STAGE, "params/net"), sides[1]) == 1


def test_a_fingerprint_is_that_of_the_tokenizer_alone():
    def mark(task, **player):
        layout = types.SimpleNamespace(fetch=lambda variables: variables)
        parts = types.SimpleNamespace(task=task, layout=layout)
        stats = {"stats": np.ones(2)} if player else {}
        extra = {"book": np.zeros(3), **stats}
        return restore.fingerprint(parts, Vars({"net": np.ones(2), **player}, extra))

    assert mark(STAGE, player=np.ones(4)) == mark(STAGE) == mark(PLAIN)
    assert mark(PLAIN, player=np.ones(4)) != mark(PLAIN)
