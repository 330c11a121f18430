"""Full, read-only and damaged disks, and two runs in one workdir."""

import random
import shutil
import signal
import subprocess
import sys

import pytest

STEPS = 40
# In a mount namespace of its own, which ends with the process: nothing is left mounted.
SPACE = ["unshare", "-rm", "sh", "-ec"]


def spaces() -> bool:
    """Whether this system lets us mount in a namespace of our own."""
    try:
        tried = subprocess.run(
            [*SPACE, "mount -t tmpfs tmpfs /mnt"], capture_output=True, timeout=30
        )
    except OSError:
        return False
    return tried.returncode == 0


needs_spaces = pytest.mark.skipif(
    not spaces(), reason="no mount namespaces here: Linux, and the right to use them"
)


def stopped(lab, workdir, at: int) -> int:
    """Has a run killed after it said step `at`; the newest step it saved."""
    attempt = lab.start(workdir, STEPS)
    attempt.until(lambda: attempt.steps()[-1:] >= [at] and lab.saved(workdir) >= 6)
    lab.kill(attempt)
    assert attempt.process.returncode == -signal.SIGKILL, attempt.text()
    return lab.saved(workdir)


FULL = """
mount -t tmpfs -o size=$1 tmpfs "$2"; folder=$2 out=$3; shift 3
set +e; "$@"; code=$?; set -e
[ $code = 2 ] || { echo "code $code"; exit 9; }
echo MORE ROOM
mount -o remount,size=64m "$folder"
"$@"
cp -r "$folder/run" "$out"
"""


@pytest.mark.faults
@needs_spaces
@pytest.mark.timeout(900)
@pytest.mark.parametrize("number", range(4))
def test_a_disk_that_fills_up_at_some_point(lab, tmp_path, number):
    """A file system of random size: what is too much for it differs each time."""
    rng = random.Random(f"disk {lab.seed} {number}")
    lab.whole(STEPS)
    (tmp_path / "mount").mkdir()
    out = tmp_path / f"full{number}"
    command = lab.command(tmp_path / "mount" / "run", STEPS)
    size = f"{int(100 + 3400 * (number + rng.random()) / 4)}k"
    argv = [*SPACE, FULL, "sh", size, str(tmp_path / "mount"), str(out), *command]
    attempt = lab.run(argv, f"full{number}")
    assert attempt.wait() == 0, attempt.text()
    before, more, after = attempt.text().partition("MORE ROOM")
    assert more and "the disk is full" in before and "Traceback" not in before
    assert before.count("mmjax: ") == 1
    intact = (
        0 if "no checkpoint was" in before else int(_between(before, "full. step "))
    )
    first = int(_between(after, "step "))
    lab.lost += max(0, intact + 1 - first)
    assert first == intact + 1
    lab.same(out, STEPS)
    lab.survived("disk full")


def _between(text: str, start: str) -> str:
    """The word after `start`, up to a space or a slash."""
    return text.partition(start)[2].split()[0].split("/")[0]


READ_ONLY = """
mount --bind "$1" "$1"; mount -o remount,ro,bind "$1"; shift
"$@"
"""


@pytest.mark.faults
@needs_spaces
@pytest.mark.timeout(600)
def test_a_read_only_workdir_is_said_so_and_can_be_read(lab, tmp_path):
    workdir = tmp_path / "readonly"
    lab.whole(STEPS)
    stopped(lab, workdir, 10)
    inside = [*SPACE, READ_ONLY, "sh", str(workdir)]
    refused = lab.run([*inside, *lab.command(workdir, STEPS)], "readonly")
    assert refused.wait() == 2, refused.text()
    assert f"cannot write to workdir {workdir}: Read-only" in refused.text()
    assert refused.text().count("\n") == 1
    code = "import sys; from mmjax.cli import main; sys.exit(main(sys.argv[1:]))"
    look = lab.run([*inside, sys.executable, "-c", code, "inspect", workdir], "look")
    assert look.wait() == 0, look.text()
    lab.finish(workdir, STEPS)
    lab.survived("read-only workdir")


@pytest.mark.faults
@pytest.mark.timeout(900)
def test_two_runs_in_one_workdir(lab, tmp_path):
    workdir = tmp_path / "shared"
    lab.whole(STEPS)
    first = lab.start(workdir, STEPS)
    first.until(lambda: (workdir / ".lock").exists())
    second = lab.start(workdir, STEPS)
    assert second.wait() == 2, second.text()
    assert f"in use by process {first.process.pid}" in second.text()
    first.until(lambda: bool(first.steps()))
    lab.kill(first)
    lab.survived("two runs in one workdir")
    lab.finish(workdir, STEPS)  # the lock went with the process


@pytest.mark.faults
@pytest.mark.timeout(900)
def test_damaged_newest_checkpoints(lab, tmp_path):
    """Each time a file of the newest is damaged; then all are, and one is put back."""
    rng = random.Random(f"damage {lab.seed}")
    workdir = tmp_path / "damaged"
    lab.whole(STEPS)
    for at, how in ((8, "truncated"), (16, "flipped"), (24, "deleted")):
        newest = stopped(lab, workdir, at)
        before = lab.kept(workdir)[-2]
        file = _largest(workdir / "checkpoints" / str(newest))
        data = bytearray(file.read_bytes())
        if how == "truncated":
            file.write_bytes(data[: rng.randrange(len(data))])
        elif how == "deleted":
            file.unlink()
        else:  # in the middle of the arrays: no format notices that
            for _ in range(20):
                data[rng.randrange(len(data) // 4, len(data) // 2)] ^= 1 << 4
            file.write_bytes(data)
        attempt = lab.start(workdir, STEPS)
        attempt.until(lambda a=attempt: bool(a.steps()))
        lab.kill(attempt)
        lab.resumed_at(attempt, before)
        said = attempt.text()
        assert f"checkpoint of step {newest} in {workdir} is damaged" in said, said
        assert f"going on from step {before}" in said and "Traceback" not in said
        lab.survived("newest checkpoint damaged")
    newest = stopped(lab, workdir, 30)
    shutil.copytree(workdir / "checkpoints", tmp_path / "copy")
    for step in lab.kept(workdir):
        _largest(workdir / "checkpoints" / str(step)).write_bytes(b"")
    refused = lab.start(workdir, STEPS)
    assert refused.wait() == 2, refused.text()
    assert "no checkpoint of" in refused.text() and "put back" in refused.text()
    assert "Traceback" not in refused.text()
    shutil.rmtree(workdir / "checkpoints")
    shutil.move(tmp_path / "copy", workdir / "checkpoints")
    lab.finish(workdir, STEPS)
    lab.survived("all checkpoints damaged, one put back")


def _largest(folder):
    """The file of a checkpoint that holds its arrays."""
    return max(folder.rglob("ocdbt.process_0/d/*"), key=lambda p: p.stat().st_size)
