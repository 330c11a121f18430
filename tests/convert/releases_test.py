"""Presets that claim a release have its weights: every name, every shape.

The lists are written from the releases' own configs (taming-transformers, CompVis'
latent-diffusion, minDALL-E), not from our networks.
"""

import jax
import numpy as np
import pytest

from mmjax import tree
from mmjax.convert.formats import _vqgan, mindalle, taming_gumbel, taming_vqgan
from mmjax.convert.name_table import Table
from mmjax.tasks import base
from mmjax_configs import autoencoder_kl, gumbel_vq, prior, vqvae


def layer(name, out, into, size):
    return {f"{name}.weight": (out, into, size, size), f"{name}.bias": (out,)}


def norm(name, width):
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def block(name, out, into):
    found = norm(f"{name}.norm1", into) | layer(f"{name}.conv1", out, into, 3)
    found |= norm(f"{name}.norm2", out) | layer(f"{name}.conv2", out, out, 3)
    return found | (layer(f"{name}.nin_shortcut", out, into, 1) if out != into else {})


def attention(name, width):
    found = norm(f"{name}.norm", width)
    for part in ("q", "k", "v", "proj_out"):
        found |= layer(f"{name}.{part}", width, width, 1)
    return found


def networks(*, ch_mult, attn_levels, z_channels, embed_dim, double_z=False):
    """taming's Encoder and Decoder of ch 128 with num_res_blocks 2."""
    ch, last, times = 128, len(ch_mult) - 1, 2 if double_z else 1
    found = layer("encoder.conv_in", ch, 3, 3)
    into = ch
    for level, mult in enumerate(ch_mult):
        at = f"encoder.down.{level}"
        for i in range(2):
            found |= block(f"{at}.block.{i}", ch * mult, into)
            into = ch * mult
            if level in attn_levels:
                found |= attention(f"{at}.attn.{i}", into)
        if level != last:
            found |= layer(f"{at}.downsample.conv", into, into, 3)
    for side in ("encoder", "decoder"):
        found |= block(f"{side}.mid.block_1", into, into)
        found |= attention(f"{side}.mid.attn_1", into)
        found |= block(f"{side}.mid.block_2", into, into)
    found |= norm("encoder.norm_out", into)
    found |= layer("encoder.conv_out", times * z_channels, into, 3)
    found |= layer("quant_conv", times * embed_dim, times * z_channels, 1)
    found |= layer("post_quant_conv", z_channels, embed_dim, 1)
    found |= layer("decoder.conv_in", into, z_channels, 3)
    for level in reversed(range(len(ch_mult))):
        at = f"decoder.up.{level}"
        for i in range(3):
            found |= block(f"{at}.block.{i}", ch * ch_mult[level], into)
            into = ch * ch_mult[level]
            if level in attn_levels:
                found |= attention(f"{at}.attn.{i}", into)
        if level:
            found |= layer(f"{at}.upsample.conv", into, into, 3)
    return (
        found | norm("decoder.norm_out", into) | layer("decoder.conv_out", 3, into, 3)
    )


F16 = networks(ch_mult=(1, 1, 2, 2, 4), attn_levels=(4,), z_channels=256, embed_dim=256)
F8 = networks(ch_mult=(1, 1, 2, 4), attn_levels=(3,), z_channels=256, embed_dim=256)
F8 |= {"quantize.embed.weight": (8192, 256)} | layer("quantize.proj", 8192, 256, 1)
KL_F8 = networks(
    ch_mult=(1, 2, 4, 4), attn_levels=(), z_channels=4, embed_dim=4, double_z=True
)


