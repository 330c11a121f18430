"""Checkpoints that were damaged on disk, or that are of something else."""

import gc
import json
import os
import pathlib
import random
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax import parallel, tree
from mmjax.errors import UserError
from mmjax.inference import load
from mmjax.state import TrainState, Vars
from mmjax.train import array_store, checkpoint
from mmjax.train import restore as restore_lib

# What Orbax leaves behind of arrays that could not be read.
pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)
CONFIG = checkpoint.CheckpointConfig(every=1, keep=2)
LAYOUT = parallel.Layout(devices=jax.devices()[:1])


@pytest.fixture(autouse=True)
def collect():
    """Has what a failed read leaves behind collected while its warning is ignored."""
    yield
    gc.collect()


def state_of(step: int, *, width: int = 64, ema: bool = True) -> TrainState:
    """A state whose arrays are functions of the step; compressible, as real ones."""
    kernel = jnp.round(jax.random.normal(jax.random.key(step), (width, 8)), 2)
    state = TrainState(
        step=jnp.int32(step),
        vars=Vars(
            {"fc": {"kernel": kernel}}, {"mean": kernel[0]}, {"net": jnp.ones((4, 4))}
        ),
        opt_state=({"mu": kernel + 1}, ()),
        ema={"fc": {"kernel": kernel + 2}} if ema else None,
        rng=jax.random.key(9),
    )
    return jax.device_put(state, LAYOUT.shardings(state))


def abstract(**kwargs) -> TrainState:
    return LAYOUT.abstract(jax.eval_shape(lambda: state_of(0, **kwargs)))


def position(step: int) -> dict:
    return {"global_next_index": 16 * step}


def restore(workdir: pathlib.Path, *, read_only: bool = False, step=None, **kwargs):
    """(step, data state, state) of what was restored."""
    saved = checkpoint.Checkpointer(workdir, CONFIG, read_only=read_only)
    try:
        state, data = saved.restore(abstract(**kwargs), step)
        return int(state.step), data, state
    finally:
        saved.close()


def check(workdir: pathlib.Path) -> int:
    """The restored step, all of whose arrays and data are those that were saved."""
    step, data, state = restore(workdir)
    assert data == position(step)
    got = tree.flatten(state.replace(rng=jax.random.key_data(state.rng)))
    want = state_of(step)
    want = tree.flatten(want.replace(rng=jax.random.key_data(want.rng)))
    assert got.keys() == want.keys()
    for path, value in want.items():
        np.testing.assert_array_equal(got[path], value, err_msg=path)
    return step


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> pathlib.Path:
    workdir = tmp_path_factory.mktemp("saved")
    into = checkpoint.Checkpointer(workdir, CONFIG)
    for step in (1, 2, 3):
        into.save(state_of(step), position(step))
    into.wait()
    into.close()
    return workdir


@pytest.fixture
def copy(saved, tmp_path) -> pathlib.Path:
    shutil.copytree(saved, tmp_path / "copy")
    return tmp_path / "copy"


