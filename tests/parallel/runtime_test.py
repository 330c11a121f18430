"""Process set-up: what malloc does with freed memory."""

import os
import platform
import subprocess
import sys

import pytest

# Page faults of filling 64 MB a second time, after the first was freed.
FAULTS = """
import ctypes, resource
from mmjax.parallel import runtime
print(runtime.keep_freed_memory())
malloc = ctypes.CDLL(None).malloc
malloc.restype, malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
free = ctypes.CDLL(None).free
free.argtypes = [ctypes.c_void_p]
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = malloc(2**26)
    ctypes.memset(block, 1, 2**26)
    free(block)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(**env: str) -> tuple[str, int]:
    """(what keep_freed_memory returned, page faults)."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    clean.pop("GLIBC_TUNABLES", None)
    done = subprocess.run(
        [sys.executable, "-c", FAULTS],
        env=clean | env,
        capture_output=True,
        text=True,
        check=True,
    )
    kept, count = done.stdout.split()
    return kept, int(count)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_freed_memory_is_kept_and_a_users_own_setting_wins():
    kept, count = faults()
    assert kept == "True"
    assert count < 20
    kept, count = faults(MALLOC_TRIM_THRESHOLD_="131072")
    assert kept == "False"
    assert count > 20  # 64 MB, even in pages of 2 MB
