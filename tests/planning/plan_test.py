"""Plans against what runs measure and against arithmetic done by hand."""

import dataclasses
import json
import pathlib
import subprocess
import sys

import jax
import pytest

from mmjax import parallel
from mmjax.cli import plan
from mmjax.errors import UserError
from mmjax.planning import estimate, hardware, hlo, program, report, search
from mmjax.train import config as config_lib
from mmjax.train import flops, setup

ROOT = pathlib.Path(__file__).resolve().parents[2]
MESH = {"data": 1, "fsdp": 2, "tensor": 2}


def tiny(*overrides, mesh=MESH, family="clip"):
    config = config_lib.load(f"{ROOT}/configs/{family}.py:tiny", list(overrides))
    with config.unlocked():
        config.parallel = {"mesh": mesh}
    return config


@pytest.fixture(scope="module")
def built():
    return program.build(tiny())


@pytest.fixture(scope="module")
def alone():
    """The same over data alone."""
    return program.build(tiny(mesh={"data": 4}))


def test_state_is_what_a_run_holds(built):
    """Bytes of every kind on device 0, of a state that is really there."""
    config = tiny()
    parts = setup.build(config)
    state = parts.layout.init(parts.update.init, jax.random.key(0), parts.example())

    def held(arrays):
        return sum(
            shard.data.nbytes
            for x in jax.tree.leaves(arrays)
            for shard in x.addressable_shards
            if shard.device == parts.layout.devices[0]
        )

    assert built.sizes["params"] == held(state.vars.params)
    assert built.sizes["optimizer"] == held(state.opt_state)
    assert built.sizes["average"] == held(state.ema)
    assert built.params == sum(x.size for x in jax.tree.leaves(state.vars.params))
    assert built.bytes_per_device == sum(built.sizes.values())
    assert built.sizes["activations"] > 0


def test_operations_do_not_depend_on_the_mesh(built, alone):
    assert alone.flops.model == built.flops.model > 0
    assert alone.sizes["params"] > built.sizes["params"]


def test_pmap_is_planned_and_needs_what_jit_needs(alone):
    """The state is donated: the next one is written over it."""
    config = tiny()
    with config.unlocked():
        config.parallel = {"mode": "pmap"}
    jit, pmap = alone, program.build(config)
    # Both directions of the contrastive loss are products of their own under pmap.
    assert pmap.flops.model == pytest.approx(jit.flops.model, rel=0.01)
    assert pmap.sizes["batch"] == jit.sizes["batch"]
    assert pmap.sizes["results"] < 0.01 * jit.sizes["params"]  # metrics alone
    assert pmap.bytes_per_device <= 1.1 * jit.bytes_per_device
    sent = [sum(hlo.by_kind(p.collectives).values()) for p in (jit, pmap)]
    assert sent[1] == pytest.approx(sent[0], rel=0.1)