def damage(path: pathlib.Path, how: str, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    if how == "delete":
        path.unlink()
    elif how == "truncate":
        path.write_bytes(data[: len(data) // 2])
    else:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(data)


@pytest.mark.parametrize("how", ["delete", "truncate", "flip"])
def test_whatever_file_is_damaged_what_comes_back_was_saved(
    saved, tmp_path, how, caplog
):
    rng = random.Random(how)
    newest = saved / "checkpoints" / "3"
    files = sorted(p.relative_to(saved) for p in newest.rglob("*") if p.is_file())
    fell_back = 0
    for number, file in enumerate(files):
        workdir = tmp_path / str(number)
        shutil.copytree(saved, workdir)
        damage(workdir / file, how, rng)
        caplog.clear()
        if check(workdir) == 3:  # a file that nobody needs
            continue
        fell_back += 1
        assert caplog.text.count("checkpoint of step 3") == 1
        assert "going on from step 2" in caplog.text
        assert (workdir / "damaged" / "3").is_dir()
    assert 4 <= fell_back < len(files)


def test_numbers_changed_inside_a_sound_file_are_noticed(copy, caplog):
    """A file that reads well and holds another run's numbers: only the sums tell."""
    other = copy.parent / "other"
    into = checkpoint.Checkpointer(other, CONFIG)
    into.save(state_of(3).replace(ema=state_of(4).ema), position(3))
    into.wait()
    into.close()
    shutil.rmtree(copy / "checkpoints/3/state")
    shutil.copytree(other / "checkpoints/3/state", copy / "checkpoints/3/state")
    assert check(copy) == 2
    assert "ema/fc/kernel changed since it was saved" in caplog.text


def weights(workdir: pathlib.Path, dtype: str = "") -> TrainState:
    """What is read without the optimizer."""
    into = checkpoint.Checkpointer(workdir, CONFIG, read_only=True)
    wanted = abstract().replace(opt_state=None)
    state, _ = into.restore(wanted, dtype=dtype)
    into.close()
    return state


def test_weights_alone_are_those_of_the_whole(copy):
    whole, alone = restore(copy)[2], weights(copy)
    assert alone.opt_state is None and jax.tree.leaves(whole.opt_state)
    keyless = [
        tree.flatten(s.replace(opt_state=None, rng=jax.random.key_data(s.rng)))
        for s in (whole, alone)
    ]
    assert keyless[0].keys() == keyless[1].keys()
    for path, value in keyless[0].items():
        np.testing.assert_array_equal(keyless[1][path], value, err_msg=path)
        assert keyless[1][path].sharding == value.sharding


@pytest.mark.parametrize("changed, step", [("opt_state", 3), ("ema", 2)])
def test_weights_alone_do_not_need_a_sound_optimizer(copy, changed, step):
    """Sums of what is read are compared, and of nothing else."""
    other = copy.parent / "other"
    into = checkpoint.Checkpointer(other, CONFIG)
    state = state_of(3).replace(**{changed: getattr(state_of(4), changed)})
    into.save(state, position(3))
    into.wait()
    into.close()
    shutil.rmtree(copy / "checkpoints/3/state")
    shutil.copytree(other / "checkpoints/3/state", copy / "checkpoints/3/state")
    assert int(weights(copy).step) == step
    assert restore(copy, read_only=True)[0] == 2


def test_weights_that_are_not_there(copy):
    into = checkpoint.Checkpointer(copy, CONFIG, read_only=True)
    wanted = abstract(width=32).replace(opt_state=None)
    with pytest.raises(UserError, match=r"another model: fc/kernel is \(64, 8\) there"):
        into.restore(wanted)
    into.close()
    store = array_store.ArrayStore(into.home / "checkpoints", keep=2, read_only=True)
    ema = abstract().ema
    with pytest.raises(ValueError, match="ema/fc2/kernel is missing"):
        store.some(3, {"ema": ema | {"fc2": ema["fc"]}})
    store.close()


def test_weights_of_one_dtype(copy, monkeypatch):
    """Read in parts, compared with their sums as they were saved, then cast."""
    monkeypatch.setattr(array_store, "_PART", 100)
    whole = weights(copy)
    half = weights(copy, dtype="bfloat16")
    assert int(half.step) == 3 and half.step.dtype == "int32"
    for path, value in tree.flatten((whole.vars, whole.ema)).items():
        cast = tree.flatten((half.vars, half.ema))[path]
        assert cast.dtype == "bfloat16" and cast.sharding == value.sharding
        np.testing.assert_array_equal(cast, value.astype("bfloat16"), err_msg=path)
    for file in (copy / "checkpoints/3/state").rglob("d/*"):
        file.write_bytes(file.read_bytes()[::-1])
    assert int(weights(copy, dtype="bfloat16").step) == 2


def test_the_next_version_of_the_file_format_library_reads_them(copy):
    """Orbax' version 1, which will be its only one, and our arrays and notes."""
    from orbax.checkpoint import v1

    with v1.Context():
        read = v1.load_checkpointables(copy / "checkpoints/3")
    want = state_of(3)
    kernel = read["state"]["vars"]["params"]["fc"]["kernel"]
    np.testing.assert_array_equal(kernel, want.vars.params["fc"]["kernel"])
    assert read["data"][0] == position(3)


def test_training_goes_on_after_a_damaged_one(copy):
    """The step that was damaged can be saved again, and is then the newest."""
    (copy / "checkpoints/3/data/metadata").write_text("{")
    into = checkpoint.Checkpointer(copy, CONFIG)
    state, data = into.restore(abstract())
    assert into.latest() == int(state.step) == 2
    into.save(state_of(3), position(3))
    into.wait()
    into.close()
    assert check(copy) == 3
    (copy / "checkpoints/3/data/metadata").write_text("{")
    assert check(copy) == 2
    assert sorted(p.name for p in (copy / "damaged").iterdir()) == ["3", "3.1"]


def test_readers_pass_over_damage_and_touch_nothing(copy):
    (copy / "checkpoints/3/data/metadata").write_text("{")
    (copy / "checkpoints/4.orbax-checkpoint-tmp").mkdir()  # one being written
    before = sorted(copy.rglob("*"))
    assert restore(copy, read_only=True)[0] == 2
    assert sorted(copy.rglob("*")) == before


def test_a_damaged_step_asked_for_by_number_is_an_error(copy):
    (copy / "checkpoints/3/data/metadata").write_text("{")
    with pytest.raises(UserError, match="step 3: .*: use one of step 2"):
        restore(copy, step=3)
    assert restore(copy, step=2)[0] == 2


def test_nothing_left_to_read(copy):
    for step in (2, 3):
        (copy / f"checkpoints/{step}/state/_METADATA").unlink()
    with pytest.raises(UserError, match="step 3: .*missing; step 2: .*put back a copy"):
        restore(copy)
    assert not (copy / "damaged").exists()


def test_damaged_frozen_weights_are_said_so(copy):
    """They are stored once: no older checkpoint can help."""
    for file in (copy / "frozen").rglob("d/*"):
        file.write_bytes(b"")
    with pytest.raises(UserError, match="no checkpoint of .* can be read"):
        restore(copy)


def test_frozen_weights_of_a_run_killed_before_its_first_save_are_replaced(tmp_path):
    into = checkpoint.Checkpointer(tmp_path, CONFIG)
    into.save(state_of(1), position(1))
    into.wait()
    into.close()
    shutil.rmtree(tmp_path / "checkpoints/1")
    other = state_of(1)
    frozen = jax.tree.map(lambda x: x + 5, other.vars.frozen)
    into = checkpoint.Checkpointer(tmp_path, CONFIG)
    into.save(other.replace(vars=other.vars._replace(frozen=frozen)), position(1))
    into.wait()
    into.close()
    state = restore(tmp_path)[2]
    assert float(state.vars.frozen["net"][0, 0]) == 6


@pytest.mark.parametrize(
    ("kwargs", "what"),
    [
        ({"width": 32}, r"another model: fc/kernel is \(64, 8\) there and \(32, 8\)"),
        ({"ema": False}, r"parameter average: ema/fc/kernel is \(64, 8\) .* absent"),
    ],
)
def test_another_shape_is_an_error_and_no_damage(copy, kwargs, what):
    with pytest.raises(UserError, match=what):
        restore(copy, **kwargs)
    assert not (copy / "damaged").exists()


def test_another_optimizer_and_other_extra_variables(copy):
    into = checkpoint.Checkpointer(copy, CONFIG, read_only=True)
    base = abstract()
    slots = base.replace(opt_state=({"nu": base.opt_state[0]["mu"]}, ()))
    with pytest.raises(UserError, match=r"another optimizer: opt_state/0/mu .*absent"):
        into.restore(slots)
    extra = base.replace(vars=base.vars._replace(extra={}))
    with pytest.raises(UserError, match=r"extra variables.*vars/extra/mean"):
        into.restore(extra)
    into.close()


def test_checkpoints_without_sums_are_taken(copy):
    """Those that were written before there were any."""
    file = copy / "checkpoints/3/data/metadata"
    file.write_text(json.dumps(json.loads(file.read_text())[0]))
    assert check(copy) == 3


def test_a_checkpoint_copied_to_another_step_is_not_taken(copy, caplog):
    shutil.copytree(copy / "checkpoints/2", copy / "checkpoints/7")
    assert check(copy) == 3
    assert "checkpoint of step 7" in caplog.text and "it holds step 2" in caplog.text
    assert (copy / "damaged/7").is_dir()


def test_a_checkpoint_of_another_run_is_not_taken(tmp_path, caplog):
    for run, steps in (("ours", (1, 2)), ("theirs", (3,))):
        into = checkpoint.Checkpointer(tmp_path / run, CONFIG, run=run)
        for step in steps:
            into.save(state_of(step), position(step))
        into.wait()
        into.close()
    ours = tmp_path / "ours/checkpoints"
    shutil.copytree(tmp_path / "theirs/checkpoints/3", ours / "3")
    into = checkpoint.Checkpointer(tmp_path / "ours", CONFIG, run="ours")
    with pytest.raises(UserError, match=r"step 3: it is of another run\): use one of"):
        into.restore(abstract(), 3)
    assert int(into.restore(abstract())[0].step) == 2
    into.close()
    assert "checkpoint of step 3" in caplog.text and "of another run" in caplog.text
    assert sorted(p.name for p in ours.glob("[0-9]*")) == ["1", "2"]


def test_a_save_that_is_not_taken_is_an_error(copy):
    """Something else has put a later checkpoint there."""
    into = checkpoint.Checkpointer(copy, CONFIG)
    with pytest.raises(UserError, match="did not take .* step 2, it holds step 3"):
        into.save(state_of(2), position(2))
    into.close()


def test_a_run_is_opened_without_its_optimizer(tiny_run):
    whole = restore_lib.restore(tiny_run, optimizer=True)[1]
    alone = restore_lib.restore(tiny_run)[1]
    assert alone.opt_state is None and jax.tree.leaves(whole.opt_state)
    got, want = (tree.flatten((s.step, s.vars, s.ema)) for s in (alone, whole))
    assert got.keys() == want.keys()
    for path, value in want.items():
        np.testing.assert_array_equal(got[path], value, err_msg=path)


def test_a_run_is_opened_in_bfloat16(tiny_run):
    run = load.load_run(tiny_run, dtype="bfloat16")
    whole = load.load_run(tiny_run)
    assert run.task.dtype == "bfloat16" and whole.task.dtype == "float32"
    assert {str(x.dtype) for x in run.params.values()} == {"bfloat16"}
    rows = [each.embed_texts(["a red circle"]) for each in (run, whole)]
    np.testing.assert_allclose(*rows, atol=0.02)
    with pytest.raises(UserError, match="--dtype bf16.*did you mean 'bfloat16'"):
        load.load_run(tiny_run, dtype="bf16")


@pytest.mark.parametrize("part", ["checkpoints/3/state/_METADATA", "frozen/_METADATA"])
def test_a_pipe_in_a_checkpoint_is_not_waited_for(copy, part):
    (copy / part).unlink()
    os.mkfifo(copy / part)
    with pytest.raises(UserError, match=f"{part} is no plain file: put back a copy"):
        restore(copy)


def test_damaged_times_of_a_checkpoint_are_said(copy):
    path = copy / "checkpoints" / "3" / "_CHECKPOINT_METADATA"
    path.write_text(path.read_text().replace("metrics", "numbers"))
    with pytest.raises(UserError, match="checkpoints is damaged .*move the newest"):
        restore(copy)
