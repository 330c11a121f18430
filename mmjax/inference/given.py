"""What a caller gives to the public names: checked once, at the door."""

import numbers
import os
import pathlib
from collections.abc import Iterable
from typing import Any

from mmjax.errors import UserError


def one_path(place: Any, name: str) -> pathlib.Path:
    """A path, ~ read as the home folder; UserError for a list, say."""
    if not isinstance(place, (str, os.PathLike)):
        kind = type(place).__name__
        raise UserError(f"{name} takes one path, and was given a {kind}: give one path")
    return pathlib.Path(place).expanduser()


def strings(given: Any, name: str) -> list[str]:
    """A list of strings, from one or more of them; UserError for none."""
    several = isinstance(given, Iterable) and not isinstance(given, (str, bytes))
    listed = list(given) if several else [given]
    if not listed or not all(isinstance(text, str) for text in listed):
        shown = listed if several else given
        raise UserError(f"{name} are {shown!r:.60}: give strings, one or more")
    return listed


def whole(value: Any, name: str, *, least: int, fix: str = "") -> int:
    """A whole number that is not below `least`; UserError for any other."""
    if not isinstance(value, numbers.Integral) or value < least:
        fix = fix or f"give a whole number, {least} or more"
        raise UserError(f"{name} is {value!r}: {fix}")
    return int(value)
