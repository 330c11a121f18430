"""Merged factors in open_clip: the logits of the adapter that was trained here."""

import finetuning
import numpy as np
import pytest

from mmjax import cli
from mmjax.convert import import_export
from mmjax.inference import load

pytest.importorskip("torch")
open_clip = pytest.importorskip("open_clip")
pytestmark = pytest.mark.parity

TEXT = {"context_length": 16, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2}
VIT = {"layers": 2, "width": 64, "head_width": 64, "patch_size": 8, "image_size": 16}


def test_exported_merged_weights_give_the_adapters_logits(tmp_path):
    import json

    import safetensors.torch
    import torch

    torch.manual_seed(0)
    config = {"embed_dim": 32, "vision_cfg": VIT, "text_cfg": TEXT, "quick_gelu": True}
    model = open_clip.CLIP(**config).eval()
    folder = tmp_path / "released"
    folder.mkdir()
    weights = {key: value.contiguous() for key, value in model.state_dict().items()}
    safetensors.torch.save_file(weights, folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    (tmp_path / "small.py").write_text(finetuning.RECIPES)
    run = tmp_path / "run"
    given = ["--recipe", f"{tmp_path}/small.py:lora", "--workdir", str(run)]
    given += ["--data", "shapes:train?size=16&count=64"]
    given += ["--test", "shapes:val?size=16&objects=1&count=8"]
    assert cli.main(["finetune", str(folder), *given]) == 0

    adapted = load.load_run(run)
    images = list(np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), np.uint8))
    texts = ["a red star", "two blue circles"]
    ours = adapted.logits(adapted.embed_images(images), adapted.embed_texts(texts))
    done = import_export.write_out(run / "merged", tmp_path / "out")
    assert done.family == "open_clip"
    held = safetensors.torch.load_file(tmp_path / "out/open_clip_model.safetensors")
    other = open_clip.CLIP(**config).eval()
    other.load_state_dict(held)
    mean, std = (np.asarray(getattr(adapted.task.inner, k)) for k in ("mean", "std"))
    pixels = (np.stack(images) / 255.0 - mean) / std
    tokens = adapted.tokenizer.encode(texts)[0]
    with torch.no_grad():
        image = torch.from_numpy(pixels.transpose(0, 3, 1, 2).astype(np.float32))
        logits, _ = other.get_logits(image, torch.from_numpy(tokens).long())
        before, _ = model.get_logits(image, torch.from_numpy(tokens).long())
    np.testing.assert_allclose(ours, logits.numpy(), atol=1e-3)
    assert np.abs(before.numpy() - ours).max() > 0.01
