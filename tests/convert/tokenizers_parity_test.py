"""Image tokenizers against their originals, at random weights and every named size."""

import dataclasses
import json

import numpy as np
import pytest
import safetensors.numpy

from mmjax.convert import formats, import_export
from mmjax.inference import load

torch = pytest.importorskip("torch")
load_file = pytest.importorskip("safetensors.torch").load_file
pytestmark = pytest.mark.parity
ATOL = 1e-4  # of pictures in [0, 1], and relative to the largest latent

F16 = {"ch_mult": (1, 1, 2, 2, 4), "attn_resolutions": [16]}
SIZES = {
    "f16-1024": dict(F16, codes=1024),
    "f16-16384": dict(F16, codes=16384),
    "gumbel-f8": dict(ch_mult=(1, 1, 2, 4), attn_resolutions=[32], codes=8192),
}


def spread(module, seed=0):
    """Random gains and biases too: at 1 and 0 they would hide mistakes."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in module.parameters():
            if value.ndim == 1:
                value.add_(0.1 * torch.randn(value.shape, generator=generator))
    return module.eval()


def pictures(size, count=1):
    """Smooth ones with edges, uint8."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (count, 8, 8, 3)).astype(np.float32)
    fine = coarse.repeat(size // 8, 1).repeat(size // 8, 2)
    return np.clip(fine + rng.normal(0, 8, fine.shape), 0, 255).astype(np.uint8)


def as_torch(image):
    return torch.from_numpy(image).permute(0, 3, 1, 2).float() / 127.5 - 1


def shown(y):
    return (y.permute(0, 2, 3, 1) / 2 + 0.5).clamp(0, 1).numpy()


def opened(folder, workdir, family):
    done = import_export.bring_in(str(folder), workdir)
    assert done.family == family
    run = load.load_run(workdir)
    return lambda name, batch: run.parts.predict[name](run.state.eval_vars(), batch)


def same_tokens(got, want, margin):
    """Equal where the two best codes are further apart than rounding moves them."""
    got, want, clear = np.asarray(got).ravel(), want.ravel(), margin.ravel() > 1e-4
    assert clear.mean() > 0.95
    np.testing.assert_array_equal(got[clear], want[clear])


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", SIZES)
def test_taming(name, tmp_path):
    model = pytest.importorskip("taming.modules.diffusionmodules.model")
    quantize = pytest.importorskip("taming.modules.vqvae.quantize")
    size, gumbel = dict(SIZES[name]), name.startswith("gumbel")
    codes = size.pop("codes")
    common = dict(
        ch=128, out_ch=3, num_res_blocks=2, in_channels=3, resolution=256, **size
    )
    whole = torch.nn.Module()
    whole.encoder = model.Encoder(z_channels=256, double_z=False, **common)
    whole.decoder = model.Decoder(z_channels=256, **common)
    if gumbel:
        whole.quantize = quantize.GumbelQuantize(256, 256, codes)
    else:
        whole.quantize = quantize.VectorQuantizer2(codes, 256, beta=0.25)
        # As far apart as trained codes: at the start all are equally near.
        torch.nn.init.normal_(whole.quantize.embedding.weight)
    whole.quant_conv = torch.nn.Conv2d(256, 256, 1)
    whole.post_quant_conv = torch.nn.Conv2d(256, 256, 1)
    torch.manual_seed(0)
    spread(whole)
    torch.save({"state_dict": whole.state_dict()}, tmp_path / "last.ckpt")
    image = pictures(256)
    with torch.no_grad():
        z = whole.quant_conv(whole.encoder(as_torch(image)))
        if gumbel:
            logits = whole.quantize.proj(z)
            ids = logits.argmax(1)
            two = logits.topk(2, 1).values
            rows = whole.quantize.embed(ids)
        else:
            _, _, (_, _, ids) = whole.quantize(z)
            ids = ids.reshape(1, *z.shape[2:])
            flat, table = z.permute(0, 2, 3, 1), whole.quantize.embedding.weight
            far = -torch.cdist(flat.reshape(-1, 256), table)
            two = far.topk(2, 1).values.T[None]
            rows = whole.quantize.embedding(ids)
        margin = (two[:, 0] - two[:, 1]).numpy()
        want = shown(whole.decoder(whole.post_quant_conv(rows.permute(0, 3, 1, 2))))
    family = "taming_gumbel" if gumbel else "taming_vqgan"
    predict = opened(tmp_path / "last.ckpt", tmp_path / "run", family)
    tokens = predict("encode", {"image": image})["image_tokens"]
    same_tokens(tokens, ids.numpy(), margin)
    ours = predict("decode", {"image_tokens": ids.numpy().reshape(1, -1)})["image"]
    far = np.abs(np.asarray(ours) - want).max()
    print(
        f"{name}: {(np.asarray(tokens) != ids.numpy().reshape(1, -1)).sum()} of "
        f"{ids.numel()} tokens differ, pictures by {far:.1e}"
    )
    assert far < ATOL


STABLE = dict(
    down_block_types=["DownEncoderBlock2D"] * 4,
    up_block_types=["UpDecoderBlock2D"] * 4,
    block_out_channels=[128, 256, 512, 512],
    layers_per_block=2,
    latent_channels=4,
    sample_size=256,
)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    "name, more",
    [
        ("stable-diffusion", {}),
        (
            "16-channels",
            dict(
                latent_channels=16,
                use_quant_conv=False,
                use_post_quant_conv=False,
                shift_factor=0.1,
            ),
        ),
    ],
)
def test_diffusers_autoencoder_kl(name, more, tmp_path):
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    model = spread(diffusers.AutoencoderKL(**{**STABLE, **more}))
    model.save_pretrained(tmp_path / "hf")
    image = pictures(256)
    with torch.no_grad():
        latent = model.encode(as_torch(image)).latent_dist.mode()
        want = shown(model.decode(latent).sample)
    seen = (latent - (more.get("shift_factor") or 0)) * model.config.scaling_factor
    seen = seen.permute(0, 2, 3, 1).numpy()
    predict = opened(tmp_path / "hf", tmp_path / "run", "diffusers_kl")
    got = np.asarray(predict("encode", {"image": image})["latent"])
    ours = np.asarray(predict("decode", {"latent": seen})["image"])
    relative = np.abs(got - seen).max() / np.abs(seen).max()
    far = np.abs(ours - want).max()
    print(f"{name}: latents {relative:.1e} relative, pictures {far:.1e}")
    assert relative < ATOL and far < ATOL


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    "more",
    [
        dict(num_vq_embeddings=8192, latent_channels=3, vq_embed_dim=3,
             block_out_channels=[128, 256, 512], layers_per_block=2,
             down_block_types=["DownEncoderBlock2D"] * 3,
             up_block_types=["UpDecoderBlock2D"] * 3, sample_size=256),
        dict(num_vq_embeddings=64, latent_channels=8, vq_embed_dim=4,
             block_out_channels=[32, 64], layers_per_block=1, norm_num_groups=16,
             down_block_types=["DownEncoderBlock2D", "AttnDownEncoderBlock2D"],
             up_block_types=["AttnUpDecoderBlock2D", "UpDecoderBlock2D"],
             sample_size=64),
    ],
    ids=["ldm-vq-f4", "attention"],
)  # fmt: skip
def test_diffusers_vq_model(more, tmp_path):
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    model = spread(diffusers.VQModel(**more))
    torch.nn.init.normal_(model.quantize.embedding.weight)  # apart, as trained ones
    model.save_pretrained(tmp_path / "hf")
    image = pictures(more["sample_size"])
    with torch.no_grad():
        z = model.encode(as_torch(image)).latents
        _, _, (_, _, ids) = model.quantize(z)
        table = model.quantize.embedding.weight
        flat = z.permute(0, 2, 3, 1).reshape(-1, table.shape[1])
        two = (-torch.cdist(flat, table)).topk(2, 1).values
        rows = model.quantize.embedding(ids).reshape(1, *z.shape[2:], -1)
        want = shown(model.decode(rows.permute(0, 3, 1, 2)).sample)
    predict = opened(tmp_path / "hf", tmp_path / "run", "diffusers_vq")
    tokens = predict("encode", {"image": image})["image_tokens"]
    margin = (two[:, 0] - two[:, 1]).numpy()
    same_tokens(tokens, ids.numpy(), margin)
    ours = predict("decode", {"image_tokens": ids.numpy().reshape(1, -1)})["image"]
    far = np.abs(np.asarray(ours) - want).max()
    print(f"vq: pictures {far:.1e}")
    assert far < ATOL


