"""What says who we are: setup.py, CITATION.cff, the workflow of GitHub."""

import pathlib
import re
import runpy
import subprocess
import types

import pytest
import yaml

setuptools = pytest.importorskip("setuptools")
ROOT = pathlib.Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("remote", "home"),
    [
        ("git@github.com:lab/mmjax.git", "https://github.com/lab/mmjax"),
        ("ssh://git@gitlab.com/lab/mmjax.git", "https://gitlab.com/lab/mmjax"),
        ("https://name:token@host.org/lab/mmjax", "https://host.org/lab/mmjax"),
        ("/home/name/mmjax", ""),
        ("", ""),
    ],
)
def test_links_of_the_metadata_lead_where_it_was_cloned_from(monkeypatch, remote, home):
    given, said = {}, types.SimpleNamespace(stdout=f"{remote}\n")
    monkeypatch.setattr(setuptools, "setup", lambda **options: given.update(options))
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: said)
    runpy.run_path(str(ROOT / "setup.py"))
    assert given["project_urls"].get("Source", "") == home
    assert given["url"] == (home or None)
    targets = re.findall(r"\]\(([^)]+)\)", given["long_description"])
    inside = [target for target in targets if not target.startswith("http")]
    assert targets and bool(inside) == (not home)


def test_the_citation_is_of_this_version():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    version = re.search(
        r'^__version__ = "(.+)"', (ROOT / "mmjax/__init__.py").read_text(), re.M
    )[1]
    assert cited["cff-version"] == "1.2.0" and cited["version"] == version


def test_ci_runs_the_checks_of_a_change_on_the_oldest_and_the_newest_python():
    ci = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    job = ci["jobs"]["checks"]
    oldest = re.search(r'python_requires=">=([\d.]+)"', (ROOT / "setup.py").read_text())
    assert job["strategy"]["matrix"]["python"][0] == oldest[1]
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
