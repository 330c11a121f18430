"""The shapes source: determinism, the unseen split, boxes, labels and captions."""

import itertools
import pickle

import numpy as np
import pytest

from mmjax.data import records
from mmjax.data.shapes import render, scene
from mmjax.data.sources import open_source, shapes
from mmjax.errors import UserError

PINNED = [0.039296003585269634, 0.4505485763478725]


def pairs(source):
    return [[(o.colour, o.shape) for o in r["scene"].objects] for r in source]


def first(source, n):
    return [source[i] for i in range(n)]


def same(a, b):
    arrays = ("image", "boxes")
    return all(np.array_equal(a[k], b[k]) for k in arrays) and all(
        a[k] == b[k] for k in a.keys() - set(arrays)
    )


def test_vocabulary():
    assert len(scene.SHAPES) >= 8 and len(scene.COLOURS) >= 8
    assert len(scene.CLASS_NAMES) == len(set(scene.CLASS_NAMES)) == 64
    assert len(scene.UNSEEN) == 6 and set(scene.UNSEEN) <= set(scene.PAIRS)
    assert all(len(set(words)) == 6 for words in zip(*scene.UNSEEN, strict=True))
    assert set(render.DISTANCE) == set(scene.SHAPES)


def test_a_record_depends_on_seed_split_and_index_alone():
    source = shapes.open("train", count=50)
    assert isinstance(source, records.Source)
    backwards = {i: source[i] for i in reversed(range(50))}
    copy = pickle.loads(pickle.dumps(source))
    longer = shapes.open("train", count=5000)
    for i in (0, 7, 49):
        assert same(backwards[i], copy[i]) and same(copy[i], longer[i])
    assert same(source[-1], source[49])
    other = shapes.open("train", count=50, seed=1)
    val = shapes.open("val", count=50)
    assert not np.array_equal(source[3]["image"], other[3]["image"])
    assert not np.array_equal(source[3]["image"], val[3]["image"])
    with pytest.raises(IndexError, match="50"):
        source[50]


def test_draws_are_the_same_one_by_one_and_uniform():
    block = scene.draws(5, 1, np.arange(2000))
    assert np.array_equal(block[1234:1235], scene.draws(5, 1, np.array([1234])))
    assert block.min() >= 0 and block.max() < 1
    assert abs(block.mean() - 0.5) < 0.005
    assert np.abs(np.corrcoef(block.T) - np.eye(scene.DRAWS)).max() < 0.12
    # Pinned: the data must not change under a new numpy or a new machine.
    assert block[0, :2].tolist() == PINNED


def test_unseen_pairs_occur_only_in_unseen():
    unseen = set(scene.UNSEEN)
    for split in ("train", "val"):
        found = set(itertools.chain(*pairs(first(shapes.open(split), 800))))
        assert found == set(scene.SEEN)
    both = pairs(first(shapes.open("unseen"), 400))
    assert all(unseen & set(scene_pairs) for scene_pairs in both)
    assert {len(scene_pairs) for scene_pairs in both} == {1, 2}
    single = pairs(first(shapes.open("unseen", objects=1), 200))
    assert {scene_pairs[0] for scene_pairs in single} == unseen


def test_labels():
    for record in first(shapes.open("val", objects=1), 50):
        [thing] = record["scene"].objects
        assert record["label"] == (
            list(scene.COLOURS).index(thing.colour) * 8
            + scene.SHAPES.index(thing.shape)
        )
        name = scene.CLASS_NAMES[record["label"]]
        assert name == f"{thing.colour} {thing.shape}"
    assert {r["label"] for r in first(shapes.open("val", objects=2), 20)} == {-1}


@pytest.mark.parametrize("size", [32, 64])
def test_objects_keep_apart_inside_and_related_as_said(size):
    seen = set()
    for record in first(shapes.open("train", size=size, objects=2), 300):
        a, b = record["scene"].objects
        dx, dy = abs(a.x - b.x), abs(a.y - b.y)
        assert np.hypot(dx, dy) > a.radius + b.radius + scene.GAP - 1e-9
        assert max(dx, dy) > 1.99 * min(dx, dy)
        for thing in (a, b):
            low, high = scene.SIZES[thing.size]
            assert low <= thing.radius <= high
            edge = scene.MARGIN + thing.radius - 1e-9
            assert edge <= min(thing.x, thing.y, 1 - thing.x, 1 - thing.y)
        seen.add(record["scene"].relation)
    assert seen == set(scene.RELATIONS)