@pytest.mark.timeout(1200)
def test_openai_dvae_from_whole_modules(tmp_path):
    """The released files hold pickled modules: their arrays are read, nothing runs."""
    encoders = pytest.importorskip("dall_e.encoder")
    decoders = pytest.importorskip("dall_e.decoder")
    torch.manual_seed(0)
    cpu = torch.device("cpu")
    encoder, decoder = encoders.Encoder(device=cpu), decoders.Decoder(device=cpu)
    for net in (encoder, decoder):
        with torch.no_grad():
            for key, value in net.named_parameters():
                if key.endswith(".b"):
                    value.add_(0.1 * torch.randn_like(value))
    folder = tmp_path / "dalle"
    folder.mkdir()
    torch.save(encoder, folder / "encoder.pkl")
    torch.save(decoder, folder / "decoder.pkl")
    image = pictures(256)
    x = 0.1 + 0.8 * torch.from_numpy(image).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        logits = encoder(x)
        ids = logits.argmax(1)
        two = logits.topk(2, 1).values
        one_hot = torch.nn.functional.one_hot(ids, 8192).permute(0, 3, 1, 2).float()
        out = torch.sigmoid(decoder(one_hot)[:, :3])
    want = ((out - 0.1) / 0.8).clamp(0, 1).permute(0, 2, 3, 1).numpy()
    predict = opened(folder, tmp_path / "run", "openai_dvae")
    tokens = predict("encode", {"image": image})["image_tokens"]
    same_tokens(tokens, ids.numpy(), (two[:, 0] - two[:, 1]).numpy())
    ours = predict("decode", {"image_tokens": ids.numpy().reshape(1, -1)})["image"]
    far = np.abs(np.asarray(ours) - want).max()
    print(f"dVAE: pictures {far:.1e}")
    assert far < ATOL


