"""The index of tar shards: seconds, bytes a sample, and memory of processes sharing it.

    python benchmarks/shard_index.py --samples 10000000 --jobs 2 --out index.json

One shard of 10,000 samples (an image and a text member each) lies under as many names
as make up the number: hard links, each of which is read and indexed as a shard of its
own. Then 1 and 4 processes open the set and read every row of the index. PSS counts a
page that n processes share as 1/n in each, so that its sum is what all of them take.
The sum is compared less what as many processes take that open nothing.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tarfile
import tempfile
import time

import turns

SHARD = 10_000
READER = """
import sys
from mmjax.data import shard_index, storage
from mmjax.data.sources import encoded
if sys.argv[1] != "nothing":
    index = shard_index.load(storage.find(sys.argv[1]), encoded.SUFFIXES)
    index.rows["check"].sum()
print("ready", flush=True)
sys.stdin.readline()
"""


def write_shards(folder: pathlib.Path, samples: int) -> str:
    """Shards of empty members under `folder`; the pattern that matches them."""
    first = folder / "x-00000.tar"
    with tarfile.open(first, "w") as tar:
        for number in range(SHARD):
            for suffix in ("jpg", "txt"):
                tar.addfile(tarfile.TarInfo(f"{number:09d}.{suffix}"))
    for k in range(1, samples // SHARD):
        os.link(first, folder / f"x-{k:05d}.tar")
    return f"{folder}/x-*.tar"


def memory(pattern: str, count: int) -> tuple[float, float]:
    """MiB of RSS and of PSS, each summed over `count` processes that hold the index."""
    command = [sys.executable, "-c", READER, pattern]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    readers = [subprocess.Popen(command, **pipes) for _ in range(count)]
    sums = {"Rss": 0, "Pss": 0}
    for reader in readers:
        assert reader.stdout.readline().strip() == "ready"
    for reader in readers:
        text = pathlib.Path(f"/proc/{reader.pid}/smaps_rollup").read_text()
        for line in text.splitlines()[1:]:
            name, kib = line.split()[:2]
            if name[:-1] in sums:
                sums[name[:-1]] += int(kib)
    for reader in readers:
        reader.communicate("\n")
    return sums["Rss"] / 1024, sums["Pss"] / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        pattern = write_shards(pathlib.Path(home), args.samples)
        begin = time.perf_counter()
        command = [sys.executable, "-m", "mmjax.cli", "data", "index"]
        command += [f"webdataset:{pattern}", "--jobs", str(args.jobs)]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        seconds = time.perf_counter() - begin
        [path] = pathlib.Path(home, ".mmjax").glob("set-*.idx")
        size, count = path.stat().st_size, args.samples // SHARD * SHARD
        begin = time.perf_counter()
        rows = {n: (memory("nothing", n), memory(pattern, n)) for n in (1, 4)}
        less = {n: [b - a for a, b in zip(*pair)] for n, pair in rows.items()}  # noqa: B905
    result = {
        "samples": count,
        "jobs": args.jobs,
        "seconds": round(seconds, 1),
        "samples_per_second": round(count / seconds),
        "bytes_per_sample": round(size / count, 3),
        "index_mib": round(size / 2**20, 1),
        "rss_mib_less_empty": {n: round(v[0], 1) for n, v in less.items()},
        "pss_mib_less_empty": {n: round(v[1], 1) for n, v in less.items()},
        "pss_4_over_1": round(less[4][1] / less[1][1], 3),
        "pss_mib_in_all": {n: round(pair[1][1], 1) for n, pair in rows.items()},
        "hardware": turns.processor(),
    }
    print(json.dumps(result, indent=1))
    if args.out:
        turns.save(args.out, result)


if __name__ == "__main__":
    main()
