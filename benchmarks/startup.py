"""Seconds from `mmjax train` on the tiny config to its first step, cold and warm.

    python benchmarks/startup.py

Cold: an empty compilation cache. Warm: the same command once more. The whole process
is timed, imports included, to the first line of metrics.jsonl.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
COMMAND = "import sys; from mmjax.cli import main; sys.exit(main(sys.argv[1:]))"


def first_step(workdir: pathlib.Path, cache: pathlib.Path) -> float:
    """Seconds until step 1 is logged; the run is then ended."""
    env = os.environ | {"XDG_CACHE_HOME": str(cache)}
    args = ["train", "--config", f"{ROOT}/configs/clip.py:tiny"]
    begin = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, *args, "--workdir", str(workdir)],
        env=env,
        cwd=ROOT,
        stderr=subprocess.DEVNULL,
    )
    metrics = workdir / "metrics.jsonl"
    while not (metrics.exists() and metrics.stat().st_size):
        if process.poll() is not None:
            raise SystemExit(f"the run ended with {process.returncode} before step 1")
        time.sleep(0.02)
    seconds = time.perf_counter() - begin
    process.wait()
    return seconds


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        base = pathlib.Path(folder)
        found = {
            name: round(first_step(base / name, base / "cache"), 2)
            for name in ("cold", "warm")
        }
    print(f"first step after {found['cold']} s cold, {found['warm']} s warm")
    out = ROOT / "benchmarks" / "results" / "startup.json"
    out.write_text(json.dumps(found | {"cores": os.cpu_count()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
