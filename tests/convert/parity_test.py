"""Against the originals: transformers, open_clip and OpenAI's archives, random weights.

Every model goes in, is written out again and opened by its library: the file is equal
to the bit, embeddings within 1e-4 of the largest, logits within 1e-3.
"""

import copy
import json

import numpy as np
import pytest

from mmjax.convert import formats, import_export, name_table, read
from mmjax.errors import UserError

torch = pytest.importorskip("torch")
open_clip = pytest.importorskip("open_clip")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.parity

TEXT = {"context_length": 16, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2}
VIT = {"layers": 2, "width": 64, "head_width": 32, "patch_size": 16, "image_size": 64}
RESNET = {"layers": [1, 2, 1, 1], "width": 16, "image_size": 64, "patch_size": None}
SIGLIP_TEXT = TEXT | {
    "hf_tokenizer_name": "timm/ViT-B-16-SigLIP",
    "tokenizer_kwargs": {"clean": "canonicalize"},
    "vocab_size": 400,
    "no_causal_mask": True,
    "proj_bias": True,
    "pool_type": "last",
    "norm_kwargs": {"eps": 1e-6},
}
MODELS = {
    "vit": {"embed_dim": 32, "vision_cfg": VIT, "text_cfg": TEXT},
    "quick": {"embed_dim": 32, "vision_cfg": VIT, "text_cfg": TEXT, "quick_gelu": True},
    "custom": {
        "embed_dim": 32,
        "vision_cfg": VIT,
        "text_cfg": TEXT,
        "custom_text": True,
    },
    "bias": {
        "embed_dim": 32,
        "vision_cfg": VIT,
        "text_cfg": TEXT,
        "init_logit_bias": -10,
        "nonscalar_logit_scale": True,
    },
    "resnet": {"embed_dim": 32, "vision_cfg": RESNET, "text_cfg": TEXT},
    "siglip": {
        "embed_dim": 768,
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": {
            "image_size": 224,
            "timm_model_name": "vit_base_patch16_siglip_224",
            "timm_model_pretrained": False,
            "timm_pool": "map",
            "timm_proj": "none",
        },
        "text_cfg": SIGLIP_TEXT | {"width": 64},
    },
}


def randomise(model):
    """No zeros and ones that would hide mistakes."""
    torch.manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim <= 1 and p.numel() > 1:
                p.add_(0.1 * torch.randn_like(p))
        for name, b in model.named_buffers():
            if name.endswith("running_mean"):
                b.copy_(0.1 * torch.randn_like(b))
            if name.endswith("running_var"):
                b.copy_(0.5 + torch.rand_like(b))
            if name.endswith("num_batches_tracked"):
                b.fill_(7)
    return model.eval()


def built(config):
    """open_clip's model of a JSON model config."""
    torch.manual_seed(0)
    config = copy.deepcopy(config)
    custom = config.pop("custom_text", False)
    kind = open_clip.model.CustomTextCLIP if custom else open_clip.model.CLIP
    return randomise(kind(**config))


