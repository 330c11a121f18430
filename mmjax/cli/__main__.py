"""`python -m mmjax.cli`, where the command itself is not on the path.

Python looks for modules in the working directory first then, which may be anybody's: a
folder of data, or somebody's run. It is left out, as the command itself leaves it out.
"""

import os
import sys

import mmjax
from mmjax import cli


def _leave_out(folder: str) -> None:
    """Has nothing more imported from a folder, unless mmjax itself lies there."""
    own = os.path.dirname(os.path.realpath(mmjax.__file__))
    if os.path.dirname(own) == os.path.realpath(folder):
        return
    if sys.path[0] in ("", folder):
        del sys.path[0]
    if folder in sys.path:  # by PYTHONPATH: as somebody wants it
        return
    inside = os.path.join(folder, "")
    for package in (mmjax, cli):
        package.__path__[:] = [
            path
            for path in package.__path__
            if os.path.realpath(path).startswith(own) or not path.startswith(inside)
        ]


if not sys.flags.safe_path:
    _leave_out(os.getcwd())
sys.exit(cli.main())
