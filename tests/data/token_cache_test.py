"""The token cache: what is written is what is read, whole or not at all."""

import collections
import dataclasses
import json
import multiprocessing
import os

import batch_fields
import numpy as np
import pytest

from mmjax.data import pipeline, records, token_cache, tokenizers
from mmjax.data.fields import image, tokens
from mmjax.data.records import BrokenRecord
from mmjax.data.sources import open_source
from mmjax.errors import UserError

STAGE1 = token_cache.Stage1(fingerprint="0123456789abcdef", grid=4, vocab_size=256)
CFG = image.Field(size=16, mode="squash", train_scale=(1.0, 1.0))
SPEC = "shapes:train?size=16&count=50"


def encode(pixels_bhw3):
    """A tokenizer: the red of every fourth pixel."""
    return pixels_bhw3[:, ::4, ::4, 0].reshape(len(pixels_bhw3), -1).astype(np.int32)


def write(out, source=None, **more):
    options = {"stage1": STAGE1, "image_cfg": CFG, "batch_size": 8, "shard": 16}
    source = source or open_source(SPEC)
    return token_cache.write(source, encode, out, **options | more)


class Holed:
    """A source with two records that cannot be read."""

    def __init__(self, source, holes=(3, 20)):
        self.source, self.holes = source, holes
        self.name, self.class_names = source.name, source.class_names

    def __len__(self):
        return len(self.source)

    def __getitem__(self, i):
        if i in self.holes:
            raise BrokenRecord(f"place {i}", "made so")
        return self.source[i]

    def texts(self):
        return self.source.texts()

    def fingerprint(self):
        return "holed"


def test_records_come_back(tmp_path):
    source = open_source(SPEC)
    header = write(tmp_path / "cache", source)
    assert header.complete and header.records == 50
    cache = open_source(f"tokens:{tmp_path / 'cache'}")
    assert len(cache) == 50 and cache.class_names == source.class_names
    assert cache.stage1 == {
        "fingerprint": "0123456789abcdef",
        "grid": 4,
        "vocab_size": 256,
    }
    for i in (0, 15, 16, 49, -1):  # either side of a file's end
        got, want = cache[i], source[i]
        assert {k: got[k] for k in ("key", "text", "label")} == {
            k: want[k] for k in ("key", "text", "label")
        }
        assert got["image_tokens"].dtype == np.int32 and "image" not in got
        np.testing.assert_array_equal(
            got["image_tokens"], encode(want["image"][None])[0]
        )
    assert list(cache.texts()) == list(source.texts())
    with pytest.raises(IndexError):
        cache[50]
    assert len(list((tmp_path / "cache").glob("tokens-*"))) == 4


def test_tokens_above_65535(tmp_path):
    def large(pixels_bhw3):
        return encode(pixels_bhw3) + 70_000

    stage1 = token_cache.Stage1("x", 4, 100_000)
    token_cache.write(
        open_source(SPEC),
        large,
        tmp_path / "c",
        stage1=stage1,
        image_cfg=CFG,
        batch_size=8,
    )
    first = open_source(f"tokens:{tmp_path / 'c'}")[0]["image_tokens"]
    np.testing.assert_array_equal(first, large(open_source(SPEC)[0]["image"][None])[0])


def batches(source, count=14, **options):
    tokenizer = tokenizers.build({"kind": "bytes", "context": 48})
    options = {"batch_size": 8, "seed": 4, "threads": 0, "max_broken": 1.0} | options
    running = pipeline.TrainIterator(
        source, batch_fields.of(source, tokenizer, CFG), **options
    )
    try:
        return [next(running) for _ in range(count)]
    finally:
        running.close()


@pytest.mark.parametrize("options", [{}, {"threads": 2}, {"workers": 1}])
def test_training_rows_equal_those_encoded_on_the_fly(tmp_path, options):
    source = Holed(open_source(SPEC))
    write(tmp_path / "c", source, max_broken=0.5)
    cache = open_source(f"tokens:{tmp_path / 'c'}")
    pairs = zip(batches(source), batches(cache, **options), strict=True)
    for live, cached in pairs:  # more than two epochs
        assert cached.keys() == live.keys() - {"image"} | {"image_tokens"}
        np.testing.assert_array_equal(encode(live["image"]), cached["image_tokens"])
        for name in ("tokens", "tokens_mask", "label", "_broken"):
            np.testing.assert_array_equal(live[name], cached[name])


@pytest.mark.parametrize("more", [{"flip": True}, {"train_scale": (0.9, 1.0)}])
def test_what_tokens_cannot_show_is_refused(tmp_path, more):
    write(tmp_path / "c")
    cache = open_source(f"tokens:{tmp_path / 'c'}")
    cfg = dataclasses.replace(CFG, **more)
    with pytest.raises(UserError, match="neither cropped nor flipped"):
        tokens.Field().check("image_tokens", {"image": cfg}, cache)


