"""kill -9 in an epoch whose shards come from a server that fails, stalls and cuts."""

import contextlib
import hashlib
import http.server
import importlib.util
import io
import json
import os
import pathlib
import random
import sys
import tarfile
import threading
import time

import cv2
import numpy as np
import pytest

EPOCH = """
import json, pathlib, sys, zlib
import numpy as np
import flaky
from mmjax.data import fields, pipeline, remote
from mmjax.data.sources import open_source

remote.BLOCK, remote.PAUSE = 16384, 0.01
source = open_source(sys.argv[1])
given = fields.build({"image": {"kind": "image", "size": 16}, "at": {"kind": "index"}})
data = pipeline.TrainIterator(source, given, batch_size=8, seed=3)
out = pathlib.Path(sys.argv[2])
lines = out.read_text().splitlines() if out.exists() else []
whole = [line for line in lines if line.endswith("}")]
out.write_text("".join(line + "\\n" for line in whole))
data.set_state({"global_next_index": 8 * len(whole)})
with out.open("a") as file:
    for _ in range(len(source) // 8 - len(whole)):
        batch = next(data)
        row = {"at": batch["at"].tolist(), "image": zlib.crc32(batch["image"])}
        row["broken"] = int(batch["_broken"].sum())
        file.write(json.dumps(row) + "\\n")
        file.flush()
data.close()
"""


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> pathlib.Path:
    """4 shards of 48 images each."""
    folder, rng = tmp_path_factory.mktemp("served") / "b", np.random.default_rng(0)
    folder.mkdir()
    for k in range(4):
        with tarfile.open(folder / f"x-{k}.tar", "w") as tar:
            for i in range(48):
                pixels = rng.integers(0, 255, (20, 20, 3), np.uint8)
                data = cv2.imencode(".png", pixels)[1].tobytes()
                info = tarfile.TarInfo(f"{k}-{i}.png")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return folder


@contextlib.contextmanager
def served(folder: pathlib.Path, share: float):
    """An HTTP server with ranges and ETags, of whose answers a share goes wrong."""
    asked: dict[str, int] = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.answer(body=False)

        def do_GET(self):
            self.answer(body=True)

        def answer(self, body: bool):
            path = folder / os.path.basename(self.path)
            if not path.exists():
                self.send_error(404)
                return
            data, status = path.read_bytes(), 200
            size, span = len(data), self.headers.get("Range", "")
            if span:
                first, last = span.removeprefix("bytes=").split("-")
                data, status = data[int(first) : int(last or size) + 1], 206
            place = f"{self.command} {self.path} {span}"
            asked[place] = asked.get(place, 0) + 1
            drawn = hashlib.sha256(f"{place} {asked[place]}".encode()).digest()[0] / 256
            if drawn < share / 3:
                self.send_error(503)
                return
            if drawn < share * 2 / 3:
                time.sleep(1.5)
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("ETag", f'"{path.stat().st_mtime_ns}"')
            if span:
                end = int(first) + len(data) - 1
                self.send_header("Content-Range", f"bytes {first}-{end}/{size}")
            self.end_headers()
            if body:
                cut = share * 2 / 3 <= drawn < share
                with contextlib.suppress(OSError):
                    self.wfile.write(data[: len(data) // 2] if cut else data)

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/x-{{0..3}}.tar"
    server.shutdown()


@contextlib.contextmanager
def in_memory(folder: pathlib.Path, share: float):
    yield "flaky://b/x-{0..3}.tar"


HTTP = pytest.param(served, 4, id="http", marks=pytest.mark.faults)


@pytest.mark.parametrize(
    "place, times", [pytest.param(in_memory, 1, id="fsspec"), HTTP]
)
def test_an_epoch_through_faults_is_that_of_the_disk(
    lab, shards, tmp_path, place, times
):
    if place is served and not importlib.util.find_spec("aiohttp"):
        pytest.skip("fsspec's HTTP needs aiohttp: pip install 'mmjax[buckets]'")
    rng, killed = random.Random(f"bucket {lab.seed}"), 0
    env = {**os.environ, "FLAKY_ROOT": str(shards.parent), "FLAKY_FAULTS": "0.2"}
    env |= {"MMJAX_READ_TIMEOUT": "0.4", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    support = str(lab.root / "tests" / "support")
    env["PYTHONPATH"] = f"{support}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"

    def epoch(spec: str, out: pathlib.Path):
        return lab.run([sys.executable, "-c", EPOCH, spec, str(out)], out.name, env=env)

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    attempt = epoch(f"webdataset:{shards}/x-*.tar", whole)
    assert attempt.wait() == 0, attempt.text()
    with place(shards, 0.2) as pattern:
        for _ in range(times):
            least = rng.randint(1, 6) + (
                cut.read_text().count("\n") if cut.exists() else 0
            )
            attempt = epoch(f"webdataset:{pattern}", cut)
            attempt.until(
                lambda n=least: cut.exists() and cut.read_text().count("\n") >= n
            )
            lab.kill(attempt)
            killed += attempt.process.returncode != 0
        attempt = epoch(f"webdataset:{pattern}", cut)
        assert attempt.wait() == 0, attempt.text()
    assert cut.read_text() == whole.read_text()
    rows = [json.loads(line) for line in cut.read_text().splitlines()]
    assert sorted(i for row in rows for i in row["at"]) == list(range(192))
    assert not sum(row["broken"] for row in rows)
    lab.survived("kill -9 while reading a bucket that fails", killed)
