"""Recipes of fine-tuning: `mmjax finetune FROM --recipe NAME`.

| recipe | what is trained |
|---|---|
| full (default) | all weights, deeper layers at lower rates (layer-wise decay) |
| wise | as full, judged between the weights before and after too (WiSE-FT) |
| lit | the text tower, images' locked (LiT) |
| lora | low-rank factors of attention and MLPs |
| lpft | a linear head on the image tower, then both |

Keys are the fields of mmjax.finetune.recipe.Recipe. `--config.KEY=VALUE` changes the
run that comes out of it, such as `--config.optim.lr=1e-4`.
"""

from ml_collections import ConfigDict

from mmjax_configs import common

# Class names in sentences come many times in a batch: they are no negatives.
NAMED = dict(equal_captions="positive")


def full() -> ConfigDict:
    """AdamW at a tenth of pre-training's rate, 0.75 of it a layer below."""
    config = ConfigDict()
    config.steps, config.batch_size = 600, 128
    config.optim = _adamw(lr=2e-4, weight_decay=0.05, layer_decay=0.75)
    config.named = ConfigDict(NAMED)
    return config


def _adamw(**keys: object) -> ConfigDict:
    shared = dict(name="adamw", warmup=20, b2=0.98, clip_norm=1.0)
    return ConfigDict(dict(shared, **keys))


def wise() -> ConfigDict:
    """Wortsman et al. 2022: a weighted mean of the weights before and after."""
    config = full()
    config.alphas = (0.0, 0.2, 0.4, 0.5, 0.6, 0.8, 1.0)
    return config


def lit() -> ConfigDict:
    """Zhai et al. 2022, "Lu": a locked image tower, an unlocked text tower."""
    config = full()
    config.optim = _adamw(lr=5e-4, weight_decay=0.05, freeze=("^image(_proj)?/",))
    return config


def lora() -> ConfigDict:
    """Hu et al. 2021, on the matrices of all blocks of both towers."""
    config = full()
    config.optim = _adamw(lr=2e-3, weight_decay=0.0)
    config.around = dict(
        name="lora",
        rank=8,
        alpha=16.0,
        targets=(r"(block\w*|blocks)/.*kernel$",),
    )
    return config


def lpft() -> ConfigDict:
    """Kumar et al. 2022: the head alone at first, so that features are not bent."""
    config = full()
    config.probe = ConfigDict(dict(steps=300, optim=_adamw(lr=1e-2)))
    return config


PRESETS = {f.__name__: f for f in (full, wise, lit, lora, lpft)}
get_config = common.chooser(PRESETS)
