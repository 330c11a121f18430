"""minDALL-E's folders: two stages and a tokenizer, in and out, and pictures drawn."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import safetensors.numpy
import tokenizers

from mmjax import cli
from mmjax.convert import formats, import_export, read
from mmjax.convert.formats import mindalle
from mmjax.errors import UserError
from mmjax.inference import load

SMALL = {"width": 128, "depth": 2, "context": 8, "codes": 16, "grid": 4, "vocab": 64}
# The released model's sizes, but for 40 of its 42 blocks.
LARGE = {"width": 1536, "depth": 2, "context": 64, "codes": 16384, "grid": 16}
LARGE |= {"vocab": 16384}
CONTEXT, WIDTH, TOKENS = SMALL["context"], SMALL["width"], SMALL["grid"] ** 2
CAPTIONS = ["a painting of a cat", "Two red circles, and one blue star!"] * 5


def stage1(codes, grid):
    """The task of a VQGAN that halves its pictures once."""
    net = {"kind": "vqgan", "width": 32, "mult": (1, 2), "depth": 1, "hidden": 8}
    spec = {"kind": "vqvae", "image_size": 2 * grid, "vocab_size": codes, "code_dim": 6}
    spec |= {"ema": False, "net": net | {"attention": (1,)}}
    return {"name": "vqvae", "kmeans": 0, "revive_below": 0.0, "tokenizer": spec}


def words(folder):
    """A tokenizer as minDALL-E keeps it."""
    made = tokenizers.CharBPETokenizer(unk_token="[UNK]", lowercase=True)
    special = ["[PAD]", "[UNK]"]
    made.train_from_iterator(CAPTIONS, vocab_size=60, special_tokens=special)
    folder.mkdir()
    made.save_model(str(folder), "x")
    for name in ("vocab.json", "merges.txt"):
        (folder / f"x-{name}").rename(folder / f"bpe-16k-{name}")


def stage2(width, depth, context, codes, grid, vocab):
    """A prior's arrays, by minDALL-E's names."""
    w = width
    shapes = {"tok_emb_txt": (vocab, w), "tok_emb_img": (codes, w)}
    shapes |= {"pos_emb_txt": (context, w), "pos_emb_img": (grid**2, w)}
    shapes |= {"head_txt": (vocab, w), "head_img": (codes, w), "ln_f": (w,)}
    for i in range(depth):
        at = f"blocks.{i}"
        shapes |= {f"{at}.attn.{x}": (w, w) for x in ("query", "key", "value", "proj")}
        shapes |= {f"{at}.mlp.0": (4 * w, w), f"{at}.mlp.2": (w, 4 * w)}
        shapes |= {f"{at}.ln1": (w,), f"{at}.ln2": (w,)}
    made, rng = {}, np.random.default_rng(0)
    for name, shape in shapes.items():
        fan_in = 1 if "emb" in name or len(shape) == 1 else shape[1]
        value = rng.normal(size=shape, scale=fan_in**-0.5)
        made[f"{name}.weight"] = value if len(shape) > 1 else 1 + 0.2 * value
        if name.startswith(("blocks", "ln")):
            made[f"{name}.bias"] = rng.normal(size=shape[:1], scale=0.1)
    return {key: value.astype(np.float32) for key, value in made.items()}


def unpacked(folder, model_of, sizes):
    """A folder as the released archive unpacks; safetensors in place of pickles."""
    folder.mkdir()
    words(folder / "tokenizer")
    task = stage1(sizes["codes"], sizes["grid"])
    codes = formats.find("taming_vqgan").from_mmjax(model_of(task))
    (tensors,) = codes.tensors.values()
    safetensors.numpy.save_file(dict(tensors), folder / "stage1_last.safetensors")
    safetensors.numpy.save_file(stage2(**sizes), folder / "stage2_last.safetensors")
    return folder


@pytest.fixture
def folder(tmp_path, model_of):
    return unpacked(tmp_path / "mindalle", model_of, SMALL)


@pytest.fixture
def model(folder):
    return mindalle.to_mmjax(read.read(folder))


def test_there_and_back_to_the_bit(folder, model, tmp_path):
    source = read.read(folder)
    assert formats.detect(source) == "mindalle"
    export = mindalle.from_mmjax(model)
    heads = {"stage1_last.safetensors": "stage1.", "stage2_last.safetensors": "stage2."}
    back = {
        heads[file] + key: value
        for file, tensors in export.tensors.items()
        for key, value in tensors.items()
    }
    assert back.keys() == source.tensors.keys()
    assert all(back[key].tobytes() == source.tensors[key].tobytes() for key in back)
    for name, text in export.texts.items():
        if name.endswith("json"):
            assert json.loads(text) == json.loads((folder / name).read_text())
        else:
            assert text == (folder / name).read_text()


def test_texts_have_the_ids_that_minDALLE_gives_them(folder, model):
    ours = model.tokenizer
    files = (
        folder / "tokenizer" / f"bpe-16k-{x}" for x in ("vocab.json", "merges.txt")
    )
    theirs = tokenizers.CharBPETokenizer.from_file(
        *map(str, files), unk_token="[UNK]", lowercase=True
    )
    theirs.add_special_tokens(["[PAD]"])
    theirs.enable_padding(length=CONTEXT, pad_id=theirs.token_to_id("[PAD]"))
    theirs.enable_truncation(max_length=CONTEXT)
    texts = ["A cat", "two RED circles", "a star; " * 9, "émoji ☂"]
    tokens_bl, mask_bl = ours.encode(texts)
    want = [found.ids for found in theirs.encode_batch(texts)]
    np.testing.assert_array_equal(tokens_bl, want)
    np.testing.assert_array_equal(mask_bl, tokens_bl != ours.pad)


def test_pictures_are_drawn_by_both_stages(folder, tmp_path):
    """And scanned blocks, as large models are trained, go out as they came in."""
    run, png = tmp_path / "run", tmp_path / "x.png"
    argv = ["convert", str(folder), str(run), "--config.task.scan=true"]
    assert cli.main(argv) == 0
    argv = ["sample", str(run), "a painting of a cat", "-k", "2", "--out", str(png)]
    assert cli.main(argv) == 0 and png.is_file()
    shown = json.loads(png.with_suffix(".json").read_text())["prompts"][0]["shown"]
    assert {len(one["image_tokens"]) for one in shown} == {TOKENS}
    assert cli.main(["convert", str(run), str(tmp_path / "out")]) == 0
    a, b = (read.read(place).tensors for place in (folder, tmp_path / "out"))
    assert a.keys() == b.keys()
    assert all(a[key].tobytes() == b[key].tobytes() for key in a)


def test_halves_and_strangers_are_named(folder, tmp_path):
    with pytest.raises(UserError, match="holds no stage1: give the folder"):
        import_export.bring_in(
            str(folder / "stage2_last.safetensors"), tmp_path / "run"
        )
    source, family = read.read(folder), mindalle
    assert not mindalle.TABLE.unknown(source.tensors)
    source.tensors["stage2.extra"] = np.ones(1, np.float32)
    with pytest.raises(UserError, match="no rule for stage2.extra"):
        family.to_mmjax(source)
    source.tensors["x"] = source.tensors.pop("stage2.extra")
    with pytest.raises(UserError, match="no rule for x$"):
        family.to_mmjax(source)
    del source.tensors["x"]
    (folder / "tokenizer" / "bpe-16k-merges.txt").unlink()
    with pytest.raises(UserError, match="bpe-16k-merges.txt: its text"):
        family.to_mmjax(source)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"places": "grid"}, "places is 'grid': minDALL-E's prior has 'free' alone"),
        ({"heads": 4}, "width 128 with 4 heads: this format takes heads of 64"),
        ({"stage1": {"kind": "dvae"}}, "tokenizer is a 'dvae'"),
    ],
)
def test_priors_that_it_has_no_place_for(change, words, model):
    changed = formats.Model(
        {**model.task, **change}, model.image, model.tokenizer, model.arrays
    )
    with pytest.raises(UserError, match=words):
        mindalle.from_mmjax(changed)


def test_padding_that_was_trained_has_no_place(model):
    rows = {"params/text_pad_embedding": np.ones((CONTEXT, WIDTH), np.float32)}
    with pytest.raises(UserError, match="vectors of padding were trained on"):
        mindalle.from_mmjax(dataclasses.replace(model, arrays={**model.arrays, **rows}))


def original(state, heads, texts, images):
    """minDALL-E's two sets of logits: a GPT over [text | image], heads apart."""
    import torch
    from torch.nn import functional as F

    p = {key: torch.from_numpy(value) for key, value in state.items()}

    def norm(x, name):
        return F.layer_norm(x, x.shape[-1:], p[f"{name}.weight"], p[f"{name}.bias"])

    def dense(x, name):
        return F.linear(x, p[f"{name}.weight"], p.get(f"{name}.bias"))

    sides = ((texts, "txt"), (images, "img"))
    x = torch.cat(
        [
            p[f"tok_emb_{side}.weight"][torch.from_numpy(ids).long()]
            + p[f"pos_emb_{side}.weight"]
            for ids, side in sides
        ],
        dim=1,
    )
    b, t, w = x.shape
    for i in range(sum(key.endswith("ln1.bias") for key in p)):
        at, y = f"blocks.{i}", norm(x, f"blocks.{i}.ln1")
        qkv = [
            dense(y, f"{at}.attn.{name}").view(b, t, heads, -1).transpose(1, 2)
            for name in ("query", "key", "value")
        ]
        y = F.scaled_dot_product_attention(*qkv, is_causal=True)
        x = x + dense(y.transpose(1, 2).reshape(b, t, w), f"{at}.attn.proj")
        y = F.gelu(dense(norm(x, f"{at}.ln2"), f"{at}.mlp.0"))
        x = x + dense(y, f"{at}.mlp.2")
    x, n = norm(x, "ln_f"), texts.shape[1]
    return dense(x[:, : n - 1], "head_txt"), dense(x[:, n - 1 : -1], "head_img")


