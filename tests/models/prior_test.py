"""The prior: who sees whom, the paper's sizes, and decoding against whole sequences."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.models import prior
from mmjax.models.prior import Prior
from mmjax.nn import grid_masks
from mmjax.tasks import base
from mmjax_configs import prior as configs

B, CONTEXT, GRID, WORDS, CODES = 2, 5, 4, 20, 11
N = GRID**2
MASKS = (*grid_masks.KINDS, "paper")
VARIANTS = [*((masks, {}) for masks in MASKS)]
VARIANTS += [("paper", {"neighbours": True}), ("conv", {"neighbours": True})]
VARIANTS += [("full", {"places": "free"})]


def model(**kwargs) -> Prior:
    numbers = dict(
        width=16,
        depth=4,
        heads=4,
        vocab_size=WORDS,
        context=CONTEXT,
        image_vocab=CODES,
        grid=GRID,
        conv_kernel=3,
    )
    return Prior(**numbers | kwargs)


def batch(rows: int = B) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    tokens_bl = rng.integers(0, WORDS, (rows, CONTEXT), dtype=np.int32)
    mask_bl = np.arange(CONTEXT) < rng.integers(2, CONTEXT + 1, (rows, 1))
    return tokens_bl, mask_bl, rng.integers(0, CODES, (rows, N), dtype=np.int32)


@functools.cache
def params_of(module: Prior) -> dict:
    """Random parameters of the right shapes, large enough to matter."""
    shapes = jax.eval_shape(module.init, jax.random.key(0), *batch())["params"]
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda x: jnp.asarray(0.3 * rng.normal(size=x.shape), jnp.float32), shapes
    )


def stacked(params: dict, depth: int) -> dict:
    names = [f"block_{i}" for i in range(depth)]
    blocks = jax.tree.map(lambda *x: jnp.stack(x), *(params[n] for n in names))
    return {"blocks": blocks} | {k: v for k, v in params.items() if k not in names}


@pytest.mark.parametrize("kind", grid_masks.KINDS)
def test_one_layer_depends_on_just_what_its_mask_shows(kind: str):
    """Causality by gradient: of every output by every input embedding."""
    module = model(depth=1, masks=kind)
    variables, t = {"params": params_of(module)}, CONTEXT + N
    x_tw = jax.random.normal(jax.random.key(2), (t, module.width))

    def outputs(x_tw: jax.Array) -> jax.Array:
        y_tw, _ = module.apply(variables, x_tw, t, method="_blocks")
        return y_tw.sum(-1)

    by_input_ttw = jax.jit(jax.jacrev(outputs))(x_tw)
    depends_tt = np.abs(by_input_ttw).max(-1) > 1e-7
    mask_tt = grid_masks.sequence_mask(kind, CONTEXT, GRID, 3)
    np.testing.assert_array_equal(depends_tt, mask_tt)


@pytest.mark.parametrize(("masks", "more"), VARIANTS)
def test_no_logit_depends_on_what_it_predicts_or_later(masks: str, more: dict):
    """The whole model, token ids in and logits out."""
    module = model(masks=masks, **more)
    variables = {"params": params_of(module)}
    tokens_bl, mask_bl, image_bn = batch()
    mask_bl = np.ones_like(mask_bl)
    run = jax.jit(module.apply)
    text, image = run(variables, tokens_bl, mask_bl, image_bn)
    for changed in range(N):
        other_bn = image_bn.copy()
        other_bn[:, changed] = (other_bn[:, changed] + 1) % CODES
        text_2, image_2 = run(variables, tokens_bl, mask_bl, other_bn)
        np.testing.assert_array_equal(text_2, text)
        np.testing.assert_array_equal(
            image_2[:, : changed + 1], image[:, : changed + 1]
        )
        if changed < N - 1:  # what follows it does read it
            assert np.abs(image_2[:, changed + 1] - image[:, changed + 1]).max() > 1e-4
    for changed in range(1, CONTEXT):
        other_bl = tokens_bl.copy()
        other_bl[:, changed] = (other_bl[:, changed] + 1) % WORDS
        text_2, image_2 = run(variables, other_bl, mask_bl, image_bn)
        np.testing.assert_array_equal(text_2[:, :changed], text[:, :changed])
        assert (np.abs(image_2 - image).max((0, 2)) > 1e-5).all()  # all see all text


@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize(("masks", "more"), VARIANTS)
def test_decoding_gives_the_logits_of_whole_sequences(
    masks: str, more: dict, scan: bool
):
    """Teacher-forced, with and without image tokens given, two rows a prompt."""
    module = model(masks=masks, **more)
    params = params_of(module)
    tokens_bl, mask_bl, image_bn = batch(4)
    tokens_bl[1::2], mask_bl[1::2] = tokens_bl[::2], mask_bl[::2]  # two of a prompt
    if scan:
        module, params = module.clone(scan=True), stacked(params, module.depth)
    weights, whole = prior.decoder(module, params), jax.jit(module.apply)
    step = jax.jit(functools.partial(prior.step, module))
    for given in (0, 1, 7):
        image_bn[1::2, :given] = image_bn[::2, :given]
        _, want_bnv = whole({"params": params}, tokens_bl, mask_bl, image_bn)
        first_pv, cache = module.apply(
            {"params": params},
            tokens_bl[::2],
            mask_bl[::2],
            image_bn[::2, :given],
            2,
            method="prefill",
        )
        np.testing.assert_allclose(first_pv, want_bnv[::2, given], atol=1e-4)
        for i in range(given, N - 1):
            logits_bv, cache = step(weights, image_bn[:, i], jnp.int32(i), cache)
            np.testing.assert_allclose(logits_bv, want_bnv[:, i + 1], atol=1e-4)


def test_decoding_in_half_precision_is_near():
    module = model(dtype="bfloat16")
    params = params_of(module)
    tokens_bl, mask_bl, image_bn = batch()
    _, want_bnv = module.clone(dtype="float32").apply(
        {"params": params}, tokens_bl, mask_bl, image_bn
    )
    weights = prior.decoder(module, params)
    given = tokens_bl, mask_bl, image_bn[:, :0], 1
    _, cache = module.apply({"params": params}, *given, method="prefill")
    step = jax.jit(functools.partial(prior.step, module))
    for i in range(N - 1):
        logits_bv, cache = step(weights, image_bn[:, i], jnp.int32(i), cache)
        assert logits_bv.dtype == jnp.float32 and cache.image[0].k.dtype == jnp.bfloat16
        np.testing.assert_allclose(logits_bv, want_bnv[:, i + 1], atol=0.3)


def test_scanned_equals_unrolled():
    unrolled, scanned = model(), model(scan=True)
    params = params_of(unrolled)

    def run(module: Prior, params: dict) -> tuple:
        def loss(params: dict) -> jax.Array:
            return sum(
                jnp.square(x).mean() for x in module.apply({"params": params}, *batch())
            )

        return jax.jit(jax.value_and_grad(loss))(params)

    value, grads = run(unrolled, params)
    got, got_grads = run(scanned, stacked(params, unrolled.depth))
    np.testing.assert_allclose(got, value, rtol=1e-5)
    jax.tree.map(
        lambda g, w: np.testing.assert_allclose(g, w, rtol=1e-3, atol=1e-5),
        got_grads,
        stacked(grads, unrolled.depth),
    )


@pytest.mark.parametrize("remat", ["full", "dots_no_batch"])
@pytest.mark.parametrize("scan", [False, True])
def test_rematerialised_gradients_are_the_same(remat: str, scan: bool):
    plain = model(scan=scan)
    params = params_of(plain)

    def grads(module: Prior) -> dict:
        def loss(params: dict) -> jax.Array:
            return jnp.square(module.apply({"params": params}, *batch())[1]).mean()

        return jax.jit(jax.grad(loss))(params)

    want, got = grads(plain), grads(plain.clone(remat=remat))
    jax.tree.map(
        lambda g, w: np.testing.assert_allclose(g, w, rtol=1e-4, atol=1e-6), got, want
    )


def test_padding_is_read_as_padding():
    """What stands where the mask is False does not matter; where it is, does."""
    module = model()
    variables = {"params": params_of(module)}
    tokens_bl, mask_bl, image_bn = batch()
    mask_bl[:, 3:] = False
    other_bl = np.where(mask_bl, tokens_bl, WORDS - 1 - tokens_bl)
    got = module.apply(variables, other_bl, mask_bl, image_bn)
    want = module.apply(variables, tokens_bl, mask_bl, image_bn)
    jax.tree.map(np.testing.assert_array_equal, got, want)
    moved = {**variables["params"]}
    moved["text_pad_embedding"] = moved["text_pad_embedding"][::-1]
    other = module.apply({"params": moved}, tokens_bl, mask_bl, image_bn)
    assert np.abs(other[1] - want[1]).max() > 1e-3


def test_free_places_are_those_of_a_grid_where_they_are_its_sums():
    grid, free = model(), model(places="free")
    params = dict(params_of(grid))
    row_gw, column_gw = params.pop("row_embedding"), params.pop("column_embedding")
    place_ggw = row_gw[:, None] + column_gw
    params["place_embedding"] = place_ggw.reshape(N, -1)
    want = jax.jit(grid.apply)({"params": params_of(grid)}, *batch())
    got = jax.jit(free.apply)({"params": params}, *batch())
    for ours, theirs in zip(got, want, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_initial_scales():
    init = jax.jit(model(init_style="gpt2", width=64).init)
    params = init(jax.random.key(0), *batch())
    block = params["params"]["block_1"]
    std = {
        "qkv": block["attn"]["qkv"]["kernel"].std(),
        "out": block["attn"]["out"]["kernel"].std(),
        "proj": block["proj"]["kernel"].std(),
        "text": params["params"]["text_embedding"].std(),
    }
    want = {"qkv": 0.02, "out": 0.02 / 8**0.5, "proj": 0.02 / 8**0.5, "text": 0.02}
    for name, value in want.items():
        np.testing.assert_allclose(std[name], value, rtol=0.1, err_msg=name)
    init = jax.jit(model(init_style="mindalle", width=64).init)
    params = init(jax.random.key(0), *batch())
    std = params["params"]["block_1"]["proj"]["kernel"].std()
    np.testing.assert_allclose(std, 0.02, rtol=0.1)


def count(preset: str) -> tuple[int, Prior]:
    task = base.build(configs.get_config(preset).task)
    text = jnp.zeros((1, task.context), jnp.int32)
    image = jnp.zeros((1, task.model.tokens), jnp.int32)
    shapes = jax.eval_shape(
        task.model.init, jax.random.key(0), text, text.astype(bool), image
    )
    leaves = jax.tree.leaves(shapes["params"])
    return sum(math.prod(x.shape) for x in leaves), task.model


def test_the_paper_has_twelve_billion_parameters():
    parameters, module = count("dalle_12b")
    w = 3968
    blocks = 64 * (12 * w**2 + 13 * w)  # kernels; biases and norms
    # 256 byte pairs between two marks: 258 positions, each with a token of padding.
    tables = (16384 + 8192 + 2 * 258 + 2 * 32) * w
    heads = (16384 + 258 + 8192) * w
    assert parameters == blocks + tables + heads + 2 * w
    assert round(parameters / 1e9) == 12
    assert (module.tokens, module.width // module.heads) == (1024, 64)
    kinds = grid_masks.layer_kinds(module.masks, module.depth)
    assert kinds.count("column") == 16 and kinds[-1] == "conv"


def test_mindalle_has_1_3_billion_parameters():
    parameters, module = count("mindalle_1_3b")
    assert 1.2e9 < parameters < 1.35e9
    assert (module.tokens, module.context) == (256, 64)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        (dict(width=18), "width 18 must split over 4 heads: use 16"),
        (dict(masks="rows"), "did you mean 'row'"),
        (dict(masks=("row",)), "names 1 layers and the model has 4"),
        (dict(init_style="gpt"), "init_style is 'gpt': use mindalle or gpt2"),
        (dict(places="rows"), "places is 'rows': use grid or free"),
        (dict(text_pads="no"), "text_pads is 'no': use ignored or predicted"),
        (dict(conv_kernel=2), "conv_kernel is 2"),
        (dict(remat="fully"), "did you mean 'full'"),
    ],
)
def test_bad_numbers_are_named(numbers: dict, message: str):
    with pytest.raises(UserError, match=message):
        jax.eval_shape(model(**numbers).init, jax.random.key(0), *batch())


def test_bad_shapes_are_named():
    module = model()
    tokens_bl, mask_bl, image_bn = batch()
    with pytest.raises(UserError, match=r"image_tokens is \(2, 9\), .* \(2, 16\)"):
        jax.eval_shape(
            module.init, jax.random.key(0), tokens_bl, mask_bl, image_bn[:, :9]
        )
