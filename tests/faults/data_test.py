"""kill -9 while an index or a token cache is being written."""

import hashlib
import os
import pathlib
import random
import sys
import tarfile
import time

import numpy as np
import pytest

from mmjax.data import shard_index, storage, tar_index
from mmjax.data.sources import encoded, open_source

INDEX = """
import pathlib, sys
from mmjax.data import shard_index, storage
from mmjax.data.sources import encoded
print("ready", flush=True)
shard_index.load(storage.find(sys.argv[1]), encoded.SUFFIXES)
print("done", flush=True)
"""
TOKENS = """
import pathlib, sys
import numpy as np
from mmjax.data import token_cache
from mmjax.data.fields import image
from mmjax.data.sources import open_source

def encode(pixels_bhw3):
    return pixels_bhw3[:, ::4, ::4, 0].reshape(len(pixels_bhw3), -1).astype(np.int32)

print("ready", flush=True)
token_cache.write(
    open_source("shapes:train?size=16&count=480"), encode, pathlib.Path(sys.argv[1]),
    stage1=token_cache.Stage1("0123456789abcdef", 4, 256),
    image_cfg=image.Field(size=16, mode="squash", train_scale=(1.0, 1.0)),
    batch_size=16, shard=48,
    progress=lambda done, total: print("rows", done, flush=True),
)
print("done", flush=True)
"""
# One kill in every `make test`, the others in `make test-faults`.
TIMES = [1, pytest.param(6, marks=pytest.mark.faults)]


@pytest.fixture(scope="module")
def shard(tmp_path_factory) -> pathlib.Path:
    """A tar of 3,000 samples: a good part of a second to read all headers of."""
    path = tmp_path_factory.mktemp("shard") / "x-00000.tar"
    with tarfile.open(path, "w") as tar:
        for number in range(3000):
            for suffix in ("jpg", "txt"):
                tar.addfile(tarfile.TarInfo(f"{number:06d}.{suffix}"))
    return path


def script(lab, code: str, argument: pathlib.Path, **env: str):
    command = [sys.executable, "-c", code, str(argument)]
    return lab.run(command, argument.name, env={**os.environ, **env})


@pytest.mark.parametrize("times", TIMES)
def test_kills_while_a_shard_is_indexed(
    lab, shard, tmp_path, monkeypatch, caplog, times
):
    rng, begin = random.Random(f"index {lab.seed}"), time.monotonic()
    [blob] = storage.find(str(shard))
    with blob.open() as file:
        want = tar_index.build(file, blob.path, encoded.SUFFIXES)
    seconds = time.monotonic() - begin
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cache, killed = tmp_path / "mmjax" / "tar_index", 0
    for number in range(10 * times):  # some are done before they are killed
        if killed == times:
            break
        attempt = script(lab, INDEX, shard, XDG_CACHE_HOME=str(tmp_path))
        attempt.until(lambda a=attempt: "ready" in a.text())
        if number % 2:  # just when it has begun to write
            before = len(list(cache.glob("*/*")))
            attempt.until(lambda n=before: len(list(cache.glob("*/*"))) > n)
        else:
            time.sleep(rng.random() * seconds / 2)
        lab.kill(attempt)
        for file in cache.glob("*/*.idx"):  # under that name it is whole
            index = shard_index.load([blob], encoded.SUFFIXES)
            np.testing.assert_array_equal(index.rows, want.rows)
            file.unlink()
        killed += attempt.process.returncode != 0
    assert killed == times
    lab.survived("kill -9 while indexing", killed)
    for _ in range(2):  # made, and out of the cache
        index = shard_index.load([blob], encoded.SUFFIXES)
        np.testing.assert_array_equal(index.rows, want.rows)
        assert index.shards[0].digest == want.digest
    assert not caplog.text
    assert len(list(cache.glob("*/*.idx"))) == 1


def digests(folder: pathlib.Path, *, parts: bool = True) -> dict[str, str]:
    files = [p for p in folder.iterdir() if p.suffix in (".json", ".array_record")]
    files = [p for p in files if parts or not p.name.startswith(".part-")]
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.mark.parametrize("times", TIMES)
def test_kills_while_tokens_are_written(lab, tmp_path, times):
    rng = random.Random(f"tokens {lab.seed}")
    whole, cut, killed = tmp_path / "whole", tmp_path / "cut", 0
    assert script(lab, TOKENS, whole).wait() == 0
    for _ in range(times):
        # What a kill left half written goes when the next begins.
        before = digests(cut, parts=False) if cut.exists() else {}
        attempt = script(lab, TOKENS, cut)
        least = rng.randint(0, 4)
        attempt.until(lambda a=attempt, n=least: a.text().count("rows") >= n)
        time.sleep(rng.random() * 0.05)
        lab.kill(attempt)
        killed += attempt.process.returncode != 0
        # What was finished stays as it was, whole.
        after = digests(cut) if cut.exists() else {}
        records = [name for name in before if name.endswith("array_record")]
        assert {n: after[n] for n in records} == {n: before[n] for n in records}
    last = script(lab, TOKENS, cut)
    assert last.wait() == 0, last.text()
    assert digests(cut) == digests(whole)
    lab.survived("kill -9 while writing tokens", killed)
    source = open_source(f"tokens:{cut}")
    assert len(source) == 480 and source[479]["image_tokens"].shape == (16,)
