"""What each stage of the demo made, and of what: none is done twice.

It is kept in stages.json. A stage is done where its mark names today's inputs and its
files hold what they held.
"""

import hashlib
import json
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from mmjax import errors, schema

FILE = "stages.json"


def digest(value: Any) -> str:
    """16 hex digits of what JSON can hold."""
    text = json.dumps(value, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def of_files(places: Iterable[pathlib.Path]) -> str:
    """16 hex digits of the names and contents of files, and of all below folders.

    "" where one is not there.
    """
    total = hashlib.sha256()
    for place in places:
        inside = sorted(place.rglob("*")) if place.is_dir() else [place]
        files = [path for path in inside if path.is_file()]
        if not files:
            return ""
        for path in files:
            total.update(f"{path.relative_to(place.parent).as_posix()}\n".encode())
            total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()[:16]


class Marks:
    """The marks of one workdir, written at every change.

    Of a stage they keep `seconds`, spent in all the calls that it took, and once it is
    done `config` (of its settings), `of` (what the stages before it made), `files` (of
    what it wrote) and `made`, by which later stages know it.
    """

    def __init__(self, workdir: pathlib.Path):
        self._path, fix = workdir / FILE, "delete it, and every stage is looked at anew"
        held = schema.read_json(self._path, fix=fix) if self._path.exists() else {}
        stages = held.get("stages")
        self._of: dict[str, dict] = dict(stages) if isinstance(stages, dict) else {}
        self.first_image: float | None = held.get("seconds_to_first_image")

    @property
    def seconds(self) -> dict[str, float]:
        """Of every stage that was begun."""
        return {name: mark["seconds"] for name, mark in self._of.items()}

    def made(self, names: Iterable[str]) -> dict[str, str]:
        """What these stages made; "" of one that is not done."""
        return {name: self._of.get(name, {}).get("made", "") for name in names}

    def done(self, name: str, config: str, of: Mapping[str, str], files: str) -> bool:
        """Whether a stage made these files of that."""
        mark = self._of.get(name, {})
        asked = {"config": config, "of": dict(of), "files": files}
        return files != "" and all(mark.get(k) == v for k, v in asked.items())

    def outdated(self, name: str, of: Mapping[str, str]) -> bool:
        """Whether a stage is done, of other things than the stages before it made."""
        return self._of.get(name, {}).get("of", dict(of)) != dict(of)

    def forget(self, name: str) -> None:
        """It begins anew, and so does its clock."""
        self._of.pop(name, None)

    def spend(self, name: str, seconds: float) -> None:
        before = self._of.get(name, {}).get("seconds", 0.0)
        self._of[name] = {"seconds": before + seconds}
        self.write()

    def finish(self, name: str, **mark: Any) -> None:
        """Keeps `config`, `of`, `files` and `made` of a stage."""
        self._of[name] |= mark
        self.write()

    def write(self) -> None:
        held: dict[str, Any] = {"stages": self._of}
        if self.first_image is not None:
            held["seconds_to_first_image"] = self.first_image
        with errors.writing(self._path) as part:
            part.write_text(json.dumps(held, indent=1) + "\n")
