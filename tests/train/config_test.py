import dataclasses
import json
import sys

import pytest
from ml_collections import ConfigDict, config_dict

from mmjax import parallel, schema
from mmjax.errors import UserError
from mmjax.suite import cells
from mmjax.train import config, optim, setup

FILE = """
import neighbour
from ml_collections import ConfigDict

def get_config(arg=""):
    if arg not in ("", "small"):
        raise ValueError(f"no preset {arg!r}: use small")
    return ConfigDict(dict(
        steps=neighbour.STEPS if arg == "small" else 100, lr=0.5, flag=True,
        dims=(1, 2), name="a", data=dict(train="shapes:train"), optim=dict(lr=1e-3),
    ))
"""


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    folder = tmp_path / "configs"
    folder.mkdir()
    (folder / "mine.py").write_text(FILE)
    (folder / "neighbour.py").write_text("STEPS = 7\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_presets_and_neighbours(checkout):
    assert config.load("configs/mine.py").steps == 100
    small = config.load(f"{checkout}/configs/mine.py:small")
    assert small.steps == 7 and small.is_locked


@pytest.mark.parametrize("name", ["configs/mine.py", "mine.py", "mine"])
@pytest.mark.parametrize("shipped", ["configs", "mmjax_configs"])
def test_found_beside_the_package(checkout, monkeypatch, tmp_path, name, shipped):
    (tmp_path / "elsewhere").mkdir()
    (checkout / "configs").rename(checkout / shipped)  # as in a wheel
    monkeypatch.setattr(config, "HOME", checkout)
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert config.load(f"{name}:small").steps == 7


@pytest.mark.parametrize("name", ["configs/clip.py", "clip.py", "clip"])
def test_ours_from_any_folder(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    assert config.load(f"{name}:tiny").task.name == "clip"
    with pytest.raises(UserError, match="no config file other/clip.py"):
        config.load("other/clip.py:tiny")


def test_a_file_of_the_users_comes_first_and_may_import_ours(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = ["import mmjax_configs.clip", "def get_config(arg):"]
    lines += ["    config = mmjax_configs.clip.get_config(arg)", "    config.seed = 9"]
    (tmp_path / "clip.py").write_text("\n".join([*lines, "    return config", ""]))
    assert config.load("clip.py:tiny").seed == 9
    assert config.load("clip:tiny").seed == 0
    assert config.load("configs/clip.py:tiny").seed == 0


def test_neighbours_of_the_same_name_stay_apart(checkout, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine.py").write_text(FILE)
    (other / "neighbour.py").write_text("STEPS = 8\n")
    steps = [config.load(f"{f}/mine.py:small").steps for f in ("configs", "other")]
    assert steps == [7, 8] and "neighbour" not in sys.modules


def test_overrides(checkout):
    given = ["steps=3", "lr=2", "flag=False", "dims=(5,6,7)", "optim.lr=3e-4", "name="]
    got = config.load("configs/mine.py", [f"--config.{text}" for text in given])
    assert (got.steps, got.lr, got.flag, got.name) == (3, 2.0, False, "")
    assert got.dims == (5, 6, 7)
    assert got.optim.lr == 3e-4


def test_keys_left_at_their_default_can_be_given(checkout):
    given = ["--config.optim.clip_norm=2", "--config.log_every=5"]
    got = config.load("configs/mine.py", given)
    assert got.optim.clip_norm == 2.0 and got.log_every == 5


def test_evaluator_keys_left_at_their_default():
    base = ConfigDict({"evals": {"zs": {"type": "zero_shot", "source": "shapes:val"}}})
    got = config.override(base, ["--config.evals.zs.limit=10"])
    assert got.evals.zs.limit == 10
    with pytest.raises(UserError, match="'limt'.*did you mean 'limit'"):
        config.override(base, ["--config.evals.zs.limt=10"])


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("stepz=3", ["config: unknown key 'stepz'", "did you mean 'steps'?"]),
        ("optim.lrr=3", ["config.optim: unknown key 'lrr'", "did you mean 'lr'?"]),
        ("optin.lr=3", ["config: unknown key 'optin'", "did you mean 'optim'?"]),
        ("steps=many", ["--config.steps: expected int", "'many' (str)", "100"]),
        ("steps=1.5", ["--config.steps: expected int", "'1.5' (float)"]),
        ("lr=fast", ["--config.lr: expected float", "'fast' (str)"]),
        ("flag=maybe", ["--config.flag: expected bool", "'maybe' (str)"]),
        ("optim=3", ["a whole ConfigDict", "one by one"]),
        ("steps.x=3", ["config.steps is 100 and has no keys"]),
        ("steps", ["write --config.steps=VALUE"]),
    ],
)
def test_bad_overrides(checkout, text, parts):
    with pytest.raises(UserError) as caught:
        config.load("configs/mine.py", [f"--config.{text}"])
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "part"),
    [
        ("configs/minn.py", "no config file configs/minn.py"),
        ("configs/mine.py:large", "no preset 'large': use small"),
        ("configs/neighbour.py", "get_config"),
    ],
)
def test_bad_files(checkout, spec, part):
    with pytest.raises(UserError) as caught:
        config.load(spec)
    assert part in str(caught.value)