def test_the_run_by_hand():
    known = a_program(steps=3600, saves=4, saved=32 * 10**9, row=1000)
    h100 = hardware.find("h100")
    made = estimate.estimate(known, h100)
    flat = report.flat(known, made, h100, records=3600 * 64 // 2)
    assert flat["hours"] == pytest.approx(made.step)
    assert flat["device_hours_unhidden"] == pytest.approx(16 * made.step_unhidden)
    assert flat["epochs"] == 2 and flat["hosts"] == 2
    assert flat["checkpoint_seconds"] == 16  # two hosts at 1 GB/s
    assert flat["host_bytes_per_second"] == pytest.approx(32_000 / made.step)
    shown = report.text(known, made, h100, 3600 * 64 // 2)
    assert "the run: 3,600 steps, 230,400 rows, 2 epochs" in shown
    assert "4 of 32 GB, 16 s each at 1 GB/s a host" in shown


def test_what_a_run_saves_is_counted(built):
    split = ("params", "optimizer", "average", "other")
    assert built.saved >= sum(built.sizes[k] for k in split)
    assert built.steps == 4 and built.saves == 2


def test_a_search_takes_the_fastest_that_fits(monkeypatch):
    """State is a split of 140 GB; a mesh is the slower the more it is split."""

    def split(config):
        mesh = config.parallel.mesh
        return 140e9 / (mesh.fsdp * mesh.tensor)

    def built(config, platform):
        assert platform == "cuda"
        mesh = dict(config.parallel.mesh)
        sent = hlo.Collective("all-reduce", 1e9 * mesh["fsdp"], (0, 1), 1, "")
        sizes = dict.fromkeys(a_program().sizes, 0) | {"params": int(split(config))}
        return a_program(mesh=mesh, sizes=sizes, collectives=[sent])

    monkeypatch.setattr(program, "state_bytes", split)
    monkeypatch.setattr(program, "build", built)
    said = []
    tried = search.search(tiny(), hardware.find("h100"), 16, say=said.append)
    assert said[0] == "data=8, fsdp=1, tensor=2" and len(tried) == search.TRIED
    assert tried[0].plan.fits and dict(tried[0].program.mesh)["fsdp"] == 1
    assert [one.rank for one in tried] == sorted(one.rank for one in tried)
    assert report.meshes(tried).splitlines()[2].startswith("data=")
    with pytest.raises(UserError, match=r"2 x GeForce RTX 3090 the state alone is 70"):
        search.search(tiny(), hardware.find("rtx3090"), 2)
    with pytest.raises(UserError, match="no mesh of 32 devices splits batch 3"):
        search.search(tiny("--config.batch_size=3"), hardware.find("h100"), 32)


def test_text_and_json_hold_the_numbers(built):
    made = estimate.estimate(built, hardware.find("h100"))
    flat = report.flat(built, made, hardware.find("h100"))
    assert flat["params"] == built.params
    assert flat["collective_bytes"] == sum(hlo.by_kind(built.collectives).values()) > 0
    parts = [v for k, v in flat.items() if k.startswith("bytes_") and "per" not in k]
    assert flat["bytes_per_device"] == sum(parts)
    assert all(not isinstance(v, dict | list) for v in flat.values())
    shown = report.text(built, made, hardware.find("h100"), full=True)
    assert f"{built.params:,}" in shown and "fits:" in shown
    assert "image/patches/kernel" in shown
    assert "attention\n  reference\n    5 queries, 5 keys" in shown


def test_every_shape_has_its_kernel_and_the_reason():
    shapes = {f"{n} queries": "cudnn" for n in range(6)} | {
        "7 queries": "reference (b)"
    }
    shown = report.text(
        a_program(attention=shapes),
        estimate.estimate(a_program(), hardware.find("h100")),
        hardware.find("h100"),
    )
    assert "  cudnn\n    0 queries" in shown and "    and 2 shapes more\n" in shown
    assert "  reference (b)\n    7 queries" in shown


def a_program(**changed):
    row = hlo.Collective("all-reduce", 1e9, tuple(range(16)), 2, "")
    inside = hlo.Collective("all-gather", 1e9, tuple(range(8)), 1, "")
    made = program.Program(
        mesh={"data": 4, "fsdp": 4, "tensor": 1},
        batch_size=64,
        rows=[],
        sizes={
            "params": 4 * 10**9,
            "frozen": 0,
            "optimizer": 8 * 10**9,
            "average": 0,
            "batch": 0,
            "other": 0,
            "activations": 10**10,
            "results": 0,
        },
        params=4 * 10**9,
        frozen=0,
        flops=flops.Flops(3e15, 1e15, {"bfloat16": 3.5e15, "float32": 0.5e15}, 3.2e13),
        collectives=[row, inside],
        remat="none",
    )
    return dataclasses.replace(made, **changed)


def test_roofline_by_hand():
    h100 = hardware.find("h100")
    made = estimate.estimate(a_program(), h100)
    compute = 3.5e15 / 16 / 989.4e12 + 0.5e15 / 16 / 494.7e12
    assert made.compute == pytest.approx(compute)
    weights = 3 * 4e9 * 2 * (1 - 1 / 16)  # all devices read them whole
    moved = 3.2e13 / 16 + weights + 2 * 12e9 + 4e9
    assert made.memory == pytest.approx(moved / 3.35e12)
    assert made.network == pytest.approx(2 * 2 * 15 / 16 * 1e9 / 50e9)
    assert made.link == pytest.approx(7 / 8 * 1e9 / 450e9)
    longest = max(made.compute, made.memory, made.link + made.network)
    assert made.step == longest == made.memory and made.bound == "memory"
    assert made.mfu == pytest.approx(3e15 / 16 / 989.4e12 / longest)
    assert made.fits and estimate.advice(a_program(), made) == []
    # one slice of TPUs has no node border
    assert estimate.estimate(a_program(), hardware.find("v5p")).network == 0


def test_what_does_not_fit_says_what_to_change():
    big = a_program()
    sizes = dict(big.sizes, params=40 * 10**9, optimizer=80 * 10**9)
    big = dataclasses.replace(big, sizes=sizes)
    h100 = hardware.find("h100")
    made = estimate.estimate(big, h100)
    assert not made.fits
    shown = report.text(big, made, h100)
    assert "DOES NOT FIT: 130 GB where 73.6 GB" in shown
    assert "--mesh data=1,fsdp=16 makes its 120.0 GB about 30.0 GB" in shown
    assert "--config.task.remat=full" in shown and "--config.optim.accum=2" in shown


@pytest.mark.parametrize(
    ("mesh", "what"),
    [
        ("data=2,rows=2", "'rows=2' is not AXIS=N"),
        ("data=2,data=2", "each at most once"),
        ("data=0", "N from 1 on"),
        ("data", "'data' is not AXIS=N"),
    ],
)
def test_meshes_that_are_none(mesh, what):
    with pytest.raises(UserError, match=what):
        plan.mesh_of(mesh)


def test_bad_input_is_named_before_anything_is_compiled():
    with pytest.raises(UserError, match="--hardware h10.*did you mean 'h100'"):
        hardware.find("h10")
    with pytest.raises(UserError, match="batch 16 must split over 3 devices"):
        three = parallel.Layout(
            parallel.ParallelConfig(mesh=parallel.MeshConfig(data=3)), jax.devices()[:3]
        )
        three.check_batch(16)
    kernel = {"fc": {"kernel": jax.ShapeDtypeStruct((6, 6), "float32")}}
    layout = parallel.Layout(
        parallel.ParallelConfig(mesh=parallel.MeshConfig(tensor=4, data=1)),
        jax.devices()[:4],
    )
    with pytest.raises(
        UserError,
        match=r"tensor=4 divides no parameter, their sizes along it are 6: use 2 or 1",
    ):
        layout.shardings(kernel)


def run(*args):
    command = [sys.executable, "-m", "mmjax.cli", "plan", *args]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.timeout(600)
def test_command_in_a_process_of_its_own():
    config = ["--config", f"{ROOT}/configs/clip.py:tiny", "--json"]
    done = run(*config, "--mesh", "data=2,fsdp=2", "--hardware", "v5e")
    assert done.returncode == 0, done.stderr
    flat = json.loads(done.stdout)
    named = "params flops_per_step bytes_per_device collective_bytes step_seconds mfu"
    assert set(named.split()) <= set(flat)
    assert flat["devices"] == 4 and flat["hardware"] == "TPU v5e"
    assert flat["attention"] == "reference"  # 5 tokens are no block of 128
    done = run(*config, "--mesh", "data=3")
    assert done.returncode == 2 and "batch 16 must split over 3" in done.stderr


@pytest.mark.long
@pytest.mark.timeout(600)
def test_the_papers_prior_on_256_devices():
    """12 billion parameters; 6 N T and attention's share of operations."""
    done = run(
        "--config", f"{ROOT}/configs/prior.py:dalle_12b", "--mesh", "data=16,fsdp=16",
        "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    flat = json.loads(done.stdout)
    assert flat["params"] == pytest.approx(12e9, rel=0.03)
    config = config_lib.load(f"{ROOT}/configs/prior.py:dalle_12b", [])
    tokens = 1024 * (258 + 1024)
    # Text sees text; 128 image tokens at a time see all that is before their end.
    pairs = 64 * (258**2 + sum(128 * (258 + 128 * k) for k in range(1, 9)))
    attention = 12 * 1024 * config.task.width * pairs  # 4 forwards, twice that back
    want = 6 * flat["params"] * tokens + attention
    assert flat["flops_per_step"] == pytest.approx(want, rel=0.02)
    assert flat["fits"] and flat["bytes_per_device"] < 80e9
