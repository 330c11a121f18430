"""The notebooks, run in this process or by a kernel, and stored with their outputs.

`make notebooks` runs `python tests/support/notebooks.py`, after `make demo`.
"""

import hashlib
import json
import os
import pathlib
import re
import shlex
import sys
from collections.abc import Callable

import nbformat

ROOT = pathlib.Path(__file__).parents[2]
FOLDER = ROOT / "notebooks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
OF = "source"  # in the metadata: the digest of the code that the outputs are of
_PATHS = re.compile(rf"{re.escape(str(ROOT))}/|/(?:home|root|tmp|usr|work)/[\w./-]*")


def read(name: str) -> nbformat.NotebookNode:
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def code(book: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in book.cells if cell.cell_type == "code"]


def digest(book: nbformat.NotebookNode) -> str:
    text = json.dumps([cell.source for cell in code(book)])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def paths(book: nbformat.NotebookNode) -> list[str]:
    """Absolute paths in what was printed or shown as text."""
    return [place for text in texts(book) for place in _PATHS.findall(text)]


def texts(book: nbformat.NotebookNode) -> list[str]:
    outputs = [output for cell in code(book) for output in cell.outputs]
    shown = [output.get("data", {}).get("text/plain", "") for output in outputs]
    return [*shown, *(output.get("text", "") for output in outputs)]


def run_here(
    book: nbformat.NotebookNode, command: Callable[[list[str]], int]
) -> tuple[dict, list]:
    """The variables at the end, and what was shown; `!` commands go to `command`.

    In this process, so that what is compiled is shared with other tests.
    """
    from IPython.core.interactiveshell import InteractiveShell

    class Shell(InteractiveShell):
        def system(self, line: str) -> None:
            words = shlex.split(self.var_expand(line, depth=1))
            assert command(words) == 0, line

        def enable_gui(self, gui: str | None = None) -> None:
            """Figures are drawn into images: there is no window."""

    shown, shell = [], Shell()
    shell.display_pub.publish = lambda data, **_: shown.append(data)
    shell.displayhook.write_format_data = lambda data, *_: shown.append(data)
    for cell in code(book):
        before = len(shown)
        shell.run_cell(cell.source).raise_error()
        if cell.source.endswith(";"):
            del shown[before:]
    return shell.user_ns, shown


def run_in_kernel(book: nbformat.NotebookNode, place: pathlib.Path) -> None:
    """Runs all cells with outputs; the kernel finds mmjax where this process did."""
    from nbclient import NotebookClient

    known = [path for path in sys.path if path]
    os.environ["PYTHONPATH"] = os.pathsep.join(known)
    resources = {"metadata": {"path": str(place)}}
    NotebookClient(book, timeout=3600, resources=resources).execute()


def tidied(book: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Without progress bars, paths of this machine and times of execution."""
    for cell in code(book):
        cell.metadata.pop("execution", None)
        for output in cell.outputs:
            if "text" in output:
                lines = (line.rpartition("\r")[2] for line in output.text.split("\n"))
                output.text = _PATHS.sub("", "\n".join(lines))
        said = [o for o in cell.outputs if o.output_type == "stream"]
        cell.outputs = [
            o for o in cell.outputs if o not in said or o.name == "stdout" and o.text
        ]
    book.metadata[OF] = digest(book)
    return book


def store(name: str, place: pathlib.Path) -> None:
    """Runs a notebook in a folder that has runs/demo, and writes it with outputs."""
    book = read(name)
    run_in_kernel(book, place)
    nbformat.write(tidied(book), FOLDER / f"{name}.ipynb")


if __name__ == "__main__":
    for given in sys.argv[1:] or NAMES:
        store(given, ROOT)
        print(given, (FOLDER / f"{given}.ipynb").stat().st_size, "bytes")
