"""What holds for fields of every kind: build, choose, check, rows, encode, save."""

import json

import numpy as np
import pytest
from record_source import Columns, Records

from mmjax.data import fields, pipeline
from mmjax.data.fields.base import View
from mmjax.errors import UserError

PIXELS = np.arange(8 * 12 * 3, dtype=np.uint8).reshape(8, 12, 3)
# kind: (options, a record's value), for what all kinds promise
KINDS = {
    "audio": ({"seconds": 0.1, "mels": 8}, np.sin(np.arange(2000))),
    "boxes": ({"count": 3, "image": ""}, np.float32([[1, 2, 3, 4], [2, 2, 1, 1]])),
    "image": ({"size": 4}, PIXELS),
    "index": ({}, True),
    "label": ({}, 1),
    "labels": ({"classes": 4}, [0, 3]),
    "latents": ({"normalize": "standard"}, np.arange(12.0).reshape(2, 2, 3)),
    "sequence": ({"length": 5, "normalize": "standard"}, np.eye(4, 2)),
    "text": ({"context": 6}, ["ab", "cd"]),
    "texts": ({"count": 3, "context": 6}, ["ab", "cd"]),
    "tokens": ({}, np.arange(5)),
    "vector": ({"normalize": "whiten"}, np.arange(3.0)),
    "video": ({"length": 3, "size": 4}, np.stack([PIXELS, PIXELS])),
}


def opened(kind, **options):
    built = fields.build({"a": {"kind": kind, "of": "v", **KINDS[kind][0], **options}})
    source = Records([{"v": KINDS[kind][1]}] * 3, class_names=("x", "y", "z"))
    return fields.open_fields(built, lambda: source, {}), source


def same(one, other):
    assert one.keys() == other.keys()
    for key in one:
        np.testing.assert_array_equal(one[key], other[key], err_msg=key)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_rows_are_as_shapes_say(kind):
    """Rows of records, blank rows and both in one batch have the shapes promised."""
    chosen, source = opened(kind, optional=kind != "index")
    shapes = fields.shapes(chosen)
    rng = np.random.default_rng(0)
    rows = [
        fields.row(chosen, source[0], None, View(train=False, index=0)),
        fields.row(chosen, source[1], rng, View(train=True, index=1)),
        fields.blank(chosen),
    ]
    batch = fields.collate(chosen, rows)
    if kind == "tokens":  # as long as the batch's own
        shapes["a"] = ((5,), "int32")
    assert {k: (v.shape[1:], v.dtype.name) for k, v in batch.items()} == shapes
    alone = fields.collate(chosen, rows[2:])
    same({k: v[2:] for k, v in batch.items()}, alone)
    if kind != "index":
        assert batch["a_present"].tolist() == [True, True, False]
    assert fields.spec(chosen)["a"]["kind"] == kind
    assert fields.spec(chosen)["a"]["dtype"] == batch["a"].dtype.name


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_checkpoint_holds_what_the_data_gave(kind):
    chosen, source = opened(kind)
    saved = json.loads(json.dumps(fields.save(chosen)))
    assert saved == fields.save(chosen)
    built = fields.build({"a": {"kind": kind, "of": "v", **KINDS[kind][0]}})

    def absent():
        raise AssertionError("the data are not here")

    if saved:
        again = fields.open_fields(built, absent, saved)
    else:
        again = fields.open_fields(built, lambda: source, {})
    assert fields.save(again) == saved
    view = View(train=False, index=2)
    rows = [fields.row(f, source[2], None, view) for f in (chosen, again)]
    same(fields.collate(chosen, rows[:1]), fields.collate(again, rows[1:]))


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"index"}))
def test_encode_is_the_evaluation_view(kind):
    chosen, source = opened(kind)
    row = fields.row(chosen, source[0], None, View(train=False))
    encoded = fields.encode(chosen, "a", [KINDS[kind][1]] * 2)
    same(encoded, fields.collate(chosen, [row, row]))


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"index"}))
@pytest.mark.parametrize("value", [object(), {"an": "other"}])
def test_a_value_of_another_type_is_a_broken_record(kind, value):
    chosen, _ = opened(kind)
    with pytest.raises(UserError, match="config.data.fields.a: ") as error:
        fields.encode(chosen, "a", [value])
    assert "got" in str(error.value) or "no class" in str(error.value)


def test_build_refuses():
    with pytest.raises(UserError, match="no kind 'imgae'; did you mean 'image'?"):
        fields.build({"a": {"kind": "imgae"}})
    with pytest.raises(UserError, match="config.data.fields.a has no kind: use one of"):
        fields.build({"a": {}})
    with pytest.raises(UserError, match="'siez'; did you mean 'size'?"):
        fields.build({"a": {"kind": "image", "siez": 3}})
    for kind, key, value in (
        ("text", "tokenizer", "bep"),
        ("image", "method", "bicubik"),
        ("image", "mode", "corp"),
        ("vector", "normalize", "whitn"),
        ("audio", "front_end", "mel"),
    ):
        with pytest.raises(UserError, match=rf"fields\.a.*{value}"):
            fields.build({"a": {"kind": kind, key: value}})
    with pytest.raises(UserError, match="'count' is missing"):
        fields.build({"a": {"kind": "boxes"}})
    with pytest.raises(UserError, match="letters, digits and _"):
        fields.build({"a-b": {"kind": "label"}})
    with pytest.raises(UserError, match="share from 0 to below 1"):
        fields.build({"a": {"kind": "label", "optional": True, "drop": 1.0}})
    with pytest.raises(UserError, match="set optional to True"):
        fields.build({"a": {"kind": "label", "drop": 0.5}})
    assert "base" not in fields.kinds() and "numbers" not in fields.kinds()


