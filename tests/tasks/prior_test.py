"""The prior as a task: what its loss counts, what sampling promises, its refusals."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmjax import schema
from mmjax.data import fields
from mmjax.errors import UserError
from mmjax.nn import grid_masks
from mmjax.sampling import autoregressive
from mmjax.sampling.autoregressive import Sampling
from mmjax.state import Ctx, TrainState, Vars
from mmjax.tasks.prior import Task
from mmjax.train import step
from mmjax_configs import prior as configs

B, CONTEXT, WORDS, CODES, SIZE, GRID = 4, 6, 30, 32, 16, 4
N = GRID**2
STAGE1 = {
    "kind": "vqvae",
    "image_size": SIZE,
    "vocab_size": CODES,
    "net": {"kind": "conv", "widths": (8,), "stem": 4, "depth": 1, "decoder_depth": 1},
}
FIELDS = dict(stage1=STAGE1, width=16, depth=2, heads=2)
FIELDS |= dict(vocab_size=WORDS, context=CONTEXT, conv_kernel=3)


def task(**kwargs) -> Task:
    return schema.from_mapping(Task, FIELDS | kwargs, "config.task")


def batch(rows: int = B) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    lengths_b1 = np.asarray([2, 4, CONTEXT, 3])[:rows, None]
    mask_bl = np.arange(CONTEXT) < lengths_b1
    tokens_bl = rng.integers(1, WORDS, (rows, CONTEXT), dtype=np.int32) * mask_bl
    image = rng.integers(0, 256, (rows, SIZE, SIZE, 3), dtype=np.uint8)
    return {"tokens": tokens_bl, "tokens_mask": mask_bl, "image": image}


def ctx(*, train: bool = False) -> Ctx:
    return Ctx(rng=jax.random.key(3), step=jnp.int32(0), train=train)


@functools.cache
def variables(text_pads: str = "ignored") -> Vars:
    """Random weights, large enough that tokens differ in probability."""
    made = jax.jit(task(text_pads=text_pads).init)(jax.random.key(0), batch())
    rng = np.random.default_rng(1)
    params = jax.tree.map(
        lambda x: jnp.asarray(0.4 * rng.normal(size=x.shape), jnp.float32), made.params
    )
    return made._replace(params=params)


def predict(made: Task, name: str):
    return jax.jit(lambda v, b: made.predict()[name](v, b, ctx()))


def log_probs(made: Task, weights: Vars) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log-probabilities (b, l-1, v), (b, n, v) of the model, and tokens (b, n)."""
    rows = batch()
    ids_bn = made.tokenizer.apply(
        weights.frozen["tokenizer"], rows["image"] / 255.0, method="encode_tokens"
    )
    run = jax.jit(made.model.apply)
    text, image = run(
        {"params": weights.params}, rows["tokens"], rows["tokens_mask"], ids_bn
    )
    return *(np.asarray(jax.nn.log_softmax(x)) for x in (text, image)), ids_bn


def test_loss_against_loops():
    """1/8 text and 7/8 image, padding left out, every row the same weight."""
    made, weights, rows = task(), variables(), batch()
    text_bmv, image_bnv, ids_bn = log_probs(made, weights)
    text, image = [], []
    for b in range(B):
        words = [
            -text_bmv[b, i, rows["tokens"][b, i + 1]]
            for i in range(CONTEXT - 1)
            if rows["tokens_mask"][b, i + 1]
        ]
        text.append(np.mean(words))
        image.append(np.mean([-image_bnv[b, i, ids_bn[b, i]] for i in range(N)]))
    loss, (extra, metrics) = made.loss(weights, rows, ctx(train=True))
    np.testing.assert_allclose(metrics["text_nats"], np.mean(text), rtol=1e-5)
    np.testing.assert_allclose(metrics["image_nats"], np.mean(image), rtol=1e-5)
    want = np.mean(text) / 8 + np.mean(image) * 7 / 8
    np.testing.assert_allclose(loss, want, rtol=1e-5)
    assert not extra
    each = predict(made, "loss")(weights, rows)
    np.testing.assert_allclose(each["text_nats"], text, rtol=1e-5)
    np.testing.assert_allclose(each["loss"].mean(), loss, rtol=1e-5)


