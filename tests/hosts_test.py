"""One run, whatever holds it: processes and devices change, the numbers do not.

`make test-hosts` adds the whole matrix (every family, every move between topologies)
and prints the largest differences; `make test` takes a sample of it.
"""

import importlib
import itertools
import json
import os
import pathlib
import pkgutil
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

import mmjax_configs
from mmjax import tree
from mmjax.cli.launch import free_port
from mmjax.errors import UserError
from mmjax.parallel import distributed
from mmjax.parallel import processes as processes_lib
from mmjax.train import config as config_lib
from mmjax.train import loop, metric_writer, restore

ROOT = pathlib.Path(__file__).resolve().parent.parent
FAMILIES = [  # those that have a tiny run
    module.name
    for module in pkgutil.iter_modules(mmjax_configs.__path__)
    if "task"
    in getattr(
        importlib.import_module(f"mmjax_configs.{module.name}"), "PRESETS", {}
    ).get("tiny", dict)()
]
TOPOLOGIES = {  # processes x devices, and how the step is compiled
    "2x4": (2, 4, "jit"),
    "1x8": (1, 8, "jit"),
    "1x1": (1, 1, "jit"),
    "2x4 pmap": (2, 4, "pmap"),
}
STEPS, SAVED = 20, 10
ATOL = 1e-5


def _overrides(family: str, steps: int = STEPS) -> list[str]:
    """SGD: Adam moves a parameter without gradient at the speed of rounding noise."""
    config = config_lib.load(f"configs/{family}.py:tiny")
    keys = {"steps": steps, "checkpoint.every": SAVED, "optim.name": "sgd"}
    keys |= {f"evals.{name}.every": 0 for name in config.evals}
    return [f"--config.{key}={value}" for key, value in keys.items()]


def _train(workdir: pathlib.Path, family: str, *more: str) -> list[str]:
    head = [sys.executable, "-m", "mmjax.cli", "train", "--workdir", str(workdir)]
    return [*head, "--config", f"configs/{family}.py:tiny", *more]


def _start(command: list[str]) -> subprocess.Popen:
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)


def _two(
    workdir: pathlib.Path, devices: int, steps: int, mode: str = "jit"
) -> list[subprocess.Popen]:
    """Both processes of one run of CLIP, `devices` each."""
    address = f"127.0.0.1:{free_port()}"
    shared = [*_overrides("clip", steps), "--devices", str(devices)]
    shared += [f"--config.parallel.mode={mode}"]
    shared += ["--coordinator", address, "--processes", "2", "--process"]
    return [_start(_train(workdir, "clip", *shared, str(i))) for i in range(2)]


def _wait_for(workdir: pathlib.Path, step: int, of: list[subprocess.Popen]) -> None:
    while not any(row["step"] >= step for row in metric_writer.read(workdir)):
        for process in of:
            assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)


def _leaves(workdir: pathlib.Path) -> dict[str, np.ndarray]:
    _, state = restore.restore(workdir)
    return tree.flatten(jax.device_get(state.vars._replace(frozen={})))


def _apart(a: pathlib.Path, b: pathlib.Path) -> float:
    """The largest difference of a parameter of two runs."""
    one, other = _leaves(a), _leaves(b)
    assert one.keys() == other.keys()
    return max(float(np.abs(one[k] - other[k]).max()) for k in one if one[k].size)