def test_image_and_boxes_agree():
    for record in first(shapes.open("train", size=64, objects=1), 64):
        image, made = record["image"], record["scene"]
        assert image.shape == (64, 64, 3) and image.dtype == np.uint8
        assert record["boxes"].shape == (1, 4)
        assert record["boxes"].dtype == np.float32
        away = np.abs(image - np.float32(made.drawn)).max(axis=2) > 20
        rows, columns = np.nonzero(away)
        box = columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1
        np.testing.assert_allclose(record["boxes"][0], box, atol=2.5)


def test_rendering_is_antialiased_and_the_same_at_every_size():
    record = shapes.open("train", size=128, objects=1)[0]
    small = render.render(record["scene"], 32).astype(float)
    mean = record["image"].reshape(32, 4, 32, 4, 3).mean(axis=(1, 3))
    assert np.abs(small - mean).mean() < 1.0
    assert np.abs(small - mean).max() < 40


def test_captions_tell_the_truth():
    for record in first(shapes.open("val"), 200):
        made, texts = record["scene"], record["text"]
        assert len(set(texts)) == len(texts) == 5
        assert made.background in texts[0]
        for thing in made.objects:
            assert all(thing.colour in t and thing.shape in t for t in texts)
        assert not any("{" in t or "a orange" in t for t in texts)


@pytest.mark.parametrize(("relation", "dx", "dy"), [("left", -1, 0), ("below", 0, 1)])
def test_captions_put_the_objects_the_right_way_round(relation, dx, dy):
    a = scene.Object("red", "circle", "small", 0.5 + dx / 4, 0.5 + dy / 4, 0.14)
    b = scene.Object("blue", "star", "big", 0.5, 0.5, 0.2)
    made = scene.Scene((a, b), "white")
    assert made.relation == relation
    at, ta = shapes.AT[relation], shapes.AT[scene.OPPOSITE[relation]]
    here = shapes.HERE[relation]
    wordings = {
        text
        for v in np.linspace(0, 0.99, 16)
        for text in shapes.captions(made, [float(v)] * 10)
    }
    assert f"a red circle {at} a blue star" in wordings
    assert f"a blue star {ta} a red circle" in wordings
    assert f"a blue star with a red circle {here}" in wordings
    wrong = f"a red circle {ta} a blue star", f"a blue star {at} a red circle"
    assert not any(w in text for text in wordings for w in wrong)


def test_texts_are_the_records_texts():
    source = shapes.open("val", count=1100)
    texts = list(source.texts())
    assert len(texts) == 5 * 1100
    assert texts[5 * 1050 : 5 * 1051] == source[1050]["text"]
    assert len(set(texts)) > 1500


def test_fingerprint_tells_sources_apart():
    options = [{}, {"size": 64}, {"seed": 3}, {"objects": 1}, {"count": 10}]
    prints = {shapes.open("val", **o).fingerprint() for o in options}
    assert len(prints) == len(options)
    assert shapes.open("val").fingerprint() in prints


@pytest.mark.parametrize(
    ("path", "options", "message"),
    [
        ("test", {}, "train, val, unseen"),
        ("train", {"size": "big"}, "size=big must be a number 16 to 4096"),
        ("train", {"count": 0}, "count=0"),
        ("train", {"objects": "3"}, "objects=3 must be a number 1 to 2"),
    ],
)
def test_bad_options_say_what_is_legal(path, options, message):
    with pytest.raises(UserError, match=message):
        shapes.open(path, **options)


def test_options_come_as_text_too():
    source = shapes.open("train", size="48", count="7", objects="2", seed="9")
    assert source == shapes.open("train", size=48, count=7, objects=2, seed=9)


def test_broken_record_pickles_and_names_its_place():
    broken = records.BrokenRecord("a.tar:3", "truncated")
    again = pickle.loads(pickle.dumps(broken))
    assert (again.place, again.reason) == ("a.tar:3", "truncated")
    assert str(again) == "a.tar:3: truncated"


def test_full_words_are_the_first_caption_alone():
    every = open_source("shapes:train?size=16&count=4")
    full = open_source("shapes:train?size=16&count=4&words=full")
    assert [full[i]["text"] for i in range(4)] == [
        every[i]["text"][:1] for i in range(4)
    ]
    assert list(full.texts()) == [full[i]["text"][0] for i in range(4)]
    assert full.fingerprint() != every.fingerprint()
    with pytest.raises(UserError, match="words=few must be all or full"):
        open_source("shapes:train?words=few")