def words(folder, size=400):
    """A tokenizer.json of a SigLIP, trained on a line."""
    import tokenizers

    made = tokenizers.Tokenizer(tokenizers.models.Unigram())
    made.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    trainer = tokenizers.trainers.UnigramTrainer(
        vocab_size=size, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>"
    )
    made.train_from_iterator(
        ["a photo of a dog and two red circles in rain"] * 9, trainer
    )
    made.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "SiglipTokenizer", "pad_token": "</s>"}
    config |= {"eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def there_and_back(source, folder, name, state):
    """Imports, checks against the library, exports, and compares with `state`."""
    run = folder / "run"
    done = import_export.bring_in(str(source), run, family=None)
    assert done.family == name
    far = import_export.check(done)
    assert set(far) == {"embed_image", "embed_text", "logits"}
    assert far["embed_image"][1] < 1e-4 and far["embed_text"][1] < 1e-4, far
    assert far["logits"][0] < 1e-3, far
    import_export.write_out(run, folder / "out")
    (file,) = [
        p for p in (folder / "out").iterdir() if p.suffix in (".pt", ".safetensors")
    ]
    back = read.read(file).tensors
    assert back.keys() == state.keys()
    for key, value in state.items():
        want = value.detach().numpy()
        assert back[key].dtype == want.dtype and back[key].shape == want.shape, key
        assert back[key].tobytes() == want.tobytes(), key


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_open_clip(name, suffix, tmp_path):
    import safetensors.torch

    if suffix == "bin" and name != "vit":
        pytest.skip("the container has no part in the rest")
    model = built(MODELS[name])
    source = tmp_path / "source"
    source.mkdir()
    state = dict(model.state_dict())
    if suffix == "bin":
        torch.save(
            {"epoch": 3, "state_dict": state}, source / "open_clip_pytorch_model.bin"
        )
    else:
        safetensors.torch.save_file(state, source / "open_clip_model.safetensors")
    config = {"model_cfg": MODELS[name], "preprocess_cfg": {}}
    if name == "siglip":
        words(source)
        config["preprocess_cfg"] = {"mean": [0.5] * 3, "std": [0.5] * 3}
        config["preprocess_cfg"] |= {"resize_mode": "squash"}
    (source / "open_clip_config.json").write_text(json.dumps(config))
    there_and_back(source, tmp_path, "open_clip", state)


@pytest.mark.parametrize("act", ["quick_gelu", "gelu"])
def test_hf_clip(act, tmp_path):
    shared = {"hidden_size": 64, "intermediate_size": 144, "num_hidden_layers": 2}
    shared |= {"num_attention_heads": 4, "hidden_act": act, "projection_dim": 32}
    config = transformers.CLIPConfig(
        projection_dim=32,
        text_config=shared | {"max_position_embeddings": 16},
        vision_config=shared | {"image_size": 32, "patch_size": 8},
    )
    torch.manual_seed(0)
    model = randomise(transformers.CLIPModel(config))
    model.save_pretrained(tmp_path / "source")
    there_and_back(tmp_path / "source", tmp_path, "hf_clip", model.state_dict())


@pytest.mark.parametrize("size", [32, 36])  # of patches of 8: 36 px leave 4 over
def test_hf_siglip(size, tmp_path):
    shared = {"hidden_size": 64, "intermediate_size": 144, "num_hidden_layers": 2}
    shared |= {"num_attention_heads": 4}
    text = shared | {"vocab_size": 400, "max_position_embeddings": 16}
    text |= {"projection_size": 64}
    config = transformers.SiglipConfig(
        text_config=text, vision_config=shared | {"image_size": size, "patch_size": 8}
    )
    torch.manual_seed(0)
    model = randomise(transformers.SiglipModel(config))
    with torch.no_grad():
        model.logit_scale.fill_(4.77)  # e^4.77 = 118, as released: not clamped at 100
    model.save_pretrained(tmp_path / "source")
    words(tmp_path / "source")
    there_and_back(tmp_path / "source", tmp_path, "hf_siglip", model.state_dict())


@pytest.mark.parametrize("image", [VIT | {"head_width": 64}, RESNET])
def test_openai_archive(image, tmp_path):
    """TorchScript in half precision with its three facts, as released."""
    text = TEXT | {"width": 64, "heads": 1}
    config = {
        "embed_dim": 32,
        "vision_cfg": image,
        "text_cfg": text,
        "quick_gelu": True,
    }
    model = built(config)
    facts = {"input_resolution": 64, "context_length": 16, "vocab_size": 49408}
    for name, value in facts.items():
        delattr(model, name) if hasattr(model, name) else None
        model.register_buffer(name, torch.tensor(value))
    pixels, tokens = torch.zeros(2, 3, 64, 64), torch.zeros(2, 16, dtype=torch.long)
    with torch.no_grad():
        traced = torch.jit.trace(model, (pixels, tokens), check_trace=False)
    for name, p in traced.named_parameters():  # as `convert_weights` of the original
        if p.ndim > 1 and "embedding" not in name:
            p.data = p.data.half()
    torch.jit.save(traced, tmp_path / "ViT.pt")
    state = {k: v for k, v in traced.state_dict().items() if k != "attn_mask"}
    held = read.read(tmp_path / "ViT.pt").tensors.keys()
    assert held - {"attn_mask"} == state.keys()
    there_and_back(tmp_path / "ViT.pt", tmp_path, "openai_clip", state)


FITS = [n for n in open_clip.list_models() if n.startswith(("RN", "ViT-"))]
LIKE = ("CLIPA", "alt", "worldwide", "i18n")  # parts or tokenizers that ours have not


@pytest.mark.parametrize("name", FITS)
def test_every_named_size_has_a_place(name):
    """Names and shapes of all arrays, without their numbers."""
    from mmjax.convert.formats import open_clip as open_clip_lib
    from mmjax.tasks import clip

    config = open_clip.get_model_config(name)
    with torch.device("meta"):
        cfg = dict(config)
        custom = cfg.pop("custom_text", False)
        kind = open_clip.model.CustomTextCLIP if custom else open_clip.model.CLIP
        try:
            task = open_clip_lib.task_of(config, {})
        except UserError as error:
            assert any(part in name for part in LIKE), error
            return
        state = kind(**cfg).state_dict()
    arrays = {
        key: np.broadcast_to(np.zeros((), np.float32), tuple(value.shape))
        for key, value in state.items()
    }
    ours = open_clip_lib.table(arrays).load(arrays, name)
    import jax

    made = clip.Task(**{k: v for k, v in task.items() if k != "name"})
    batch = {
        "image": np.zeros((1, task["image_size"], task["image_size"], 3), np.uint8),
        "tokens": np.zeros((1, task["context"]), np.int32),
        "tokens_mask": np.zeros((1, task["context"]), bool),
    }
    shapes = jax.eval_shape(made.init, jax.random.key(0), batch)
    from mmjax import tree

    flat = tree.flatten({"params": shapes.params, **shapes.extra})
    name_table.fit(ours, {k: v.shape for k, v in flat.items()}, name)


NAMED = ["ViT-B-32-quickgelu", "ViT-B-16", "ViT-L-14", "ViT-L-14-336", "RN50", "RN101"]
NAMED += ["RN50x4", "RN50x16", "RN50x64", "ViT-B-16-SigLIP", "ViT-SO400M-14-SigLIP-384"]


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", NAMED)
def test_named_size(name):
    """Outputs of a whole model. One model's weights at a time, twice at the most."""
    import jax
    import jax.numpy as jnp

    from mmjax import tree
    from mmjax.convert.formats import _clip_config
    from mmjax.convert.formats import open_clip as open_clip_lib

    config = open_clip.get_model_config(name)
    task = open_clip_lib.task_of(config, {})
    free = int(open("/proc/meminfo").read().split("MemAvailable:")[1].split()[0]) >> 20
    model = built(config)
    sizes = sum(p.numel() for p in model.parameters()) * 4 / 2**30
    if free < 3 * sizes:
        pytest.skip(
            f"{sizes:.1f} GiB of weights need three times that, {free} are free"
        )
    rng = np.random.default_rng(0)
    size, context, vocab = (task[k] for k in ("image_size", "context", "vocab_size"))
    pixels = rng.normal(size=(1, size, size, 3)).astype(np.float32)
    tokens = np.zeros((2, context), np.int32)
    tokens[:, :9] = rng.integers(1, vocab - 2, (2, 9))
    tokens[:, 9] = vocab - 1
    with torch.no_grad():
        image = model.encode_image(torch.from_numpy(pixels).permute(0, 3, 1, 2)).numpy()
        words = model.encode_text(torch.from_numpy(tokens).long()).numpy()
    state = {k: v.numpy() for k, v in model.state_dict().items()}
    scale = float(np.exp(state["logit_scale"]))
    del model
    ours = open_clip_lib.table(state).load(state, name)
    del state
    for path in list(ours):
        ours[path] = jnp.asarray(ours[path])
    made = _clip_config.dual({"preset": "", **task})
    apply = jax.jit(made.apply, static_argnames="method")
    variables = tree.unflatten(ours)
    got_image = np.asarray(apply(variables, pixels, method="encode_image"))
    got_words = np.asarray(apply(variables, tokens, method="encode_text"))
    far = [
        np.abs(a - b).max() / np.abs(b).max()
        for a, b in ((got_image, image), (got_words, words))
    ]

    def logits(a, b):
        a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
        return scale * a @ b.T

    logit = np.abs(logits(got_image, got_words) - logits(image, words)).max()
    print(f"\n{name}: image {far[0]:.1e} text {far[1]:.1e} logits {logit:.1e}")
    assert max(far) < 1e-4 and logit < 1e-3


def test_a_model_trained_here_is_the_same_elsewhere(tiny_run, tmp_path):
    from PIL import Image

    from mmjax.convert.formats import _clip_tokenizer
    from mmjax.inference import load

    seen = load.load_run(tiny_run)
    rng = np.random.default_rng(0)
    images = list(rng.integers(0, 256, (3, 16, 16, 3)).astype(np.uint8))
    texts = ["a red circle", "two blue stars", "one green square on the left"]
    ours = seen.logits(seen.embed_images(images), seen.embed_texts(texts))

    import_export.write_out(tiny_run, tmp_path / "hf", "hf_clip")
    model = transformers.CLIPModel.from_pretrained(tmp_path / "hf").eval()
    processor = transformers.CLIPImageProcessor.from_pretrained(tmp_path / "hf")
    tokenizer = transformers.CLIPTokenizer.from_pretrained(tmp_path / "hf")
    batch = processor([Image.fromarray(i) for i in images], return_tensors="pt")
    whole = {"padding": "max_length", "truncation": True, "max_length": 16}
    batch |= tokenizer(texts, **whole, return_tensors="pt")
    with torch.no_grad():
        theirs = model(**batch).logits_per_image.numpy()
    np.testing.assert_allclose(ours, theirs, atol=1e-4)

    import_export.write_out(tiny_run, tmp_path / "oc", "open_clip")
    model, preprocess = open_clip.create_model_from_pretrained(
        f"local-dir:{tmp_path / 'oc'}"
    )
    words = open_clip.tokenizer.SimpleTokenizer(
        str(tmp_path / "oc" / _clip_tokenizer.OWN), context_length=16
    )
    pixels = torch.stack([preprocess(Image.fromarray(i)) for i in images])
    with torch.no_grad():
        theirs = model.eval().get_logits(pixels, words(texts))[0].numpy()
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_archives_hold_what_torch_reads(tmp_path):
    """Our reader of zip archives against torch.load(weights_only=True)."""
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    state = {
        "plain": base,
        "transposed": base.T,
        "slice": base[1:3, ::2],
        "half": base.half(),
        "bfloat16": base.bfloat16(),
        "count": torch.tensor(3),
        "empty": torch.zeros(0, 3),
        "flags": torch.tensor([True, False]),
        "parameter": torch.nn.Parameter(base + 1),
    }
    for old in (False, True):
        file = tmp_path / f"{old}.pt"
        torch.save(state, file, _use_new_zipfile_serialization=not old)
        found = read.read(file).tensors
        want = torch.load(file, weights_only=True)
        assert found.keys() == want.keys()
        for key, value in want.items():
            got = found[key].astype(np.float64)
            assert (got == value.detach().double().numpy()).all(), key
            assert found[key].shape == tuple(value.shape)
            assert str(found[key].dtype) == str(value.dtype).removeprefix("torch.")


def test_whole_modules_are_read_and_code_is_refused(tmp_path):
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    torch.save(model, tmp_path / "module.pt")
    found = read.read(tmp_path / "module.pt").tensors
    assert found.keys() == model.state_dict().keys()
    torch.save({"a": print}, tmp_path / "code.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(UserError, match="refused"):
        read.read(tmp_path / "code.pt")
    assert formats.names()
