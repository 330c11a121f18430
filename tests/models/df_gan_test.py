"""DF-GAN's networks against their definitions in numpy, and their published size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.models import df_gan
from mmjax.models.df_gan import DfGan
from tests.support.numpy_layers import conv, dense, filled

RNG = np.random.default_rng(2)
X_BHWC = RNG.normal(size=(2, 4, 4, 6)).astype(np.float32)
COND_BD = RNG.normal(size=(2, 5)).astype(np.float32)


def leaky(x):
    return np.where(x > 0, x, 0.2 * x)


def mlp(p, name, cond_d):
    return dense(np.maximum(dense(cond_d, p[f"{name}_in"]), 0), p[f"{name}_out"])


def fuse(x_hwc, p, cond_d):
    for name in ("affine_0", "affine_1"):
        scale, shift = (mlp(p[name], part, cond_d) for part in ("scale", "shift"))
        x_hwc = leaky(scale * x_hwc + shift)
    return x_hwc


def doubled(x_hwc):
    return x_hwc.repeat(2, axis=0).repeat(2, axis=1)


def check(module, want, *args):
    variables = filled(module, *args)
    got = jax.jit(module.apply)(variables, *args)
    for b, one in enumerate(zip(*args, strict=True)):
        made = want(one[0], variables["params"], *one[1:])
        np.testing.assert_allclose(got[b], made, rtol=2e-5, atol=2e-4)


def test_fusion_is_two_affine_maps_of_the_text_with_leaky_relus():
    check(df_gan.DFBlock(), fuse, X_BHWC, COND_BD)


def test_fusion_begins_without_the_text():
    module = df_gan.DFBlock()
    params = module.init(jax.random.key(0), X_BHWC, COND_BD)
    np.testing.assert_array_equal(
        module.apply(params, X_BHWC, COND_BD), leaky(leaky(X_BHWC))
    )


@pytest.mark.parametrize(("features", "upsample"), [(6, True), (3, True), (6, False)])
def test_an_up_block_doubles_its_input_first(features, upsample):
    """As the paper has it; ours does at the low resolution what it may."""

    def want(x_hwc, p, cond_d):
        x_hwc = doubled(x_hwc) if upsample else x_hwc
        y = conv(fuse(x_hwc, p["fuse_0"], cond_d), p["conv_0"])
        y = conv(fuse(y, p["fuse_1"], cond_d), p["conv_1"])
        return y + (dense(x_hwc, p["shortcut"]) if "shortcut" in p else x_hwc)

    check(df_gan.UpBlock(features, upsample), want, X_BHWC, COND_BD)


@pytest.mark.parametrize("features", [6, 3])
def test_a_down_block_halves_both_paths(features):
    def want(x_hwc, p):
        y = leaky(conv(x_hwc, p["conv_0"], stride=2))
        y = leaky(conv(y, p["conv_1"]))
        x = dense(x_hwc, p["shortcut"]) if "shortcut" in p else x_hwc
        x = x.reshape(2, 2, 2, 2, -1).mean((1, 3))
        return x + p["factor"] * y

    check(df_gan.DownBlock(features), want, X_BHWC)


def test_both_players_by_their_definition():
    model = DfGan(image_size=16, width=2, noise=3, base_blocks=1, patch=2)
    variables = filled(model, COND_BD[:, :3], COND_BD)
    p = variables["params"]

    def run(method, *args):
        return jax.jit(lambda v, *a: model.apply(v, *a, method=method))(
            variables, *args
        )

    images = np.asarray(run("generate", COND_BD[:, :3], COND_BD))
    features = run("features", images)
    scores_b = run("scores", features, COND_BD)
    for b, e_d in enumerate(COND_BD):
        g, cond_d = p["generator"], np.concatenate([e_d[:3], e_d])
        x = dense(e_d[:3], g["grid"]).reshape(4, 4, 4)
        for name, upsample in (("block_0", False), ("block_1", True)):
            x = doubled(x) if upsample else x
            y = conv(fuse(x, g[name]["fuse_0"], cond_d), g[name]["conv_0"])
            y = conv(fuse(y, g[name]["fuse_1"], cond_d), g[name]["conv_1"])
            short = g[name].get("shortcut")
            x = y + (dense(x, short) if short else x)
        x = conv(leaky(x), g["out"]).reshape(8, 8, 2, 2, 3)
        x = np.tanh(x).swapaxes(1, 2).reshape(16, 16, 3)
        np.testing.assert_allclose(images[b], x, atol=1e-4)
        d = p["discriminator"]
        x = images[b].reshape(8, 2, 8, 2, 3).swapaxes(1, 2).reshape(8, 8, 12)
        x = conv(x, d["stem"])
        y = leaky(conv(x, d["blocks_0"]["conv_0"], stride=2))
        y = leaky(conv(y, d["blocks_0"]["conv_1"]))
        x = dense(x, d["blocks_0"]["shortcut"]).reshape(4, 2, 4, 2, -1).mean((1, 3))
        x = x + d["blocks_0"]["factor"] * y
        np.testing.assert_allclose(features[b], x, rtol=1e-4, atol=1e-4)
        text = np.broadcast_to(e_d, (4, 4, 5))
        y = leaky(conv(np.concatenate([x, text], axis=-1), d["joint"]))
        score = (y * d["out"]["kernel"][..., 0]).sum()
        np.testing.assert_allclose(scores_b[b], score, rtol=1e-4, atol=1e-3)


def test_size_at_the_papers_numbers():
    """The authors' code at 256 px, width 32, noise 100 and text vectors of 256.

    The paper's table gives DF-GAN 19 M parameters without saying of which networks.
    The code's have 9.7 M and 6.9 M, in which the discriminator has three 1x1
    convolutions that it does not use, and ours lacks; an LSTM text encoder of the kind
    they train with (bidirectional, 2 x 128, over some 5,450 words of 300) has another
    2.1 M, and all three 18.7 M. With a first block at 4 x 4, as in the code's first
    version, the generator has 12.2 M.
    """

    def sizes(**numbers):
        shapes = jax.eval_shape(
            DfGan(**numbers).init,
            jax.random.key(0),
            *(jnp.zeros((1, n)) for n in (100, 256)),
        )["params"]
        return {k: sum(x.size for x in jax.tree.leaves(p)) for k, p in shapes.items()}

    def affine(c):  # scale and shift, each by 356 -> c -> c
        return 2 * ((356 + 1) * c + (c + 1) * c)

    def up(c, f):
        convs = (9 * c + 1) * f + (9 * f + 1) * f + (c != f) * (c + 1) * f
        return convs + 2 * affine(c) + 2 * affine(f)

    def down(c, f):
        return 16 * c * f + 9 * f * f + (c != f) * (c + 1) * f + 1

    steps = [(32, 64), (64, 128), (128, 256), (256, 256), (256, 256), (256, 256)]
    grid, out = 101 * 16 * 256, (9 * 32 + 1) * 3
    generator = grid + sum(up(c, f) for f, c in steps) + out
    head = 9 * (256 + 256) * 64 + 16 * 64
    discriminator = (9 * 3 + 1) * 32 + sum(down(c, f) for c, f in steps) + head
    assert sizes() == {"generator": generator, "discriminator": discriminator}
    unused = 3 * (256 + 1) * 256
    assert (generator, discriminator + unused) == (9_744_131, 6_915_142)
    lstm = 5450 * 300 + 2 * 4 * 128 * (300 + 128 + 2)
    assert round((generator + discriminator + unused + lstm) / 1e6, 1) == 18.7
    assert sizes(base_blocks=1)["generator"] == generator + up(256, 256) == 12_181_763


@pytest.mark.parametrize(("size", "patch"), [(24, 1), (4, 1), (32, 8), (30, 2)])
def test_sizes_that_do_not_halve_to_4_are_refused(size, patch):
    with pytest.raises(UserError, match=f"{size} and patch {patch}: use an image of"):
        _ = DfGan(image_size=size, patch=patch).channels