@pytest.mark.timeout(900)
@pytest.mark.hosts
@pytest.mark.parametrize("mode", ["jit", "pmap"])
def test_sigterm_to_one_process_stops_both_and_one_process_goes_on(mode, tmp_path):
    """Both save the same step; a process of four devices ends as one run of its own."""
    steps = 60
    both = _two(tmp_path / "moved", devices=2, steps=steps, mode=mode)
    _wait_for(tmp_path / "moved", 3, both)
    both[1].send_signal(signal.SIGTERM)
    errors = [process.communicate()[1] for process in both]
    assert [p.returncode for p in both] == [143, 143], errors
    assert "Traceback" not in "".join(errors)
    saved = max(int(p.name) for p in (tmp_path / "moved/checkpoints").glob("[0-9]*"))
    assert f"stopped by SIGTERM, saved step {saved};" in errors[0]
    rows = metric_writer.read(tmp_path / "moved")
    assert [row["step"] for row in rows] == list(range(1, saved + 1))  # one writer
    assert saved < steps

    for name in ("moved", "whole"):
        config = config_lib.load("configs/clip.py:tiny", _overrides("clip", steps))
        loop.run(config, tmp_path / name)
    assert _apart(tmp_path / "moved", tmp_path / "whole") <= ATOL


def test_checkpoints_in_a_folder_of_their_own_outlive_the_workdir(tmp_path):
    folder = f"--config.checkpoint.folder={tmp_path}/bucket"
    config = config_lib.load("configs/clip.py:tiny", [*_overrides("clip", 12), folder])
    loop.run(config, tmp_path / "one")
    assert not (tmp_path / "one/checkpoints").exists()
    shutil.rmtree(tmp_path / "one")
    shutil.rmtree(tmp_path / "bucket/checkpoints/12")
    loop.run(config, tmp_path / "two")
    assert metric_writer.read(tmp_path / "two")[0]["step"] == 11  # on from step 10
    assert int(restore.restore(tmp_path / "two")[1].step) == 12
    shutil.rmtree(tmp_path / "two")  # while it is there, no other may use the folder
    other = config_lib.load("configs/clip.py:tiny", [folder, "--config.batch_size=32"])
    with pytest.raises(UserError, match="config.batch_size was 16"):
        loop.run(other, tmp_path / "three")


def test_one_process_asks_nobody():
    with processes_lib.stop_signals() as asked:
        assert asked() == 0
        os.kill(os.getpid(), signal.SIGTERM)
        assert asked() == signal.SIGTERM
        assert asked() == signal.SIGTERM
    processes_lib.require_same({"nothing": object()})  # not even looked at


AGREE = """
import sys
sys.path.insert(0, {root!r})
import jax
jax.config.update("jax_num_cpu_devices", 4)
jax.distributed.initialize("127.0.0.1:{port}", 2, {i})
import numpy as np
from etils import epath
from jax.sharding import NamedSharding, PartitionSpec as P
from mmjax import parallel
from mmjax.parallel import processes
from mmjax.errors import UserError

def refused(call):
    try:
        call()
    except UserError as e:
        return str(e)

processes.wait_for_all("start")
out = dict(
    same=refused(lambda: processes.require_same(dict(a=1, b=2))),
    differ=refused(lambda: processes.require_same(dict(a=1, config={i}))),
    shared=refused(lambda: processes.require_shared(epath.Path({tmp!r}))),
    alone=refused(
        lambda: processes.require_shared(epath.Path({tmp!r}) / "{i}", wait=0.1)
    ),
    told=processes.of_writer({{"val/top1": 0.5}} if {i} == 0 else {{}}),
)
shares, sums = [], []
for mesh in (dict(), dict(fsdp=8), dict(tensor=2), dict(data=2, tensor=4),
             dict(data=1, tensor=8)):
    layout = parallel.Layout(parallel.ParallelConfig(mesh=parallel.MeshConfig(**mesh)))
    k, n = layout.row_share()
    rows = np.arange(16.0).reshape(16, 1)
    batch = layout.load(dict(x=rows[k * 16 // n : (k + 1) * 16 // n]))
    shares.append([k, n])
    sums.append(float(layout.replicate(lambda b: (b["x"] ** 2).sum())(batch)))
    double = layout.compile_predict(lambda v, b: v["w"] * b["x"])
    for count in (16, 3):  # split over the devices, and replicated
        got = double(dict(w=np.float32(2)), dict(x=rows[:count]))
        np.testing.assert_array_equal(got, 2 * rows[:count])
pmap = parallel.Layout(parallel.ParallelConfig(mode="pmap"))
state = pmap.init(lambda: dict(w=jax.numpy.ones(1), key=jax.random.key(0)))

def step(state, batch):
    noise = jax.random.normal(state["key"], state["w"].shape)
    moved = jax.lax.pmean((batch["x"] * state["w"] + noise).mean(0), "data")
    rows = jax.lax.all_gather(batch["x"], "data", tiled=True)
    return dict(state, w=moved), dict(last=rows[-1, 0], sum=rows.sum())

run, metrics = pmap.compile_step(step, state), []
assert "psum" in str(jax.make_jaxpr(run)(state, pmap.load(dict(x=rows[:8]))))
for _ in range(2):
    before = state
    state, one = run(state, pmap.load(dict(x=rows[{i} * 8 : {i} * 8 + 8])))
    metrics.append([float(one["last"]), float(one["sum"]), float(state["w"][0])])
assert before["w"].is_deleted() and state["w"].sharding.is_fully_replicated
spread = pmap.replicate(lambda s: s["w"] * 2)(state)  # as saving and evaluating do
assert float(spread[0]) == 2 * metrics[-1][-1]
split = jax.device_put(np.arange(8.0), NamedSharding(layout.mesh, P("tensor")))
np.testing.assert_array_equal(layout.fetch(split), np.arange(8.0))
import json
print("RESULT" + json.dumps(dict(out, shares=shares, sums=sums, pmap=metrics)))
"""


