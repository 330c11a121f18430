"""Captions of images.

| preset | decoder | data | cost on 1 CPU core | expect |
|---|---|---|---|---|
| shapes (default) | soft attention over a ViT's patches | shapes | minutes | |
| tiny | soft attention | shapes | seconds | nothing: it is for tests |
| tiny_hard, tiny_lstm, tiny_transformer | of that name | shapes | seconds | |
"""

from ml_collections import ConfigDict

from mmjax_configs import common


def _run(*, steps: int, batch_size: int, context: int, **task: object) -> ConfigDict:
    config = common.run(steps=steps, batch_size=batch_size)
    config.task = ConfigDict(dict(name="caption", context=context, **task))
    config.data.fields.tokens = dict(kind="text", tokenizer="words", context=context)
    config.task.sampling = dict(forbid=(0, 1))  # padding, unknown words
    config.optim.b2, config.optim.eps = 0.999, 1e-8
    config.optim.lr, config.optim.weight_decay = 1e-3, 0.0
    config.optim.clip_norm = 5.0
    config.graft = ConfigDict()
    return config


def _tiny(kind: str, **task: object) -> ConfigDict:
    """Seconds on a CPU; every part of a real run, none of its size."""
    decoder = dict(kind=kind, width=16, dropout=0.1)
    image = dict(kind="vit", width=16, depth=1, heads=2, patch=8)
    config = _run(
        steps=4,
        batch_size=16,
        context=12,
        vocab_size=60,
        image=image,
        image_size=16,
        decoder=decoder,
        **task,
    )
    config.log_every = 1
    config.data.fields.image = common.images(16)
    config.data.fields.tokens.update(vocab_size=60, min_count=1)
    config.data.train = "shapes:train?size=16&count=64"
    config.checkpoint.every = 2
    config.evals.val = dict(
        type="mean_loss", every=4, source="shapes:val?size=16&count=16"
    )
    return config


def tiny() -> ConfigDict:
    """Soft attention over four patches."""
    return _tiny("soft", doubly=1.0)


def tiny_hard() -> ConfigDict:
    """Hard attention."""
    return _tiny("hard")


def tiny_lstm() -> ConfigDict:
    """Show and Tell."""
    return _tiny("lstm")


def tiny_transformer() -> ConfigDict:
    """Attention throughout."""
    config = _tiny("transformer")
    config.task.decoder.update(depth=2, heads=2, queries=3)
    return config


PRESETS = {f.__name__: f for f in (tiny, tiny_hard, tiny_lstm, tiny_transformer)}
get_config = common.chooser(PRESETS)
