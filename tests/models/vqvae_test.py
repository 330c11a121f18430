"""VQ-VAE: shapes, the density it states, and how far its codes look."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.models import vqvae

CONV = {"kind": "conv", "widths": (8, 12), "stem": 2, "depth": 1, "decoder_depth": 1}
SPEC = {"image_size": 16, "vocab_size": 10, "code_dim": 4, "net": CONV}
NETS = {
    "plain": CONV,
    "one stage": {**CONV, "widths": (8,), "stem": 4},
    "vqgan": {**CONV, "norm": "group", "groups": 4, "attention": True},
    "openai": {"kind": "openai", "hidden": 8, "groups": 3, "blocks": 1},
}


def pictures(b=3, size=16):
    rng = np.random.default_rng(0)
    return jnp.asarray(rng.uniform(size=(b, size, size, 3)), jnp.float32)


def made(**more):
    module = vqvae.build(SPEC | more)
    return module, jax.jit(module.init)(jax.random.key(0), pictures())


@pytest.mark.parametrize("ema", [True, False])
@pytest.mark.parametrize("net", NETS)
def test_tokens_and_back(net, ema):
    module, variables = made(net=NETS[net], ema=ema)
    assert (module.image_size, module.grid, module.vocab_size) == (16, 4, 10)
    ids = module.apply(variables, pictures(), method="encode_tokens")
    assert ids.shape == (3, 16) and ids.dtype == jnp.int32
    assert 0 <= int(ids.min()) and int(ids.max()) < 10
    back = module.apply(variables, ids, method="decode_tokens")
    assert back.shape == (3, 16, 16, 3) and back.dtype == jnp.float32
    assert float(back.min()) >= 0 and float(back.max()) <= 1
    np.testing.assert_array_equal(back, module.apply(variables, pictures()))
    collections = {"params", "likelihood"} | ({"codebook"} if ema else set())
    assert set(variables) == collections
    assert ("codebook" in variables["params"]) == (not ema)


def test_tokens_are_row_major():
    module, variables = made(net={**CONV, "depth": 0, "decoder_depth": 0})
    ids = jnp.arange(16)[None] % 10
    base = module.apply(variables, ids, method="decode_tokens")
    other = module.apply(variables, ids.at[0, 6].set(0), method="decode_tokens")
    rows, columns = np.nonzero(np.abs(base - other)[0].max(-1) > 1e-7)
    # token 6 is row 1, column 2; the decoder's first convolution adds a neighbour
    assert (rows.min(), rows.max()) == (0, 11)
    assert (columns.min(), columns.max()) == (4, 15)


def test_plain_codes_are_local():
    module, variables = made(net={**CONV, "widths": (8,), "stem": 4, "depth": 1})

    def corner(x):
        return module.apply(variables, x, method="encode")[0, 0].sum()

    reach = np.abs(jax.grad(corner)(pictures(1))[0]).max(-1) > 0
    assert reach[:8, :8].any() and not reach[8:].any() and not reach[:, 8:].any()


def test_codes_are_the_nearest():
    module, variables = made()
    z = np.asarray(module.apply(variables, pictures(), method="encode"))
    codes = np.asarray(variables["codebook"]["codes"])
    want = ((z[:, :, None] - codes) ** 2).sum(-1).argmin(-1)
    ids = module.apply(variables, pictures(), method="encode_tokens")
    np.testing.assert_array_equal(ids, want)


def test_nll_is_a_gaussian_density():
    module, variables = made()
    variables = variables | {"likelihood": {"variance": jnp.asarray(0.03)}}
    x, ids = pictures(), jnp.arange(48).reshape(3, 16) % 10
    back = np.asarray(module.apply(variables, ids, method="decode_tokens"), np.float64)
    density = np.exp(-((x - back) ** 2) / (2 * 0.03)) / math.sqrt(2 * math.pi * 0.03)
    want = -np.log(density).sum((1, 2, 3))
    got = module.apply(variables, x, ids, method="nll")
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_the_size_of_vqgan():
    net = {"widths": (128, 128, 256, 256, 512), "stem": 1, "norm": "group"}
    spec = {
        "image_size": 256,
        "vocab_size": 1024,
        "code_dim": 256,
        "net": net | {"groups": 32, "attention": True, "decoder_depth": 3},
    }
    module = vqvae.build(spec)
    assert module.grid == 16
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 256, 256, 3)))
    count = sum(x.size for x in jax.tree.leaves(shapes["params"]))
    assert 40e6 < count < 80e6, f"{count / 1e6:.1f} M"


@pytest.mark.parametrize(
    "more, words",
    [
        ({"vocab": 3}, r"here: unknown key 'vocab'; did you mean 'vocab_size'"),
        ({"vocab_size": 0}, "here: vocab_size is 0"),
        ({"image_size": 18}, r"here.image_size is 18 .* multiple of 4"),
        ({"net": {"kind": "cnv"}}, r"here.net.kind is 'cnv'; did you mean 'conv'"),
        ({"net": {**CONV, "norm": "batch"}}, "here.net: norm is 'batch'"),
        ({"net": {**CONV, "widths": ()}}, "here.net: widths"),
        ({"net": {**NETS["vqgan"], "groups": 5}}, "width 8 must split over 5 groups"),
        ({"net": {"kind": "openai", "hidden": 6}}, "here.net: hidden is 6.* use 4"),
        ({"net": {"kind": "openai", "stem": 2}}, "here.net: unknown key 'stem'"),
    ],
)
def test_wrong_specs_are_told(more, words):
    with pytest.raises(UserError, match=words):
        vqvae.build(SPEC | more, "here")


def test_pictures_of_another_size_are_told():
    module, variables = made()
    with pytest.raises(UserError, match=r"\(b, 16, 16, 3\), .* \(3, 20, 20, 3\)"):
        module.apply(variables, pictures(size=20), method="encode_tokens")
