"""One step body, two compilers, four layouts: the same parameters.

Every `tiny*` preset of every config takes part on its own data, and some variants.
"""

import functools
import importlib
import pkgutil

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

import mmjax_configs as configs
from mmjax import parallel, tree
from mmjax.data import pipeline
from mmjax.state import TrainState
from mmjax.tasks import base
from mmjax.train import optim, setup, update
from mmjax_configs import clip as clip_config
from mmjax_configs.common import ROOT

LAYOUTS = {
    "one device": (parallel.ParallelConfig(), 1),
    "jit 2x2x1": (parallel.ParallelConfig(mesh=parallel.MeshConfig(data=2, fsdp=2)), 4),
    "jit 1x2x2": (
        parallel.ParallelConfig(mesh=parallel.MeshConfig(data=1, fsdp=2, tensor=2)),
        4,
    ),
    "pmap x4": (parallel.ParallelConfig(mode="pmap"), 4),
}
RESNET = {"kind": "resnet", "width": 8, "depths": (1, 1), "heads": 4}
CONV = {"kind": "conv", "width": 8, "depths": (1, 1)}
TILES = {"loss_block": 3, "equal_captions": "positive"}
VARIANTS = {  # of the `tiny` preset of a config, by keys of its task
    "clip scan": {"scan": True, "equal_captions": "positive"},
    "clip resnet": {"image": RESNET, "image_size": 32},
    "clip chunked": {"loss_impl": "chunked", **TILES},
    "clip siglip ring": {"loss_name": "sigmoid", "loss_impl": "ring", "loss_block": 3},
    "clip siglip conv cbow": {
        "loss_name": "sigmoid",
        "image": CONV,
        "text": {"kind": "cbow", "width": 32},
    },
}


def _tasks() -> dict[str, ConfigDict]:
    """Every `tiny*` preset of every config, and the variants."""
    found = {}
    for module in pkgutil.iter_modules(configs.__path__):
        presets = getattr(
            importlib.import_module(f"mmjax_configs.{module.name}"), "PRESETS", {}
        )
        for name in presets:
            config = presets[name]() if name.startswith("tiny") else {}
            # tiny_imagenet is named after its data, which are not here
            if "task" in config and ROOT not in str(config.data.train):
                found[f"{module.name} {name}"] = config
    for name, keys in VARIANTS.items():
        config = found[f"{name.split()[0]} tiny"].copy_and_resolve_references()
        for key, value in keys.items():
            config.task[key] = ConfigDict(value) if isinstance(value, dict) else value
        config.data.fields.image.size = config.task.image_size
        found[name] = config
    return found


TASKS = _tasks()


@functools.cache
def _batches(name: str, count: int = 5) -> list[dict[str, np.ndarray]]:
    """The first batches of a config's own data; two rows of each are the same."""
    config = TASKS[name].copy_and_resolve_references()
    config.batch_size = 8
    parts = setup.build(config)
    rows = pipeline.TrainIterator(
        parts.source, parts.batch_fields, batch_size=8, seed=0, threads=0
    )
    made = [next(rows) for _ in range(count)]
    for batch in made:
        del batch["_broken"]
        for value in batch.values():  # on one device, and across two
            value[1], value[-1] = value[0], value[2]
    return made


@functools.cache
def _initial(name: str) -> tuple:
    """(optimizer config, host state at step 0), the same for every layout."""
    task, batch = base.build(TASKS[name].task), _batches(name)[0]
    variables = jax.device_get(jax.jit(task.init)(jax.random.key(0), batch))
    # Batch norm over eight rows is ill-conditioned: small steps keep rounding small.
    lr = 0.005 if "resnet" in name else 0.05
    sgd = optim.OptimConfig(
        name="sgd", lr=lr, warmup=0, clip_norm=1.0, schedule="constant"
    )
    tx, _, _ = optim.make(sgd, 5, variables.params, couples_rows=task.couples_rows)
    state = TrainState(
        step=np.zeros((), np.int32),
        vars=variables,
        opt_state=jax.device_get(tx.init(variables.params)),
        ema=None,
        rng=None,  # a key is donated with the state, so each layout makes its own
    )
    return sgd, state


@functools.cache
def _trained(task_name: str, layout_name: str) -> dict[str, np.ndarray]:
    """Parameters and extra after five SGD steps."""
    task = base.build(TASKS[task_name].task)
    cfg, devices = LAYOUTS[layout_name]
    layout = parallel.Layout(cfg, jax.devices()[:devices])
    sgd, state = _initial(task_name)
    batches = _batches(task_name)
    made = update.build(task, sgd, layout, steps=5, batch=batches[0])
    state = state.replace(rng=jax.random.key(1))
    state = jax.device_put(state, layout.shardings(state))
    run = layout.compile_step(made.step, state)
    for batch in batches:
        state, metrics = run(state, layout.load(batch))
    assert np.isfinite(float(metrics["loss"]))
    found = jax.device_get({"params": state.vars.params, "extra": state.vars.extra})
    return tree.flatten(found)


def _sampled(task: str) -> tuple[str, ...]:
    """Layouts that `make test` compiles; the others are `make test-long`'s.

    One family shows that a mesh is right, all of them what several devices change.
    """
    if task in ("clip tiny", "prior tiny"):
        return ("jit 2x2x1", "jit 1x2x2", "pmap x4")
    if task in ("vqvae tiny", "clip siglip ring", "clip resnet"):
        return ("jit 2x2x1",)
    return () if task.split()[1].startswith("tiny_") else ("pmap x4",)


@pytest.mark.parametrize(
    ("task", "layout"),
    [
        pytest.param(
            *(task, layout),
            marks=[] if layout in _sampled(task) else [pytest.mark.long],
        )
        for task in TASKS
        for layout in LAYOUTS
        if layout != "one device"
    ],
)
def test_layouts_agree(task: str, layout: str):
    want, got = _trained(task, "one device"), _trained(task, layout)
    assert want.keys() == got.keys()
    for path, value in want.items():
        np.testing.assert_allclose(got[path], value, atol=1e-5, err_msg=path)


def test_fsdp_really_splits():
    layout = parallel.Layout(LAYOUTS["jit 1x2x2"][0], jax.devices()[:4])
    task = base.build(TASKS["clip tiny"].task)
    shapes = jax.eval_shape(task.init, jax.random.key(0), _batches("clip tiny")[0])
    split = [
        path
        for path, s in tree.flatten(layout.shardings(shapes.params)).items()
        if not s.is_fully_replicated
    ]
    assert any(path.endswith("qkv/kernel") for path in split), split


def test_every_task_module_is_covered():
    from mmjax import tasks

    names = {m.name for m in pkgutil.iter_modules(tasks.__path__)} - {"base", "stage1"}
    assert names == {config.task.name for config in TASKS.values()}


def test_published_configs_name_their_model():
    task = base.build(clip_config.get_config("vit_b32").task)
    assert task.model.image.depth == 12
