"""Small public models with random weights, as their libraries save them."""

import json
import pathlib

import jax
import numpy as np
import pytest

from mmjax import tree
from mmjax.convert import formats
from mmjax.tasks import base

MERGES = (("h", "e</w>"), ("t", "he</w>"), ("d", "o"), ("do", "g</w>"))
VOCAB = 512 + len(MERGES) + 2


def clip_arrays(rng, *, width=16, depth=2, heads=2, embed=8, patch=4, size=8):
    """Arrays of a tiny Hugging Face CLIPModel, made without torch."""
    shapes = {
        "logit_scale": (),
        "visual_projection.weight": (embed, width),
        "text_projection.weight": (embed, width),
        "vision_model.embeddings.class_embedding": (width,),
        "vision_model.embeddings.patch_embedding.weight": (width, 3, patch, patch),
        "vision_model.embeddings.position_embedding.weight": (
            (size // patch) ** 2 + 1,
            width,
        ),
        "text_model.embeddings.token_embedding.weight": (VOCAB, width),
        "text_model.embeddings.position_embedding.weight": (12, width),
    }
    norms = ["vision_model.pre_layrnorm", "vision_model.post_layernorm"]
    norms.append("text_model.final_layer_norm")
    for side in ("vision", "text"):
        for i in range(depth):
            at = f"{side}_model.encoder.layers.{i}"
            norms += [f"{at}.layer_norm1", f"{at}.layer_norm2"]
            layers = {f"self_attn.{x}_proj": (width, width) for x in ("q", "k", "v")}
            layers |= {"self_attn.out_proj": (width, width)}
            layers |= {"mlp.fc1": (4 * width, width), "mlp.fc2": (width, 4 * width)}
            for name, shape in layers.items():
                shapes |= {f"{at}.{name}.weight": shape, f"{at}.{name}.bias": shape[:1]}
    for name in norms:
        shapes |= {f"{name}.weight": (width,), f"{name}.bias": (width,)}
    return {
        k: rng.normal(size=v, scale=0.3).astype(np.float32) for k, v in shapes.items()
    }


@pytest.fixture
def hf_clip(tmp_path) -> pathlib.Path:
    """A folder as `CLIPModel.save_pretrained` and its processor write it."""
    import safetensors.numpy

    from mmjax.convert.formats import _clip_tokenizer

    folder = tmp_path / "hf_clip"
    folder.mkdir()
    arrays = clip_arrays(np.random.default_rng(0))
    shared = {"hidden_size": 16, "intermediate_size": 64, "num_hidden_layers": 2}
    shared |= {"num_attention_heads": 2, "hidden_act": "gelu"}
    config = {
        "model_type": "clip",
        "projection_dim": 8,
        "text_config": shared | {"vocab_size": VOCAB, "max_position_embeddings": 12},
        "vision_config": shared | {"image_size": 8, "patch_size": 4},
    }
    position_ids = {"text_model.embeddings.position_ids": np.arange(12)[None]}
    safetensors.numpy.save_file(arrays | position_ids, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    words = _clip_tokenizer.from_merges(MERGES, 12)
    for name, text in _clip_tokenizer.hugging_face_files(words)[0].items():
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def model_of():
    """task -> formats.Model."""
    return _model_of


def _model_of(task):
    """Random arrays of a task, as a format is given them."""
    built = base.build(task)
    shape = built.model
    batch = {"image": np.zeros((1, shape.image_size, shape.image_size, 3), np.uint8)}
    shapes = jax.eval_shape(built.init, jax.random.key(0), batch)
    rng = np.random.default_rng(0)
    arrays = {
        path: rng.normal(size=leaf.shape).astype(np.float32)
        for path, leaf in tree.flatten(
            {"params": shapes.params, **shapes.extra}
        ).items()
    }
    image = {"size": 256, "mode": "crop", "method": "bilinear"}
    return formats.Model(task, image, None, arrays)
