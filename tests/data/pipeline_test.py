import logging

import batch_fields
import numpy as np
import pytest

from mmjax.data import pipeline
from mmjax.data.fields import image
from mmjax.data.records import BrokenRecord
from mmjax.data.sources import open_source
from mmjax.errors import UserError

CFG = image.Field(size=16, train_scale=(0.5, 1.0), flip=True)


class Letters:
    """A tokenizer: one id a character."""

    def encode(self, texts):
        out = np.zeros((len(texts), 12), np.int32)
        for row, text in enumerate(texts):
            codes = [ord(letter) % 256 for letter in text[:12]]
            out[row, : len(codes)] = codes
        return out, out > 0


class Numbered:
    """Record i is a picture of the grey level i, with five captions `i/k`."""

    name, class_names = "numbered", ()

    def __init__(self, count=23, broken=(), labels=()):
        self.count, self.broken, self.class_names = count, broken, labels

    def __len__(self):
        return self.count

    def __getitem__(self, i):
        assert 0 <= i < self.count
        if i in self.broken:
            raise BrokenRecord(f"place {i}", "made so")
        texts = [f"{i}/{k}" for k in range(5)]
        pixels = np.full((20, 24, 3), i % 256, np.uint8)
        out = {"image": pixels, "text": texts, "key": str(i)}
        return out | ({"label": i % 2} if self.class_names else {})

    def texts(self):
        return (f"{i}/{k}" for i in range(self.count) for k in range(5))

    def fingerprint(self):
        return "x"


def take(count, source=None, batch_size=8, **options):
    source = source or Numbered()
    options = {"seed": 1, "threads": 0, "max_broken": 1.0} | options
    it = pipeline.TrainIterator(
        source,
        batch_fields.of(source, Letters(), CFG),
        batch_size=batch_size,
        **options,
    )
    try:
        return [next(it) for _ in range(count)]
    finally:
        it.close()


def test_what_a_source_leaves_out_is_logged_once(caplog):
    source = Numbered()
    source.left_out = [BrokenRecord("there/.x", "a hidden folder")]
    take(30, source)
    assert caplog.messages == ["left out: there/.x: a hidden folder"]
    take(1, source, process_index=1, process_count=2)
    assert len(caplog.messages) == 1


def join(batches):
    return {k: np.concatenate([b[k] for b in batches]) for k in batches[0]}


def same(a, b):
    assert a.keys() == b.keys()
    for key in a:
        np.testing.assert_array_equal(a[key], b[key], err_msg=key)


def read(batch):
    """(record, caption) of each row."""
    texts = ["".join(map(chr, row[row > 0])) for row in batch["tokens"]]
    return [tuple(map(int, text.split("/"))) for text in texts]


def test_batch_layout():
    [batch] = take(1, Numbered(labels=("even", "odd")))
    assert {k: (v.dtype.name, v.shape) for k, v in batch.items()} == {
        "image": ("uint8", (8, 16, 16, 3)),
        "tokens": ("int32", (8, 12)),
        "tokens_mask": ("bool", (8, 12)),
        "label": ("int32", (8,)),
        "_broken": ("int32", (8,)),
    }
    for row, (record, _) in enumerate(read(batch)):
        assert (batch["image"][row] == record).all()
        assert batch["label"][row] == record % 2


def test_an_epoch_holds_every_record_once_and_draws_captions_anew():
    rows = read(join(take(23 * 5)))  # 40 epochs of 23 records
    epochs = [rows[23 * k : 23 * k + 23] for k in range(40)]
    for epoch in epochs:
        assert sorted(record for record, _ in epoch) == list(range(23))
    assert epochs[0] != epochs[1]
    for record in range(23):  # of five captions, all come up
        drawn = [c for epoch in epochs for r, c in epoch if r == record]
        assert set(drawn) == set(range(5))
    assert read(join(take(3, seed=2))) != rows[:24]


@pytest.mark.parametrize("options", [{"threads": 1}, {"threads": 3}])
def test_threads_change_nothing(options):
    same(join(take(7)), join(take(7, **options)))


def test_workers_change_nothing():
    source = Numbered(broken=(3, 4, 11))
    same(join(take(6, source)), join(take(6, source, workers=2)))


@pytest.mark.parametrize("count", [2, 4])
def test_processes_share_the_same_batches(count):
    whole = take(5)
    parts = [take(5, process_index=k, process_count=count) for k in range(count)]
    for step in range(5):
        same(whole[step], join([part[step] for part in parts]))


def test_batch_size_only_cuts_the_stream_otherwise():
    same(join(take(6, batch_size=8)), join(take(3, batch_size=16)))


