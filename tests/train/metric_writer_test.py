"""Rows of metrics, across restarts and on a full disk."""

import errno
import json
import math
import os
import pathlib
import struct

import pytest

from mmjax.errors import UserError
from mmjax.train import metric_writer


def write(workdir: pathlib.Path, steps, **options) -> None:
    writer = metric_writer.Writer(workdir, **options)
    for step in steps:
        writer.write(step, {"loss": 1.0 / step, "note": "text"})
    writer.close()


def events(file: pathlib.Path) -> list:
    """The events of a TensorBoard file: length, its sum, the event, its sum."""
    from tensorboardX.proto.event_pb2 import Event

    data, found = file.read_bytes(), []
    while data:
        (size,) = struct.unpack("<Q", data[:8])
        found.append(Event.FromString(data[12 : 12 + size]))
        data = data[12 + size + 4 :]
    return found


def test_a_resumed_run_continues_the_rows(tmp_path):
    write(tmp_path, range(1, 6))
    with (tmp_path / metric_writer.FILE).open("a") as file:
        file.write('{"step": 6, "lo')  # a line that a kill cut
    write(tmp_path, range(4, 7), resumed_at=3)
    assert [r["step"] for r in metric_writer.read(tmp_path)] == [1, 2, 3, 4, 5, 6]
    assert not list(tmp_path.glob("*.part"))


def test_a_kill_while_rows_are_cut_leaves_them_as_they_were(tmp_path, monkeypatch):
    write(tmp_path, range(1, 6))
    before = (tmp_path / metric_writer.FILE).read_text()

    def killed(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(pathlib.Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        metric_writer.Writer(tmp_path, resumed_at=3)
    assert (tmp_path / metric_writer.FILE).read_text() == before


def test_tensorboard_gets_scalars_and_where_the_run_went_on(tmp_path):
    write(tmp_path, [4, 5], resumed_at=3)
    (file,) = (tmp_path / "tensorboard").iterdir()
    head, start, *rows = events(file)
    assert head.file_version == "brain.Event:2"
    assert start.step == 4 and start.session_log.status == 1  # START
    got = [(e.step, e.summary.value[0].tag) for e in rows]
    assert got == [(4, "loss"), (5, "loss")]
    assert rows[1].summary.value[0].simple_value == pytest.approx(0.2)


def test_a_full_disk_under_tensorboard_is_an_error_and_no_hang(tmp_path, monkeypatch):
    """With a queue between the loop and the file, a full queue would hold the loop."""

    class Full:
        def write(self, data: bytes):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tensorboardX.record_writer.open_file", lambda path: Full())
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path, range(1, 30))


def test_evaluations_are_the_last_of_each_evaluator(tmp_path):
    rows = [
        {"step": 2, "loss": 3.0, "time/total": 1.0},
        {"step": 2, "val/top1": 0.1, "dev/r1": 0.2},
        {"step": 4, "val/top1": 0.3, "val/bad": "nan"},
        {"step": 6, "val/top1": 0.5},
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / metric_writer.FILE).write_text(text)
    found = metric_writer.evaluations(tmp_path, until=4)
    assert math.isnan(found.pop("val/bad"))
    assert found == {"val/top1": 0.3, "dev/r1": 0.2}
    assert metric_writer.evaluations(tmp_path)["val/top1"] == 0.5


def test_lines_that_are_no_rows_are_left_out_and_said_so(tmp_path, caplog):
    good = [{"step": 1, "val/x": 0.5}, {"step": 2, "val/x": "no number", "val/y": 2}]
    lines = [json.dumps(row).encode() for row in good]
    bad = [b"3", b"[]", b'{"loss": 1}', b'{"step": "x"}', b"\xff", b"[" * 99999, b""]
    file = tmp_path / metric_writer.FILE
    file.write_bytes(b"\n".join([lines[0], *bad, lines[1], b'{"step": 3, "cut']))
    assert metric_writer.read(tmp_path) == good
    assert f"{file}: left out, not rows of metrics: line 2, 3, 4, 5, 6, 7, 8" in (
        caplog.text
    )
    assert metric_writer.evaluations(tmp_path) == {"val/x": 0.5, "val/y": 2.0}


def test_a_pipe_in_place_of_the_rows_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / metric_writer.FILE)
    with pytest.raises(UserError, match="metrics.jsonl is no plain file"):
        metric_writer.read(tmp_path)


@pytest.fixture
def clock(monkeypatch):
    """The time that the progress line reads, in a list of one."""
    now = [100.0]
    monkeypatch.setattr(metric_writer.time, "perf_counter", lambda: now[0])
    return now


def test_the_eta_leaves_out_the_first_step(clock, capsys):
    progress = metric_writer.Progress(11, 0, 8)
    clock[0] += 600  # the compiler
    progress.update()
    progress.say(1, {"loss": 1.0})
    clock[0] += 10
    for _ in range(5):
        progress.update()
    progress.say(6, {"loss": 1.0})
    progress.close()
    first, later = capsys.readouterr().err.splitlines()
    assert first == "step 1/11 loss 1" and later == "step 6/11 loss 1 eta 0m10s"


def test_of_a_resumed_run_too(clock, capsys):
    progress = metric_writer.Progress(8, 4, 8)
    clock[0] += 600
    for _ in range(3):
        progress.update()
        clock[0] += 3
    progress.say(7, {})
    assert "eta 0m04s" in capsys.readouterr().err  # 9 seconds for 2 steps