def test_evaluation_batches(tmp_path):
    source = Holed(open_source(SPEC))
    write(tmp_path / "c", source, max_broken=0.5)
    cache = open_source(f"tokens:{tmp_path / 'c'}")
    both = [
        list(pipeline.eval_batches(s, batch_fields.of(s, None, CFG), batch_size=8))
        for s in (source, cache)
    ]
    for live, cached in zip(*both, strict=True):
        assert "image" not in cached
        real = cached["_mask"] > 0
        tokens = encode(live["image"])
        np.testing.assert_array_equal(tokens[real], cached["image_tokens"][real])
        assert not cached["image_tokens"][~real].any()
        np.testing.assert_array_equal(live["_broken"], cached["_broken"])
    empty = Holed(cache, holes=range(50))  # a batch without one good record
    empty.stage1 = cache.stage1
    cached = batch_fields.of(cache, None, CFG)
    [first, *_] = pipeline.eval_batches(empty, cached, batch_size=8)
    assert first["image_tokens"].shape == (8, 16) and not first["_mask"].any()


def test_views_and_mixtures_know_whose_tokens_they_hold(tmp_path):
    write(tmp_path / "a")
    write(tmp_path / "b", stage1=token_cache.Stage1("other", 4, 256))
    one = f"tokens:{tmp_path / 'a'}"
    prompted = f"{one}?limit=9&keep=true&template=a {{}}"
    for spec in (one, f"{one}?limit=9", f"{one}?keep=true", prompted):
        assert records.stage1(open_source(spec))["fingerprint"] == STAGE1.fingerprint
    same = open_source({"kind": "mixture", "parts": [(one, 1.0), (one, 2.0)]})
    assert same.stage1["grid"] == 4 and "image_tokens" in same[0]
    assert records.stage1(open_source(SPEC)) is None
    for other, word in ((f"tokens:{tmp_path / 'b'}", "other"), (SPEC, "images")):
        with pytest.raises(UserError, match=f"0123456789abcdef.*{word}"):
            open_source({"kind": "mixture", "parts": [(one, 1.0), (other, 1.0)]})


def test_a_cut_run_goes_on_and_is_not_read_before(tmp_path):
    out, calls = tmp_path / "c", collections.Counter()

    def dying(pixels_bhw3):
        calls["first"] += 1
        if calls["first"] > 5:  # in the third file
            raise KeyboardInterrupt
        return encode(pixels_bhw3)

    options = {"stage1": STAGE1, "image_cfg": CFG, "batch_size": 8, "shard": 16}
    with pytest.raises(KeyboardInterrupt):
        token_cache.write(open_source(SPEC), dying, out, **options)
    assert [p.name for p in sorted(out.iterdir())] == [
        "header.json",
        "tokens-00000.array_record",
        "tokens-00001.array_record",
    ]
    with pytest.raises(UserError, match="not whole.*data encode"):
        open_source(f"tokens:{out}")

    def counted(pixels_bhw3):
        calls["second"] += 1
        return encode(pixels_bhw3)

    seen = []
    token_cache.write(
        open_source(SPEC), counted, out, progress=lambda *p: seen.append(p), **options
    )
    assert calls["second"] == 3  # 18 of 50 records in batches of 8, two files
    assert seen[0] == (16, 50) and seen[-1] == (50, 50)
    write(tmp_path / "whole")
    a, b = (open_source(f"tokens:{p}") for p in (out, tmp_path / "whole"))
    assert a.fingerprint() == b.fingerprint()
    for i in range(50):
        np.testing.assert_array_equal(a[i]["image_tokens"], b[i]["image_tokens"])


def test_the_same_again_does_nothing(tmp_path):
    write(tmp_path / "c")

    def never(pixels_bhw3):
        raise AssertionError("encoded again")

    header = token_cache.write(
        open_source(SPEC),
        never,
        tmp_path / "c",
        stage1=STAGE1,
        image_cfg=CFG,
        batch_size=99,
    )
    assert header.complete and header.shard == 16


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (
            {"stage1": token_cache.Stage1("other", 4, 256)},
            "0123456789abcdef, not other",
        ),
        ({"source": open_source(SPEC + "&seed=1")}, "source.fingerprint"),
        (
            {"image_cfg": image.Field(size=16, mode="crop")},
            "image.mode squash, not crop",
        ),
    ],
)
def test_tokens_of_anything_else_are_kept(tmp_path, more, words):
    write(tmp_path / "c")
    with pytest.raises(UserError, match=words):
        write(tmp_path / "c", **more)


