"""What a tool of the page asks for: its form, and the values that come back."""

import base64
import binascii
import dataclasses
import inspect
import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from mmjax.errors import UserError
from mmjax.inference import load

LIMIT = 20_000_000  # bytes of an upload
_PYTHON = {"number": (int, float), "check": bool}  # of a kind's values; others are str
_KINDS = {bool: "check", int: "number", float: "number", str: "text"}


@dataclasses.dataclass(frozen=True)
class Field:
    """A labelled input of a form.

    kind: text, lines, image, number, choice or check.
    value: What it holds at first.
    choices: The only values, of a choice.
    about: A sentence under it.
    examples: Values to take with a click: texts, or images as PNG.
    optional: Whether an image may be left out.
    option: Whether it is one of the task's own sampling options, which are folded away.
    """

    name: str
    label: str
    kind: str = "text"
    value: Any = ""
    choices: tuple[Any, ...] = ()
    about: str = ""
    examples: tuple[Any, ...] = ()
    optional: bool = False
    option: bool = False

    def read(self, value: Any) -> Any:
        """What a tool takes for what the page sent: an image as uint8 (H, W, 3).

        Raises:
          UserError: the value is of another kind, or is no image.
        """
        if self.kind == "image":
            return self._image(value)
        if self.kind == "choice":
            if value in self.choices:
                return self.choices[self.choices.index(value)]
            listed = ", ".join(map(str, self.choices))
            raise UserError(f"{self.label} is {value!r:.80}: use one of {listed}")
        legal = isinstance(value, _PYTHON.get(self.kind, str))
        if not legal or isinstance(value, bool) != (self.kind == "check"):
            raise UserError(f"{self.label} is {value!r:.80}: give a {self.kind}")
        return value

    def _image(self, value: Any) -> Any:
        if not value and self.optional:
            return None
        if not value:
            raise UserError("no image is given: drop one, or choose a file")
        try:
            data = base64.b64decode(value, validate=True)
        except (TypeError, ValueError, binascii.Error):
            raise UserError(f"{self.label} is not in base64") from None
        if len(data) > LIMIT:
            raise UserError(
                f"{self.label} has {len(data) / 1e6:.0f} MB, and an upload "
                f"{LIMIT / 1e6:.0f} at most: make it smaller"
            )
        return load.decode_image(data, "of the upload")

    def facts(self) -> dict[str, Any]:
        """What the page is told; of example images, their number alone."""
        many = self.examples if self.kind != "image" else len(self.examples)
        return dataclasses.asdict(self) | {"examples": many}


def options(task: Any) -> tuple[Field, ...]:
    """The fields of a task's own sampling dataclass that a form can hold."""
    if not hasattr(task, "sampling"):
        return ()
    told = inspect.getdoc(type(task.sampling)) or ""
    told = re.findall(r"^(\w+(?:, \w+)*): (.*(?:\n  .*)*)", told, re.M)
    about = {
        name: textwrap.shorten(text.replace("`", ""), 400)
        for names, text in told
        for name in names.split(", ")
    }
    values = {
        f.name: getattr(task.sampling, f.name)
        for f in dataclasses.fields(task.sampling)
    }
    return tuple(
        Field(name, name, kind, value, about=about.get(name, ""), option=True)
        for name, value in values.items()
        if (kind := _KINDS.get(type(value), ""))
    )


def read(fields: Sequence[Field], given: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a form; UserError for one that it does not have, see Field.read."""
    unknown = sorted(given.keys() - {field.name for field in fields})
    if unknown:
        raise UserError(f"this form has no {unknown[0]!r:.80}")
    return {
        field.name: field.read(given.get(field.name, field.value)) for field in fields
    }
