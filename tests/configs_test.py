"""Every config builds; every `:tiny` runs two steps, stops and goes on."""

import importlib
import pathlib
import pkgutil

import numpy as np
import pytest

import mmjax_configs as configs
from mmjax.data import fields
from mmjax.errors import UserError
from mmjax.tasks import base
from mmjax.train import config as config_lib
from mmjax.train import loop, metric_writer

ROOT = pathlib.Path(__file__).resolve().parent.parent
FAMILIES = [
    m.name
    for m in pkgutil.iter_modules(configs.__path__)
    if m.name not in ("common", "suites")
]
PRESETS = [
    (family, preset)
    for family in FAMILIES
    for preset in importlib.import_module(f"mmjax_configs.{family}").PRESETS
]


@pytest.mark.parametrize(("family", "preset"), PRESETS)
def test_config_names_a_task(family: str, preset: str):
    config = config_lib.load(f"{ROOT}/configs/{family}.py:{preset}", [])
    task = base.build(config.task)
    config.data.fields.unlock()
    every = fields.build(config.data.fields)
    fields.choose(every, None, task.reads)
    task.check(fields.spec(every))
    config.data.fields.image.size += 1
    with pytest.raises(UserError, match="image"):
        task.check(fields.spec(fields.build(config.data.fields)))


@pytest.mark.parametrize(("family", "preset"), PRESETS)
def test_paper_sizes_stretch_no_photo(family: str, preset: str):
    config = config_lib.load(f"{family}:{preset}", [])
    if "SHARDS" not in str(config.data.train):
        pytest.skip("its images are ours, or small and square")
    field = fields.only(fields.build(config.data.fields), "image")
    photo, rng = np.zeros((480, 640, 3), np.uint8), np.random.default_rng(0)
    for _ in range(20):
        width, height = field.view(photo, rng)[1].scale
        assert width == height
    width, height = field.view(photo, None)[1].scale
    assert width == pytest.approx(height, abs=0.005)  # the long side is whole pixels


@pytest.mark.parametrize("family", FAMILIES)
def test_tiny_trains_and_resumes(family: str, tmp_path: pathlib.Path):
    spec = f"{ROOT}/configs/{family}.py:tiny"
    # Evaluators run in the last call alone: they are most of the compile time.
    short = config_lib.load(spec, ["--config.steps=4"])
    short.steps = 2
    evals = short.evals
    short.evals = type(evals)()
    loop.run(short, tmp_path)
    full = config_lib.load(spec, ["--config.steps=4"])
    full.optim.warmup = short.optim.warmup
    values = loop.run(full, tmp_path)
    assert [r["step"] for r in metric_writer.read(tmp_path) if "loss" in r] == [
        1,
        2,
        3,
        4,
    ]
    assert values


def test_experiments_name_configs_that_exist():
    for file in sorted((ROOT / "experiments").glob("*/runs.py")):
        scope = importlib.util.spec_from_file_location("runs", file)
        module = importlib.util.module_from_spec(scope)
        scope.loader.exec_module(module)
        for _, spec in module.RUNS:
            assert config_lib.load(f"{ROOT}/{spec}", []).task.name
