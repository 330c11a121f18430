"""The door to image tokenizers."""

import jax
import jax.numpy as jnp
import pytest

from mmjax.errors import UserError
from mmjax.models import image_tokenizer, vqvae

SIZES = {"image_size": 16, "vocab_size": 10}


def test_a_kind_is_a_module():
    assert {"vqvae", "dvae"} <= set(image_tokenizer.kinds())
    module = image_tokenizer.build({"kind": "vqvae", **SIZES})
    assert isinstance(module, vqvae.VqVae)


@pytest.mark.parametrize("kind", image_tokenizer.kinds())
def test_every_kind_keeps_the_promise(kind):
    more = {"hidden": 8} if kind == "dvae" else {}
    module = image_tokenizer.build({"kind": kind, **SIZES, **more})
    x = jnp.zeros((2, 16, 16, 3))
    variables = jax.jit(module.init)(jax.random.key(0), x)
    ids = module.apply(variables, x, method="encode_tokens")
    assert ids.shape == (2, module.grid**2) and ids.dtype == jnp.int32
    back = module.apply(variables, ids, method="decode_tokens")
    assert back.shape == x.shape and (module.image_size, module.vocab_size) == (16, 10)
    assert float(back.min()) >= 0 and float(back.max()) <= 1
    assert module.apply(variables, x, ids, method="nll").shape == (2,)
    with pytest.raises(UserError, match="^place: unknown key 'image_sise'"):
        image_tokenizer.build({"kind": kind, "image_sise": 16}, "place")


@pytest.mark.parametrize("kind", ["vqvea", "presets", "os.path", 3, ""])
def test_other_kinds_are_refused(kind):
    with pytest.raises(UserError, match=r"place.kind is .*legal: .*vqvae"):
        image_tokenizer.build({"kind": kind, **SIZES}, "place")
    with pytest.raises(UserError, match="place.kind is ''"):
        image_tokenizer.build(SIZES, "place")
