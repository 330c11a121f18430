"""What all stage-1 tasks share: one pass gives the loss and the image it is about."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.losses import quantize
from mmjax.state import Ctx
from mmjax.tasks import base

CONV = {"kind": "conv", "widths": (8,), "stem": 4, "depth": 1, "decoder_depth": 1}
KL = {"width": 8, "mult": (1, 2), "depth": 1, "attention": (), "hidden": 4, "groups": 4}
SIZES = {"image_size": 16, "vocab_size": 24}
TASKS = {
    "dvae": {
        "tokenizer": SIZES
        | {"kind": "dvae", "hidden": 8, "groups": 3, "blocks_per_group": 1}
    },
    "vqvae": {"tokenizer": SIZES | {"kind": "vqvae", "net": CONV}},
    "gumbel_vq": {"tokenizer": SIZES | {"kind": "gumbel_vq", "net": CONV}},
    "autoencoder_kl": {"autoencoder": {"image_size": 16, "code_dim": 4, "net": KL}},
}
IMAGE = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)


@pytest.fixture(scope="module", params=TASKS)
def started(request):
    task = base.build({"name": request.param, **TASKS[request.param]})
    ctx = Ctx(rng=jax.random.key(5), step=jnp.asarray(3), train=False)
    return task, jax.jit(task.init)(jax.random.key(0), {"image": IMAGE}), ctx


def test_forward_has_the_loss_and_the_image_of_its_psnr(started):
    task, variables, ctx = started
    batch = {"image": IMAGE}
    out = jax.jit(task.forward)(variables, batch, ctx)
    loss, (_, metrics) = jax.jit(task.loss)(variables, batch, ctx)
    assert loss == out.loss and metrics.keys() == out.metrics.keys()
    off = jnp.clip(out.reconstruction, 0, 1) - IMAGE / np.float32(255)
    psnr = quantize.psnr(jnp.square(off).mean())
    np.testing.assert_allclose(out.metrics["psnr"], psnr, rtol=1e-5)


def test_gradients_go_through_the_reconstruction(started):
    task, variables, ctx = started

    def brightness(params):
        held = variables._replace(params=params)
        return task.forward(held, {"image": IMAGE}, ctx).reconstruction.mean()

    gradients = jax.tree.leaves(jax.jit(jax.grad(brightness))(variables.params))
    assert sum(float(jnp.abs(g).sum()) for g in gradients) > 0


def test_reconstruct_says_how_many_codes_there_are(started):
    task, variables, ctx = started
    out = jax.jit(task.predict()["reconstruct"])(variables, {"image": IMAGE}, ctx)
    assert out["image"].shape == IMAGE.shape and out["image"].dtype == jnp.float32
    assert 0 <= out["image"].min() and out["image"].max() <= 1
    if "tokenizer" in TASKS[task.__module__.rpartition(".")[2]]:
        assert out["vocab_size"] == 24 and out["image_tokens"].shape == (2, 16)


def test_another_image_size(started):
    task, _, _ = started
    text = rf"size is 32, and .* of 16: set config.task.{task.SPEC}.image_size to 32"
    with pytest.raises(UserError, match=text):
        task.check({"image": {"shape": (32, 32, 3)}})
