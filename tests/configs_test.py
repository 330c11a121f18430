"""Every config builds; every `:tiny` runs two steps, stops and goes on."""

import importlib
import json
import pathlib
import pkgutil
import re
import types

import numpy as np
import pytest
from PIL import Image

import mmjax_configs as configs
from mmjax import cli, evaluators, schema
from mmjax.cli import eval as eval_cli
from mmjax.data import fields, prompts
from mmjax.data.sources import open_source
from mmjax.errors import UserError
from mmjax.tasks import base
from mmjax.train import config as config_lib
from mmjax.train import evaluate, loop, metric_writer, optim, setup

ROOT = pathlib.Path(__file__).resolve().parent.parent
FAMILIES = [
    m.name
    for m in pkgutil.iter_modules(configs.__path__)
    if m.name not in ("common", "suites", "recipes")
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
    if "views" in config.task or not any("image" in name for name in task.reads):
        return  # a view is a row of numbers, of an image of any size
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


def test_crops_are_the_papers():
    """CLIP, section 2.4: a random square crop. DALL-E: Listings 1 and 2."""

    def image(spec: str) -> dict:
        return config_lib.load(spec, []).data.fields.image

    clip = [name for family, name in PRESETS if family == "clip"]
    own = [name for name in clip if name.startswith(("vit_", "rn50", "rn101"))]
    assert len(own) >= 9
    for name in own:
        assert image(f"clip:{name}").train_crop == "square", name
        assert "train_scale" not in image(f"clip:{name}"), name
    prior = image("prior:dalle_12b")
    assert (prior.train_crop, prior.method) == ("near_centre", "area")
    assert prior.train_zoom == (1.0, 9 / 8)
    dvae = image("dvae:paper")
    assert dvae.train_zoom == (9 / 8, 12 / 8)


def test_the_autoencoder_has_a_scale_and_a_variance_of_its_own():
    """Stable Diffusion's 0.18215 is that of its own latents."""
    task = base.build(config_lib.load("autoencoder_kl:kl_f8", []).task)
    assert task.autoencoder["scale"] == 0 and task.learned_variance


@pytest.mark.parametrize(
    "place", ["train", "plan", "eval", "README.md", "docs/eval.md"]
)
def test_that_configs_are_run_as_python_is_said(place, capsys):
    if place.endswith(".md"):
        said = (ROOT / place).read_text()
    else:
        with pytest.raises(SystemExit):
            cli.main([place, "--help"])
        said = " ".join(capsys.readouterr().out.split())
    assert re.search("run, as Python|run as Python|is a Python file", said)
    assert "trust" in said


@pytest.mark.parametrize(("family", "preset"), PRESETS)
def test_few_steps_on_data_of_the_users(family: str, preset: str, photos: str):
    """Every key that is empty by default, a string for a mixture, and `steps` alone."""
    given = ["steps=3", f"data.train={photos}", "graft.params=RUN"]
    given += ["evals.x.type=mean_loss", f"evals.x.source={photos}", "evals.x.limit=5"]
    given += ["data.fields.new.kind=index", "optim.groups.head.match=^head/"]
    given += ["parallel.mesh.data=2", "checkpoint.folder=f", "graft.params.a.b=RUN#c"]
    config = config_lib.load(f"{family}:{preset}", [f"--config.{t}" for t in given])
    run = schema.from_mapping(config_lib.RunConfig, config)
    base.build(run.task)
    optim.schedule(run.optim, run.steps)
    assert run.optim.warmup < 3 and run.optim.groups["head"]["match"] == "^head/"
    assert run.graft["params"] == "RUN" and run.graft["params/a/b"] == "RUN#c"
    assert "new" in fields.build(config.data.fields)
    assert len(open_source(run.data.train)) == 3 and run.evals["x"]["limit"] == 5


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> str:
    """A folder of three captioned photos, as a data spec."""
    folder = tmp_path_factory.mktemp("photos")
    for i in range(3):
        Image.new("RGB", (8, 6), (i, 9, 9)).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(f"photo {i}")
    return f"folder:{folder}"


@pytest.mark.parametrize(
    "preset", [p for f, p in PRESETS if p.startswith(("vit", "rn"))]
)
def test_paper_sizes_of_clip_are_judged_once_data_are_named(preset: str):
    config = config_lib.load(f"clip:{preset}")
    assert (
        all(evaluate.off(e) for e in config.evals.values()) and len(config.evals) == 3
    )
    given = [f"--config.evals.{name}.source=shapes:val" for name in config.evals]
    given += ["--config.evals.probe.train=shapes:train"]
    named = config_lib.override(config, given)
    for name, cfg in named.evals.items():
        kind = evaluators.find(cfg.type, name).Config
        schema.from_mapping(kind, cfg, name)
        assert not evaluate.off(cfg)
    assert len(prompts.load(config.evals.imagenet.templates)) == 80
    if preset == "vit_l14_336":
        assert (config.steps, config.optim.lr, config.graft.params) == (
            12_207,
            2e-5,
            "",
        )


def test_evaluators_without_data_are_passed_over():
    names = list(config_lib.load("clip:tiny").evals)
    given = [f"--config.evals.{name}.source=" for name in names[1:]]
    parts = setup.build(config_lib.load("clip:tiny", given))
    assert list(evaluate.make_evaluators(parts)) == names[:1]
    message = f"config.evals.{names[1]} has no data: give --config.evals.{names[1]}.sou"
    with pytest.raises(UserError, match=message):
        evaluate.evaluate(parts, None, (names[1],))
    args = types.SimpleNamespace(workdir="w", overrides=[], evals="", source="")
    assert list(eval_cli._choose(parts.config, args).evals) == names[:1]
    args.evals = names[1]
    with pytest.raises(UserError, match=message):
        eval_cli._choose(parts.config, args)
    args.source = "shapes:val"
    assert eval_cli._choose(parts.config, args).evals[names[1]].source == "shapes:val"
    args.evals, args.overrides = "", [f"--config.evals.{names[0]}.source="]
    with pytest.raises(
        UserError, match=f"no evaluators with data: use --evals {names[0]}"
    ):
        eval_cli._choose(parts.config, args)


@pytest.mark.parametrize(
    "family",
    [
        name
        if name in ("clip", "prior")
        else pytest.param(name, marks=pytest.mark.long)
        for name in FAMILIES
    ],
)
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


@pytest.mark.parametrize(
    ("family", "preset"), [pair for pair in PRESETS if pair[1].startswith("tiny")]
)
def test_what_travels_with_a_checkpoint_is_what_json_gives_back(family, preset):
    """Otherwise no other process can resume the run."""
    config = config_lib.load(f"{ROOT}/configs/{family}.py:{preset}", [])
    if "$MMJAX_DATA" in str(config.data.train):
        pytest.skip("its data are not here: set MMJAX_DATA to their folder")
    travels = setup.about(setup.build(config))["fields"]
    assert json.loads(json.dumps(travels)) == travels
