"""A self-contained page of HTML: its style, its sections, PNG files, tables.

Its content policy lets a browser load nothing from anywhere else. Functions take plain
text where a parameter is called text, alt, title or label, and escape it; `body`
parameters are HTML.
"""

import base64
import html
import pathlib
import re
import struct
from collections.abc import Sequence

_PNG = b"\x89PNG\r\n\x1a\n"
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_WIDE = 720  # pixels of an image that takes a column of its own
_BANDED = re.compile(r"([^\s()]+) \(([^()]+ to [^()]+)\)")  # a value, its interval
_STYLE = pathlib.Path(__file__).with_name("page.css").read_text(encoding="utf-8")


def document(
    title: str,
    head: str,
    sections: Sequence[tuple[str, str, str]],
    *,
    by: str,
) -> str:
    """A whole page, written by the command `by`; sections are (id, title, body)."""
    links = "".join(
        f'<li><a href="#{anchor}">{html.escape(name)}</a></li>'
        for anchor, name, _ in sections
    )
    parts = "".join(
        f'<section id="{anchor}" aria-labelledby="{anchor}-title">'
        f'<h2 id="{anchor}-title">{html.escape(name)}</h2>{body}</section>\n'
        for anchor, name, body in sections
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<title>{html.escape(title)}</title>\n<link rel="icon" href="data:,">\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<header><h1>{html.escape(title)}</h1>{head}"
        f'<nav aria-label="Sections"><ol>{links}</ol></nav></header>\n'
        f"<main>\n{parts}</main>\n"
        '<footer class="soft">'
        f"Written by <code>{html.escape(by)}</code>. This file is complete: "
        "it loads nothing from anywhere.</footer>\n</body>\n</html>\n"
    )


def paragraph(text: str, style: str = "") -> str:
    """Plain text as a paragraph."""
    return f'<p class="{style}">{html.escape(text)}</p>'


def image(path: pathlib.Path, *, alt: str, text: str, least: int | None = None) -> str:
    """A PNG file inside the page, or '' where there is none.

    least: pixels of width below which it is scrolled rather than shrunk; by default a
    wide image has some, and a narrow one is shrunk to the screen.
    """
    blob = path.read_bytes() if path.is_file() else b""
    if not blob.startswith(_PNG) or len(blob) < 24:
        return ""
    width, height = struct.unpack(">II", blob[16:24])
    code = base64.b64encode(blob).decode("ascii")
    alt, wide = html.escape(alt, quote=True), width > _WIDE
    style = "wide" if wide else ""
    least = (_WIDE if wide else 0) if least is None else least
    # a region that scrolls must be reachable by keyboard, and then needs a name
    return (
        f'<figure class="{style}"><div class="paper scroll" tabindex="0" role="group" '
        f'aria-label="{alt}"><img src="data:image/png;base64,{code}" alt="{alt}" '
        f'width="{width}" height="{height}" style="min-width:{min(least, width)}px">'
        f"</div><figcaption>{html.escape(text)}</figcaption></figure>"
    )


def details(title: str, body: str) -> str:
    """A body that is opened by its title."""
    return f"<details><summary>{html.escape(title)}</summary>{body}</details>"


def matrix(
    title: str, head: Sequence[str], rows: Sequence[tuple[str, list[str]]]
) -> str:
    """A table of HTML cells with a label before each row."""
    top = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in head)
    lines = "".join(
        f'<tr><th scope="row">{html.escape(label)}</th>'
        + "".join(f"<td>{cell}</td>" for cell in cells)
        + "</tr>"
        for label, cells in rows
    )
    return (
        f'<div class="scroll" tabindex="0" role="group" aria-label='
        f'"{html.escape(title, quote=True)}"><table class="matrix">'
        f"<caption>{html.escape(title)}</caption><thead><tr>{top}</tr></thead>"
        f"<tbody>{lines}</tbody></table></div>"
    )


def table(title: str, rows: Sequence[Sequence[str]]) -> str:
    """A table of plain text; the first row heads, and so does each row's first cell.

    Of `0.5 (0.4 to 0.6)` the interval stands below its value.
    """
    cells = [(label, list(map(_cell, rest))) for label, *rest in rows[1:]]
    return matrix(title, rows[0], cells)


def _cell(text: str) -> str:
    if not (banded := _BANDED.fullmatch(html.escape(text))):
        return html.escape(text)
    return f'{banded[1]}<small class="span">{banded[2]}</small>'
