"""Shares of one job: as a Slurm array runs them, and on Ray with a worker killed."""

import hashlib
import importlib.util
import os
import pathlib
import sys

import pytest

from mmjax.data import token_cache
from mmjax.data.fields import image
from mmjax.data.sources import open_source

STAGE1 = token_cache.Stage1("0123456789abcdef", 4, 256)
JOB = """
import os, pathlib, sys
sys.path.insert(0, {tests!r})
import shares_test
from mmjax.cli import _shares

out, mark = sys.argv[1:]

def main(argv):
    number = int(argv[-1].partition("/")[0])
    if number == 1 and not pathlib.Path(mark).exists():  # once, amid its work
        pathlib.Path(mark).touch()
        shares_test.write(out, lambda files: files[1:2])
        os.kill(os.getpid(), 9)
    shares_test.write(out, lambda files: files[number::4])
    return 0

_shares.on_ray(main, [], 4)
"""


def encode(pixels_bhw3):
    return pixels_bhw3[:, ::4, ::4, 0].reshape(len(pixels_bhw3), -1).astype("int32")


def write(out, files=lambda all_files: all_files):
    source = open_source("shapes:train?size=16&count=300")
    image_cfg = image.Field(size=16, mode="squash", train_scale=(1.0, 1.0))
    options = {"stage1": STAGE1, "image_cfg": image_cfg, "batch_size": 16}
    return token_cache.write(source, encode, out, **options, shard=32, files=files)


def digests(folder: pathlib.Path) -> dict[str, str]:
    return {
        p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()
    }


def test_shares_write_what_one_process_writes(tmp_path):
    assert write(tmp_path / "whole").complete
    for number in (2, 0, 1):
        assert not write(tmp_path / "cut", lambda files, k=number: files[k::4]).complete
    assert write(tmp_path / "cut", lambda files: files[3::4]).complete
    assert digests(tmp_path / "cut") == digests(tmp_path / "whole")


@pytest.mark.faults
def test_a_killed_worker_of_ray_is_made_up_for(lab, tmp_path):
    if not importlib.util.find_spec("ray"):
        pytest.skip("Ray is not installed: pip install 'mmjax[ray]'")
    write(tmp_path / "whole")
    code = JOB.format(tests=os.path.dirname(__file__))
    command = [
        sys.executable,
        "-c",
        code,
        str(tmp_path / "cut"),
        str(tmp_path / "mark"),
    ]
    paths = [os.path.dirname(__file__), os.environ.get("PYTHONPATH", "")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    attempt = lab.run(command, "ray", env=env)
    assert attempt.wait() == 0, attempt.text()
    assert (tmp_path / "mark").exists()
    assert digests(tmp_path / "cut") == digests(tmp_path / "whole")
    lab.survived("a worker of Ray killed")
