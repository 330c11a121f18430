"""The dVAE's shape, its parameter count, and tokens that mean what they should."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax import tree
from mmjax.errors import UserError
from mmjax.models import dvae, image_tokenizer

SPEC = {
    "kind": "dvae",
    "image_size": 16,
    "vocab_size": 24,
    "hidden": 8,
    "groups": 3,
    "blocks_per_group": 1,
    "init_width": 12,
}


@pytest.fixture(scope="module")
def made():
    """(module, variables with biases that are not zero)."""
    return filled(image_tokenizer.build(SPEC))


def filled(module):
    """(module, variables) by numpy: compiling a real start takes longer than it all."""
    size, rng = module.image_size, np.random.default_rng(0)
    shapes = jax.eval_shape(
        module.init, jax.random.key(0), jnp.zeros((1, size, size, 3))
    )

    def draw(shape):
        scale = np.prod(shape.shape[:-1]) ** -0.5 if len(shape.shape) > 1 else 0.1
        return np.float32(scale * rng.normal(size=shape.shape))

    params = jax.tree.map(draw, shapes["params"])
    return module, {"params": params, "relaxation": {"temperature": jnp.ones(())}}


def call(made, method, *args):
    module, variables = made
    return jax.jit(functools.partial(module.apply, method=method))(variables, *args)


def pictures(b=2, size=16):
    return np.random.default_rng(1).uniform(size=(b, size, size, 3)).astype(np.float32)


def test_tokens_and_pictures(made):
    module, _ = made
    assert isinstance(module, dvae.DVae)
    assert module.grid == 4
    ids = call(made, "encode_tokens", pictures())
    assert ids.shape == (2, 16) and ids.dtype == jnp.int32
    assert 0 <= ids.min() and ids.max() < 24
    shown = call(made, "decode_tokens", ids)
    assert shown.shape == (2, 16, 16, 3) and shown.dtype == jnp.float32
    assert 0 <= shown.min() and shown.max() <= 1
    np.testing.assert_array_equal(call(made, "__call__", pictures()), shown)


def test_code_numbers_decode_as_one_hot_vectors(made):
    ids = np.random.default_rng(2).integers(0, 24, (2, 16))
    by_number = call(made, "decode", ids)
    by_vector = call(made, "decode", np.float32(np.eye(24)[ids]))
    for one, other in zip(by_number, by_vector, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_decoder_is_the_plain_one(made):
    """Upsampling first, as the released code does, changes nothing."""
    params = made[1]["params"]["decoder"]

    def conv(x, p):
        kernel = p["kernel"]
        kernel = kernel[None, None] if kernel.ndim == 2 else kernel
        y = jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return y + p["bias"]

    def block(x, p):
        y = x
        for i in (1, 2, 3, 4):
            y = conv(jax.nn.relu(y), p[f"conv_{i}"])
        return (conv(x, p["skip"]) if "skip" in p else x) + y / 3**2

    @jax.jit
    def plain(x):
        x = conv(x, params["conv_in"])
        for group in (1, 2, 3):
            x = x.repeat(2, 1).repeat(2, 2) if group > 1 else x
            x = block(x, params[f"group_{group}_block_1"])
        return conv(jax.nn.relu(x), params["out"])

    ids = np.random.default_rng(3).integers(0, 24, (2, 4, 4))
    wanted = plain(np.float32(np.eye(24)[ids]))
    got = call(made, "decode", ids.reshape(2, 16))
    np.testing.assert_allclose(jnp.concatenate(got, -1), wanted, atol=1e-5)


def test_tokens_are_row_major(made):
    """The fourth token changes the right upper corner most."""
    ids = np.zeros((2, 16), np.int32)
    ids[1, 3] = 5
    shown = np.asarray(call(made, "decode_tokens", ids))
    changed = np.abs(shown[0] - shown[1]).sum(-1)
    row, column = np.unravel_index(changed.argmax(), changed.shape)
    assert row < 4 and column >= 12


def test_nll_is_a_density_over_unit_pixels(made):
    """By numpy, from the picture's distribution and the change of variables."""
    ids = np.random.default_rng(2).integers(0, 24, (2, 16))
    mean, log_scale = call(made, "decode", ids)
    mean, b = np.asarray(mean, float), np.exp(np.asarray(log_scale, float))
    x = 0.8 * pictures().astype(float) + 0.1
    density = np.exp(-np.abs(np.log(x / (1 - x)) - mean) / b) / (2 * b * x * (1 - x))
    wanted = -np.log(0.8 * density).sum((1, 2, 3))
    got = call(made, "nll", pictures(), ids)
    np.testing.assert_allclose(got, wanted, rtol=1e-5)


