"""Adapters on the frozen weights of a task. `mmjax finetune` makes configs of its own.

| preset | data | cost on 2 CPU cores | expect |
|---|---|---|---|
| tiny (default) | shapes | seconds | nothing: it is for tests, of low-rank factors |
| tiny_prompt | shapes | seconds | nothing: it is for tests, of learned prompts |
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


def tiny_prompt() -> ConfigDict:
    """CLIP's tiny preset with two learned ids before a class name of two others."""
    config = clip.tiny()
    sentences = tuple((518, 516, 517, k, 64 + k, 519) for k in range(1, 65))
    config.task = ConfigDict(
        dict(name="prompt", base=config.task, sentences=sentences, learned=(516, 517))
    )
    config.data.train = "shapes:train?size=16&count=256&objects=1"
    config.evals.val.source = "shapes:val?size=16&objects=1&count=32"
    config.evals = ConfigDict(dict(val=config.evals.val))
    return config


PRESETS = {f.__name__: f for f in (tiny, tiny_prompt)}
get_config = common.chooser(PRESETS)
