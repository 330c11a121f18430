"""The DALL-E prior: text and then image tokens, over a trained image tokenizer.

    mmjax train --config configs/vqvae.py:shapes --workdir runs/vqvae
    mmjax train --config configs/prior.py:shapes --workdir runs/prior \\
      --config.graft.tokenizer=runs/vqvae

| preset | stage 1 | cost | expect |
|---|---|---|---|
| shapes (default) | configs/vqvae.py:shapes | 2 CPU cores | README |
| emoji | configs/vqvae.py:emoji | 2 CPU cores, 7 minutes | README |
| own | configs/vqvae.py:own | 2 CPU cores | docs/own.md |
| dalle_12b | a dVAE of 8192 codes, 32 x 32 | 1024 V100 in the paper | the paper |
| mindalle_1_3b | a VQGAN of 16384 codes, 16 x 16 | a pod | minDALL-E |
| tiny | random | seconds | nothing: it is for tests |
"""

from ml_collections import ConfigDict

from mmjax_configs import common
from mmjax_configs.common import ROOT


def _run(
    *, steps: int, batch_size: int, stage1: dict, vocab: int, context: int, **model: int
) -> ConfigDict:
    """What the presets share; `stage1` is the tokenizer's spec."""
    config = common.run(steps=steps, batch_size=batch_size)
    config.task = ConfigDict(
        dict(name="prior", stage1=stage1, vocab_size=vocab, context=context, **model)
    )
    size = stage1["image_size"]
    config.data.fields.tokens = common.text(vocab, context)
    config.data.fields.image = common.images(size)
    config.data.fields.image_tokens = dict(kind="tokens")  # of `mmjax data encode`
    config.optim.b2, config.optim.eps = 0.96, 1e-8
    config.optim.weight_decay = 0.045
    config.optim.clip_norm = 1.0
    config.graft = ConfigDict(dict(tokenizer=""))
    return config


def _codes(size: int, codes: int, **net: object) -> dict:
    """The spec of a VQ-VAE, as configs/vqvae.py trains it."""
    return dict(
        kind="vqvae", image_size=size, vocab_size=codes, net=dict(kind="conv", **net)
    )


def shapes() -> ConfigDict:
    """Scenes of 8 x 8 tokens from their captions."""
    config = _run(
        steps=1800,
        batch_size=64,
        stage1=_codes(
            32, 512, widths=(64,), stem=4, depth=0, decoder_depth=2, head=256
        ),
        vocab=640,
        context=24,
        width=128,
        depth=4,
        heads=4,
    )
    config.task.masks = "full"  # 64 tokens: nothing to save
    config.task.neighbours = True
    config.task.act = "gelu_tanh"
    config.task.caption_dropout = 0.1
    # Below temperature 1 objects vanish: at each place the start of one is improbable.
    config.task.sampling = dict(temperature=1.0, guidance=1.5)
    config.data.train = "shapes:train?size=32&count=40000&seed=2&keep=true"
    config.optim.name = "muon"
    config.optim.lr = 6e-3
    config.optim.warmup = 60
    config.evals.val = dict(
        type="mean_loss", every=config.steps, source="shapes:val?size=32&count=512"
    )
    return config


def _small(steps: int) -> ConfigDict:
    """16 x 16 tokens of the tokenizers that configs/vqvae.py trains at 64 px."""
    config = _run(
        steps=steps,
        batch_size=32,
        stage1=_codes(64, 512, widths=(32, 64), stem=2, depth=1, decoder_depth=2),
        vocab=4096,
        context=32,
        width=192,
        depth=4,
        heads=6,
    )
    config.task.masks = "full"
    config.task.neighbours = True
    config.task.act = "gelu_tanh"
    config.task.caption_dropout = 0.1
    config.optim.name = "muon"
    config.optim.lr = 4e-3
    # 1,200 images are soon known by heart; crops of them keep that off for longer.
    config.data.fields.image.train_scale = (0.7, 1.0)
    return config


def own() -> ConfigDict:
    """Your captioned images, by a tokenizer of vqvae:own: --config.graft.tokenizer."""
    config = common.own(_small(steps=600))
    config.data.fields.image = common.photos(64)
    config.evals.held_out = dict(
        type="mean_loss", every=200, source="held_out", partial="mask"
    )
    return config


