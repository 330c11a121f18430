"""Puts files that lie beside docs/ into the site, so that links work there and in git.

A page links to `../experiments/x/README.md`, as a reader of the repository needs it.
In the site that file is a page of its own, and the link goes there.
"""

import os
import pathlib
import posixpath
import re

from mkdocs.structure.files import File

ROOT = pathlib.Path(__file__).parents[2]
BESIDE = ("experiments/*/*", "notebooks/*.ipynb", "CHANGELOG.md", "CONTRIBUTING.md")
_LINK = re.compile(r"(\]\()([^)#:\s]+)((?:#[^)\s]*)?\))")


def on_config(config):
    """The experiments of the repository become the last pages of Results."""
    pages = sorted(ROOT.glob("experiments/*/README.md"))
    results = next(part["Results"] for part in config.nav if "Results" in part)
    results.append({"Experiments": [str(page.relative_to(ROOT)) for page in pages]})
    config.nav.append({"Project": ["CONTRIBUTING.md", "CHANGELOG.md"]})
    return config


def on_files(files, config):
    """Adds what lies beside docs/, under its path in the repository."""
    for path in (path for pattern in BESIDE for path in sorted(ROOT.glob(pattern))):
        if path.is_file():
            name = str(path.relative_to(ROOT))
            files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown, page, files, **_):
    """Links from or to what lies beside docs/ become links of the site."""
    name = page.file.src_uri
    beside = files.get_file_from_path(name).generated_by is not None
    here = name if beside else f"docs/{name}"

    def moved(match: re.Match) -> str:
        there = posixpath.normpath(posixpath.join(posixpath.dirname(here), match[2]))
        uri = "index.md" if there == "README.md" else there.removeprefix("docs/")
        if files.get_file_from_path(uri) is None:
            return match[0]  # mkdocs says what is wrong with it
        return match[1] + os.path.relpath(uri, posixpath.dirname(name)) + match[3]

    return _LINK.sub(moved, markdown)
