"""LPIPS' network: by hand, and the lpips package's own."""

import jax
import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.losses import perceptual
from mmjax.models import feature_network

SMALL = {"kind": "lpips", "image_size": 4, "widths": (3, 2), "depths": (1, 2)}


def convolved(x, layer):
    """3x3, one row of zeros around, in float64, with its ReLU."""
    kernel = np.asarray(layer["kernel"], np.float64)
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    side, out = x.shape[1], 0.0
    for i in range(3):
        for j in range(3):
            out = out + padded[:, i : i + side, j : j + side] @ kernel[i, j]
    return np.maximum(out + np.asarray(layer["bias"]), 0)


def test_stages_and_distance_by_hand():
    network = feature_network.build(SMALL)
    rng = np.random.default_rng(0)
    images = rng.uniform(size=(2, 3, 4, 4, 3)).astype(np.float32)
    shapes = jax.eval_shape(network.module.init, jax.random.key(0), images[0])
    variables = jax.tree.map(lambda s: np.abs(rng.normal(size=s.shape)), shapes)
    params = variables["params"]
    sides, want = [], {}
    for x in images.astype(np.float64):
        x = (x - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
        first = convolved(x, params["stage_0_conv_0"])
        x = first.reshape(3, 2, 2, 2, 2, 3).max((2, 4))
        for i in range(2):
            x = convolved(x, params[f"stage_1_conv_{i}"])
        sides.append({"stage_0": first, "stage_1": x})
    total = 0.0
    for name in sides[0]:
        a, b = (
            s[name] / (np.linalg.norm(s[name], axis=-1)[..., None] + 1e-10)
            for s in sides
        )
        want[name] = ((a - b) ** 2 @ params[name]).mean()
        total += want[name]
    seen = [network.stages(variables, x) for x in images]
    for name in want:
        np.testing.assert_allclose(seen[0][name], sides[0][name], rtol=1e-4)
    got = perceptual.distance(*seen, network.weights(variables))
    assert got == pytest.approx(total, rel=1e-4)


def test_a_side_that_cannot_be_halved():
    with pytest.raises(
        UserError, match="image_size is 24, and lpips halves it 4 times"
    ):
        feature_network.build({"kind": "lpips", "image_size": 24})


@pytest.mark.parity
def test_the_packages_distance():
    """Random convolutions of VGG-16's shapes, and the package's own channel weights."""
    torch, lpips = pytest.importorskip("torch"), pytest.importorskip("lpips")
    from mmjax.convert.formats import lpips as family
    from mmjax.convert.read import Source

    torch.manual_seed(0)
    theirs = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False)
    tensors = {k: v.numpy() for k, v in theirs.state_dict().items()}
    source = Source("here", tensors, {}, None)
    assert family.detect(source) and not family.TABLE.unknown(tensors)
    arrays, start = family.to_mmjax(source).arrays, "frozen/features/params/"
    params: dict = {}
    for path, value in arrays.items():
        if path.startswith(start):
            *node, leaf = path.removeprefix(start).split("/")
            (params.setdefault(node[0], {}) if node else params)[leaf] = value
    network = feature_network.build({"kind": "lpips", "image_size": 64})
    x, y = np.random.default_rng(0).uniform(size=(2, 2, 64, 64, 3)).astype(np.float32)
    seen = [network.stages({"params": params}, image) for image in (x, y)]
    got = perceptual.distance(*seen, network.weights({"params": params}))
    with torch.no_grad():
        pair = [torch.from_numpy(2 * i.transpose(0, 3, 1, 2) - 1) for i in (x, y)]
        want = theirs(*pair).mean().item()
    assert want > 1e-3 and got == pytest.approx(want, rel=1e-4)