def test_predicted_padding_has_an_id_at_every_position():
    made, weights, rows = task(text_pads="predicted"), variables("predicted"), batch()
    text_bmv, _, _ = log_probs(made, weights)
    assert text_bmv.shape[-1] == WORDS + CONTEXT
    each = predict(made, "loss")(weights, rows)
    for b in range(B):
        targets = [
            rows["tokens"][b, i] if rows["tokens_mask"][b, i] else WORDS + i
            for i in range(1, CONTEXT)
        ]
        want = -text_bmv[b, np.arange(CONTEXT - 1), targets].mean()
        np.testing.assert_allclose(each["text_nats"][b], want, rtol=1e-5)


def test_terms_of_the_bound_are_sums():
    made, weights, rows = task(), variables(), batch()
    terms = predict(made, "elbo_terms")(weights, rows)
    each = predict(made, "loss")(weights, rows)
    counts_b = rows["tokens_mask"].sum(1) - 1
    np.testing.assert_allclose(
        terms["text_nll"], each["text_nats"] * counts_b, rtol=1e-5
    )
    np.testing.assert_allclose(terms["image_nll"], each["image_nats"] * N, rtol=1e-5)
    np.testing.assert_allclose(
        predict(made, "image_log_prob")(weights, rows), -terms["image_nll"], rtol=1e-6
    )
    ids_bn = log_probs(made, weights)[2]
    stage1 = weights.frozen["tokenizer"], rows["image"] / 255.0, ids_bn
    want_b = made.tokenizer.apply(*stage1, method="nll")
    np.testing.assert_allclose(terms["reconstruction"], want_b, rtol=1e-5)


def test_a_cache_of_tokens_stands_for_images():
    made, weights, rows = task(), variables(), batch()
    want = predict(made, "loss")(weights, rows)
    cached = rows | predict(made, "encode")(weights, rows)
    del cached["image"]
    got = predict(made, "loss")(weights, cached)
    jax.tree.map(np.testing.assert_array_equal, got, want)
    assert set(predict(made, "elbo_terms")(weights, cached)) == {
        "text_nll",
        "image_nll",
    }


def test_dropped_captions_are_read_as_padding_and_have_no_loss():
    weights, rows = variables(), batch()
    loss, (_, metrics) = task(caption_dropout=1.0).loss(weights, rows, ctx(train=True))
    bare = rows | {"tokens_mask": np.arange(CONTEXT) < np.ones((B, 1))}
    _, (_, want) = task().loss(weights, bare, ctx(train=True))
    assert metrics["text_nats"] == 0.0
    np.testing.assert_allclose(metrics["image_nats"], want["image_nats"], rtol=1e-6)
    np.testing.assert_allclose(loss, want["image_nats"] * 7 / 8, rtol=1e-6)
    # never while evaluating
    got, _ = task(caption_dropout=1.0).loss(weights, rows, ctx())
    np.testing.assert_allclose(got, task().loss(weights, rows, ctx())[0], rtol=1e-6)