def test_a_folder_of_other_files_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="holds other files"):
        write(tmp_path)
    (tmp_path / "header.json").write_text('{"format": "else"}')
    with pytest.raises(UserError, match="no header of image tokens"):
        write(tmp_path)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda x: encode(x)[:, :9], r"int32 \(8, 9\), expected integers \(8, 16\)"),
        (lambda x: encode(x) / 2, "float64"),
        (lambda x: encode(x) + 256, "outside its vocabulary of 256"),
    ],
)
def test_a_tokenizer_that_gives_something_else(tmp_path, made, words):
    options = {"stage1": STAGE1, "image_cfg": CFG, "batch_size": 8}
    with pytest.raises(UserError, match=words):
        token_cache.write(open_source(SPEC), made, tmp_path / "c", **options)


def test_too_many_broken_records_end_it(tmp_path):
    with pytest.raises(UserError, match="broken records in"):
        write(tmp_path / "c", Holed(open_source(SPEC)), max_broken=0.0)


def test_damage_is_a_broken_record_or_a_message(tmp_path):
    out = tmp_path / "c"
    header = write(out)
    place = "here"
    good = token_cache.pack(
        {"key": "k", "text": []}, np.arange(16), header.stage1.dtype
    )
    assert token_cache.unpack(good, header, place)["image_tokens"][-1] == 15
    for data, words in (
        (good[:-2], "15 image tokens, expected 16"),
        (good[:-1], "damaged"),
        (good[:3], "damaged"),
        (b"\xff\xff\x00\x00" + good[4:], "damaged"),
        (b"\xff\xff\x00\x00" + b"[" * 0xFFFF, "damaged: nested too deep"),
    ):
        with pytest.raises(BrokenRecord, match=words):
            token_cache.unpack(data, header, place)
    (out / "tokens-00002.array_record").unlink()
    with pytest.raises(UserError, match="tokens-00002.array_record is missing"):
        open_source(f"tokens:{out}")
    with pytest.raises(UserError, match="does not exist"):
        open_source(f"tokens:{tmp_path / 'none'}")
    with pytest.raises(UserError, match="no header.json"):
        open_source(f"tokens:{tmp_path}")
    saved = json.loads((out / "header.json").read_text())
    (out / "header.json").write_text(json.dumps(saved | {"hook": 1}))
    with pytest.raises(UserError, match="unknown key 'hook'"):
        open_source(f"tokens:{out}")
    for name, value, words in (
        ("shard", 0, "shard is 0: use 1 or more"),
        ("source", {}, "source.records is None"),
        ("source", {"records": -1}, "records is -1: use 0 or more"),
        ("source", {"records": 1 << 60}, "array_record is missing"),
        ("stage1", saved["stage1"] | {"grid": 0}, "grid is 0: use 1 or more"),
    ):
        (out / "header.json").write_text(json.dumps(saved | {name: value}))
        with pytest.raises(UserError, match=words):
            open_source(f"tokens:{out}")
    (out / "header.json").write_text("[" * 100_000)
    with pytest.raises(UserError, match="nested too deep .*: encode the images again"):
        open_source(f"tokens:{out}")
    (out / "header.json").write_text(json.dumps(saved))
    os.mkfifo(out / "tokens-00002.array_record")
    with pytest.raises(UserError, match="00002.array_record: it is no plain file"):
        open_source(f"tokens:{out}")


def first_tokens(source):
    return source[0]["image_tokens"].tolist()


def test_other_processes_read_it(tmp_path):
    write(tmp_path / "c")
    cache = open_source(f"tokens:{tmp_path / 'c'}")
    expected = first_tokens(cache)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(first_tokens, (cache,)) == expected


Pair = collections.namedtuple("Pair", "a b")


def test_fingerprint_follows_what_the_arrays_are():
    tree = {"params": {"w": np.arange(6.0, dtype=np.float32).reshape(2, 3)}, "n": 3}
    same = [
        {"n": 3, "params": {"w": tree["params"]["w"].copy(order="F")}},
        {**tree, "extra": {}, "none": None},
    ]
    assert {token_cache.fingerprint(t) for t in same} == {token_cache.fingerprint(tree)}
    w = tree["params"]["w"]
    bumped = w.copy()
    bumped[1, 2] = np.nextafter(bumped[1, 2], 9, dtype=np.float32)
    others = [
        {"params": {"w": bumped}, "n": 3},
        {"params": {"w": w.T}, "n": 3},
        {"params": {"w": w.astype(np.float64)}, "n": 3},
        {"params": {"v": w}, "n": 3},
        {"params": Pair(w, w), "n": 3},
        {"params": [w, w, w], "n": 3},
        {"params": {"w": w}, "n": 4},
    ]
    assert len({token_cache.fingerprint(t) for t in [tree, *others]}) == 8
    assert token_cache.fingerprint(Pair(w, w)) == token_cache.fingerprint([w, w])