@pytest.mark.timeout(600)
def test_check_compares_with_the_original(tmp_path):
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    small = dict(STABLE, block_out_channels=[32, 64, 64, 64], sample_size=64)
    spread(diffusers.AutoencoderKL(**small)).save_pretrained(tmp_path / "hf")
    found = import_export.check(
        import_export.bring_in(str(tmp_path / "hf"), tmp_path / "run")
    )
    assert found.keys() == {"encode/latent", "reconstruct/image"}
    assert max(relative for _, relative in found.values()) < ATOL, found


def test_a_training_checkpoint_of_diffusers_round_trips(tmp_path):
    """float16 weights come back as they were, by `mmjax convert` both ways."""
    diffusers = pytest.importorskip("diffusers")
    small = dict(STABLE, block_out_channels=[32, 64, 64, 64], sample_size=64)
    diffusers.AutoencoderKL(**small).half().save_pretrained(tmp_path / "hf")
    import_export.bring_in(str(tmp_path / "hf"), tmp_path / "run")
    import_export.write_out(tmp_path / "run", tmp_path / "back")
    name = formats.find("diffusers_vq").FILE
    want, got = (load_file(tmp_path / folder / name) for folder in ("hf", "back"))
    assert want.keys() == got.keys()
    for key, value in want.items():
        assert got[key].dtype == value.dtype and torch.equal(got[key], value), key
    configs = [
        json.loads((tmp_path / folder / "config.json").read_text())
        for folder in ("hf", "back")
    ]
    assert configs[0] == configs[1]


SMALL = {"width": 32, "mult": (1, 2), "depth": 1, "hidden": 8, "attention": (1,)}
CODES = {"image_size": 32, "vocab_size": 16, "code_dim": 6}
NET = {"net": {"kind": "vqgan", **SMALL}}
VQ = {"kind": "vqvae", **CODES, **NET, "ema": False}
DVAE = {"kind": "dvae", "image_size": 32, "vocab_size": 512, "hidden": 64}
GUMBEL = {"kind": "gumbel_vq", **CODES, **NET}
CHECKED = {
    "taming_vqgan": {
        "name": "vqvae",
        "kmeans": 0,
        "revive_below": 0.0,
        "tokenizer": VQ,
    },
    "taming_gumbel": {"name": "gumbel_vq", "tokenizer": GUMBEL},
    "openai_dvae": {"name": "dvae", "tokenizer": DVAE | {"blocks_per_group": 1}},
}


@pytest.mark.parametrize("name", CHECKED)
def test_check_of_tokenizers(name, tmp_path, model_of):
    """At another size of pictures than the formats' 256, as overrides set it."""
    pytest.importorskip("dall_e" if name == "openai_dvae" else "taming")
    model = model_of(CHECKED[name])
    arrays = {  # of a start's size: larger ones saturate every pixel
        k: np.float32(v / np.prod(v.shape[:-1]) ** 0.5) if v.ndim > 1 else v
        for k, v in model.arrays.items()
    }
    export = formats.find(name).from_mmjax(dataclasses.replace(model, arrays=arrays))
    (tmp_path / "in").mkdir()
    for file, tensors in export.tensors.items():
        safetensors.numpy.save_file(dict(tensors), tmp_path / "in" / file)
    sizes = [
        "--config.task.tokenizer.image_size=32",
        "--config.data.fields.image.size=32",
    ]
    done = import_export.bring_in(
        str(tmp_path / "in"), tmp_path / "run", family=None, overrides=sizes
    )
    found = import_export.check(done)
    assert found.keys() == {"encode/image_tokens", "reconstruct/image"}
    assert max(far for far, _ in found.values()) < ATOL, found
