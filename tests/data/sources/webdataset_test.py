import io
import json
import logging
import os
import pickle
import tarfile

import pytest
from PIL import Image

from mmjax.data import storage, tar_index
from mmjax.data.records import BrokenRecord
from mmjax.data.sources import open_source
from mmjax.errors import UserError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "mmjax" / "tar_index"


def picture(colour=(255, 0, 0)):
    file = io.BytesIO()
    Image.new("RGB", (12, 10), colour).save(file, "PNG")
    return file.getvalue()


def write(path, members, **options):
    with tarfile.open(path, "w", **options) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def samples(count, start=0):
    for i in range(start, start + count):
        yield f"s{i:03d}.png", picture((i, 0, 0))
        yield (
            f"s{i:03d}.json",
            json.dumps({"captions": [f"one {i}", f"two {i}"]}).encode(),
        )


def test_reads_shards_in_order(tmp_path):
    for k in range(3):
        write(tmp_path / f"x-{k:02d}.tar", samples(4, 4 * k))
    source = open_source(f"webdataset:{tmp_path}/x-*.tar")
    assert len(source) == 12
    assert [source[i]["key"] for i in range(12)] == [f"s{i:03d}" for i in range(12)]
    assert source[7]["text"] == ["one 7", "two 7"]
    assert source[7]["image"][0, 0].tolist() == [7, 0, 0]
    assert source[-1]["key"] == "s011"
    assert next(source.texts()) == "one 0" and len(list(source.texts())) == 24
    again = pickle.loads(pickle.dumps(source))
    assert again[5]["text"] == ["one 5", "two 5"]
    assert again.fingerprint() == source.fingerprint()
    with pytest.raises(IndexError):
        source[12]


def test_patterns(tmp_path):
    assert storage.braces("a-{08..11}.{x,y}") == [
        f"a-{n}.{e}" for n in ("08", "09", "10", "11") for e in "xy"
    ]
    for k in range(3):
        write(tmp_path / f"x-{k:02d}.tar", samples(1, k))
    brace = f"webdataset:{tmp_path}/x-{{00..01}}.tar"
    assert len(open_source(brace)) == 2
    assert len(open_source(f"webdataset:{tmp_path}/x-0?.tar?text=captions")) == 3
    with pytest.raises(UserError, match="x-03.tar does not exist"):
        open_source(f"webdataset:{tmp_path}/x-{{00..03}}.tar")
    with pytest.raises(UserError, match="no file matches"):
        open_source(f"webdataset:{tmp_path}/y-*.tar")


def test_caption_fields(tmp_path):
    fields = {"caption": "a", "keywords": ["b", "c"], "labels": {"de": "d"}}
    path = write(
        tmp_path / "x.tar",
        [("k.json", json.dumps(fields).encode()), ("k.png", picture())],
    )
    for text, expected in [
        ("", ["a"]),
        ("?text=keywords,caption", ["b", "c", "a"]),
        ("?text=caption,labels.de", ["a", "d"]),
    ]:
        assert open_source(f"webdataset:{path}{text}")[0]["text"] == expected
    with pytest.raises(UserError, match="titel.*caption, key, keywords, labels"):
        open_source(f"webdataset:{path}?text=titel")


def test_text_and_class_members(tmp_path):
    path = write(tmp_path / "t.tar", [("d.e/k.0.jpg", picture())])
    assert open_source(f"webdataset:{path}")[0]["key"] == "d.e/k.0"
    path = write(
        tmp_path / "u.tar", [("d.e/k.PNG", picture()), ("d.e/k.txt", b" hi\n")]
    )
    record = open_source(f"webdataset:{path}")[0]
    assert record["text"] == ["hi"] and record["key"] == "d.e/k"
    members = [("a.png", picture()), ("a.cls", b"1\n"), ("b.png", picture())]
    path = write(tmp_path / "c.tar", [*members, ("b.cls", b"0")])
    source = open_source(f"webdataset:{path}?template=the {{}}|a {{}}")
    assert source.class_names == ("0", "1")
    assert source[0]["label"] == 1 and source[0]["text"] == ["the 1", "a 1"]


@pytest.mark.parametrize("where", ["data", "header", "between"])
def test_a_cut_tar_keeps_its_whole_samples(tmp_path, where):
    path = write(tmp_path / "x.tar", samples(10))
    with tarfile.open(path) as tar:
        members = tar.getmembers()
    third = members[6]  # the picture of sample 3
    cut = {
        "data": third.offset_data + 20,
        "header": third.offset + 100,
        "between": third.offset,
    }[where]
    os.truncate(path, cut)
    source = open_source(f"webdataset:{path}")
    assert len(source) == 4
    assert [source[i]["text"][0] for i in range(3)] == ["one 0", "one 1", "one 2"]
    with pytest.raises(BrokenRecord) as error:
        source[3]
    assert (
        error.value.place
        == f"{path} at byte {third.offset if where != 'data' else cut}"
    )
    assert "3 samples before it are whole" in error.value.reason
    assert len(list(source.texts())) == 6


def test_a_sample_cut_in_two_is_not_used(tmp_path):
    path = write(tmp_path / "x.tar", samples(3))
    with tarfile.open(path) as tar:
        json_2 = tar.getmembers()[5]
    os.truncate(path, json_2.offset + 512)
    source = open_source(f"webdataset:{path}")
    assert len(source) == 3 and source[1]["key"] == "s001"
    with pytest.raises(BrokenRecord, match="2 samples before"):
        source[2]