def mindalle_1_3b():
    w = 1536
    found = {"tok_emb_txt.weight": (16384, w), "pos_emb_txt.weight": (64, w)}
    found |= {"tok_emb_img.weight": (16384, w), "pos_emb_img.weight": (256, w)}
    found |= {"head_txt.weight": (16384, w), "head_img.weight": (16384, w)}
    found |= norm("ln_f", w)
    for i in range(42):
        at = f"blocks.{i}"
        found |= norm(f"{at}.ln1", w) | norm(f"{at}.ln2", w)
        maps = {f"attn.{x}": (w, w) for x in ("query", "key", "value", "proj")}
        maps |= {"mlp.0": (4 * w, w), "mlp.2": (w, 4 * w)}
        for name, shape in maps.items():
            found |= {f"{at}.{name}.weight": shape, f"{at}.{name}.bias": shape[:1]}
    found = {f"stage2.{name}": shape for name, shape in found.items()}
    codes = F16 | {"quantize.embedding.weight": (16384, 256)}
    return found | {f"stage1.{name}": shape for name, shape in codes.items()}


OURS = ("likelihood/", "latents/", "params/log_variance", "params/text_pad_embedding")


def theirs(config, table):
    """Shapes of a preset's weights by the names of the release."""
    task = base.build(config.task)
    size = config.data.fields.image.size
    batch = {"image": np.zeros((1, size, size, 3), np.uint8)}
    if config.task.name == "prior":
        tokens = np.zeros((1, config.task.context), np.int32)
        batch |= {"tokens": tokens, "tokens_mask": tokens > 0}
    made = jax.eval_shape(task.init, jax.random.key(0), batch)
    arrays = {
        path: np.broadcast_to(np.int8(0), leaf.shape)  # no memory
        for path, leaf in tree.flatten({"params": made.params, **made.extra}).items()
    }
    if made.frozen:
        frozen = tree.flatten({"frozen": made.frozen})
        arrays |= {
            path: np.broadcast_to(np.int8(0), leaf.shape)
            for path, leaf in frozen.items()
        }
    arrays = {
        path: value
        for path, value in arrays.items()
        if not path.removeprefix("frozen/tokenizer/").startswith(OURS)
    }
    return {name: value.shape for name, value in table.save(arrays).items()}


def unrolled():
    config = prior.get_config("mindalle_1_3b")
    config.task.scan = False  # a release has no stacks
    return config


@pytest.mark.parametrize(
    ("config", "table", "released"),
    [
        (
            lambda: vqvae.get_config("vqgan_f16"),
            taming_vqgan.TABLE,
            F16 | {"quantize.embedding.weight": (1024, 256)},
        ),
        (lambda: gumbel_vq.get_config("f8"), taming_gumbel.TABLE, F8),
        (
            lambda: autoencoder_kl.get_config("kl_f8"),
            Table(*_vqgan.taming()),
            KL_F8,
        ),
        (unrolled, mindalle.TABLE, mindalle_1_3b()),
    ],
    ids=["vqgan_f16", "gumbel f8", "kl_f8", "mindalle_1_3b"],
)
def test_a_preset_has_the_weights_of_its_release(config, table, released):
    assert theirs(config(), table) == released


def test_minDALLE_computes_what_its_converted_weights_do():
    """No field of the model that no shape shows differs from a converted one."""
    task = base.build(prior.get_config("mindalle_1_3b").task)
    model, net = task.model, task.tokenizer.encoder.net
    shown = {k: getattr(model, k) for k in ("masks", "places", "act", "text_pads")}
    assert shown == {
        "masks": "full",
        "places": "free",
        "act": "gelu",
        "text_pads": "ignored",
    }
    assert not model.neighbours and model.width // model.heads == 64
    assert (net.groups, net.middle, net.points) == (32, True, True)
    assert task.sampling.top_k == 256


def test_gumbel_has_the_released_schedule():
    task = base.build(gumbel_vq.get_config("f8").task)
    got = [float(task._temperature(n)) for n in (0, 500_000, 1_000_001, 2_000_000)]
    np.testing.assert_allclose(got, [0.9, 0.4500005, 1e-6, 1e-6], rtol=1e-4)
    assert task.straight_through and task.kl_weight == 1e-8
    assert gumbel_vq.get_config("f8").steps == 1_000_001


def test_vqgan_weighs_its_terms_as_taming_does():
    """taming's `legacy` order: 0.25 is the codebook's, 1 the commitment's."""
    task = base.build(vqvae.get_config("vqgan_f16").task)
    assert (task.commitment, task.codebook, task.loss_name) == (1.0, 0.25, "l1")
