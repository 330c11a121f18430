"""The originals of image tokenizers, for `--check`: torch is imported when called."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mmjax.errors import UserError
from mmjax.models.vqgan import VqganNet

Arrays = Mapping[str, np.ndarray]


def _torch(tensors: Arrays, head: str) -> dict[str, Any]:
    """The tensors whose names begin with `head`, without it."""
    import torch

    return {
        key.removeprefix(head): torch.from_numpy(value.copy())
        for key, value in tensors.items()
        if key.startswith(head)
    }


def _outputs(ids: Any, shown: Any) -> dict[str, np.ndarray]:
    """By our predict functions' names, from pictures in [0, 1], channels first."""
    tokens = ids.reshape(len(shown), -1).numpy().astype(np.float32)
    image = shown.clamp(0, 1).permute(0, 2, 3, 1).numpy()
    return {"encode/image_tokens": tokens, "reconstruct/image": image}


def taming(
    tensors: Arrays, net: VqganNet, codes: tuple[int, int], batch: Arrays
) -> dict[str, np.ndarray]:
    """Tokens and pictures by taming-transformers' networks.

    Args:
      tensors: by taming's keys. net: their numbers. codes: how many, how wide.
      batch: `image` uint8 (b, h, w, 3).

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
    size = batch["image"].shape[1]
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
    gumbel = "quantize.embed.weight" in tensors
    whole = torch.nn.Module()
    whole.encoder = model.Encoder(double_z=False, **numbers)
    whole.decoder = model.Decoder(**numbers)
    whole.quant_conv = torch.nn.Conv2d(net.hidden, codes[1], 1)
    whole.post_quant_conv = torch.nn.Conv2d(codes[1], net.hidden, 1)
    if gumbel:
        whole.quantize = quantize.GumbelQuantize(codes[1], codes[1], codes[0])
    else:
        whole.quantize = quantize.VectorQuantizer2(*codes, beta=0.25)
    whole.load_state_dict(_torch(tensors, ""))
    whole.eval()
    x = torch.from_numpy(batch["image"]).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        z = whole.quant_conv(whole.encoder(x))
        if gumbel:  # called whole it draws codes, in evaluation as well
            ids = whole.quantize.proj(z).argmax(1)
            quantized = whole.quantize.embed(ids).permute(0, 3, 1, 2)
        else:
            quantized, _, (_, _, ids) = whole.quantize(z)
        return _outputs(ids, whole.decoder(whole.post_quant_conv(quantized)) / 2 + 0.5)


def dall_e(
    tensors: Arrays, numbers: Mapping[str, int], batch: Arrays
) -> dict[str, np.ndarray]:
    """Tokens and pictures by OpenAI's dVAE.

    Args:
      tensors: by its keys, led by `encoder.` and `decoder.`. numbers: the keys of
        `mmjax.models.dvae.Spec`. batch: as in `taming`.

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
    if numbers["groups"] != Encoder.group_count:
        raise UserError(
            f"--check: a dVAE of {numbers['groups']} groups, and OpenAI's code has "
            f"{Encoder.group_count}"
        )
    shared = {
        "n_hid": numbers["hidden"],
        "n_blk_per_group": numbers["blocks_per_group"],
        "vocab_size": numbers["vocab_size"],
        "device": torch.device("cpu"),
    }
    encoder = Encoder(**shared)
    decoder = Decoder(n_init=numbers["init_width"], **shared)
    for module, head in ((encoder, "encoder."), (decoder, "decoder.")):
        module.load_state_dict(_torch(tensors, head))
    x = torch.from_numpy(batch["image"]).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        ids = encoder(0.1 + 0.8 * x).argmax(1)
        one_hot = torch.nn.functional.one_hot(ids, numbers["vocab_size"])
        mean = torch.sigmoid(decoder(one_hot.permute(0, 3, 1, 2).float())[:, :3])
        return _outputs(ids, (mean - 0.1) / 0.8)