@pytest.mark.parametrize(
    "one, other",
    [
        ({"kind": "text"}, "a_mask"),
        ({"kind": "label", "optional": True}, "a_present"),
        ({"kind": "boxes", "count": 2, "labels": "l"}, "a_labels"),
    ],
)
def test_two_fields_that_give_one_array(one, other):
    with pytest.raises(UserError, match=f"{other}' *|both give") as error:
        fields.build({"a": one, other: {"kind": "label"}})
    assert f"config.data.fields.{other} and config.data.fields.a" in str(error.value)
    fields.build({"a": {"kind": "label"}, other: {"kind": "label"}})  # no such array


def test_choose_takes_what_the_records_have():
    every = fields.build(
        {
            "image": {"kind": "image"},
            "image_tokens": {"kind": "tokens"},
            "label": {"kind": "label"},
            "note": {"kind": "text", "of": "note", "optional": True},
        }
    )
    source = Records([{"image_tokens": np.arange(3), "text": []}])
    reads = ["image|image_tokens", "label?", "note"]
    assert list(fields.choose(every, source, reads)) == ["image_tokens", "note"]
    assert list(fields.choose(every, None, reads)) == ["image", "label", "note"]
    with pytest.raises(UserError, match="listed have .*image_tokens.*and no label"):
        fields.choose(every, source, ["label"])
    with pytest.raises(UserError, match="has no tokens.*add it.*there are: image, "):
        fields.choose(every, source, ["tokens"])
    with pytest.raises(UserError, match="has no pose or depth"):
        fields.choose(every, None, ["pose|depth"])
    every["tokens"] = fields.build({"tokens": {"kind": "text"}})["tokens"]
    with pytest.raises(UserError, match="name the captions' field with text="):
        fields.choose(every, source, ["tokens"])


def test_check_looks_at_the_first_records():
    field = fields.build({"v": {"kind": "vector", "width": 2}})
    fields.check(field, field, Records([None, {"v": [1, 2]}]))
    with pytest.raises(UserError, match="listed: record 0.*expected 2 numbers, got 3"):
        fields.check(field, field, Records([{"v": [1, 2, 3]}] * 9))


def test_a_record_that_lacks_the_value():
    chosen, _ = opened("label")
    with pytest.raises(fields.BrokenRecord, match="it has no 'v' for .*only key, text"):
        fields.row(chosen, {"key": "k", "text": "t", "no": []}, None, View(train=False))


def test_drop_blanks_a_share_of_training_rows_alone():
    chosen, source = opened("vector", optional=True, drop=0.25, normalize="")
    loader = {"batch_size": 64, "seed": 3, "threads": 0}
    batch = next(pipeline.TrainIterator(source, chosen, **loader))
    gone = ~batch["a_present"]
    assert 4 <= gone.sum() <= 30
    assert (batch["a"][gone] == 0).all() and (batch["a"][~gone, 2] == 2).all()
    [batch] = pipeline.eval_batches(source, chosen, batch_size=3, threads=0)
    assert batch["a_present"].all()


@pytest.mark.parametrize(
    "config, columns",
    [
        ({"kind": "label"}, {"v": np.arange(40) % 3}),
        ({"kind": "labels", "classes": 3}, {"v": np.eye(40, 3) > 0}),
        ({"kind": "tokens"}, {"v": np.arange(200).reshape(40, 5)}),
        ({"kind": "image", "size": 2, "train_scale": (1.0, 1.0)}, "pixels"),
        ({"kind": "vector"}, {"v": np.float64(np.arange(80).reshape(40, 2))}),
        ({"kind": "vector", "normalize": "standard"}, "noise"),
        ({"kind": "vector", "normalize": "whiten"}, "noise"),
        ({"kind": "vector", "of": "v,w,v"}, "noise"),
        ({"kind": "latents", "normalize": "whiten"}, "latents"),
    ],
)
def test_gather_gives_the_bits_of_rows(config, columns):
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(40, 33)) @ rng.normal(size=(33, 33)) + 3
    columns = {
        "pixels": {"v": rng.integers(0, 255, (40, 2, 2, 3), np.uint8)},
        "noise": {"v": noise, "w": np.arange(40.0)},
        "latents": {"v": rng.normal(size=(40, 2, 2, 3))},
    }.get(columns if isinstance(columns, str) else "", columns)
    quick, slow = Columns(**columns), Columns(**columns)
    slow.columns = {}
    batches, saved = [], {}
    for source in (quick, slow):
        built = fields.build({"a": {"of": "v", **config}})
        chosen = fields.open_fields(built, lambda source=source: source, saved)
        saved = fields.save(chosen)  # for both: sums in another order differ
        fields.check(chosen, chosen, source)
        index = np.zeros(1, np.int64)
        gathered = pipeline.gather(source, chosen, index) is not None
        assert gathered == (source is quick)
        options = {"batch_size": 17, "seed": 1, "threads": 0}
        batches.append(next(pipeline.TrainIterator(source, chosen, **options)))
    same(*batches)
