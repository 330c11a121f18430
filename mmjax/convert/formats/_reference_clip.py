"""The original libraries' models, for `--check`: torch is imported when called."""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Outputs = dict[str, np.ndarray]


def outputs(
    batch: Mapping[str, np.ndarray],
    stats: tuple[Any, Any],
    encode_image: Callable[[Any], Any],
    encode_text: Callable[[Any], Any],
    numbers: tuple[float, float],
) -> Outputs:
    """Unit embeddings and logits of a batch of uint8 images and tokens.

    stats: mean and std of the pixels. encode_*: torch to torch. numbers: (scale, bias)
    of the logits.
    """
    import torch

    mean, std = (np.asarray(s, np.float32) for s in stats)
    pixels = (batch["image"].astype(np.float32) / 255 - mean) / std
    with torch.no_grad():
        image = encode_image(torch.from_numpy(pixels).permute(0, 3, 1, 2).float())
        words = encode_text(torch.from_numpy(batch["tokens"]).long())
        image, words = (x / x.norm(dim=-1, keepdim=True) for x in (image, words))
        scale, bias = numbers
        logits = scale * image @ words.T + bias
    found = {"embed_image": image, "embed_text": words, "logits": logits}
    return {name: value.numpy() for name, value in found.items()}


def hugging_face(
    kind: str, folder: pathlib.Path, batch: Mapping[str, np.ndarray]
) -> Outputs:
    """A model class of transformers, by its own loader."""
    import json

    import transformers

    model = getattr(transformers, kind).from_pretrained(folder).eval()
    found = json.loads((folder / "preprocessor_config.json").read_text())

    def pooled(value: Any) -> Any:  # transformers 5 wraps it, 4 did not
        return value if hasattr(value, "norm") else value.pooler_output

    return outputs(
        batch,
        (found["image_mean"], found["image_std"]),
        lambda x: pooled(model.get_image_features(pixel_values=x)),
        lambda x: pooled(model.get_text_features(input_ids=x)),
        temperature(model),
    )


def temperature(model: Any) -> tuple[float, float]:
    """(scale, bias) of a torch model's logits."""
    bias = getattr(model, "logit_bias", None)
    scale = model.logit_scale.detach().exp().item()
    return scale, 0.0 if bias is None else bias.item()


def open_clip(model: Any, stats: tuple, batch: Mapping[str, np.ndarray]) -> Outputs:
    """A model of open_clip."""
    encode = model.encode_image, model.encode_text
    return outputs(batch, stats, *encode, temperature(model))
