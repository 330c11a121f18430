"""What a run leaves: checkpoints, run.json and metrics.jsonl, damaged."""

import gc
import json
import shutil

import fuzzing
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax import parallel, tree
from mmjax.state import TrainState, Vars
from mmjax.train import checkpoint, config, metric_writer, run_file, setup

# What Orbax leaves behind of arrays that could not be read.
pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)
SAVING = checkpoint.CheckpointConfig(every=1, keep=2)


@pytest.fixture(autouse=True)
def collect():
    """Has what a failed read leaves behind collected while its warning is ignored."""
    yield
    gc.collect()


def state_of(step):
    kernel = jnp.round(jax.random.normal(jax.random.key(step), (64, 8)), 2)
    state = TrainState(
        step=jnp.int32(step),
        vars=Vars({"kernel": kernel}, {"mean": kernel[0]}, {"net": jnp.ones((4, 4))}),
        opt_state=({"mu": kernel + 1}, ()),
        ema=None,
        rng=jax.random.key(9),
    )
    layout = parallel.Layout(devices=jax.devices()[:1])
    return jax.device_put(state, layout.shardings(state))


def leaves(state):
    """Arrays by path, as they compare."""
    flat = tree.flatten(state.replace(rng=jax.random.key_data(state.rng)))
    return {path: np.asarray(value).tolist() for path, value in flat.items()}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A workdir with the checkpoints of steps 1 and 2."""
    workdir = tmp_path_factory.mktemp("saved") / "x"
    keeper = checkpoint.Checkpointer(workdir, SAVING, run="ab")
    for step in (1, 2):
        keeper.save(state_of(step), {"next": step})
        keeper.wait()
    keeper.close()
    return workdir


@fuzzing.counts(2, 0.05)
def test_a_damaged_checkpoint(count, saved, ledger, tmp_path):
    """The step before is taken, and said; where both are damaged, none is."""
    want = {step: leaves(state_of(step)) for step in (1, 2)}
    layout = parallel.Layout(devices=jax.devices()[:1])
    abstract = layout.abstract(jax.eval_shape(lambda: state_of(0)))
    place = tmp_path / "x"

    def attempt(rng, notes):
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(saved, place)
        top = rng.choice(("checkpoints/2", "checkpoints/2", "checkpoints", "."))
        paths = sorted(p for p in (place / top).rglob("*") if p.is_file())
        for path in rng.sample(paths, rng.choice((1, 1, 3))):
            notes.append(str(path.relative_to(place)))
            if rng.random() < 0.15:
                fuzzing.spoil(rng, path, notes)
            else:
                path.write_bytes(fuzzing.damage(rng, path.read_bytes(), notes)[0])
        with fuzzing.warnings() as said:
            keeper = checkpoint.Checkpointer(place, SAVING, run="ab")
            try:
                state, data = keeper.restore(abstract)
            finally:
                keeper.close()
        step = int(state.step)
        if leaves(state) != want[step] or data != {"next": step}:
            return fuzzing.SILENT
        if step == 2:
            return fuzzing.RIGHT
        return fuzzing.NAMED if said else fuzzing.SILENT

    ledger.explore("checkpoints", count, attempt)


@fuzzing.counts(4, 0.06)
def test_a_damaged_run_file(count, ledger, tmp_path):
    """run.json has no sum: another legal value is another run."""
    parts = setup.build(config.load("configs/clip.py:tiny"))
    run_file.write(tmp_path, {"run": "ab", "workdir": "x", **setup.about(parts)})
    path = tmp_path / run_file.NAME
    good = path.read_bytes()
    want = json.loads(good)

    def attempt(rng, notes):
        fuzzing.put(path, good)
        if rng.random() < 0.05:
            fuzzing.spoil(rng, path, notes)
        elif rng.random() < 0.3:
            path.write_bytes(fuzzing.damage(rng, good, notes)[0])
        else:
            path.write_text(json.dumps(fuzzing.mutate(rng, want, notes)))
        read = run_file.read(tmp_path)
        run_file.identity(tmp_path, tmp_path)
        setup.build(config.from_json(read["config"]), saved=read["fields"])
        same = all(read[k] == want[k] for k in ("config", "fields"))
        return fuzzing.RIGHT if same else fuzzing.UNSUMMED

    ledger.explore("run.json", count, attempt)


@fuzzing.counts(10, 0.05)
def test_damaged_metrics(count, ledger, tmp_path):
    """A line that is none is named, and takes no other along."""
    rows = [{"step": k, "loss": k / 2, "note": "é"} for k in range(1, 21)]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path = tmp_path / metric_writer.FILE

    def attempt(rng, notes):
        fuzzing.put(path, text.encode())
        touched = 2
        if rng.random() < 0.08:
            fuzzing.spoil(rng, path, notes)
            touched = len(rows)
        elif rng.random() < 0.5:
            changed = list(rows)
            at = rng.randrange(len(rows))
            changed[at] = fuzzing.mutate(rng, rows[at], notes)
            path.write_text("".join(json.dumps(row) + "\n" for row in changed))
        else:
            data, many = fuzzing.damage(rng, text.encode(), notes)
            path.write_bytes(data)
            touched += many // 20
        with fuzzing.warnings() as said:
            writer = metric_writer.Writer(tmp_path, resumed_at=20)
            writer.write(21, {"loss": 1.0})
            writer.close()
            found = metric_writer.read(tmp_path)
        notes.append(found[-2:])
        if found[-1:] != [{"step": 21, "loss": 1.0}]:
            return fuzzing.SILENT
        if found[:-1] == rows:
            return fuzzing.RIGHT
        if said:
            return fuzzing.NAMED
        differ = sum(row not in found for row in rows)
        return fuzzing.UNSUMMED if differ <= touched else fuzzing.SILENT

    ledger.explore("metrics.jsonl", count, attempt)
