import os
import pathlib

import pytest

from mmjax.data import workers


@pytest.mark.skipif(not pathlib.Path("/proc/self").exists(), reason="Linux alone")
def test_blocks_of_ended_runs_are_freed_and_no_others(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "_BLOCKS", tmp_path)
    here, began = os.getpid(), workers._began(os.getpid())
    ours = workers._prefix()
    kept = {f"{ours}-{here}-{began}-ab", "psm_ab", f"mmjax-1-{here}-1-ab"}
    gone = {f"{ours}-{here}-1-ab", f"{ours}-4194305-77-cd"}
    for name in kept | gone:
        (tmp_path / name).touch()
    workers.reclaim()
    assert {path.name for path in tmp_path.iterdir()} == kept


def test_the_safe_path_is_for_the_block_alone(monkeypatch):
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    with workers.safe_path():
        assert os.environ["PYTHONSAFEPATH"] == "1"
    assert "PYTHONSAFEPATH" not in os.environ
