"""Our docstrings as Markdown: `name: what it is` lines become the items of a list."""

import re

import griffe

_FIELD = re.compile(r"^([`\w*][\w*`., ]*): (?=\S)")


class Fields(griffe.Extension):
    """Rewrites every docstring before it is rendered."""

    def on_object(self, *, obj: griffe.Object, **_: object) -> None:
        """See griffe.Extension."""
        if obj.docstring:
            obj.docstring.value = listed(obj.docstring.value)


def listed(text: str) -> str:
    """The same text, with each paragraph of fields as a list."""
    return "\n\n".join(map(_paragraph, text.split("\n\n")))


def _paragraph(text: str) -> str:
    lines = text.split("\n")
    first = [line for line in lines if line[:1] != " "]
    if len(lines) < 2 and not _FIELD.match(text):
        return text
    if not all(_FIELD.match(line) for line in first):
        return text
    return "\n".join(
        _FIELD.sub(r"- **\1**: ", line) if line[:1] != " " else f"  {line}"
        for line in lines
    )