@pytest.mark.parametrize("accum", [1, 2, 4])
@pytest.mark.parametrize("pads", ["ignored", "predicted"])
def test_dropped_captions_do_not_count_in_the_mean(pads, accum):
    """text_nats is that of the rows that kept theirs, in however many slices."""
    made, weights = task(caption_dropout=0.5, text_pads=pads), variables(pads)
    rows = batch() | {"tokens_mask": batch()["tokens_mask"].copy()}
    rows["tokens_mask"][1, 1:] = False  # no text at all: nothing to predict
    key = jax.random.key(2)  # keeps rows 0 and 1
    tx = optax.sgd(0.0)
    state = TrainState(
        step=jnp.int32(0),
        vars=weights,
        opt_state=tx.init(weights.params),
        ema=None,
        rng=key,
    )
    one = functools.partial(step.train_step, made, tx, accum=accum)
    _, metrics = jax.jit(one)(state, rows)
    keys_b = Ctx(rng=jax.random.fold_in(key, 0), step=0).example_keys(B)
    dropped_b = np.asarray([jax.random.bernoulli(k, 0.5) for k in keys_b])
    kept_b = ~dropped_b & (rows["tokens_mask"][:, 1:].any(1) | (pads == "predicted"))
    assert 0 < kept_b.sum() < B
    each = predict(task(text_pads=pads), "loss")(weights, rows)
    want = np.asarray(each["text_nats"])[kept_b].mean()
    np.testing.assert_allclose(metrics["text_nats"], want, rtol=1e-5)
    total = metrics["text_nats"] / 8 + metrics["image_nats"] * 7 / 8
    np.testing.assert_allclose(metrics["loss"], total, rtol=1e-5)


def test_captions_are_dropped_row_by_row_as_often_as_asked():
    """A single caption's text loss is 0 or not; the share of zeros is the rate."""
    made = task(caption_dropout=0.3)
    keys = jax.random.split(jax.random.key(0), 200)
    rows = {k: v[1:2] for k, v in batch().items()}
    cached = rows | predict(made, "encode")(variables(), rows)

    def text_nats(key: jax.Array) -> jax.Array:
        now = Ctx(rng=key, step=jnp.int32(0), train=True)
        return made.loss(variables(), cached, now)[1][1]["text_nats"]

    dropped = np.asarray(jax.jit(jax.vmap(text_nats))(keys) == 0).mean()
    assert abs(dropped - 0.3) < 5 * (0.3 * 0.7 / 200) ** 0.5


def prompts(rows: int = B, k: int = 3) -> dict[str, np.ndarray]:
    seeds = np.arange(10, 10 + rows, dtype=np.uint32)
    candidate = np.tile(np.arange(k, dtype=np.int32), (rows, 1))
    given = {key: batch(rows)[key] for key in ("tokens", "tokens_mask")}
    return given | {"seed": seeds, "candidate": candidate}


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("masks", ["paper", "full"])
def test_a_picture_is_the_same_whatever_it_is_drawn_with(masks: str, guidance: float):
    """One candidate of one prompt, alone and among others, in any order."""
    made = task(masks=masks, sampling=Sampling(guidance=guidance))
    sample = predict(made, "sample")
    all_pkn = sample(variables(), prompts())["image_tokens"]
    assert all_pkn.shape == (B, 3, N)
    assert len(np.unique(all_pkn.reshape(-1, N), axis=0)) == B * 3
    alone = {key: value[2:3] for key, value in prompts().items()}
    alone["candidate"] = np.asarray([[2]], np.int32)
    got = sample(variables(), alone)
    np.testing.assert_array_equal(got["image_tokens"][0, 0], all_pkn[2, 2])
    turned = {key: value[::-1] for key, value in prompts().items()}
    turned["candidate"] = turned["candidate"][:, ::-1]
    got = sample(variables(), turned)
    np.testing.assert_array_equal(got["image_tokens"], all_pkn[::-1, ::-1])


def scanned(weights: Vars) -> Vars:
    """The same weights for a task of `scan`."""
    rest = dict(weights.params)
    blocks = [rest.pop(f"block_{i}") for i in range(FIELDS["depth"])]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *blocks)
    return weights._replace(params=rest | {"blocks": stacked})


def test_attention_maps_see_what_the_masks_allow():
    """Layer by layer as unrolled as scanned, where layers are computed twice, too."""
    made, weights = task(masks=("row", "column")), variables()
    maps = predict(made, "attention_maps")(weights, batch())
    both = task(masks=("row", "column"), scan=True, remat="full")
    stacked = predict(both, "attention_maps")(scanned(weights), batch())
    for i, kind in enumerate(("row", "column")):
        map_bhtt = maps[f"block_{i}"]["attn"]["weights"]
        assert map_bhtt.shape == (B, made.heads, CONTEXT + N, CONTEXT + N)
        np.testing.assert_allclose(map_bhtt.sum(-1), 1, atol=1e-5)
        seen_tt = grid_masks.sequence_mask(kind, CONTEXT, made.tokenizer.grid)
        np.testing.assert_array_equal((map_bhtt > 0).all((0, 1)), seen_tt)
        of_layer = stacked["blocks"]["attn"]["weights"][i]
        np.testing.assert_allclose(of_layer, map_bhtt, atol=1e-5)