@pytest.mark.parity
@pytest.mark.timeout(900)
@pytest.mark.parametrize("sizes", [SMALL, LARGE], ids=["small", "wide"])
def test_logits_are_the_originals(sizes, tmp_path, model_of):
    torch = pytest.importorskip("torch")
    folder = unpacked(tmp_path / "mindalle", model_of, sizes)
    import_export.bring_in(str(folder), tmp_path / "run")
    run = load.load_run(tmp_path / "run")
    tokens_bl, mask_bl = run.parts.tokenizer.encode(["a cat", "one blue star " * 30])
    assert not mask_bl[0].all() and mask_bl[1].all()
    rng = np.random.default_rng(1)
    image_bn = rng.integers(0, sizes["codes"], (2, sizes["grid"] ** 2), np.int32)
    variables = {"params": run.state.eval_vars().params}
    got = jax.jit(run.task.model.apply)(variables, tokens_bl, mask_bl, image_bn)
    state = safetensors.numpy.load_file(folder / "stage2_last.safetensors")
    with torch.no_grad():
        want = original(state, sizes["width"] // 64, tokens_bl, image_bn)
    for name, ours, theirs in zip(("text", "image"), got, want, strict=True):
        far = np.abs(np.asarray(ours) - theirs.numpy()).max()
        print(f"{name} logits: {far:.1e} of {theirs.abs().max():.1f}")
        assert far < 1e-4 * float(theirs.abs().max())
