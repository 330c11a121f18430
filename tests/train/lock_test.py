"""A workdir is one process's, is a run's alone, and goes when nothing was written."""

import pytest

from mmjax.errors import UserError
from mmjax.train import config as config_lib
from mmjax.train import lock, loop, run_file


def test_what_is_refused_leaves_no_folder(tmp_path):
    config = config_lib.load("clip:tiny", ["--config.data.train=folder:nowhere"])
    with pytest.raises(UserError, match="nowhere does not exist"):
        loop.run(config, tmp_path / "runs" / "x")
    assert not list(tmp_path.iterdir())
    config = config_lib.load("clip:tiny")
    with pytest.raises(UserError, match="--profile 3:9"):
        loop.run(config, tmp_path / "y", profile=(3, 9))
    assert not list(tmp_path.iterdir())


def test_folders_and_files_of_others_stay(tmp_path):
    for kept in ("there", "file"):
        folder = tmp_path / kept
        if kept == "there":
            folder.mkdir()
        with pytest.raises(ValueError), lock.lock(folder):
            if kept == "file":
                (folder / "metrics.jsonl").write_text("{}")
            raise ValueError
        assert folder.is_dir()


def test_a_folder_of_other_things_is_refused(tmp_path):
    for name in (".hidden", "train.log", "slurm.out"):
        (tmp_path / name).write_text("")
    (tmp_path / "cards").mkdir()
    run_file.require_own(tmp_path)
    run_file.require_own(tmp_path / "new")
    for name in "abcd":
        (tmp_path / f"{name}.md").write_text("")
    with pytest.raises(UserError, match=r"other things \(a.md, b.md, c.md and 1 more"):
        loop.run(config_lib.load("clip:tiny"), tmp_path)
    assert not (tmp_path / ".lock").exists()
    (tmp_path / run_file.NAME).write_text("{}")
    run_file.require_own(tmp_path)
