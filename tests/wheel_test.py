"""What a wheel installs, and that configs are found where nothing else is."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
READ = """
import mmjax, mmjax_configs
from mmjax.train import config
names = ("clip:tiny", "clip.py:tiny", "configs/clip.py:tiny")
assert {config.load(name).task.name for name in names} == {"clip"}
print(mmjax.__file__, mmjax_configs.__file__, sep="\\n")
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> pathlib.Path:
    """The packages as a wheel lays them out."""
    folder = tmp_path_factory.mktemp("wheel")
    built = [
        "egg_info",
        "--egg-base",
        folder,
        "build",
        "--build-base",
        folder / "build",
    ]
    command = [sys.executable, "setup.py", "-q", *built, "--build-lib", folder / "site"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return folder / "site"


def test_top_level_names_are_ours(site):
    names = {path.name for path in site.iterdir()}
    assert names == {"mmjax", "mmjax_configs", "mmjax_demo"}
    assert (site / "mmjax/data/templates/clip.json").is_file()
    assert (site / "mmjax/py.typed").is_file()
    assert (site / "mmjax/report/page.css").is_file()
    for kind in ("html", "css", "js"):
        assert (site / f"mmjax/judging/page.{kind}").is_file()


def test_configs_resolve_from_another_folder(site, tmp_path):
    done = subprocess.run(
        [sys.executable, "-P", "-c", READ],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(site), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for path in done.stdout.split():
        assert pathlib.Path(path).is_relative_to(site), path
