import io
import json
import os
import tarfile

import numpy as np
import pyarrow
import pytest
from PIL import Image
from pyarrow import parquet

from mmjax.data import fields, streams
from mmjax.data.records import BrokenRecord
from mmjax.data.sources import open_source
from mmjax.errors import UserError


@pytest.fixture(autouse=True)
def shards(tmp_path, monkeypatch):
    """6 shards of 10 samples; the red of image n is n."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for k in range(6):
        with tarfile.open(tmp_path / f"x-{k}.tar", "w") as tar:
            for i in range(10):
                file = io.BytesIO()
                Image.new("RGB", (8, 8), (10 * k + i, 0, 0)).save(file, "PNG")
                for suffix, data in (("png", file.getvalue()), ("txt", b"a\n")):
                    info = tarfile.TarInfo(f"{k}-{i}.{suffix}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    return tmp_path


def begin(shards, index=0, count=1, window=24, spec="", **options):
    source = open_source(spec or f"stream:{shards}/x-*.tar?window={window}")
    given = fields.build({"image": {"kind": "image", "size": 8}})
    split = {"process_index": index, "process_count": count}
    options = {"batch_size": 4 * count, "seed": 1, **split, **options}
    return streams.iterator(source, given, **options)


def numbers(batch):
    return batch["image"][:, 0, 0, 0].tolist()


def drawn(data, batches):
    out = [n for _ in range(batches) for n in numbers(next(data))]
    data.close()
    return out


def test_each_sample_once_an_epoch_in_a_new_order(shards):
    rows = drawn(begin(shards), 30)
    assert sorted(rows) == sorted([*range(60), *range(60)])
    assert rows[:24] != sorted(rows[:24]) and rows[:60] != rows[60:]
    first = {n // 10 for n in rows[:24]}
    assert len(first) == 3  # of the shards that were read, and of no other
    assert rows == drawn(begin(shards, threads=1), 30)
    assert rows != drawn(begin(shards, seed=2), 30)
    assert not (shards / "cache").exists()  # and no index


def test_processes_share_the_shards_of_an_epoch(shards):
    parts = [drawn(begin(shards, k, 2, window=10), 8) for k in range(2)]
    shares = [{n // 10 for n in rows[:20]} for rows in parts]
    assert not shares[0] & shares[1]
    both = parts[0][:24] + parts[1][:24]  # the third window reaches into epoch 1
    assert len(set(both)) == 48


@pytest.mark.parametrize("done", [0, 1, 5, 6, 7, 15, 16])
def test_resumes_anywhere(shards, done):
    whole = drawn(begin(shards), 24)
    data = begin(shards)
    before = [n for _ in range(done) for n in numbers(next(data))]
    state = json.loads(json.dumps(streams.joined([data.get_state()])))
    data.close()
    again = begin(shards)
    again.set_state(state)
    assert before + drawn(again, 24 - done) == whole
    with pytest.raises(UserError, match="is of 1 processes that stream, and these are"):
        begin(shards, 0, 2).set_state(state)
    with pytest.raises(UserError, match="of no processes that stream"):
        begin(shards).set_state({"global_next_index": 8, "shares": {}})


def test_damage_is_counted_and_the_rest_read(shards, caplog):
    path = shards / "x-2.tar"
    with tarfile.open(path) as tar:
        at = {member.name: member.offset for member in tar.getmembers()}
    whole = bytearray(path.read_bytes())
    whole[at["2-4.png"] : at["2-4.png"] + 512] = b"x" * 512
    path.write_bytes(whole)
    os.truncate(shards / "x-3.tar", at["2-8.txt"] + 512)
    data = begin(shards, window=60)
    rows = drawn(data, 15)
    lost = set(range(60)) - set(rows)
    assert {24, 38, 39} <= lost
    assert "the header here is damaged" in caplog.text
    assert data.budget.count >= 2


@pytest.mark.parametrize("nested", [True, False])
def test_parquet(shards, nested):
    tars = open_source(f"stream:{shards}/x-*.tar?window=24")
    for k in range(6):
        samples = [sample for _, sample in tars.samples(k)]
        data = [parts[0] for *_, parts in samples]
        table = {
            "image": [{"bytes": d, "path": None} for d in data] if nested else data,
            "caption": ["a"] * 10,
            "key": [key for _, key, _ in samples],
        }
        path = shards / f"x-{k}.parquet"
        parquet.write_table(pyarrow.table(table), path, row_group_size=4)
    spec = f"stream:{shards}/x-*.parquet?window=24"
    source = open_source(spec)
    assert source.head[13]["key"] == "1-3" and source.head[13]["text"] == ["a"]
    assert len(list(source.texts())) == 60
    assert drawn(begin(shards), 20) == drawn(begin(shards, spec=spec), 20)
    data = begin(shards, spec=spec)
    whole = [numbers(next(data)) for _ in range(9)]
    state = data.get_state()
    data.close()
    again = begin(shards, spec=spec)
    again.set_state(state)
    assert drawn(again, 3) == drawn(begin(shards), 12)[36:] and whole
    parquet.write_table(pyarrow.table({"pixels": [b"x"]}), shards / "y.parquet")
    with pytest.raises(UserError, match="no column of images: rename one of pixels"):
        open_source(f"stream:{shards}/y.parquet")
    (shards / "z.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(UserError, match="z.parquet is no Parquet file"):
        open_source(f"stream:{shards}/z.parquet")


def test_what_a_stream_is_not_for(shards):
    source = open_source(f"stream:{shards}/x-*.tar")
    for use in (len, lambda s: s[0]):
        with pytest.raises(UserError, match="is a stream, for training alone"):
            use(source)
    with pytest.raises(UserError, match="is a stream, for training alone"):
        open_source(f"stream:{shards}/x-*.tar?limit=3")
    with pytest.raises(UserError, match="has 6 shards for 8 processes"):
        begin(shards, 0, 8)
    with pytest.raises(UserError, match="config.data.workers is 2"):
        begin(shards, workers=2)
    with pytest.raises(UserError, match="window=0"):
        open_source(f"stream:{shards}/x-*.tar?window=0")
    assert len(list(source.texts())) == 60
    with pytest.raises(BrokenRecord, match="no image member"):
        source.window_of([("here", "k", {2: b"t"})])[0]
    assert np.array_equal(source.head[3]["image"][0, 0], [3, 0, 0])
