"""A small run that was not trained, labelled images, and recipes of two steps."""

import jax

from mmjax.convert import import_export
from mmjax.train import config as config_lib
from mmjax.train import setup

RECIPES = """
from ml_collections import ConfigDict
from mmjax_configs import recipes

def get_config(name):
    config = recipes.PRESETS[name]()
    config.steps, config.batch_size = 2, 8
    config.optim.warmup = 1
    config.optim.lr = 0.1
    if name == "lora":
        config.around.rank = 2
        config.alphas = (0.0, 0.5, 1.0)
    if "probe" in config:
        config.probe.steps = 2
        config.probe.optim.warmup = 1
    return config
"""


def untrained(folder, seed=0):
    """A run of clip:tiny, smaller, at step 0, with one evaluator."""
    config = config_lib.load("clip:tiny")
    with config.unlocked():
        config.seed, config.optim.ema = seed, 0.0
        config.task.image = {"kind": "conv", "width": 8, "depths": (1, 1)}
        config.task.text = {"kind": "cbow", "width": 8}
        config.data.train = "shapes:train?size=16&count=64"
        config.evals = {"val": config.evals.val}
    parts = setup.build(config)
    made = parts.update.init(jax.random.key(seed), parts.example()).vars
    arrays = {"params": made.params, **made.extra, "frozen": made.frozen}
    import_export.save(parts, arrays, folder)
    return folder
