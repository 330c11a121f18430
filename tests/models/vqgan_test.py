"""VQGAN's networks: their parts against loops in numpy, their numbers, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy_layers import attend, conv, dense, filled, group_norm, silu

from mmjax.errors import UserError
from mmjax.models import autoencoder_kl, gumbel_vq, image_tokenizer, vqgan

GROUPS = 4
NET = {"width": 8, "mult": (1, 2), "depth": 1, "hidden": 6, "groups": GROUPS}


def block(x_hwc, p):
    y = x_hwc
    for i in (1, 2):
        y = conv(silu(group_norm(y, p[f"norm_{i}"], GROUPS)), p[f"conv_{i}"])
    return (dense(x_hwc, p["skip"]) if "skip" in p else x_hwc) + y


def attention(x_hwc, p):
    h, w, c = x_hwc.shape
    y_nc = group_norm(x_hwc, p["norm"], GROUPS).reshape(-1, c)
    q, k, v = np.split(dense(y_nc, p["attention"]["qkv"]), 3, axis=-1)
    return x_hwc + dense(attend(q, k, v), p["attention"]["out"]).reshape(h, w, c)


def middle(x_hwc, p):
    x_hwc = attention(block(x_hwc, p["middle_block_0"]), p["middle_attention"])
    return block(x_hwc, p["middle_block_1"])


def test_the_encoder_is_its_definition():
    net = vqgan.VqganNet(**NET, attention=(1,))
    module = net.encoder(5, "float32", double=True)
    x = np.random.default_rng(1).normal(size=(2, 8, 8, 3)).astype(np.float32)
    variables = filled(module, x)
    p = jax.tree.map(np.float64, variables["params"])
    want = []
    for y in x.astype(np.float64):
        y = block(conv(y, p["conv_in"]), p["level_0_block_0"])
        y = conv(y, p["down_1"], stride=2, before=0)
        y = attention(block(y, p["level_1_block_0"]), p["level_1_attention_0"])
        y = silu(group_norm(middle(y, p), p["norm"], GROUPS))
        want.append(dense(conv(y, p["conv_out"]), p["point"]))
    got = jax.jit(module.apply)(variables, x)
    assert got.shape == (2, 4, 4, 10)
    np.testing.assert_allclose(got, want, atol=1e-4 * np.abs(want).max())


def test_the_decoder_is_its_definition():
    net = vqgan.VqganNet(**NET, attention=(0,))
    module = net.decoder(5, "float32")
    z = np.random.default_rng(1).normal(size=(1, 3, 3, 5)).astype(np.float32)
    variables = filled(module, z)
    p = jax.tree.map(np.float64, variables["params"])
    y = middle(conv(dense(z[0].astype(np.float64), p["point"]), p["conv_in"]), p)
    for i in (0, 1):
        y = block(y, p[f"level_1_block_{i}"])
    y = conv(y.repeat(2, 0).repeat(2, 1), p["up_1"])
    for i in (0, 1):
        y = attention(block(y, p[f"level_0_block_{i}"]), p[f"level_0_attention_{i}"])
    want = conv(silu(group_norm(y, p["norm"], GROUPS)), p["conv_out"])
    (got,) = jax.jit(module.apply)(variables, z)
    np.testing.assert_allclose(got, want, atol=1e-4 * np.abs(want).max())


SPEC = {"image_size": 8, "code_dim": 6, "net": {"kind": "vqgan", **NET}}


def test_tokens_are_the_nearest_codes():
    """By the distances of all pairs; and the codes are what is drawn."""
    spec = {"kind": "vqvae", "vocab_size": 7, "ema": False, **SPEC}
    module = image_tokenizer.build(spec | {"net": spec["net"] | {"attention": ()}})
    x = np.random.default_rng(2).uniform(size=(2, 8, 8, 3)).astype(np.float32)
    variables = filled(module, x)
    z_bnd = np.asarray(module.apply(variables, x, method="encode"), np.float64)
    codes_kd = variables["params"]["codebook"].astype(np.float64)
    far_bnk = np.square(z_bnd[:, :, None] - codes_kd).sum(-1)
    ids_bn = module.apply(variables, x, method="encode_tokens")
    np.testing.assert_array_equal(ids_bn, far_bnk.argmin(-1))
    drawn = module.apply(variables, ids_bn, method="decode_tokens")
    y = module.apply(variables, codes_kd[far_bnk.argmin(-1)], method="decode")
    np.testing.assert_allclose(drawn, np.clip((y + 1) / 2, 0, 1), atol=1e-5)


def test_gumbel_tokens_are_the_likeliest():
    fields = {"vocab_size": 7, **SPEC, "net": SPEC["net"] | {"attention": ()}}
    module = gumbel_vq.build(fields)
    x = np.random.default_rng(2).uniform(size=(2, 8, 8, 3)).astype(np.float32)
    variables = filled(module, x)
    p = variables["params"]
    encoder = vqgan.VqganNet(**NET, attention=()).encoder(6, "float32")
    z_bggd = encoder.apply({"params": p["encoder"]}, 2 * x - 1)
    logits_bggv = dense(np.asarray(z_bggd), p["logits_of"])
    ids_bn = module.apply(variables, x, method="encode_tokens")
    np.testing.assert_array_equal(ids_bn, logits_bggv.argmax(-1).reshape(2, -1))


def test_latents_are_what_the_moments_say():
    net = {**NET, "attention": ()}
    fields = {"image_size": 8, "code_dim": 4, "net": net, "scale": 0.5, "shift": 0.1}
    module = autoencoder_kl.build(fields)
    x = np.random.default_rng(2).uniform(size=(2, 8, 8, 3)).astype(np.float32)
    variables = filled(module, x)
    both = module.encoder.apply({"params": variables["params"]["encoder"]}, 2 * x - 1)
    mean, log_variance = module.apply(variables, x, method="moments")
    np.testing.assert_allclose(mean, both[..., :4], atol=1e-5)
    want = np.clip(both[..., 4:], -30, 20)
    np.testing.assert_allclose(log_variance, want, atol=1e-4)


def test_kl_is_that_of_gaussians():
    rng = np.random.default_rng(0)
    mean, log_variance = rng.normal(size=(2, 3, 4, 4, 2))
    got = autoencoder_kl.kl(jnp.asarray(mean), jnp.asarray(log_variance))
    z = mean + np.exp(0.5 * log_variance) * rng.normal(size=(20_000, *mean.shape))
    log_q = -0.5 * ((z - mean) ** 2 / np.exp(log_variance) + log_variance)
    drawn = (log_q + 0.5 * z**2).sum((2, 3, 4)).mean(0)
    np.testing.assert_allclose(got, drawn, rtol=0.02)
    assert float(autoencoder_kl.kl(*jnp.zeros((2, 1, 2, 2, 3)))[0]) == 0


def test_every_gradient_is_there():
    net = vqgan.VqganNet(**NET, attention=(1,))
    x = np.random.default_rng(1).normal(size=(1, 8, 8, 3)).astype(np.float32)
    for module, args in (
        (net.encoder(5, "float32"), x),
        (net.decoder(5, "float32"), x[:, :4, :4].repeat(2, -1)[..., :5]),
    ):
        params = filled(module, args)["params"]

        def loss(params, module=module, args=args):
            return jnp.square(module.apply({"params": params}, args)).mean()

        for path, leaf in jax.tree_util.tree_leaves_with_path(
            jax.jit(jax.grad(loss))(params)
        ):
            assert np.any(leaf), path


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"attention": (2,)}, "attention names level 2 of 2: use 0 to 1"),
        ({"groups": 3}, "width 8 x 1 must split over 3 groups"),
        ({"depth": 0}, "depth 0"),
        ({"points": False}, "codes are 4 wide and hidden is 6"),
    ],
)
def test_bad_numbers_are_named(more, words):
    fields = {"image_size": 8, "code_dim": 4, "net": {**NET, "attention": ()} | more}
    with pytest.raises((UserError, ValueError), match=words):
        autoencoder_kl.build(fields)


def test_sides_that_do_not_split_are_named():
    fields = {"image_size": 9, "code_dim": 4, "net": {**NET, "attention": ()}}
    with pytest.raises(UserError, match="image_size is 9 and a latent stands for 2"):
        autoencoder_kl.build(fields)