def emoji() -> ConfigDict:
    """Noto emoji of 16 x 16 tokens from their names and keywords."""
    config = _small(steps=400)
    config.data.train = (
        f"webdataset:{ROOT}/emoji/noto128-shared.tar?text=caption,keywords"
        "&part=train&keep=true"
    )
    config.evals.held_out = dict(
        type="mean_loss",
        every=200,
        source=config.data.train.replace("part=train", "part=held_out"),
    )
    return config


def tiny() -> ConfigDict:
    """Seconds on a CPU; every part of a real run, none of its size."""
    config = _run(
        steps=4,
        batch_size=16,
        stage1=_codes(16, 32, widths=(8,), stem=4, depth=1, decoder_depth=1),
        vocab=520,
        context=16,
        width=32,
        depth=4,
        heads=2,
    )
    config.log_every = 1
    config.task.conv_kernel = 3
    config.task.caption_dropout = 0.5
    config.task.text_pads = "predicted"
    config.data.train = "shapes:train?size=16&count=256"
    config.optim.ema = 0.9
    config.checkpoint.every = 2
    config.graft = ConfigDict()  # stage 1 stays random
    source = "shapes:val?size=16&count=32"
    config.evals.val = dict(type="mean_loss", every=4, source=source)
    return config


def dalle_12b() -> ConfigDict:
    """The paper's prior (Ramesh et al. 2021, section 2.2 and appendix B).

    In place of five halvings on plateaus, the learning rate falls along a cosine to
    the same 1/32. The paper averages every 25 updates with decay 0.99; here every one,
    with its 25th root. It keeps fewer bits of gradients and moments than we do. Its 256
    positions of text are all for byte pairs, and so are 256 of our 258: the others are
    the start of the text, which the paper has outside of its count, and its end, which
    the paper lacks.
    """
    config = _run(
        steps=430_000,
        batch_size=1024,
        stage1=dict(kind="dvae", image_size=256, vocab_size=8192),
        vocab=16384,
        context=258,
        width=3968,
        depth=64,
        heads=62,
    )
    config.task.text_pads = "predicted"
    config.task.scan = True
    config.task.remat = "full"
    config.task.dtype = "bfloat16"
    config.data.train = "webdataset:SHARDS-*.tar"
    config.data.fields.tokens.dropout = 0.1
    config.data.fields.image = common.photos(  # Listing 2
        256, method="area", train_crop="near_centre", train_zoom=(1.0, 9 / 8)
    )
    config.data.workers = 16
    config.optim.lr, config.optim.final_lr = 4.5e-4, 4.5e-4 / 32
    config.optim.warmup = 5000
    config.optim.clip_norm = 4.0
    config.optim.ema = 0.99 ** (1 / 25)
    config.checkpoint.every = 2000
    return config


def mindalle_1_3b() -> ConfigDict:
    """minDALL-E's prior of 1.3 billion parameters over its VQGAN, with its sampling.

    The released weights fit: `mmjax convert FOLDER RUN --config.task.scan=true`. Its
    schedule and batch of pre-training are not published; the optimizer's numbers
    are those of its transfer learning.
    """
    stage1 = dict(
        kind="vqvae", image_size=256, vocab_size=16384, code_dim=256, ema=False
    )
    config = _run(
        steps=200_000,
        batch_size=512,
        stage1=dict(stage1, net=dict(kind="vqgan")),
        vocab=16384,
        context=64,
        width=1536,
        depth=42,
        heads=24,
    )
    config.task.masks, config.task.places = "full", "free"
    config.task.init_style = "mindalle"
    config.task.scan = True
    config.task.remat = "dots_no_batch"
    config.task.dtype = "bfloat16"
    config.task.sampling = dict(top_k=256, temperature=1.0, dtype="bfloat16")
    config.data.train = "webdataset:SHARDS-*.tar"
    config.data.fields.image = common.photos(256, method="bicubic")
    config.data.workers = 16
    config.optim.lr = 1e-4
    config.optim.b2 = 0.95
    config.optim.clip_norm = 4.0
    config.checkpoint.every = 2000
    return config


PRESETS = {f.__name__: f for f in (shapes, own, emoji, tiny, dalle_12b, mindalle_1_3b)}
get_config = common.chooser(PRESETS)