@pytest.mark.timeout(900)
def test_two_processes_agree_or_say_why_not(tmp_path: pathlib.Path):
    port = free_port()
    for i in range(2):
        (tmp_path / str(i)).mkdir()
    codes = [
        AGREE.format(root=str(ROOT), port=port, i=i, tmp=str(tmp_path))
        for i in range(2)
    ]
    both = [
        subprocess.Popen([sys.executable, "-c", c], stdout=subprocess.PIPE, text=True)
        for c in codes
    ]
    texts = [process.communicate()[0] for process in both]
    got = [json.loads(text.partition("RESULT")[2].splitlines()[0]) for text in texts]
    for i, seen in enumerate(got):
        assert seen["same"] is None and seen["shared"] is None
        assert "processes 0 and 1 differ in config" in seen["differ"]
        assert "process 1 of 2 does not see what process 0 wrote" in seen["alone"]
        # The mean of 0 to 15 times w, and noise that is the same on all devices.
        noise = float(jax.random.normal(jax.random.key(0), (1,))[0])
        want = [7.5 + noise, 7.5 * (7.5 + noise) + noise]
        np.testing.assert_allclose(
            seen["pmap"], [[15, 120, w] for w in want], rtol=1e-6
        )
        assert seen["told"] == {"val/top1": 0.5}
        # The last mesh has one row group over both processes: both read every row.
        assert seen["shares"] == [[i, 2], [i, 2], [i, 2], [i, 2], [0, 1]]
        assert seen["sums"] == [float((np.arange(16) ** 2).sum())] * 5


@pytest.mark.hosts
@pytest.mark.timeout(900)
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_ends_the_other_within_a_minute(victim: int, tmp_path):
    both = _two(tmp_path, devices=1, steps=100_000)
    _wait_for(tmp_path, SAVED + 1, both)
    # Saves go on beside the steps: wait for one that is whole, by its plain number.
    while not any(p.name.isdigit() for p in (tmp_path / "checkpoints").iterdir()):
        assert both[victim].poll() is None
        time.sleep(0.02)
    begin = time.monotonic()
    both[victim].kill()
    err = both[1 - victim].communicate()[1]
    both[victim].communicate()
    assert both[1 - victim].returncode == distributed.LOST, err
    assert f"process {1 - victim} lost another process of the run" in err
    print(
        f"\nprocess {victim} killed, the other ended {time.monotonic() - begin:.0f} s"
    )
    _, state = restore.restore(tmp_path)
    assert int(state.step) % SAVED == 0 and int(state.step) >= SAVED