@dataclasses.dataclass(frozen=True)
class Group:
    match: str
    every: int = 1
    names: tuple[str, ...] = ()
    limit: int | None = None


@dataclasses.dataclass(frozen=True)
class Grouped:
    groups: dict[str, Group] = dataclasses.field(default_factory=dict)
    places: dict[str, str] = dataclasses.field(default_factory=dict)


def test_dicts_of_dataclasses():
    given = ["groups.d.match=^d/", "groups.d.every=2", "groups.d.names=a", "places.x=1"]
    given += ["places.a.b=c", "groups.d.limit=3"]
    given = [f"--config.{text}" for text in given]
    made = config.override(ConfigDict(), given, kind=Grouped)
    typed = schema.from_mapping(Grouped, made)
    assert typed.groups == {"d": Group("^d/", 2, ("a",), 3)}
    assert typed.places == {"x": "1", "a/b": "c"}
    for text, message in (
        (
            "groups.d.mach=x",
            "config.groups.d: unknown key 'mach'; did you mean 'match'",
        ),
        ("groups.d.every=x", "--config.groups.d.every: expected int .*, got .x."),
        ("groups.d=x", "a whole ConfigDict"),
        ("groups=x", "a whole ConfigDict"),
        ("groups.d.every.x=1", "config.groups.d.every is 2 and has no keys"),
    ):
        with pytest.raises(UserError, match=message):
            config.override(made, [f"--config.{text}"], kind=Grouped)


@pytest.mark.parametrize("spec", ["clip:tiny", "prior:tiny", "vqvae:tiny", "dvae:tiny"])
def test_what_is_empty_by_default_can_be_given(spec):
    given = [
        "graft.params=runs/1",
        "graft.tokenizer=2024",
        "graft.params.image=a#image",
    ]
    given += ["evals.new.type=mean_loss", "evals.new.source=shapes:val"]
    given += ["evals.new.limit=5", "checkpoint.folder=f"]
    given += ["optim.freeze=^image/", "optim.lr_mult=(('a',2.0),)", "peak_tflops=1"]
    made = config.load(spec, [f"--config.{text}" for text in given])
    run = schema.from_mapping(config.RunConfig, made)
    places = {"params": "runs/1", "tokenizer": "2024", "params/image": "a#image"}
    assert run.graft == places
    assert run.evals["new"] == dict(type="mean_loss", source="shapes:val", limit=5)
    assert run.checkpoint.folder == "f"
    assert run.optim.freeze == ("^image/",) and run.optim.lr_mult == (("a", 2.0),)
    assert run.peak_tflops == 1.0
    for key in ("graft", "evals", "evals.new", "optim", "task"):
        with pytest.raises(UserError, match=f"config.{key}: a whole ConfigDict"):
            config.override(made, [f"--config.{key}=x"])
    with pytest.raises(UserError, match="config.evals: unknown key 'neww'.*'new'"):
        config.override(made, ["--config.evals.neww.limit=5"])


def test_sections_are_typed_to_the_leaves():
    run = schema.from_mapping(config.RunConfig, config.load("clip:tiny"))
    assert isinstance(run.optim, optim.OptimConfig)
    assert isinstance(run.parallel.mesh, parallel.MeshConfig)
    with pytest.raises(UserError, match="config.optim: unknown key 'lrr'"):
        bad = config.load("clip:tiny").unlock()
        bad.optim.lrr = 1.0
        schema.from_mapping(config.RunConfig, bad)


@pytest.mark.parametrize(
    ("override", "what"),
    [
        ("steps=0", "config: steps is 0: use 1 or more"),
        ("batch_size=-8", "config: batch_size is -8"),
        ("log_every=0", "config: log_every is 0"),
        ("seed=-1", "config: seed is -1"),
        ("seed=4294967296", "config: seed is 4294967296: use less than 4294967296"),
        ("peak_tflops=-1", "peak_tflops is -1.0"),
        ("checkpoint.every=-1", "config.checkpoint: every is -1: use 0 or more"),
        ("checkpoint.keep=-1", "config.checkpoint: keep is -1: use 1 or more"),
        ("data.workers=-1", "config.data: workers is -1"),
        ("data.threads=-1", "config.data: threads is -1"),
        ("data.prefetch=-1", "config.data: prefetch is -1"),
        ("data.max_broken=-1", "config.data: max_broken is -1.0"),
        ("optim.lr=-1", "config.optim: lr is -1.0"),
    ],
)
def test_ranges(override: str, what: str):
    made = config.load("clip:tiny", [f"--config.{override}"])
    with pytest.raises(UserError, match=what):
        schema.from_mapping(config.RunConfig, made)


