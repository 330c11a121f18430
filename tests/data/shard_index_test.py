import importlib.util
import io
import os
import pathlib
import pickle
import subprocess
import sys
import tarfile

import grain
import numpy as np
import pytest
from PIL import Image

from mmjax import cli
from mmjax.data import records, shard_index, storage, tar_walk
from mmjax.data.records import BrokenRecord
from mmjax.data.sources import encoded, open_source
from mmjax.errors import UserError

# What an index of all offsets in int64 gave for `shards`, seed 5: a key, and a mark for
# every broken record before it.
GOLDEN = """
    a12 d/e b8 a15 a a0 b10 b4 d/c.7 b5 d/c.1 b13 a3 a10 a13 b6 a8 a7 a1 b0! b3 d/c.6
    a0!! a d/c.0 d/c.2 b12 a6 d/c.3 a4 a2 b1 d/c.5 b9 d/c.4 a11 b7 a14 a5 b0 d/c.8 a9
    a0! b14 b11 b2 d/c.7 d/c.6 a10 a a12 b5 a0! b11 b8 a15 b10 b0 a11 a9 b2 b1 a0 d/c.1
    a8 d/c.5 a3 b3 b0! d/c.8
"""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def png(k):
    file = io.BytesIO()
    Image.new("RGB", (4, 4), (k, 0, 0)).save(file, "PNG")
    return file.getvalue()


def write(path, members):
    """(name, bytes) of a file, (name, target) of a hard link."""
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            if isinstance(data, str):
                info.type, info.linkname = tarfile.LNKTYPE, data
                tar.addfile(info)
            else:
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


def pairs(letter, count):
    for k in range(count):
        yield from ((f"{letter}{k}.png", png(k)), (f"{letter}{k}.txt", b"t"))


def shards(folder):
    """A cut shard; one with texts behind all images; one of links, twins and more."""
    write(folder / "x-0.tar", pairs("a", 20))
    os.truncate(folder / "x-0.tar", 512 * 4 * 16 + 600)
    parts = list(pairs("b", 15))
    write(folder / "x-1.tar", [*parts[::2], *parts[::-2]])
    parts = []
    for k in range(9):
        parts += [(f"d/c.{k}.txt", b"t"), (f"d/c.{k}.npy", b".")]
        parts += [(f"d/c.{k}.json", b'{"n": 1}'), (f"d/c.{k}.png", png(k))]
    parts += [("d/e.png", "d/c.3.png"), ("d/e.txt", b"t")]
    parts += [("a.png", png(1)), ("a.txt", b"1"), ("a.png", png(2)), ("a.txt", b"2")]
    write(folder / "x-2.tar", [*parts, *list(pairs("z", 2))[:2], ("z0.png", png(3))])
    return f"webdataset:{folder}/x-*.tar"


def test_the_order_is_the_old_one(tmp_path):
    source = open_source(shards(tmp_path))
    order = grain.MapDataset.range(len(source)).seed(5).shuffle().repeat()
    drawn = [records.next_good(source, int(order[p])) for p in range(70)]
    want = GOLDEN.split()
    assert [record["key"] + "!" * len(bad) for record, bad in drawn] == want
    again = pickle.loads(pickle.dumps(source))
    assert again.index.path == source.index.path and again[3]["key"] == "a3"
    assert again.fingerprint() == source.fingerprint()


def test_an_index_is_12_bytes_a_sample_and_beside_the_shards(tmp_path, capsys):
    for k in range(3):
        write(tmp_path / f"x-{k}.tar", pairs(f"{k}-", 300))
    spec = f"webdataset:{tmp_path}/x-*.tar"
    for k in range(2):
        assert cli.main(["data", "index", spec, "--shard", f"{k}/2"]) == 0
    assert "2 of 3 shards are indexed" in capsys.readouterr().out
    assert len(list(tmp_path.glob(".mmjax/*.tar.idx"))) == 3
    assert cli.main(["data", "index", spec, "--jobs", "2"]) == 0
    assert "900 samples in 3 shards, 1" in capsys.readouterr().out
    [path] = tmp_path.glob(".mmjax/set-*.idx")
    index = open_source(spec).index
    assert index.path == path and isinstance(index.rows, np.memmap)
    assert index.rows.nbytes == 12 * 900 and not len(index.odd)
    assert not (tmp_path / "cache").exists()
    assert len(open_source(f"webdataset:{tmp_path}/x-{{0,2}}.tar")) == 600  # of pieces
    assert cli.main(["data", "index", spec, "--shard", "2/2"]) == 2
    assert "write K/N, K from 0 to N - 1" in capsys.readouterr().err