def test_token_log_probs_add_up():
    made, weights = task(), variables()
    each_bn = predict(made, "token_log_prob")(weights, batch())
    _, want_bnv, ids_bn = log_probs(made, weights)
    want_bn = np.take_along_axis(np.asarray(want_bnv), np.asarray(ids_bn)[..., None], 2)
    np.testing.assert_allclose(each_bn, want_bn[..., 0], atol=1e-4)


@pytest.mark.parametrize("scan", [False, True])
def test_log_prob_is_the_models_own(scan: bool):
    """Of all tokens without a prefix, of the rest with one; images are decoded."""
    made, weights = task(scan=scan, masks="row"), variables()
    weights = scanned(weights) if scan else weights
    out = predict(made, "sample")(weights, prompts())
    rows = {key: np.repeat(prompts()[key], 3, 0) for key in ("tokens", "tokens_mask")}
    rows["image_tokens"] = out["image_tokens"].reshape(-1, N)
    want_b = predict(made, "image_log_prob")(weights, rows)
    np.testing.assert_allclose(out["log_prob"].reshape(-1), want_b, rtol=1e-4)
    images = made.tokenizer.apply(
        weights.frozen["tokenizer"], rows["image_tokens"], method="decode_tokens"
    )
    assert out["image"].dtype == np.uint8
    near = np.abs(out["image"].reshape(images.shape) / 255.0 - images)
    assert near.max() <= 0.5 / 255 + 1e-6


def test_a_prefix_is_kept_and_gone_on_from():
    """Given the first tokens of a drawn picture, the same keys draw the rest of it."""
    made, weights = task(), variables()
    whole = predict(made, "sample")(weights, prompts(k=1))
    prefix = whole["image_tokens"][:, 0, :7]
    draw = jax.jit(made._draw)
    got = draw(weights, prompts(k=1), prefix)
    np.testing.assert_array_equal(got["image_tokens"], whole["image_tokens"])
    assert (got["log_prob"] > whole["log_prob"]).all()  # fewer tokens are drawn
    other = draw(weights, prompts(k=2), prefix)
    np.testing.assert_array_equal(
        other["image_tokens"][:, :, :7], np.repeat(prefix[:, None], 2, 1)
    )


def test_guided_log_prob_is_that_of_both_streams():
    """log softmax(u + 3 (c - u)) of whole sequences, c with the caption, u without."""
    made, weights, k = task(sampling=Sampling(guidance=3.0)), variables(), 2
    out = predict(made, "sample")(weights, prompts(k=k))
    ids = out["image_tokens"].reshape(-1, N)
    tokens, mask = (
        np.repeat(prompts()[key], k, 0) for key in ("tokens", "tokens_mask")
    )
    bare = mask & (np.arange(CONTEXT) == 0)
    run = jax.jit(
        lambda m: made.model.apply({"params": weights.params}, tokens, m, ids)
    )
    (_, with_bnv), (_, without_bnv) = run(mask), run(bare)
    assert np.abs(with_bnv - without_bnv).max() > 0.05
    logp_bnv = jax.nn.log_softmax(without_bnv + 3.0 * (with_bnv - without_bnv))
    want_bn = jnp.take_along_axis(logp_bnv, ids[..., None], -1)[..., 0]
    np.testing.assert_allclose(out["log_prob"].reshape(-1), want_bn.sum(1), rtol=1e-4)