@pytest.mark.hosts
@pytest.mark.timeout(900)
@pytest.mark.parametrize("topology", ["1x1", "2x4 pmap"])
def test_two_processes_evaluate_like_one(topology: str, tmp_path: pathlib.Path):
    """Batches that split over the devices and a last one that does not."""
    run = _run(tmp_path / "run", "clip", topology)
    size = "--config.batch_size=12"
    command = [sys.executable, "-m", "mmjax.cli", "eval", str(run), "--json", size]
    alone = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    launch = ["launch", "--processes", "2", "--devices-per-process", "4", "--"]
    command[3:3] = launch
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    lines = [x.removeprefix("[0] ") for x in done.stdout.splitlines()]
    lines = [x for x in lines if "[Gloo]" not in x]
    assert not [x for x in lines if x.startswith("[1]")]  # one speaks
    want, got = json.loads(alone.stdout), json.loads("\n".join(lines))
    assert want.keys() == got.keys()
    for name, one in want.items():
        for key, value in one["values"].items():
            np.testing.assert_allclose(got[name]["values"][key], value, atol=1e-5)


# -- the matrix ----------------------------------------------------------------
def _run(workdir: pathlib.Path, family: str, topology: str) -> pathlib.Path:
    processes, devices, mode = TOPOLOGIES[topology]
    command = _train(workdir, family, *_overrides(family))
    command.append(f"--config.parallel.mode={mode}")
    if processes > 1:
        launch = ["launch", "--processes", str(processes), "--devices-per-process"]
        command[3:3] = [*launch, str(devices), "--"]
    else:
        command += ["--devices", str(devices)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return workdir


@pytest.fixture(scope="module", params=FAMILIES)
def finished(request, tmp_path_factory) -> tuple[str, dict[str, pathlib.Path]]:
    """A family, and its run of 20 steps in every topology."""
    folder = tmp_path_factory.mktemp(request.param)
    runs = {name: _run(folder / name, request.param, name) for name in TOPOLOGIES}
    return request.param, runs


@pytest.mark.hosts
@pytest.mark.timeout(3600)
def test_topologies_agree(finished):
    family, runs = finished
    for a, b in itertools.combinations(TOPOLOGIES, 2):
        apart = _apart(runs[a], runs[b])
        print(f"\n{family}: {a} and {b} differ by {apart:.1e}", end="")
        assert apart <= ATOL


@pytest.mark.hosts
@pytest.mark.timeout(3600)
def test_checkpoints_move_between_topologies(finished, tmp_path):
    """Saved at step 10 by one topology, resumed in each; bit-equal in its own."""
    family, runs = finished
    for a, b in itertools.product(TOPOLOGIES, repeat=2):
        moved = tmp_path / f"{a} to {b}"
        shutil.copytree(runs[a], moved)
        shutil.rmtree(moved / "checkpoints" / str(STEPS))
        _run(moved, family, b)
        apart = max(_apart(moved, runs[a]), _apart(moved, runs[b]))
        print(f"\n{family}: {a} resumed as {b} differs by {apart:.1e}", end="")
        assert apart <= (0 if a == b else ATOL)


def test_the_coordinator_and_the_loop_refuse_alike():
    """A UserError of one process is what it is, not a lost process."""
    assert not distributed._lost(UserError("batch 100 must split over 8 devices"))
    lost = jax.errors.JaxRuntimeError("UNKNOWN: Gloo all-reduce failed: closed by peer")
    failed = UserError("saving failed")
    failed.__cause__ = lost
    assert "Gloo" in distributed._lost(failed)
    full = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")
    assert not distributed._lost(full)
