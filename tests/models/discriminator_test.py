"""The patch discriminator: against numpy, what a score sees, and torch's original."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.models.discriminator import PatchDiscriminator, Spec


def convolved(x, kernel, stride, bias=0.0):
    """Loops over places: (b, s, s, c) and (4, 4, c, f), one row of zeros around."""
    x = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    side = (x.shape[1] - 4) // stride + 1
    out = np.zeros((len(x), side, side, kernel.shape[-1]))
    for i in range(side):
        for j in range(side):
            tile = x[:, stride * i : stride * i + 4, stride * j : stride * j + 4]
            out[:, i, j] = np.einsum("bhwc,hwcf->bf", tile, kernel)
    return out + bias


def started(spec, size):
    module = PatchDiscriminator(spec)
    x = np.random.default_rng(0).uniform(-1, 1, (3, size, size, 3)).astype(np.float32)
    variables = module.init(jax.random.key(0), x)
    rng = np.random.default_rng(1)  # norms that do something, in biases as well
    return (
        module,
        jax.tree.map(lambda a: a + 0.1 * rng.normal(size=a.shape), variables),
        x,
    )


@pytest.mark.parametrize("train", [True, False])
def test_scores_by_hand(train):
    module, variables, x = started(Spec(width=4, depth=1), 12)
    got, moved = module.apply(variables, x, train=train, mutable=["batch_stats"])
    params, y = variables["params"], np.asarray(x, np.float64)
    y = convolved(y, params["conv_0"]["kernel"], 2, params["conv_0"]["bias"])
    y = np.where(y > 0, y, 0.2 * y)
    y = convolved(y, params["conv_1"]["kernel"], 1)
    stats = variables["batch_stats"]["norm_1"]
    mean, var = y.mean((0, 1, 2)), y.var((0, 1, 2))
    if train:
        new = moved["batch_stats"]["norm_1"]
        np.testing.assert_allclose(
            new["mean"], 0.9 * stats["mean"] + 0.1 * mean, atol=1e-5
        )
    else:
        mean, var = stats["mean"], stats["var"]
    y = (y - mean) / np.sqrt(var + 1e-5) * params["norm_1"]["scale"]
    y = y + params["norm_1"]["bias"]
    y = convolved(np.where(y > 0, y, 0.2 * y), params["out"]["kernel"], 1)
    want = y[..., 0] + params["out"]["bias"]
    assert got.shape == (3, 4, 4) and Spec(depth=1).side(12) == 4
    np.testing.assert_allclose(got, want, atol=2e-5)


def test_a_score_sees_its_patch_alone():
    depth, field, size = 1, 16, 32
    spec = Spec(width=2, depth=depth, norm="none")
    module, variables, x = started(spec, size)
    side, middle = spec.side(size), spec.side(size) // 2

    def score(x):
        return module.apply(variables, x)[0, middle, middle]

    seen = np.abs(jax.jit(jax.grad(score))(x)[0]).sum(-1) > 0
    assert module.apply(variables, x).shape == (3, side, side)
    assert np.ptp(np.flatnonzero(seen.any(0))) + 1 == field


def test_numbers_that_do_not_fit():
    with pytest.raises(ValueError, match="norm is 'layer': use batch, group or none"):
        Spec(norm="layer")
    with pytest.raises(ValueError, match="width 6 x 2 must split over 8 groups"):
        Spec(width=6, norm="group")


@pytest.mark.parity
@pytest.mark.parametrize("train", [True, False])
def test_torch_gives_the_same(train):
    torch = pytest.importorskip("torch")
    module, variables, x = started(Spec(width=8, depth=3), 64)
    params, layers, widths = variables["params"], [], (8, 16, 32, 64)
    for i, width in enumerate(widths):
        before, stride = (3, *widths)[i], 2 if i < 3 else 1
        layers.append(torch.nn.Conv2d(before, width, 4, stride, 1, bias=i == 0))
        if i:
            layers.append(torch.nn.BatchNorm2d(width))
        layers.append(torch.nn.LeakyReLU(0.2))
    net = torch.nn.Sequential(*layers, torch.nn.Conv2d(64, 1, 4, 1, 1)).train(train)
    tensors = []
    for name in (
        "conv_0",
        "conv_1",
        "norm_1",
        "conv_2",
        "norm_2",
        "conv_3",
        "norm_3",
        "out",
    ):
        held = {**params[name], **variables["batch_stats"].get(name, {})}
        for key in ("kernel", "scale", "bias", "mean", "var"):
            if key in held:
                a = np.asarray(held[key], np.float32)
                tensors.append(a.transpose(3, 2, 0, 1) if a.ndim == 4 else a)
    state = [v for k, v in net.state_dict().items() if "num_batches" not in k]
    assert len(state) == len(tensors)
    for have, want in zip(state, tensors, strict=True):
        have.copy_(torch.from_numpy(want.copy()))
    with torch.no_grad():
        want = net(torch.from_numpy(x.transpose(0, 3, 1, 2))).numpy()[:, 0]
    got, _ = module.apply(
        variables, jnp.asarray(x), train=train, mutable=["batch_stats"]
    )
    np.testing.assert_allclose(got, want, atol=1e-4)
