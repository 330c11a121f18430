"""Four families as new files alone, below tests/newcomer: nothing of mmjax is edited.

Each trains through `mmjax train`, goes on after it was killed, is planned, and is the
same under one device, a mesh and pmap.
"""

import contextlib
import importlib
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from mmjax import cli, tree
from mmjax.errors import UserError
from mmjax.planning import program
from mmjax.train import config as config_lib
from mmjax.train import loop, metric_writer, restore

ROOT = pathlib.Path(__file__).resolve().parents[1]
HOME = ROOT / "tests" / "newcomer"
PRESETS = ("two_views", "sequences", "players", "moments")
MESH = [f"--config.parallel.mesh.{axis}=2" for axis in ("data", "fsdp")]
PMAP = ["--config.parallel.mode=pmap", "--config.parallel.mesh.data=4"]
SGD = ["--config.optim.name=sgd", "--config.optim.momentum=0.0"]


@pytest.fixture(scope="module", autouse=True)
def newcomers():
    """What a folder on Python's path does, for this process."""
    with contextlib.ExitStack() as stack:
        for package in ("tasks", "losses", "evaluators", "data.sources"):
            path = importlib.import_module(f"mmjax.{package}").__path__
            path.append(str(HOME / "mmjax" / package.replace(".", "/")))
            stack.callback(path.pop)
        yield


def arguments(preset, workdir, *more):
    file = f"{HOME}/configs/newcomers.py:{preset}"
    return ["train", "--config", file, "--workdir", str(workdir), *more]


def learned(workdir):
    variables = restore.restore(workdir)[1].vars
    return tree.flatten(jax.device_get({"p": variables.params, "e": variables.extra}))


@pytest.fixture(scope="module", params=PRESETS)
def whole(request, tmp_path_factory):
    """(preset, workdir) of a run that was never stopped."""
    workdir = tmp_path_factory.mktemp(request.param) / "whole"
    assert cli.main(arguments(request.param, workdir)) == 0
    return request.param, workdir


def test_killed_and_resumed(whole, tmp_path):
    """A process of its own is killed after a save, and this one goes on: bit-equal."""
    preset, workdir = whole
    path = os.pathsep.join([str(HOME), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "mmjax.cli", *arguments(preset, tmp_path)]
    command += ["--config.checkpoint.every=1", "--devices", str(jax.device_count())]
    other = subprocess.Popen(
        command, cwd=ROOT, env=os.environ | {"PYTHONPATH": path}, stderr=subprocess.PIPE
    )
    while not list(tmp_path.glob("checkpoints/[1-5]")) and other.poll() is None:
        time.sleep(0.01)
    other.send_signal(signal.SIGKILL)
    errors = other.communicate()[1].decode()
    assert list(tmp_path.glob("checkpoints/[1-6]")), errors
    assert cli.main(arguments(preset, tmp_path)) == 0
    want, resumed = learned(workdir), learned(tmp_path)
    assert want and want.keys() == resumed.keys()
    for path, value in want.items():
        np.testing.assert_array_equal(resumed[path], value, err_msg=path)
    ends = []
    for folder in (workdir, tmp_path):
        ends.append([r["loss"] for r in metric_writer.read(folder) if "loss" in r][-1])
    assert ends[0] == ends[1]


@pytest.mark.parametrize("preset", PRESETS)
def test_layouts_agree(preset, tmp_path):
    runs = {}
    one = ["--config.parallel.mesh.data=1"]
    for name, layout in (("one", one), ("mesh", MESH), ("pmap", PMAP)):
        config = config_lib.load(
            f"{HOME}/configs/newcomers.py:{preset}", [*SGD, *layout]
        )
        config.evals = {}
        with devices(1 if name == "one" else 4):
            loop.run(config, tmp_path / name)
        runs[name] = learned(tmp_path / name)
    for name in ("mesh", "pmap"):
        assert runs[name].keys() == runs["one"].keys()
        for path, value in runs["one"].items():
            np.testing.assert_allclose(
                runs[name][path], value, atol=1e-5, err_msg=f"{name} {path}"
            )


@contextlib.contextmanager
def devices(count):
    """This process with fewer devices than it has."""
    every = jax.devices()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "devices", lambda *args: every[:count])
        yield


@pytest.mark.parametrize("preset", PRESETS)
def test_planned(preset):
    config = config_lib.load(f"{HOME}/configs/newcomers.py:{preset}", MESH)
    with devices(4):
        plan = program.build(config)
    params = {"two_views": 26, "sequences": 69, "players": 31, "moments": 0}
    assert plan.params == params[preset]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.fields.view_a.kind=vectr", "no kind 'vectr'; did you mean 'vector'"),
        ("data.fields.view_a.of=view_c", "no view_a .*view_c"),
        ("data.fields.view_a.width=7", "width|7"),
        ("task.width=6", "view_b has 5 columns, fewer than config.task.width 6"),
    ],
)
def test_bad_input_before_the_first_compile(override, message, tmp_path, capsys):
    with pytest.raises(UserError, match=message):
        config = config_lib.load(
            f"{HOME}/configs/newcomers.py:two_views", [f"--config.{override}"]
        )
        loop.run(config, tmp_path)


def test_a_sequence_that_is_too_long_says_so(tmp_path):
    config = config_lib.load(
        f"{HOME}/configs/newcomers.py:sequences",
        [
            "--config.data.fields.wave.windows=False",
            "--config.data.fields.wave.length=2",
        ],
    )
    with pytest.raises(UserError, match="wave.*length"):
        loop.run(config, tmp_path)
