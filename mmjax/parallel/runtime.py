"""Process set-up, before JAX starts: XLA flags, memory, compilation cache."""

import ctypes
import importlib.util
import os
import pathlib
import shlex
import shutil
import sys

import mmjax
from mmjax.cache import cache_dir
from mmjax.errors import UserError

# XLA routes single convolutions on CPU through a library that is 2 to 4 times slower
# in their gradients (measured, jax 0.10 to 0.12). Unknown flags abort the process, so
# the flag is set on CPU alone, and never over a user's own setting of it.
_CPU_FLAG = "--xla_cpu_experimental_ynn_fusion_type"
_CPU_VALUE = f"{_CPU_FLAG}=-individual_convolution"
# A program's temporary memory, gigabytes of a training step, is one block, which glibc
# maps from the kernel and hands back every time: an eighth of a ViT-B/32 step was spent
# on page faults. So freed memory is kept: one heap, no separate mappings, no trimming.
_MALLOPT = {-8: 1, -4: 0, -1: -1}  # M_ARENA_MAX, M_MMAP_MAX, M_TRIM_THRESHOLD
_MALLOC_SETTINGS = (
    "GLIBC_TUNABLES",
    "MALLOC_ARENA_MAX",
    "MALLOC_MMAP_MAX_",
    "MALLOC_TRIM_THRESHOLD_",
)
_MOST = 512
_PLUGINS = ("jax_cuda12_plugin", "jax_cuda13_plugin", "libtpu", "jax_rocm7_plugin")


def on_cpu() -> bool:
    """Whether this process will run on CPU, told without starting JAX."""
    wanted = os.environ.get("JAX_PLATFORMS", "")
    if wanted:
        return wanted.split(",")[0] == "cpu"
    return not any(importlib.util.find_spec(name) for name in _PLUGINS)


def keep_freed_memory() -> bool:
    """Has malloc keep what is freed, for this process; False where it is not glibc's.

    A user's own setting of malloc by the environment is left alone.
    """
    if any(name in os.environ for name in _MALLOC_SETTINGS):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another system, another C library
        return False
    return all(mallopt(name, value) for name, value in _MALLOPT.items())


def command() -> str:
    """`mmjax` as a shell in this folder takes it, as far as this start of it tells."""
    given = pathlib.Path(sys.argv[0])
    if given.parts[-2:] == ("cli", "__main__.py"):
        return f"{shlex.quote(sys.executable)} -m mmjax.cli"
    known = shutil.which("mmjax")
    if given.name != "mmjax" or (known and given.exists() and given.samefile(known)):
        return "mmjax"
    return shlex.quote(str(given))


def child() -> list[str]:
    """The first words of a process that runs this mmjax, to be followed by a verb.

    It does not import from the working directory, unless mmjax itself lies there.
    """
    home = pathlib.Path(mmjax.__file__).resolve().parents[1]
    safe = [] if home == pathlib.Path.cwd() else ["-P"]
    return [sys.executable, *safe, "-m", "mmjax.cli"]


def configure(*, devices: int = 0) -> None:
    """Sets up the process; call it before any array is made.

    The persistent compilation cache is on, under `cache_dir()`, unless
    JAX_COMPILATION_CACHE_DIR says otherwise (empty: off).

    Args:
      devices: virtual CPU devices to show, for trying a mesh; 0 leaves it alone. At
        most _MOST: each has threads of its own, and XLA crashes where they run out.
    """
    if not 0 <= devices <= _MOST:
        raise UserError(f"--devices {devices}: use 1 to {_MOST} virtual devices")
    flags = os.environ.get("XLA_FLAGS", "")
    if on_cpu():
        keep_freed_memory()
        if _CPU_FLAG not in flags:
            os.environ["XLA_FLAGS"] = f"{flags} {_CPU_VALUE}".strip()
    # XLA logs a screenful when a cached CPU program was built with other tuning
    # features; the program is then recompiled, so the log helps nobody.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import jax  # after the environment, which it reads as it starts

    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(cache_dir() / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    if devices:
        jax.config.update("jax_num_cpu_devices", devices)


def describe() -> dict[str, str | int]:
    """Software and hardware of this process, for summaries and cards."""
    import jax

    device = jax.devices()[0]
    return {
        "python": sys.version.split()[0],
        "jax": jax.__version__,
        "device": device.device_kind,
        "devices": jax.device_count(),
        "cores": os.cpu_count() or 0,
    }
