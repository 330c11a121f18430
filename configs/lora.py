"""Low-rank adapters on the frozen weights of any task. `mmjax finetune` makes its own.

| preset | data | cost on 2 CPU cores | expect |
|---|---|---|---|
| tiny (default) | shapes | seconds | nothing: it is for tests |
"""

from ml_collections import ConfigDict

from mmjax_configs import clip, common


def tiny() -> ConfigDict:
    """CLIP's tiny preset with factors in its attention, on random frozen weights."""
    config = clip.tiny()
    config.task = ConfigDict(
        dict(
            name="lora",
            base=config.task,
            rank=2,
            alpha=4.0,
            targets=(r"(qkv|out)/kernel$",),
            also=("^logit_scale$",),
        )
    )
    return config


PRESETS = {f.__name__: f for f in (tiny,)}
get_config = common.chooser(PRESETS)
