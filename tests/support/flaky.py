"""Objects in memory behind fsspec, `flaky://`, whose reads fail, stall and are cut.

Every object is a file below $FLAKY_ROOT. Of its reads, the share $FLAKY_FAULTS goes
wrong at the first attempt; which, a hash of the place says, so that every process of a
test meets the same faults. $FLAKY_STALLED names objects that never answer.
"""

import hashlib
import os
import pathlib
import time

import fsspec


class Flaky(fsspec.AbstractFileSystem):
    protocol = "flaky"
    cachable = False
    asked: dict[tuple, int] = {}
    reads = 0

    def _path(self, path: str) -> pathlib.Path:
        inside = self._strip_protocol(path).lstrip("/")
        return pathlib.Path(os.environ["FLAKY_ROOT"], inside)

    def info(self, path, **kwargs):
        if "private" in path:
            raise PermissionError("Anonymous caller does not have storage.objects.get")
        status = self._path(path).stat()
        name = self._strip_protocol(path)
        stamp = str(status.st_mtime_ns)
        kind = "directory" if self._path(path).is_dir() else "file"
        return {"name": name, "size": status.st_size, "type": kind, "ETag": stamp}

    def ls(self, path, detail=True, **kwargs):
        names = sorted(
            self._strip_protocol(path) + f"/{p.name}"
            for p in self._path(path).iterdir()
        )
        return [self.info(name) for name in names] if detail else names

    def pipe_file(self, path, value, **kwargs):
        raise PermissionError("the bucket is read-only")

    def cat_file(self, path, start=None, end=None, **kwargs):
        data = self._path(path).read_bytes()[start:end]
        if os.path.basename(path) in os.environ.get("FLAKY_STALLED", "").split():
            time.sleep(5)
        place = path, start, end
        self.asked[place] = self.asked.get(place, 0) + 1
        Flaky.reads += 1
        drawn = hashlib.sha256(repr(place).encode()).digest()[0] / 256
        share = float(os.environ.get("FLAKY_FAULTS", "0"))
        if self.asked[place] > 1 or drawn >= share:
            return data
        if drawn < share / 3:
            raise ConnectionResetError("connection reset by peer")
        if drawn < share * 2 / 3:
            time.sleep(0.5)
        return data[: len(data) // 2]


fsspec.register_implementation("flaky", Flaky, clobber=True)