def test_a_folder_that_is_read_only(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    spec = shards(folder)
    (folder / ".mmjax").write_text("no folder")  # who tests as root may write anywhere
    assert cli.main(["data", "index", spec]) == 0
    assert len(list((tmp_path / "cache").rglob("*.idx"))) == 4


def test_a_sample_that_changed_under_the_index(tmp_path):
    write(tmp_path / "x.tar", pairs("a", 3))
    spec = f"webdataset:{tmp_path}/x.tar"
    source, status = open_source(spec), os.stat(tmp_path / "x.tar")
    write(tmp_path / "x.tar", pairs("b", 3))
    os.utime(tmp_path / "x.tar", ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(UserError, match="x.tar changed under its index: it had"):
        source[1]
    assert open_source(spec)[1]["key"] == "b1"  # anew, though size and mtime are equal


def test_an_index_of_another_set_is_not_taken(tmp_path, caplog):
    for name, letter in (("one", "a"), ("two", "b")):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "x.tar", pairs(letter, 3))
        assert cli.main(["data", "index", f"webdataset:{tmp_path}/{name}/x.tar"]) == 0
    piece = ".mmjax/x.tar.idx"
    (tmp_path / "one" / piece).write_bytes((tmp_path / "two" / piece).read_bytes())
    assert open_source(f"webdataset:{tmp_path}/one/x.tar")[0]["key"] == "a0"
    # rows and spans that lead nowhere, in a file that looks right
    [blob] = storage.find(f"{tmp_path}/two/x.tar")
    whole = bytearray((tmp_path / "two" / piece).read_bytes())
    whole[-12:] = b"\xff\xff\xff\x0f" * 3
    (tmp_path / "two" / piece).write_bytes(whole)
    source = open_source(f"webdataset:{blob.path}")
    with pytest.raises((BrokenRecord, UserError)):
        source[2]
    assert source[1]["key"] == "b1"
    (tmp_path / "two" / piece).write_bytes(whole[:-7])
    assert len(open_source(f"webdataset:{blob.path}")) == 3
    assert "remaking the index" in caplog.text


def test_quick_headers_are_tarfiles():
    rng = np.random.default_rng(0)
    info = tarfile.TarInfo("d/" + "n" * 90 + ".png")
    info.size = 0o7654321
    whole = info.tobuf(tarfile.USTAR_FORMAT)
    quick, slow = tar_walk._quick(whole), tarfile.TarInfo.frombuf(whole, "utf-8", "")
    assert (quick.name, quick.size, quick.type) == (slow.name, slow.size, slow.type)
    for _ in range(2000):  # whatever is damaged, it never says what tarfile does not
        block = bytearray(whole)
        for at in rng.integers(0, 512, rng.integers(1, 4)):
            block[at] = rng.choice([0, 32, 48, 55, 57, int(rng.integers(256))])
        quick = tar_walk._quick(bytes(block))
        if quick is not None:
            slow = tarfile.TarInfo.frombuf(bytes(block), "utf-8", "surrogateescape")
            assert (quick.name, quick.size) == (slow.name, slow.size)


SHARED = """
import sys
from mmjax.data import shard_index, storage
from mmjax.data.sources import encoded
index = shard_index.load(storage.find(sys.argv[1]), encoded.SUFFIXES)
index.rows["check"].sum()
for line in open("/proc/self/smaps"):
    if line.split()[-1] == str(index.path): at = True
    elif line.startswith("Anonymous:") and vars().get("at"):
        print(line.split()[1]); break
"""


@pytest.mark.skipif(not pathlib.Path("/proc/self/smaps").exists(), reason="of Linux")
def test_a_process_holds_no_copy_of_its_own(tmp_path):
    write(tmp_path / "x.tar", pairs("a", 300))
    command = [sys.executable, "-c", SHARED, f"{tmp_path}/x.tar"]
    out = subprocess.run(command, capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["0"]


def test_no_room_for_an_index(tmp_path, monkeypatch, caplog):
    spec = shards(tmp_path)
    (tmp_path / "cache").write_text("no folder")
    source = open_source(spec)
    assert source.index.path is None and "cannot keep the index" in caplog.text
    assert pickle.loads(pickle.dumps(source))[3]["key"] == "a3"
    assert len(source) == 46
    assert shard_index.load(source.blobs, encoded.SUFFIXES).odd["unclear"].sum() == 2


def test_ray_is_asked_for_or_named(tmp_path, capsys):
    if importlib.util.find_spec("ray"):
        pytest.skip("Ray is installed: tests/faults/shares_test.py runs it")
    assert cli.main(["data", "index", shards(tmp_path), "--ray=2"]) == 2
    assert "pip install 'mmjax[ray]'" in capsys.readouterr().err