@pytest.mark.parametrize("threads, workers", [(0, 0), (2, 0), (0, 1)])
def test_resume_is_exact_and_elastic(threads, workers):
    options = {"seed": 1, "threads": threads, "workers": workers}
    whole = take(6)
    it = pipeline.TrainIterator(
        Numbered(), batch_fields.of(Numbered(), Letters(), CFG), batch_size=8, **options
    )
    assert it.get_state() == {"global_next_index": 0}
    next(it), next(it), next(it)
    state = it.get_state()
    assert state == {"global_next_index": 24}
    next(it)
    it.set_state(state)
    same(next(it), whole[3])
    it.close()
    if not workers:
        halves = []
        for k in range(2):
            it = pipeline.TrainIterator(
                Numbered(),
                batch_fields.of(Numbered(), Letters(), CFG),
                batch_size=24,
                process_index=k,
                process_count=2,
                **options,
            )
            it.set_state(state)
            halves.append(next(it))
            it.close()
        same(join(halves), join(whole[3:]))


def test_broken_records_give_way_to_the_next_good_one(caplog):
    source = Numbered(broken=(5, 6, 22))
    with caplog.at_level(logging.WARNING):
        batch = join(take(6, source))
    good = join(take(6))
    for row, (old, new) in enumerate(zip(read(good), read(batch), strict=True)):
        expected = {5: 7, 6: 7, 22: 0}.get(old[0], old[0])
        assert new == (expected, old[1])
        assert batch["_broken"][row] == {5: 2, 6: 1, 22: 1}.get(old[0], 0)
    assert (batch["_broken"] > 0).sum() == 6  # two epochs
    said = [r.message for r in caplog.records]
    assert sorted(said) == [  # once each
        f"broken record skipped: place {i}: made so" for i in (22, 5, 6)
    ]


def test_too_many_broken_records_end_the_run():
    take(250, Numbered(1000, broken=(1, 2, 3)), max_broken=0.006)
    many = Numbered(1000, broken=range(0, 1000, 50))
    with pytest.raises(UserError, match=r"7 broken.*0.60%.*place \d+.*data check"):
        take(125, many, max_broken=0.006)
    with pytest.raises(UserError, match="1 broken"):
        take(130, Numbered(1000, broken=(7,)), max_broken=0.0)
    with pytest.raises(UserError, match="all 3 records of numbered are broken"):
        take(1, Numbered(3, broken=(0, 1, 2)))
    with pytest.raises(UserError, match="max_broken 2"):
        pipeline.BrokenBudget(2)


def test_refuses_bad_batches_and_missing_captions():
    with pytest.raises(UserError, match="batch 10 must split over 4.*8 or 12"):
        take(1, batch_size=10, process_count=4)
    with pytest.raises(UserError, match="batch 3 must split over 4 processes: use 4$"):
        take(1, batch_size=3, process_count=4)

    class Silent(Numbered):
        def __getitem__(self, i):
            return super().__getitem__(i) | {"text": []}

    wanted = "of numbered have image, key, and no tokens.*text.*template="
    with pytest.raises(UserError, match=wanted):
        take(1, Silent())
    batch = next(
        pipeline.TrainIterator(
            Silent(), batch_fields.of(Silent(), None, CFG), batch_size=2, seed=0
        )
    )
    assert "tokens" not in batch


@pytest.mark.parametrize("threads", [0, 2])
def test_eval_batches_are_in_order_and_padded(threads):
    source = Numbered(labels=("even", "odd"))
    batches = list(
        pipeline.eval_batches(
            source,
            batch_fields.of(source, Letters(), CFG),
            batch_size=8,
            threads=threads,
        )
    )
    assert len(batches) == 3
    rows = join(batches)
    assert rows["_index"].tolist() == [*range(23), -1]
    assert rows["_mask"].tolist() == [1.0] * 23 + [0.0]
    assert rows["label"].tolist() == [i % 2 for i in range(23)] + [-1]
    assert (rows["image"][:23, 0, 0, 0] == np.arange(23)).all()
    assert [c for _, c in read({"tokens": rows["tokens"][:23]})] == [0] * 23
    assert rows["image"].shape == (24, 16, 16, 3) and rows["_mask"].dtype == np.float32


def test_eval_masks_broken_records(caplog):
    source = Numbered(broken=(2,))
    [batch] = pipeline.eval_batches(
        source, batch_fields.of(source, None, CFG), batch_size=32
    )
    assert "tokens" not in batch and "label" not in batch
    assert batch["_mask"].sum() == 22 and batch["_mask"][2] == 0
    assert batch["_broken"].tolist() == [int(i == 2) for i in range(32)]
    assert "place 2: made so" in caplog.text


def test_bundle_trains_from_tar_shards(bundle):
    from mmjax.data import tokenizers

    source = open_source(f"webdataset:{bundle}/flickr8k/flickr8k-dev-*.tar")
    tokenizer = tokenizers.build({"kind": "bytes", "context": 40})
    cfg = image.Field(size=32)
    it = pipeline.TrainIterator(
        source, batch_fields.of(source, tokenizer, cfg), batch_size=32, seed=0
    )
    batch = next(it)
    it.close()
    every = {" ".join(t.split()).lower() for t in source.texts()}
    full = [
        row
        for row, mask in zip(batch["tokens"], batch["tokens_mask"], strict=True)
        if not mask[-1]
    ]
    assert full and all(
        tokenizer.decode(row) in {t.lower() for t in every} | every for row in full
    )
