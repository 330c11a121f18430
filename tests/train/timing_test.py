"""Where time went, and traces of steps."""

import collections
import gzip
import json

import jax
import jax.numpy as jnp
import pytest

from mmjax import cli
from mmjax.errors import UserError
from mmjax.train import config, loop, metric_writer, timing

TINY = ("--config.steps=5", "--config.checkpoint.every=2", "--config.log_every=2")


def tiny(*overrides: str):
    made = config.load("configs/clip.py:tiny", [*TINY, *overrides])
    with made.unlocked():
        del made.evals["unseen"], made.evals["retrieval"]
    return made


def test_seconds_go_to_what_they_were_spent_on(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    watch = timing.Clock()
    for kind, seconds in [("input_wait", 2), ("step", 3), ("input_wait", 4), ("", 1)]:
        with watch.of(kind) if kind else watch.of("log"):
            now[0] += seconds
    now[0] += 5  # on nothing that is counted
    found = watch.lap()
    assert found["time/input_wait"] == 6 and found["time/step"] == 3
    assert found["time/log"] == 1 and found["time/total"] == 15
    assert set(watch.lap().values()) == {0.0}


def test_a_failure_inside_is_counted_and_passes():
    watch = timing.Clock()
    with pytest.raises(KeyError), watch.of("step"):
        raise KeyError
    assert watch.lap()["time/step"] > 0


def test_an_unknown_kind_is_no_kind():
    with pytest.raises(KeyError), timing.Clock().of("steps"):
        pass


@pytest.fixture(scope="module")
def traced(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("traced")
    # A peak, so that there is a share of it: CPUs have none in the table.
    loop.run(tiny("--config.peak_tflops=0.5"), workdir, profile=(3, 4))
    return workdir


def test_a_run_says_where_its_time_went(traced):
    rows = [r for r in metric_writer.read(traced) if "time/total" in r]
    assert [r["step"] for r in rows] == [2, 4, 5]
    for row in rows:
        parts = [row[f"time/{kind}"] for kind in timing.KINDS]
        assert min(parts) >= 0 and sum(parts) <= row["time/total"]
    assert all(r["time/step"] > 0 for r in rows)
    assert rows[0]["time/checkpoint"] == 0  # the save of step 2 comes after its row
    assert rows[1]["time/checkpoint"] > rows[1]["time/evaluation"]
    assert rows[2]["time/evaluation"] > rows[1]["time/evaluation"]
    for row in rows:
        assert row["tflops"] > 0 and row["mfu"] == pytest.approx(row["tflops"] / 0.5)
    assert not any(k.startswith("time/") for k in metric_writer.evaluations(traced))


def test_a_trace_holds_the_steps_asked_for(traced):
    """What Perfetto opens; TensorBoard's plugin opens the file beside it."""
    (file,) = (traced / "profile").glob("plugins/profile/*/*.trace.json.gz")
    assert list(file.parent.glob("*.xplane.pb"))
    events = json.loads(gzip.decompress(file.read_bytes()))["traceEvents"]
    steps = [e["args"]["step_num"] for e in events if e.get("name") == "train"]
    assert collections.Counter(map(int, steps)) == {3: 1, 4: 1}
    assert any("train_step" in e.get("name", "") for e in events)


@pytest.mark.parametrize(
    ("profile", "what"),
    [
        ((0, 2), "from 1 to 5"),
        ((3, 2), "first and the last step"),
        ((4, 6), r"from 1 to 5 \(config.steps\)"),
        ((1, 3), "has done all its 5 steps"),
    ],
)
def test_steps_that_the_run_does_not_get_to(traced, profile, what):
    before = sorted(traced.rglob("*"))
    with pytest.raises(UserError, match=what):
        loop.run(tiny(), traced, profile=profile)
    assert sorted(traced.rglob("*")) == before


def test_a_resumed_run_says_from_where_it_can_trace(tmp_path):
    with pytest.raises(UserError, match="goes on at step 5; .* such as 5:7"):
        timing.Trace((2, 6), tmp_path, start=4, total=10)


@pytest.mark.parametrize("text", ["3", "3-5", "a:b", "3:", "-1:2", "1:2:3"])
def test_profile_takes_two_numbers(text, capsys, tmp_path):
    argv = ["train", "--config", "configs/clip.py:tiny", "--workdir", str(tmp_path)]
    assert cli.main([*argv, f"--profile={text}"]) == 2
    assert "as in --profile 10:13" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA A100-SXM4-40GB", 312),
        ("NVIDIA L4", 121),
        ("NVIDIA L40S", 362),
        ("TPU v5 lite", 197),
        ("TPU v5e", 197),
        ("TPU v5p", 459),
        ("TPU v5", 459),
        ("cpu", 0),
    ],
)
def test_peaks_by_device(kind, peak):
    assert timing.peak_tflops(kind) == peak


def test_speed_is_the_share_of_one_devices_peak():
    a_mk, b_kn = jnp.ones((10, 20)), jnp.ones((20, 30))
    speed = timing.Speed(jax.devices()[:2], peak=1e-6)  # a device of 1 MFLOP/s
    assert speed.rates(1.0) == {}  # nothing has been counted
    speed.count(jax.jit(jnp.dot), a_mk, b_kn)
    assert speed.rates(0.01) == pytest.approx({"tflops": 0.6e-6, "mfu": 0.6})
    unknown = timing.Speed(jax.devices(), peak=0)  # CPUs are in no table
    unknown.count(jnp.dot, a_mk, b_kn)
    assert list(unknown.rates(1.0)) == ["tflops"]


def test_waiting_for_input_is_shown_when_it_is_long():
    logged = {"loss": 1.0, "lr": 0.1, "rows_per_second": 5.0, "grad_norm": 2.0}
    slow = {"time/input_wait": 3.0, "time/total": 4.0}
    quick = {"time/input_wait": 0.1, "time/total": 4.0}
    assert metric_writer.shown(logged | slow)["input_wait_share"] == 0.75
    assert list(metric_writer.shown(logged | quick)) == [
        "loss",
        "lr",
        "rows_per_second",
    ]