def test_the_papers_size():
    """53.8 M parameters in the encoder, 43.8 M in the decoder, as the released files.

    Counted by hand from the blocks: a group's first block takes the group before's
    width, a 1x1 skip where it differs.
    """
    module = image_tokenizer.build(
        {"kind": "dvae", "image_size": 256, "vocab_size": 8192}
    )
    assert module.grid == 32
    shapes = jax.eval_shape(
        module.init, jax.random.key(0), jnp.zeros((1, 256, 256, 3))
    )["params"]

    def block(c, f, sizes):
        widths = (c, f // 4, f // 4, f // 4, f)
        layers = zip(widths, widths[1:], sizes, strict=False)
        count = sum(i * o * k * k + o for i, o, k in layers)
        return count + (c * f + f if c != f else 0)

    down = [256, 512, 1024, 2048]
    encoder = 3 * 256 * 49 + 256 + 2048 * 8192 + 8192
    for c, f in zip([256, *down], down, strict=False):
        encoder += block(c, f, (3, 3, 3, 1)) + block(f, f, (3, 3, 3, 1))
    decoder = 8192 * 128 + 128 + 256 * 6 + 6
    for c, f in zip([128, *down[::-1]], down[::-1], strict=False):
        decoder += block(c, f, (1, 3, 3, 3)) + block(f, f, (1, 3, 3, 3))
    sizes = {k: sum(x.size for x in jax.tree.leaves(v)) for k, v in shapes.items()}
    assert sizes == {"encoder": encoder, "decoder": decoder}
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(shapes))


def test_half_precision_stays_inside():
    module = image_tokenizer.build(SPEC | {"dtype": "bfloat16"})
    shapes = jax.eval_shape(module.init, jax.random.key(0), pictures())
    assert {x.dtype for x in tree.flatten(shapes).values()} == {jnp.dtype("float32")}
    _, variables = filled(module)
    logits = call((module, variables), "logits", pictures())
    out = call((module, variables), "decode", jax.nn.softmax(logits))
    assert {logits.dtype, out.mean.dtype} == {jnp.dtype("float32")}
    exact = call((image_tokenizer.build(SPEC), variables), "logits", pictures())
    assert 0 < np.abs(logits - exact).max() < 0.1


@pytest.mark.parametrize(
    "change, message",
    [
        ({"hiden": 8}, "unknown key 'hiden'; did you mean 'hidden'"),
        ({"hidden": 10}, "hidden is 10, and blocks work at a quarter of it: use 8"),
        ({"hidden": 2}, "use 4"),
        ({"image_size": 18}, "18 and a code of 3 groups stands for 4 pixels"),
        ({"groups": 0}, "groups is 0: use 1 or more"),
        ({"vocab_size": "many"}, "expected int"),
    ],
)
def test_refuses(change, message):
    with pytest.raises(UserError, match=message) as caught:
        image_tokenizer.build(SPEC | change, "config.task.stage1")
    assert str(caught.value).startswith("config.task.stage1")


def test_refuses_pictures_of_another_size(made):
    module, variables = made
    with pytest.raises(
        UserError, match=r"\(b, 16, 16, 3\), got images of \(2, 32, 32, 3\)"
    ):
        module.apply(variables, pictures(size=32), method="encode_tokens")
