"""The original libraries' models, for `--check`: torch is imported when called.

Every function gives arrays by the names of our predict functions, of a batch of uint8
images (b, h, w, 3) and, where there is text, tokens.
"""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mmjax.convert.read import Source
from mmjax.errors import UserError
from mmjax.models.vqgan import VqganNet

Arrays = Mapping[str, np.ndarray]
Outputs = dict[str, np.ndarray]


def pixels(
    batch: Arrays, mean: Sequence[float] = (0.5,), std: Sequence = (0.5,)
) -> Any:
    """The images as torch takes them, channels first, normalised."""
    import torch

    mean, std = (np.asarray(s, np.float32) for s in (mean, std))
    scaled = (batch["image"].astype(np.float32) / 255 - mean) / std
    return torch.from_numpy(scaled).permute(0, 3, 1, 2).float()


def channels_last(value: Any) -> np.ndarray:
    return value.permute(0, 2, 3, 1).numpy()


def shown(images: Any) -> np.ndarray:
    """Images in [0, 1], channels last."""
    return channels_last(images.clamp(0, 1))


def tokens(ids: Any, images: Any) -> Outputs:
    """The outputs of an image tokenizer: token ids, and images in [0, 1]."""
    ids = ids.reshape(len(images), -1).numpy().astype(np.float32)
    return {"encode/image_tokens": ids, "reconstruct/image": shown(images)}


# -- dual encoders ---------------------------------------------------------------
def dual(
    model: Any,
    batch: Arrays,
    stats: tuple[Sequence[float], Sequence[float]],
    encode: tuple[Callable[[Any], Any], Callable[[Any], Any]],
) -> Outputs:
    """Unit embeddings and logits of a torch model.

    stats: mean and std of the pixels. encode: of images and of tokens.
    """
    import torch

    with torch.no_grad():
        image = encode[0](pixels(batch, *stats))
        text = encode[1](torch.from_numpy(batch["tokens"]).long())
        image, text = (x / x.norm(dim=-1, keepdim=True) for x in (image, text))
        bias = getattr(model, "logit_bias", None)
        logits = model.logit_scale.exp().item() * image @ text.T
        logits = logits + (0.0 if bias is None else bias.item())
    outputs = {"embed_image": image, "embed_text": text, "logits": logits}
    return {name: value.numpy() for name, value in outputs.items()}


def open_clip(model: Any, batch: Arrays, stats: tuple[Any, Any]) -> Outputs:
    """Outputs of a model of open_clip."""
    return dual(model, batch, stats, (model.encode_image, model.encode_text))


def hugging_face(kind: str, folder: pathlib.Path, batch: Arrays) -> Outputs:
    """Outputs of a model class of transformers, by its own loader."""
    import json

    import transformers

    model = getattr(transformers, kind).from_pretrained(folder).eval()
    config = json.loads((folder / "preprocessor_config.json").read_text())

    def pooled(value: Any) -> Any:  # transformers 5 wraps it, 4 did not
        return value if hasattr(value, "norm") else value.pooler_output

    return dual(
        model,
        batch,
        (config["image_mean"], config["image_std"]),
        (
            lambda x: pooled(model.get_image_features(pixel_values=x)),
            lambda x: pooled(model.get_text_features(input_ids=x)),
        ),
    )


# -- image tokenizers ------------------------------------------------------------
def _torch(tensors: Arrays, head: str) -> dict[str, Any]:
    """The tensors whose names begin with `head`, without it."""
    import torch

    return {
        key.removeprefix(head): torch.from_numpy(value.copy())
        for key, value in tensors.items()
        if key.startswith(head)
    }


def taming(source: Source, spec: Mapping[str, Any], batch: Arrays) -> Outputs:
    """Outputs of taming-transformers' networks; spec: our numbers of them.

    Raises:
      UserError: taming-transformers is not installed.
    """
    import torch

    try:
        from taming.modules.diffusionmodules import model
        from taming.modules.vqvae import quantize
    except ImportError as e:
        raise UserError(
            f"--check needs {e.name}: pip install --no-deps taming-transformers-rom1504"
            ", and pip install einops"
        ) from e
    net, size = VqganNet(**spec["net"]), batch["image"].shape[1]
    codes = spec["vocab_size"], spec["code_dim"]
    numbers = {
        "ch": net.width,
        "out_ch": 3,
        "ch_mult": net.mult,
        "num_res_blocks": net.depth,
        "attn_resolutions": [size // 2**level for level in net.attention],
        "in_channels": 3,
        "resolution": size,
        "z_channels": net.hidden,
    }
    gumbel = spec["kind"] == "gumbel_vq"
    whole = torch.nn.Module()
    whole.encoder = model.Encoder(double_z=False, **numbers)
    whole.decoder = model.Decoder(**numbers)
    whole.quant_conv = torch.nn.Conv2d(net.hidden, codes[1], 1)
    whole.post_quant_conv = torch.nn.Conv2d(codes[1], net.hidden, 1)
    if gumbel:
        whole.quantize = quantize.GumbelQuantize(codes[1], codes[1], codes[0])
    else:
        whole.quantize = quantize.VectorQuantizer2(*codes, beta=0.25)
    whole.load_state_dict(_torch(source.tensors, ""))
    whole.eval()
    with torch.no_grad():
        z = whole.quant_conv(whole.encoder(pixels(batch)))
        if gumbel:  # called whole it draws codes, in evaluation as well
            ids = whole.quantize.proj(z).argmax(1)
            quantized = whole.quantize.embed(ids).permute(0, 3, 1, 2)
        else:
            quantized, _, (_, _, ids) = whole.quantize(z)
        return tokens(ids, whole.decoder(whole.post_quant_conv(quantized)) / 2 + 0.5)


def dall_e(source: Source, spec: Mapping[str, int], batch: Arrays) -> Outputs:
    """Outputs of OpenAI's dVAE; spec: the keys of `mmjax.models.dvae.Spec`.

    Raises:
      UserError: OpenAI's package is not installed, or has another number of groups.
    """
    import torch

    try:
        from dall_e import Decoder, Encoder
    except ImportError as e:
        raise UserError(
            f"--check needs {e.name}: pip install --no-deps DALL-E, and pip install "
            "attrs requests"
        ) from e
    if spec["groups"] != Encoder.group_count:
        raise UserError(
            f"--check: a dVAE of {spec['groups']} groups, and OpenAI's code has "
            f"{Encoder.group_count}"
        )
    shared = {
        "n_hid": spec["hidden"],
        "n_blk_per_group": spec["blocks_per_group"],
        "vocab_size": spec["vocab_size"],
        "device": torch.device("cpu"),
    }
    encoder = Encoder(**shared)
    decoder = Decoder(n_init=spec["init_width"], **shared)
    encoder.load_state_dict(_torch(source.tensors, "encoder."))
    decoder.load_state_dict(_torch(source.tensors, "decoder."))
    x = pixels(batch, (0.0,), (1.0,))
    with torch.no_grad():
        ids = encoder(0.1 + 0.8 * x).argmax(1)
        one_hot = torch.nn.functional.one_hot(ids, spec["vocab_size"])
        mean = torch.sigmoid(decoder(one_hot.permute(0, 3, 1, 2).float())[:, :3])
        return tokens(ids, (mean - 0.1) / 0.8)
