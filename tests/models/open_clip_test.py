"""Golden numbers: open_clip's torch models with our arrays made from their weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.losses import contrastive
from mmjax.models import presets

torch = pytest.importorskip("torch")
open_clip = pytest.importorskip("open_clip")


def linear(state, name):
    params = {"kernel": state[f"{name}.weight"].T}
    if f"{name}.bias" in state:
        params["bias"] = state[f"{name}.bias"]
    return params


def norm(state, name):
    return {"scale": state[f"{name}.weight"], "bias": state[f"{name}.bias"]}


def blocks(state, prefix):
    out, i = {}, 0
    while f"{prefix}.{i}.ln_1.weight" in state:
        at = f"{prefix}.{i}"
        out[f"block_{i}"] = {
            "norm_1": norm(state, f"{at}.ln_1"),
            "norm_2": norm(state, f"{at}.ln_2"),
            "attn": {
                "qkv": {
                    "kernel": state[f"{at}.attn.in_proj_weight"].T,
                    "bias": state[f"{at}.attn.in_proj_bias"],
                },
                "out": linear(state, f"{at}.attn.out_proj"),
            },
            "mlp": {
                "fc": linear(state, f"{at}.mlp.c_fc"),
                "proj": linear(state, f"{at}.mlp.c_proj"),
            },
        }
        i += 1
    return out


def conv(state, name):
    weight = state[f"{name}.weight"].transpose(2, 3, 1, 0)
    return {"kernel": weight[0, 0] if weight.shape[:2] == (1, 1) else weight}


def batch_norm(state, name):
    stats = {
        "mean": state[f"{name}.running_mean"],
        "var": state[f"{name}.running_var"],
    }
    return norm(state, name), stats


def vit(state):
    patches = state["visual.conv1.weight"].transpose(2, 3, 1, 0)
    return {
        "patches": {"kernel": patches.reshape(-1, patches.shape[-1])},
        "class_token": state["visual.class_embedding"],
        "position_embedding": state["visual.positional_embedding"],
        "norm_pre": norm(state, "visual.ln_pre"),
        "transformer": blocks(state, "visual.transformer.resblocks"),
        "norm_post": norm(state, "visual.ln_post"),
    }


def resnet(state):
    params, stats = {}, {}
    for i in (1, 2, 3):
        params[f"conv_{i}"] = conv(state, f"visual.conv{i}")
        params[f"norm_{i}"], stats[f"norm_{i}"] = batch_norm(state, f"visual.bn{i}")
    for key in state:
        if not key.startswith("visual.layer") or not key.endswith("conv1.weight"):
            continue
        at = key.removesuffix(".conv1.weight")
        stage, block = at.removeprefix("visual.layer").split(".")
        p, s = {}, {}
        for i, part in enumerate(("reduce", "conv", "expand"), 1):
            p[part] = conv(state, f"{at}.conv{i}")
            norm_i = f"norm_{part}"
            p[norm_i], s[norm_i] = batch_norm(state, f"{at}.bn{i}")
        if f"{at}.downsample.0.weight" in state:
            p["skip"] = conv(state, f"{at}.downsample.0")
            p["norm_skip"], s["norm_skip"] = batch_norm(state, f"{at}.downsample.1")
        name = f"stage_{int(stage) - 1}_block_{block}"
        params[name], stats[name] = p, s
    pool = "visual.attnpool"
    key, value = (linear(state, f"{pool}.{x}_proj") for x in "kv")
    params["pool"] = {
        "position_embedding": state[f"{pool}.positional_embedding"],
        "query": linear(state, f"{pool}.q_proj"),
        "key_value": {
            "kernel": np.concatenate([key["kernel"], value["kernel"]], 1),
            "bias": np.concatenate([key["bias"], value["bias"]]),
        },
    }
    return params, stats


def variables_of(model):
    """Our variables from a torch model of open_clip's CLIP class."""
    state = {k: v.detach().numpy() for k, v in model.state_dict().items()}
    params = {
        "text": {
            "token_embedding": state["token_embedding.weight"],
            "position_embedding": state["positional_embedding"],
            "transformer": blocks(state, "transformer.resblocks"),
            "norm_post": norm(state, "ln_final"),
        },
        "text_proj": {"kernel": state["text_projection"]},
        "logit_scale": state["logit_scale"],
    }
    if "visual.attnpool.c_proj.weight" in state:
        params["image"], stats = resnet(state)
        params["image_proj"] = linear(state, "visual.attnpool.c_proj")
        return {"params": params, "batch_stats": {"image": stats}}
    params["image"] = vit(state)
    params["image_proj"] = {"kernel": state["visual.proj"]}
    return {"params": params}