def test_half_precision_draws_pictures():
    made = task(sampling=Sampling(dtype="bfloat16", top_k=5))
    out = predict(made, "sample")(variables(), prompts())
    ids = np.asarray(out["image_tokens"])
    assert ids.min() >= 0 and ids.max() < CODES and np.isfinite(out["log_prob"]).all()
    assert "bf16" in str(
        jax.make_jaxpr(lambda v, b: made.predict()["sample"](v, b, ctx()))(
            variables(), prompts()
        )
    )


def test_the_model_does_the_work_of_text_once_a_prompt(monkeypatch):
    """Prefill sees a row a prompt, whatever the number of candidates."""
    seen, generate = [], autoregressive.generate

    def spy(first_pv, *args, **kwargs):
        seen.append(first_pv.shape[0])
        return generate(first_pv, *args, **kwargs)

    monkeypatch.setattr(autoregressive, "generate", spy)
    predict(task(), "sample")(variables(), prompts(rows=2, k=5))
    assert seen == [2]


def test_stage_1_is_frozen_and_not_touched():
    grads = jax.grad(
        lambda frozen: task().loss(
            variables()._replace(frozen=frozen), batch(), ctx(train=True)
        )[0],
        allow_int=True,
    )(variables().frozen)
    assert all((np.asarray(g) == 0).all() for g in jax.tree.leaves(grads))
    assert "tokenizer" in variables().frozen
    assert not any("codebook" in path for path in variables().params)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(image_vocab=64), "image_vocab is 64, and stage1 has 32: set image_vocab"),
        (dict(grid=8), "grid is 8, and stage1 has 4: set grid"),
        (dict(caption_dropout=1.5), "caption_dropout is 1.5"),
        (dict(text_weight=-0.1), "text_weight is -0.1"),
        (dict(sampling=dict(top_q=1)), "unknown key 'top_q'; did you mean 'top_p'"),
        (dict(stage1=STAGE1 | {"kind": "vq"}), "config.task.stage1.kind is 'vq'"),
    ],
)
def test_bad_fields_are_named(fields: dict, message: str):
    with pytest.raises(UserError, match=message):
        task(**fields)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        (dict(size=32), "size is 32, and .* of 16: set config.task.stage1.image_size"),
        (dict(ids=31), "31 ids .*the model 30: set config.task.vocab_size to 31"),
        (dict(length=5), "context of 5, .* 6: set config.task.context to 5"),
    ],
)
def test_data_that_do_not_fit_are_named(facts: dict, message: str):
    def spec(size=SIZE, ids=WORDS, length=CONTEXT):
        tokens = {"shape": (length,), "vocab_size": ids}
        return {"image": {"shape": (size, size, 3)}, "tokens": tokens}

    task().check(spec())
    with pytest.raises(UserError, match=message):
        task().check(spec(**facts))


def test_data_without_text_are_refused():
    images = fields.build({"image": {"kind": "image", "size": SIZE}})
    with pytest.raises(UserError, match="data.fields has no tokens, which is read"):
        fields.choose(images, None, task().reads)


def test_presets_hold_the_papers_numbers():
    config = configs.get_config("dalle_12b")
    optim = config.optim
    assert (optim.b1, optim.b2, optim.eps) == (0.9, 0.96, 1e-8)
    assert (optim.weight_decay, optim.clip_norm, optim.warmup) == (0.045, 4.0, 5000)
    assert (optim.lr, config.batch_size, config.steps) == (4.5e-4, 1024, 430_000)
    np.testing.assert_allclose(optim.lr / optim.final_lr, 32)
    made = schema.from_mapping(
        Task, {k: v for k, v in config.task.items() if k != "name"}, "config.task"
    )
    assert made.text_weight == 1 / 8 and made.conv_kernel == 11
    same = {f.name for f in dataclasses.fields(made.model)} & set(FIELDS)
    assert {k: getattr(made.model, k) for k in sorted(same)} == {
        "context": 258,  # 256 byte pairs between the two marks
        "conv_kernel": 11,
        "depth": 64,
        "heads": 62,
        "vocab_size": 16384,
        "width": 3968,
    }