def test_damage_inside_a_tar_is_found(tmp_path):
    path = write(tmp_path / "x.tar", samples(4))
    with tarfile.open(path) as tar:
        at = tar.getmembers()[4].offset
    data = bytearray(path.read_bytes())
    data[at : at + 512] = b"x" * 512
    path.write_bytes(data)
    source = open_source(f"webdataset:{path}")
    assert len(source) == 4  # the next header is found by its checksum
    assert [source[i]["key"] for i in (0, 1, 3)] == ["s000", "s001", "s003"]
    with pytest.raises(BrokenRecord, match="s002: the sample has no image"):
        source[2]
    [lost] = source.left_out
    assert lost.place == f"{path}, byte {at}" and "header here is dam" in lost.reason


@pytest.mark.parametrize(
    "members, reason",
    [
        ([("k.json", b'{"caption": "x"}')], "no image member"),
        ([("k.png", picture()), ("k.json", b"{")], "bad json"),
        ([("k.png", picture()), ("k.json", b'{"caption": "\xff"}')], "bad json"),
        ([("k.png", picture()), ("k.json", b'{"caption": " "}')], "caption is empty"),
        ([("k.png", picture()), ("k.json", b'{"caption": 3}')], "no text"),
        ([("k.png", picture()), ("k.json", b'{"captions": []}')], "no caption in"),
        ([("k.png", picture()), ("k.json", b'{"caption": "\\ud800"}')], "not UTF-8"),
        ([("k.png", picture()), ("k.txt", b"caf\xe9")], "not UTF-8"),
        ([("k.png", picture()[:40]), ("k.txt", b"x")], "cannot decode"),
        ([("k.png", b""), ("k.txt", b"x")], "0 bytes"),
    ],
)
def test_broken_samples_name_their_place(tmp_path, members, reason):
    path = write(tmp_path / "x.tar", members)
    source = open_source(f"webdataset:{path}")
    with pytest.raises(BrokenRecord, match=reason) as error:
        source[0]
    assert error.value.place == f"{path}, sample k"


def test_compressed_tars_are_refused(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("a.png"))
    with pytest.raises(UserError, match="gunzip"):
        open_source(f"webdataset:{tmp_path}/x.tar")


def test_the_index_is_built_once(tmp_path, cache, monkeypatch):
    path = write(tmp_path / "x.tar", samples(3))
    first = open_source(f"webdataset:{path}").fingerprint()
    assert len(list(cache.glob("*/*"))) == 1
    with monkeypatch.context() as patch:
        patch.setattr(tar_index, "build", None)
        assert open_source(f"webdataset:{path}").fingerprint() == first
    write(path, samples(4))  # the size differs, so it is built again
    assert len(open_source(f"webdataset:{path}")) == 4


def test_a_bad_cache_only_warns(tmp_path, cache, caplog):
    path = write(tmp_path / "x.tar", samples(3))
    open_source(f"webdataset:{path}")
    [file] = cache.glob("*/*")
    for bad in (b"", b"PK\x03\x04 nothing", b"text"):
        file.write_bytes(bad)
        with caplog.at_level(logging.WARNING):
            assert len(open_source(f"webdataset:{path}")) == 3
    assert caplog.text.count("remaking the index") == 3
    file.unlink()
    file.parent.rmdir()
    cache.rmdir()
    cache.write_text("no folder")
    assert len(open_source(f"webdataset:{path}")) == 3
    assert "cannot keep the index" in caplog.text


def test_bundle_flickr8k(bundle):
    source = open_source(f"webdataset:{bundle}/flickr8k/flickr8k-train-128-*.tar")
    assert len(source) == 6000
    assert sum(1 for _ in source.texts()) == 30_000
    for i in (0, 999, 1000, 5999):
        record = source[i]
        assert record["image"].shape == (128, 128, 3) and len(record["text"]) == 5


def test_bundle_emoji(bundle):
    spec = (
        f"webdataset:{bundle}/emoji/noto128-shared.tar?text=caption,keywords,labels.de"
    )
    source = open_source(spec)
    assert len(source) == 1471
    record = source[0]
    assert record["text"][0] == "grinning face"
    assert record["text"][-1] == "grinsendes Gesicht" and "grin" in record["text"]
    assert record["image"][0, 0].tolist() == [255, 255, 255]  # transparent, over white


def test_a_field_of_the_json_is_the_class(tmp_path):
    parts = [({"group": "b"}, 0), ({"group": "a"}, 1), ({}, 2)]
    members = [
        member
        for part, i in parts
        for member in (
            (f"{i}.png", picture()),
            (f"{i}.json", json.dumps({"caption": "x"} | part).encode()),
        )
    ]
    path = write(tmp_path / "l.tar", members)
    source = open_source(f"webdataset:{path}?label=group")
    assert source.class_names == ("a", "b")
    assert [source[i]["label"] for i in range(2)] == [1, 0]
    with pytest.raises(BrokenRecord, match="it has no label, as other records have"):
        source[2]
    plain = open_source(f"webdataset:{path}")
    assert plain.class_names == () and plain.fingerprint() != source.fingerprint()
    with pytest.raises(UserError, match="no json of .* has a field 'kind': drop label"):
        open_source(f"webdataset:{path}?label=kind")
