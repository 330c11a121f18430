"""Where mmjax keeps what it can make again."""

import os
import pathlib


def cache_dir() -> pathlib.Path:
    """The user's cache folder for mmjax: $XDG_CACHE_HOME/mmjax or ~/.cache/mmjax."""
    base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(base) / "mmjax"