@pytest.mark.parametrize(
    ("preset", "override", "what"),
    [
        ("clip:tiny", "image.depth=0", "depth of the image tower is 0: use 1 or more"),
        ("clip:tiny", "text.width=0", "width of the text tower is 0: use 1 or more"),
        ("clip:tiny", "text.width=-1", "config.task.text.width is -1: use 0 or more"),
        ("clip:tiny", "embed_dim=-2", "config.task.embed_dim is -2: use 1 or more"),
        ("prior:tiny", "depth=0", "config.task.depth is 0: use 1 or more"),
        ("prior:tiny", "width=0", "config.task.width is 0"),
        ("prior:tiny", "stage1.net.depth=-1", "stage1.net: depth is -1"),
        ("prior:tiny", "stage1.vocab_size=-1", "stage1: vocab_size is -1"),
    ],
)
def test_sizes_of_a_task(preset: str, override: str, what: str):
    made = config.load(preset, [f"--config.task.{override}"])
    with pytest.raises(UserError, match=what):
        setup.build(made)


def test_keys_of_a_task_and_of_its_own_dicts():
    given = ["task.loss_block=4", "task.image.mlp_ratio=2.0", "task.loss_name=sigmoid"]
    made = config.load("clip:tiny", [f"--config.{text}" for text in given])
    assert (made.task.loss_block, made.task.image.mlp_ratio) == (4, 2.0)
    with pytest.raises(UserError, match="config.task: unknown key 'loss_blok'"):
        config.load("clip:tiny", ["--config.task.loss_blok=4"])
    given = ["task.sampling.temperature=1", "task.stage1.net.norm=group"]
    made = config.load("prior:tiny", [f"--config.{text}" for text in given])
    assert made.task.sampling.temperature == 1.0 and made.task.stage1.net.norm
    with pytest.raises(UserError, match="config.task.sampling: unknown key 'temp'"):
        config.load("prior:tiny", ["--config.task.sampling.temp=1"])


def test_placeholders_take_a_value():
    base = ConfigDict({"seed": config_dict.placeholder(int)})
    assert config.override(base, ["--config.seed=4"]).seed == 4


def test_json_comes_back_with_tuples():
    given = ConfigDict({"a": {"dims": (1, (2, "x"))}, "mix": (("s", 1.0),), "n": None})
    back = config.from_json(json.loads(given.to_json()))
    assert back.to_dict() == given.to_dict()
    assert config.from_json(given.to_json()).a.dims == (1, (2, "x"))


def test_the_given_config_stays_as_it_was():
    base = ConfigDict({"steps": 1}).lock()
    assert config.override(base, ["--config.steps=2"]).steps == 2
    assert base.steps == 1 and base.is_locked


@pytest.mark.parametrize(
    ("spec", "given", "warmup"),
    [
        ("clip:shapes", ["steps=500"], 55),  # it fits
        ("clip:shapes", ["steps=56"], 55),
        ("clip:shapes", ["steps=55"], 2),  # 55 of 1,100
        ("clip:vit_b32", ["steps=1000"], 5),  # 2,000 of 390,625
        ("clip:vit_b32", ["steps=1"], 0),
        ("clip:vit_b32", ["steps=1000", "optim.warmup=1500"], 1500),
        ("clip:vit_b32", ["steps=1000", "optim.schedule=rsqrt"], 2000),
    ],
)
def test_a_warm_up_fits_a_shorter_run(spec, given, warmup, caplog):
    made = config.load(spec, [f"--config.{text}" for text in given])
    assert made.optim.warmup == warmup
    said = f"config.optim.warmup is {warmup}, and not" in caplog.text
    assert said == (warmup in (0, 2, 5))


def test_a_warm_up_of_a_group_fits_its_updates():
    base = ConfigDict({"steps": 100, "optim": {"warmup": 5}})
    base.optim.groups = {"g": {"match": "x", "warmup": 8, "every": 10}}
    made = config.override(base, ["--config.steps=50"])
    assert (made.optim.warmup, made.optim.groups.g.warmup) == (5, 4)


def test_empty_sections_of_a_suite_can_be_filled():
    given = ["protocols.zero_shot.limit=10", "datasets.mine.source=folder:photos"]
    given += ["datasets.mine.protocols=zero_shot", "only=mine"]
    given = [f"--config.{text}" for text in given]
    made = config.load("suites:tiny", given, kind=cells.Suite)
    (cell,) = cells.cells(made)
    assert cell.name == "mine.zero_shot"
    assert cell.cfg["source"] == "folder:photos" and cell.cfg["limit"] == 10
    with pytest.raises(UserError, match="unknown key 'sourc'; did you mean 'source'"):
        config.override(made, ["--config.datasets.mine.sourc=x"], kind=cells.Suite)
