"""minDALL-E's folders: two stages and a tokenizer, in and out, and pictures drawn."""

import json

import numpy as np
import pytest
import safetensors.numpy
import tokenizers

from mmjax import cli, transfer
from mmjax.convert import families, read
from mmjax.convert.families import mindalle
from mmjax.data import text as data_text
from mmjax.errors import UserError

WIDTH, DEPTH, CONTEXT, CODES, GRID = 128, 2, 8, 16, 4
STAGE1 = {
    "name": "vqvae",
    "kmeans": 0,
    "revive_below": 0.0,
    "tokenizer": {
        "kind": "vqvae",
        "image_size": 8,
        "vocab_size": CODES,
        "code_dim": 6,
        "ema": False,
        "net": {"kind": "vqgan", "width": 32, "mult": (1, 2), "depth": 1}
        | {"hidden": 8, "attention": (1,)},
    },
}
CAPTIONS = ["a painting of a cat", "Two red circles, and one blue star!"] * 5


def words(folder):
    """A tokenizer as minDALL-E keeps it; gives its size."""
    made = tokenizers.CharBPETokenizer(unk_token="[UNK]", lowercase=True)
    special = ["[PAD]", "[UNK]"]
    made.train_from_iterator(CAPTIONS, vocab_size=60, special_tokens=special)
    (folder / "tokenizer").mkdir(parents=True)
    for file in made.save_model(str(folder / "tokenizer"), "x"):
        name = file.rsplit("/x-", 1)[1]
        (folder / "tokenizer" / f"x-{name}").rename(
            folder / "tokenizer" / f"bpe-16k-{name}"
        )
    return made


def arrays(vocab, rng):
    """A tiny prior's, by minDALL-E's names."""
    w = WIDTH
    shapes = {"tok_emb_txt": (vocab, w), "tok_emb_img": (CODES, w)}
    shapes |= {"pos_emb_txt": (CONTEXT, w), "pos_emb_img": (GRID**2, w)}
    shapes |= {"head_txt": (vocab, w), "head_img": (CODES, w)}
    names = ["ln_f"]
    for i in range(DEPTH):
        at = f"blocks.{i}"
        shapes |= {f"{at}.attn.{x}": (w, w) for x in ("query", "key", "value", "proj")}
        shapes |= {f"{at}.mlp.0": (4 * w, w), f"{at}.mlp.2": (w, 4 * w)}
        names += [f"{at}.ln1", f"{at}.ln2"]
    shapes |= {name: (w,) for name in names}
    made = {f"{name}.weight": shape for name, shape in shapes.items()}
    for name, shape in shapes.items():
        if name.startswith(("blocks", "ln")):
            made[f"{name}.bias"] = shape[:1]
    return {
        k: rng.normal(size=v, scale=0.2).astype(np.float32) for k, v in made.items()
    }


@pytest.fixture
def folder(tmp_path, model_of):
    """As the released archive unpacks, small."""
    made = tmp_path / "mindalle"
    vocab = words(made).get_vocab_size()
    codes = families.find("taming_vqgan").from_mmjax(model_of(STAGE1))
    (tensors,) = codes.tensors.values()
    safetensors.numpy.save_file(dict(tensors), made / "stage1_last.safetensors")
    second = arrays(vocab, np.random.default_rng(0))
    safetensors.numpy.save_file(second, made / "stage2_last.safetensors")
    return made


@pytest.fixture
def model(folder):
    return mindalle.to_mmjax(read.read(folder))


def test_there_and_back_to_the_bit(folder, model, tmp_path):
    source = read.read(folder)
    assert families.detect(source) == "mindalle"
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
    ours = data_text.from_json(model.tokenizer)
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
    assert {len(one["image_tokens"]) for one in shown} == {GRID**2}
    assert cli.main(["convert", str(run), str(tmp_path / "out")]) == 0
    a, b = (read.read(place).tensors for place in (folder, tmp_path / "out"))
    assert a.keys() == b.keys()
    assert all(a[key].tobytes() == b[key].tobytes() for key in a)


def test_halves_and_strangers_are_named(folder, tmp_path):
    with pytest.raises(UserError, match="holds no stage1: give the folder"):
        transfer.bring_in(str(folder / "stage2_last.safetensors"), tmp_path / "run")
    source, family = read.read(folder), mindalle
    assert family.known(source.tensors) == len(source.tensors)
    source.tensors["stage2.extra"] = np.ones(1, np.float32)
    with pytest.raises(UserError, match="no rule for extra"):
        family.to_mmjax(source)
    source.tensors["x"] = source.tensors.pop("stage2.extra")
    with pytest.raises(UserError, match="x is of neither stage"):
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
    changed = families.Model(
        {**model.task, **change}, model.image, model.tokenizer, model.arrays
    )
    with pytest.raises(UserError, match=words):
        mindalle.from_mmjax(changed)


def test_padding_that_was_trained_has_no_place(model):
    rows = {"params/text_pad_embedding": np.ones((CONTEXT, WIDTH), np.float32)}
    with pytest.raises(UserError, match="vectors of padding were trained on"):
        mindalle.from_mmjax(families.replaced(model, {**model.arrays, **rows}))
