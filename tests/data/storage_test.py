import io
import os
import tarfile

import flaky
import pytest
from PIL import Image

from mmjax import cli
from mmjax.data import remote, storage
from mmjax.data.records import BrokenRecord
from mmjax.data.sources import open_source
from mmjax.errors import UserError


@pytest.fixture(autouse=True)
def bucket(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("FLAKY_ROOT", str(tmp_path))
    monkeypatch.setenv("MMJAX_READ_TIMEOUT", "0.1")
    monkeypatch.setattr(remote, "BLOCK", 4096)
    monkeypatch.setattr(remote, "PAUSE", 0.001)
    monkeypatch.setattr(remote, "_quiet", {})
    monkeypatch.setattr(flaky.Flaky, "asked", {})
    remote.open_object.cache_clear()
    (tmp_path / "b").mkdir()
    for k in range(3):
        write(tmp_path / "b" / f"x-{k}.tar", k)
    return tmp_path / "b"


def write(path, letter, count=12):
    with tarfile.open(path, "w") as tar:
        for k in range(count):
            file = io.BytesIO()
            Image.effect_noise((24, 24), 50).convert("RGB").save(file, "PNG")
            for suffix, data in (("png", file.getvalue()), ("txt", b"t")):
                info = tarfile.TarInfo(f"{letter}-{k}.{suffix}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


SPEC = "webdataset:flaky://b/x-*.tar"


def test_one_pass_through_faults_is_whole(bucket, monkeypatch):
    monkeypatch.setenv("FLAKY_FAULTS", "0.3")
    source = open_source(SPEC)
    local = open_source(f"webdataset:{bucket}/x-*.tar")
    assert len(source) == 36 and source.fingerprint() == local.fingerprint()
    assert [source[i]["key"] for i in range(36)] == [local[i]["key"] for i in range(36)]
    assert (source[7]["image"] == local[7]["image"]).all()
    assert open_source("webdataset:flaky://b/x-{0..1}.tar")[12]["key"] == "1-0"
    before = flaky.Flaky.reads
    assert open_source(SPEC)[30]["key"] == "2-6"
    assert flaky.Flaky.reads == before  # out of the cache of this disk
    assert not [n for n in flaky.Flaky.asked.values() if n > 2]


def test_an_object_that_changed_under_its_index(bucket):
    open_source(SPEC)
    write(bucket / "x-1.tar", "other")
    with pytest.raises(UserError, match="x-1.tar changed under its index: it had"):
        open_source(SPEC)
    assert cli.main(["data", "index", SPEC]) == 0  # which is the fix that it names
    source = open_source(SPEC)
    assert source[12]["key"] == "other-0"
    write(bucket / "x-1.tar", "late")
    remote.sweep()
    for file in remote._blocks().glob("*/*"):
        file.unlink()
    with pytest.raises(UserError, match="x-1.tar changed under its index"):
        source[13]


def test_a_shard_that_stalls_is_skipped(bucket, monkeypatch):
    open_source(SPEC)
    for file in remote._blocks().glob("*/*"):
        file.unlink()
    monkeypatch.setenv("FLAKY_STALLED", "x-1.tar")
    source = open_source(SPEC)
    remote._quiet.clear()  # of the records looked at for captions
    with pytest.raises(BrokenRecord, match="no answer in 0.1 seconds, 5 times"):
        source[12]
    with pytest.raises(BrokenRecord, match="left alone for now"):
        source[13]
    assert source[11]["key"] == "0-11" and source[24]["key"] == "2-0"


def test_what_no_attempt_would_mend(monkeypatch):
    with pytest.raises(UserError, match="private/x.tar may not be read .Anonymous"):
        open_source("webdataset:flaky://private/x.tar")
    with pytest.raises(UserError, match="flaky://b/y.tar does not exist"):
        open_source("webdataset:flaky://b/y.tar")
    with pytest.raises(UserError, match="no file matches flaky://b/y"):
        open_source("webdataset:flaky://b/y-*.tar")
    with pytest.raises(UserError, match="no-such://b/x.tar"):
        open_source("webdataset:no-such://b/x.tar")
    monkeypatch.setenv("MMJAX_CACHE_GB", "-1")
    with pytest.raises(UserError, match="MMJAX_CACHE_GB='-1': give a number above 0"):
        remote.sweep()


def test_a_bucket_without_credentials():
    class NoCredentialsError(Exception):
        pass

    with pytest.raises(UserError, match="s3://b/x.tar may not be read .*AWS_ACCESS"):
        remote._refuse("s3://b/x.tar", NoCredentialsError("Unable to locate"))
    remote._refuse("s3://b/x.tar", ConnectionResetError())  # is asked again


def test_the_cache_keeps_to_its_size(monkeypatch):
    source = open_source(SPEC)
    held = list(remote._blocks().glob("*/*"))
    oldest = min(held, key=lambda path: path.stat().st_mtime_ns)
    total = sum(path.stat().st_size for path in held)
    monkeypatch.setenv("MMJAX_CACHE_GB", str((total - 1) / 1e9))
    remote.sweep()
    assert sum(p.stat().st_size for p in remote._blocks().glob("*/*")) < total
    assert not oldest.exists()
    assert [source[i]["key"] for i in (0, 35)] == ["0-0", "2-11"]


def test_reads_in_order_run_ahead(bucket):
    write(bucket / "big.tar", "k", 40)
    [blob] = storage.find("flaky://b/big.tar")
    with blob.open() as file:
        file.read_at(0, 100)
        file.read_at(remote.BLOCK, 100)
        for task in list(file.tasks.values()):
            task.join()
        assert len(list(file.home.iterdir())) == 2 + remote.AHEAD
        file.read_at(12 * remote.BLOCK, 10)  # a jump fetches its block alone
        assert len(list(file.home.iterdir())) == 3 + remote.AHEAD
        want = (bucket / "big.tar").read_bytes()
        assert file.read_at(5000, 20_000) == want[5000:25_000]
        assert file.read_at(len(want) - 3, 10) == want[-3:]
    assert os.path.getsize(bucket / "big.tar") == blob.size