def torch_model(image, text, embed_dim, act):
    torch.manual_seed(0)
    model = open_clip.model.CLIP(embed_dim, image, text, quick_gelu=act == "quick_gelu")
    with torch.no_grad():  # zeros and ones would hide mistakes
        for p in model.parameters():
            if p.ndim == 1:
                p.add_(0.1 * torch.randn_like(p))
        for name, b in model.named_buffers():
            if name.endswith("running_mean"):
                b.copy_(0.1 * torch.randn_like(b))
            if name.endswith("running_var"):
                b.copy_(0.5 + torch.rand_like(b))
    return model.eval()


def batch(size, vocab, context, n=3):
    rng = np.random.default_rng(0)
    images = rng.normal(size=(n, size, size, 3)).astype(np.float32)
    tokens = np.zeros((n, context), np.int32)
    for row, length in zip(tokens, (4, context, 7), strict=False):
        row[:length] = rng.integers(1, vocab - 2, length)
        row[0], row[length - 1] = vocab - 2, vocab - 1
    return images, tokens


def relative(got, want):
    return np.abs(got - want).max() / np.abs(want).max()


def check(model, ours, batch):
    images, tokens = batch
    variables = jax.tree.map(jnp.asarray, variables_of(model))
    shapes = jax.eval_shape(ours.init, jax.random.key(0), images, tokens)
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, shapes)
    got = jax.jit(ours.apply)(variables, images, tokens)
    with torch.no_grad():
        image = model.encode_image(torch.from_numpy(images).permute(0, 3, 1, 2))
        text = model.encode_text(torch.from_numpy(tokens).long())
    assert relative(got.image, image.numpy()) < 1e-4
    assert relative(got.text, text.numpy()) < 1e-4
    assert float(got.scale) == pytest.approx(
        np.exp(variables["params"]["logit_scale"]), rel=1e-6
    )


def check_training(model, ours, batch):
    """Gradients of the loss with batch statistics, by the images."""
    images, tokens = batch
    variables = jax.tree.map(jnp.asarray, variables_of(model))

    def loss(images):
        out, _ = ours.apply(
            variables, images, tokens, train=True, mutable=["batch_stats"]
        )
        image, text = (contrastive.l2_normalize(x) for x in (out.image, out.text))
        return contrastive.info_nce(image, text, out.scale)

    got, got_grad = jax.jit(jax.value_and_grad(loss))(images)
    x = torch.from_numpy(images).permute(0, 3, 1, 2).requires_grad_()
    out = model.train()(x, torch.from_numpy(tokens).long())
    want = open_clip.ClipLoss()(*out)
    (grad,) = torch.autograd.grad(want, x)
    assert float(got) == pytest.approx(want.item(), rel=1e-4)
    assert relative(got_grad, grad.permute(0, 2, 3, 1).numpy()) < 1e-3


@pytest.mark.parametrize("act", ["gelu", "quick_gelu"])
def test_small_vit(act):
    image = {"layers": 3, "width": 128, "patch_size": 16, "image_size": 64}
    text = {
        "context_length": 12,
        "vocab_size": 97,
        "width": 64,
        "heads": 2,
        "layers": 3,
    }
    model = torch_model(image, text, 48, act)
    ours = presets.build(
        image={"kind": "vit", "depth": 3, "width": 128, "patch": 16},
        text={"kind": "transformer", "depth": 3, "width": 64, "heads": 2},
        embed_dim=48,
        vocab_size=97,
        context=12,
        image_size=64,
        act=act,
    )
    check(model, ours, batch(64, 97, 12))


def test_small_resnet():
    image = {"layers": [1, 2, 1, 1], "width": 16, "image_size": 64, "patch_size": None}
    text = {
        "context_length": 12,
        "vocab_size": 97,
        "width": 64,
        "heads": 2,
        "layers": 1,
    }
    model = torch_model(image, text, 48, "gelu")
    ours = presets.build(
        image={"kind": "resnet", "depths": (1, 2, 1, 1), "width": 16},
        text={"kind": "transformer", "depth": 1, "width": 64, "heads": 2},
        embed_dim=48,
        vocab_size=97,
        context=12,
        image_size=64,
    )
    check(model, ours, batch(64, 97, 12))
    check_training(model, ours, batch(64, 97, 12))


@pytest.mark.parametrize("name", ["ViT-B/32", "RN50"])
def test_named_sizes(name):
    config = open_clip.get_model_config(name.replace("/", "-"))
    model = torch_model(
        config["vision_cfg"], config["text_cfg"], config["embed_dim"], ""
    )
    check(model, presets.build(name), batch(224, 49408, 77))
