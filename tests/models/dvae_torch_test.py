"""Golden numbers: the released networks in torch, with our weights in them."""

import functools
import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.losses import categorical
from mmjax.models import image_tokenizer
from mmjax.state import Ctx, Vars
from mmjax.tasks.dvae import Task

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.parity
FILE = pathlib.Path(__file__).parents[2] / "benchmarks" / "openai_dvae.py"


def twin_module():
    found = importlib.util.spec_from_file_location("openai_dvae", FILE)
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


openai_dvae = twin_module()


EXTRA = {"relaxation": {"temperature": jnp.ones(())}}


def draw(rng, shape):
    """As a start is, with biases that are not zero: those would hide mistakes."""
    scale = np.prod(shape.shape[:-1]) ** -0.5 if len(shape.shape) > 1 else 0.1
    return np.float32(scale * rng.normal(size=shape.shape))


def relative(got, want):
    return np.abs(np.asarray(got) - want).max() / np.abs(want).max()


@pytest.mark.parametrize(
    "numbers",
    [
        {"image_size": 32, "hidden": 16, "groups": 3, "init_width": 24},
        {"image_size": 64, "hidden": 8, "groups": 4, "blocks_per_group": 1},
        {"image_size": 16, "hidden": 16, "groups": 1, "init_width": 16},
    ],
)
def test_forward_loss_and_gradients(numbers):
    spec = {"kind": "dvae", "vocab_size": 48, **numbers}
    task = Task(spec, kl_steps=10, temperature_steps=20)
    module, size, b = image_tokenizer.build(spec), numbers["image_size"], 2
    rng = np.random.default_rng(0)
    batch = {"image": rng.integers(0, 256, (b, size, size, 3), np.uint8)}
    shapes = jax.eval_shape(task.init, jax.random.key(0), batch)
    params = jax.tree.map(functools.partial(draw, rng), shapes.params)
    variables = Vars(params, EXTRA)
    ctx = Ctx(rng=jax.random.key(3), step=jnp.asarray(7), train=True)

    def loss(params):
        return task.loss(variables._replace(params=params), batch, ctx)

    (got, (_, metrics)), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(
        params
    )

    twin_numbers = {k: v for k, v in numbers.items() if k != "image_size"}
    twin = openai_dvae.DVae(48, **twin_numbers)
    openai_dvae.load_mmjax(twin, params)
    n = module.grid**2
    noise = np.asarray(categorical.gumbel(ctx.example_keys(b), (n, 48)))
    noise = noise.transpose(0, 2, 1).reshape(b, 48, module.grid, module.grid)
    x = torch.from_numpy(batch["image"]).permute(0, 3, 1, 2).float() / 255
    want, parts = twin.loss(
        x,
        float(metrics["temperature"]),
        float(metrics["kl_weight"]),
        torch.tensor(noise.copy()),
    )
    want.backward()

    assert float(got) == pytest.approx(want.item(), rel=1e-4, abs=1e-6)
    d = size * size * 3
    nll, kl = (parts[k].mean().item() for k in ("nll", "kl"))
    assert float(metrics["reconstruction"]) == pytest.approx(nll / d, rel=1e-4)
    assert float(metrics["kl"]) == pytest.approx(kl / n, rel=1e-4)
    all_variables = {"params": params, **EXTRA}
    logits = module.apply(
        all_variables, batch["image"] / np.float32(255), method="logits"
    )
    want_logits = parts["logits"].detach().permute(0, 2, 3, 1).reshape(b, n, 48).numpy()
    assert relative(logits, want_logits) < 1e-4

    for name, parameter in twin.named_parameters():
        ours = gradients
        *place, leaf = name.split(".")
        for key in place:
            ours = ours[key]
        wanted = parameter.grad.numpy()
        if leaf == "weight":
            wanted = wanted.transpose(2, 3, 1, 0)
            ours = ours["kernel"].reshape(wanted.shape)
        else:
            ours = ours["bias"]
        assert relative(ours, wanted) < 1e-3, name


def test_hard_tokens_give_the_same_picture():
    spec = {"kind": "dvae", "image_size": 32, "vocab_size": 32, "hidden": 16}
    spec |= {"groups": 2}
    module = image_tokenizer.build(spec)
    x = np.random.default_rng(0).uniform(size=(2, 32, 32, 3)).astype(np.float32)
    shapes = jax.eval_shape(module.init, jax.random.key(0), x)["params"]
    rng = np.random.default_rng(1)
    variables = {"params": jax.tree.map(functools.partial(draw, rng), shapes), **EXTRA}
    twin = openai_dvae.DVae(32, 16, groups=2)
    openai_dvae.load_mmjax(twin, variables["params"])
    with torch.no_grad():
        mapped = torch.from_numpy(x).permute(0, 3, 1, 2) * 0.8 + 0.1
        ids = twin.encoder(mapped).argmax(1)
        soft = torch.nn.functional.one_hot(ids, 32).permute(0, 3, 1, 2).float()
        mean = twin.decoder(soft)[:, :3].sigmoid()
        shown = ((mean - 0.1) / 0.8).clamp(0, 1).permute(0, 2, 3, 1)
    encode = jax.jit(functools.partial(module.apply, method="encode_tokens"))
    np.testing.assert_array_equal(encode(variables, x), ids.flatten(1))
    np.testing.assert_allclose(jax.jit(module.apply)(variables, x), shown, atol=1e-5)
