"""Worker processes end with the process that started them, and leave nothing behind.

A process that is killed (for memory, say) cannot end its workers; they see it go. The
shared memory in which they hand over batches is then freed by Python's resource
tracker, once the last of them has ended; blocks of a machine where that one was killed
as well are freed at the next start.
"""

import contextlib
import multiprocessing
import os
import pathlib
import threading
from collections.abc import Iterator
from multiprocessing import connection, shared_memory

_BLOCKS = pathlib.Path("/dev/shm")  # Linux'; elsewhere nothing is looked for


def start(index: int, count: int) -> None:
    """What a worker does first; the arguments are grain's."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    # Python's own name for blocks, "/psm_", does not say whose they are.
    shared_memory._SHM_NAME_PREFIX = f"/{_prefix()}-{parent.pid}-{_began(parent.pid)}-"
    shared_memory._SHM_SAFE_NAME_LENGTH = len(shared_memory._SHM_NAME_PREFIX) + 16


def reclaim() -> None:
    """Frees the blocks of runs on this machine that have ended."""
    for block in _BLOCKS.glob(f"{_prefix()}-*-*-*"):
        pid, began = block.name.split("-")[2:4]
        if pid.isdigit() and began and _began(int(pid)) != began:
            with contextlib.suppress(OSError):  # another has freed it; another's user
                block.unlink()


@contextlib.contextmanager
def safe_path() -> Iterator[None]:
    """Processes that start in the block do not import from the working directory."""
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        os.environ.pop("PYTHONSAFEPATH")
        if before is not None:
            os.environ["PYTHONSAFEPATH"] = before


def _prefix() -> str:
    """Of our blocks: a container that shares the memory has process ids of its own."""
    try:
        return f"mmjax-{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return "mmjax-0"


def _began(pid: int) -> str:
    """When a process was started, in the kernel's ticks; "" where there is none."""
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[19]
