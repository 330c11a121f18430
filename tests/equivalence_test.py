"""One step body, two compilers, four layouts: the same parameters.

Every `tiny*` preset of every config takes part, and the variants of CLIP below.
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
from mmjax.state import TrainState
from mmjax.tasks import base
from mmjax.train import optim, update
from mmjax_configs import clip as clip_config

LAYOUTS = {
    "one device": ({"mode": "jit"}, 1),
    "jit 2x2x1": ({"mode": "jit", "mesh": {"data": 2, "fsdp": 2, "tensor": 1}}, 4),
    "jit 1x2x2": ({"mode": "jit", "mesh": {"data": 1, "fsdp": 2, "tensor": 2}}, 4),
    "pmap x4": ({"mode": "pmap"}, 4),
}
TINY = {
    "preset": "",
    "embed_dim": 16,
    "vocab_size": 64,
    "context": 8,
    "image_size": 32,
    "image": {"kind": "vit", "width": 32, "depth": 2, "patch": 8, "heads": 4},
    "text": {"kind": "transformer", "width": 32, "depth": 2, "heads": 4},
}
RESNET = {"kind": "resnet", "width": 8, "depths": (1, 1), "heads": 4}
CLIP = {
    "clip vit": {"name": "clip", **TINY},
    "clip scan": {"name": "clip", **TINY, "scan": True, "equal_captions": "positive"},
    "clip resnet": {"name": "clip", **TINY, "image": RESNET},
    "clip chunked": {
        "name": "clip",
        **TINY,
        "loss_impl": "chunked",
        "loss_block": 3,
        "equal_captions": "positive",
    },
    "siglip ring": {
        "name": "clip",
        **TINY,
        "loss_name": "sigmoid",
        "loss_impl": "ring",
        "loss_block": 3,
    },
    "siglip conv cbow": {
        "name": "clip",
        **TINY,
        "loss_name": "sigmoid",
        "image": {"kind": "conv", "width": 8, "depths": (1, 1)},
        "text": {"kind": "cbow", "width": 32},
    },
}


def _presets() -> dict[str, ConfigDict]:
    """The `tiny*` presets of every family but CLIP, by name."""
    found = {}
    for module in pkgutil.iter_modules(configs.__path__):
        if module.name in ("common", "clip", "suites"):
            continue
        presets = importlib.import_module(f"mmjax_configs.{module.name}").PRESETS
        for name in presets:
            if name.startswith("tiny"):
                found[f"{module.name} {name}"] = presets[name]()
    return found


PRESETS = _presets()
TASKS = CLIP | {name: config.task for name, config in PRESETS.items()}


def _sizes(task_name: str) -> tuple[int, int, int]:
    """(image side, text ids, text positions) of a task's batches."""
    if task_name in CLIP:
        return 32, 64, 8
    fields = PRESETS[task_name].data.fields
    if "tokens" not in fields:
        return fields.image.size, 0, 0
    return fields.image.size, fields.tokens.vocab_size, fields.tokens.context


def _batches(
    count: int, side: int, vocab: int, context: int, rows: int = 8
) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    made = []
    for _ in range(count):
        image = rng.integers(0, 255, (rows, side, side, 3), dtype=np.uint8)
        batch = {"image": image, "label": np.arange(rows, dtype=np.int32) % 4}
        if vocab:
            shape, end = (rows, context), context * 2 // 3
            tokens = rng.integers(1, vocab - 2, shape, dtype=np.int32)
            tokens[:, 0], tokens[:, end], tokens[:, end + 1 :] = vocab - 2, vocab - 1, 0
            tokens[1] = tokens[0]  # equal captions, on one device and across two
            tokens[-1] = tokens[2]
            batch |= {"tokens": tokens, "tokens_mask": tokens != 0}
        made.append(batch)
    return made


@functools.cache
def _initial(task_name: str) -> tuple:
    """(optimizer config, host state at step 0), the same for every layout."""
    task, batch = base.build(TASKS[task_name]), _batches(1, *_sizes(task_name))[0]
    variables = jax.device_get(jax.jit(task.init)(jax.random.key(0), batch))
    # Batch norm over eight rows is ill-conditioned: small steps keep rounding small.
    lr = 0.005 if "resnet" in task_name else 0.05
    sgd = {"name": "sgd", "lr": lr, "momentum": 0.9, "warmup": 0, "clip_norm": 1.0}
    sgd["schedule"] = "constant"
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
    task = base.build(TASKS[task_name])
    cfg, devices = LAYOUTS[layout_name]
    layout = parallel.Layout(cfg, jax.devices()[:devices])
    sgd, state = _initial(task_name)
    batches = _batches(5, *_sizes(task_name))
    made = update.build(task, sgd, layout, steps=5, batch=batches[0])
    state = state.replace(rng=jax.random.key(1))
    state = jax.device_put(state, layout.shardings(state))
    run = layout.compile_step(made.step, state)
    for batch in batches:
        state, metrics = run(state, layout.load(batch))
    assert np.isfinite(float(metrics["loss"]))
    found = jax.device_get({"params": state.vars.params, "extra": state.vars.extra})
    return tree.flatten(found)


@pytest.mark.parametrize("layout", [k for k in LAYOUTS if k != "one device"])
@pytest.mark.parametrize("task", TASKS)
def test_layouts_agree(task: str, layout: str):
    want, got = _trained(task, "one device"), _trained(task, layout)
    assert want.keys() == got.keys()
    for path, value in want.items():
        np.testing.assert_allclose(got[path], value, atol=1e-5, err_msg=path)


def test_fsdp_really_splits():
    layout = parallel.Layout(LAYOUTS["jit 1x2x2"][0], jax.devices()[:4])
    task = base.build(TASKS["clip vit"])
    shapes = jax.eval_shape(
        task.init, jax.random.key(0), _batches(1, *_sizes("clip vit"))[0]
    )
    split = [
        path
        for path, s in tree.flatten(layout.shardings(shapes.params)).items()
        if not s.is_fully_replicated
    ]
    assert any(path.endswith("qkv/kernel") for path in split), split


def test_every_task_module_is_covered():
    from mmjax import tasks

    names = {m.name for m in pkgutil.iter_modules(tasks.__path__)} - {"base"}
    assert names == {cfg["name"] for cfg in TASKS.values()}


def test_published_configs_name_their_model():
    task = base.build(clip_config.get_config("vit_b32").task)
    assert task.model.image.depth == 12
