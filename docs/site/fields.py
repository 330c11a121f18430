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
    """The same text, with each paragraph of fields but the first as a list."""
    first, *others = text.split("\n\n")
    return "\n\n".join([first, *map(_paragraph, others)])


def _paragraph(text: str) -> str:
    lines = text.split("\n")
    if not all(_FIELD.match(line) for line in lines if line[:1] != " "):
        return text
    return "\n".join(
        _FIELD.sub(r"- **\1**: ", line) if line[:1] != " " else f"  {line}"
        for line in lines
    )
