"""The pieces of a self-contained page: style, figures, tables. HTML in, HTML out.

Everything a page shows is in its one file; its content policy lets a browser load
nothing else. Functions take plain text where a parameter is called text, alt, title or
label, and escape it; `body` parameters are HTML.
"""

import base64
import html
import pathlib
import struct
from collections.abc import Iterable, Sequence

from mmjax.report import numbers

_PNG = b"\x89PNG\r\n\x1a\n"
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_STYLE = """
:root { color-scheme: light dark;
  --paper: #fafaf8; --card: #ffffff; --ink: #1d2329; --soft: #59636e; --rule: #dfe2e6;
  --tint: #eef2f7; --s0: #1f6fb5; --s1: #c2600f; --s2: #2e8b57; }
@media (prefers-color-scheme: dark) { :root {
  --paper: #15181c; --card: #1d2126; --ink: #e6e8ea; --soft: #a0a9b3; --rule: #353b43;
  --tint: #262c34; --s0: #6cb2ee; --s1: #f0a055; --s2: #6fcf97; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-behavior: smooth; }
@media (prefers-reduced-motion: reduce) { html { scroll-behavior: auto; } }
body { margin: 0; background: var(--paper); color: var(--ink);
  overflow-wrap: break-word; font: 16px/1.55 system-ui, -apple-system, "Segoe UI",
    Roboto, "Noto Sans", "DejaVu Sans", sans-serif; }
main, header, footer { max-width: 1120px; margin: 0 auto; padding: 0 20px; }
header { padding-top: 40px; }
h1 { font-size: clamp(1.7rem, 5vw, 2.5rem); line-height: 1.15; margin: 0 0 .6em;
  letter-spacing: -.015em; text-wrap: balance; }
h2 { font-size: 1.45rem; line-height: 1.25; margin: 0 0 .4em; }
h3 { font-size: 1.02rem; margin: 1.8em 0 .5em; }
p { max-width: 70ch; margin: 0 0 1em; }
.lead { font-size: 1.08rem; }
.soft, figcaption, .note { color: var(--soft); }
nav ol { list-style: none; display: flex; flex-wrap: wrap; gap: 8px; padding: 0;
  margin: 24px 0 0; }
nav a { display: block; padding: 4px 12px; border: 1px solid var(--rule);
  border-radius: 99px; color: inherit; text-decoration: none; font-size: .88rem;
  background: var(--card); }
nav a:hover { border-color: var(--s0); }
a:focus-visible, summary:focus-visible, .scroll:focus-visible {
  outline: 2px solid var(--s0); outline-offset: 2px; }
section { padding: 34px 0 8px; margin-top: 26px; border-top: 1px solid var(--rule); }
.tiles { display: grid; gap: 12px; margin: 26px 0 0; padding: 0;
  grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); }
@media (min-width: 900px) { .tiles { grid-template-columns: repeat(4, 1fr); } }
.tile { background: var(--card); border: 1px solid var(--rule); border-radius: 10px;
  padding: 14px 16px; display: flex; flex-direction: column; }
.tile dt { order: 2; font-size: .88rem; line-height: 1.35; }
.tile dd { margin: 0; }
.tile .big { order: 1; font-size: 1.75rem; line-height: 1.2; font-weight: 650;
  font-variant-numeric: tabular-nums; letter-spacing: -.02em; }
.tile .span { order: 3; font-size: .8rem; color: var(--soft); margin-top: auto;
  padding-top: 4px; }
.grid { display: grid; gap: 16px;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 320px), 1fr)); }
.pair { display: grid; gap: 20px; align-items: start;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 460px), 1fr)); }
figure { margin: 0 0 16px; min-width: 0; }
.grid > figure { margin: 0; } .grid { margin-bottom: 16px; }
figure.panel { background: var(--card); border: 1px solid var(--rule);
  border-radius: 10px; padding: 12px 14px 10px; max-width: 560px; }
figure.panel > b { display: block; font-size: .95rem; line-height: 1.3; }
figcaption { font-size: .86rem; line-height: 1.45; margin-top: 6px; max-width: 70ch; }
.scroll { overflow-x: auto; }
.paper { background: #fff; border: 1px solid var(--rule); border-radius: 10px;
  width: fit-content; max-width: 100%; }
.paper img { display: block; max-width: 100%; height: auto; border-radius: 9px; }
svg.chart { display: block; width: 100%; height: auto; margin-top: 6px; }
.chart text { font: 11px system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans",
  "DejaVu Sans", sans-serif; fill: var(--soft); }
.chart .end { text-anchor: end; } .chart .mid { text-anchor: middle; }
.chart .name { font-size: 11.5px; }
.chart .rule { stroke: var(--rule); fill: none; }
.chart .axis { stroke: var(--soft); fill: none; }
.chart .line { fill: none; stroke-width: 2; stroke-linejoin: round; }
.chart .band { stroke: none; opacity: .18; }
.chart .area { stroke-width: 1.5; fill-opacity: .3; }
.chart .s0 { stroke: var(--s0); } .chart .s1 { stroke: var(--s1); }
.chart .s2 { stroke: var(--s2); }
.chart .line.s1 { stroke-dasharray: 6 3; } .chart .line.s2 { stroke-dasharray: 2 3; }
.chart .s0.band, .chart .s0.area, .chart .s0.dot { fill: var(--s0); }
.chart .s1.band, .chart .s1.area, .chart .s1.dot { fill: var(--s1); }
.chart .s2.band, .chart .s2.area, .chart .s2.dot { fill: var(--s2); }
.chart .band { stroke-width: 0; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: 2px 16px; padding: 0;
  margin: 4px 0 10px; font-size: .82rem; color: var(--soft); }
.key { display: inline-block; width: 18px; height: 0; border-top: 3px solid;
  vertical-align: middle; margin-right: 6px; }
.key.s0 { border-color: var(--s0); } .key.s1 { border-color: var(--s1);
  border-top-style: dashed; } .key.s2 { border-color: var(--s2);
  border-top-style: dotted; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; }
caption { text-align: left; font-weight: 650; padding: 22px 0 6px; }
th, td { text-align: left; vertical-align: top; padding: 9px 12px 9px 0;
  border-top: 1px solid var(--rule); }
thead th { border-top: 0; font-size: .8rem; color: var(--soft); font-weight: 500; }
tbody th { font-weight: 550; }
.figures { table-layout: fixed; }
.figures col.value { width: 9.5em; } .figures col.span { width: 9.5em; }
.figures .group { padding: 22px 0 8px; font-size: 1.05rem; font-weight: 650;
  border: 0; }
td.value { font-weight: 650; }
td.value, td.span, .matrix td, .matrix thead th { font-variant-numeric: tabular-nums; }
td small, th small { display: block; font-weight: 400; color: var(--soft);
  font-size: .86rem; line-height: 1.4; max-width: 66ch; }
th code { font-size: .76rem; color: var(--soft); overflow-wrap: anywhere;
  font-weight: 400; }
.bar { display: block; position: relative; height: 6px; margin-top: 7px;
  border-radius: 3px; background: var(--tint); max-width: 140px; }
.bar i { position: absolute; top: 0; bottom: 0; border-radius: 3px; min-width: 3px;
  background: var(--s0); opacity: .5; }
.bar b { position: absolute; top: -3px; bottom: -3px; width: 2px; margin-left: -1px;
  background: var(--s0); }
@media (max-width: 620px) {
  main, header, footer { padding-left: 14px; padding-right: 14px; }
  .figures col.value { width: 6em; } .figures col.span { width: 5.6em; }
  td, th { padding-right: 8px; font-size: .88rem; } }
.times { display: grid; grid-template-columns: max-content 1fr max-content;
  gap: 6px 12px; align-items: center; font-size: .92rem;
  margin: 0 0 18px; max-width: 640px; }
.times dt, .times dd { margin: 0; }
.times i { display: block; height: 12px; border-radius: 3px; background: var(--s0);
  min-width: 2px; }
pre, code { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas,
  "DejaVu Sans Mono", monospace; }
pre { background: var(--tint); border-radius: 8px; padding: 12px 14px; overflow-x: auto;
  font-size: .82rem; line-height: 1.5; margin: 0 0 14px; }
details { border: 1px solid var(--rule); border-radius: 8px; margin: 10px 0;
  padding: 0 14px; background: var(--card); }
summary { cursor: pointer; padding: 9px 0; font-weight: 550; overflow-wrap: anywhere; }
details > :last-child { margin-bottom: 14px; }
.note, .finding { border-left: 3px solid var(--rule); padding: 4px 0 4px 12px; }
.note { font-size: .92rem; } .finding { border-color: var(--s0); font-size: 1.05rem; }
footer { padding-top: 24px; padding-bottom: 40px; font-size: .85rem; }
@media print { nav { display: none; } section { break-inside: avoid-page; } }
"""


def document(
    title: str,
    head: str,
    sections: Sequence[tuple[str, str, str]],
    *,
    by: str = "mmjax demo",
) -> str:
    """A whole page: (id, title, body) of each section below what `head` opens with.

    by: the command that wrote it.
    """
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


def absent(what: str) -> str:
    """The line in place of what a stage has not made yet."""
    return f'<p class="note">Nothing here yet: {html.escape(what)}</p>'


def paragraph(text: str, style: str = "") -> str:
    """Plain text as a paragraph."""
    return f'<p class="{style}">{html.escape(text)}</p>'


def finding(text: str) -> str:
    """A sentence with numbers in it, set off."""
    return paragraph(text, "finding")


def picture(path: pathlib.Path, *, alt: str, text: str, least: int = 560) -> str:
    """A PNG file inside the page, or '' where there is none.

    least: pixels of width below which it is scrolled rather than shrunk.
    """
    blob = path.read_bytes() if path.is_file() else b""
    if not blob.startswith(_PNG) or len(blob) < 24:
        return ""
    width, height = struct.unpack(">II", blob[16:24])
    code = base64.b64encode(blob).decode("ascii")
    alt = html.escape(alt, quote=True)
    # a region that scrolls must be reachable by keyboard, and then needs a name
    return (
        f'<figure><div class="paper scroll" tabindex="0" role="group" '
        f'aria-label="{alt}"><img src="data:image/png;base64,{code}" alt="{alt}" '
        f'width="{width}" height="{height}" style="min-width:{min(least, width)}px">'
        f"</div><figcaption>{html.escape(text)}</figcaption></figure>"
    )


def panel(title: str, body: str, text: str = "") -> str:
    """A chart under its title, '' where there is no chart."""
    if not body:
        return ""
    said = f"<figcaption>{html.escape(text)}</figcaption>" if text else ""
    return f'<figure class="panel"><b>{html.escape(title)}</b>{body}{said}</figure>'


def grid(bodies: Sequence[str], style: str = "grid") -> str:
    """Bodies side by side, as many as there is room for; '' of none."""
    kept = [body for body in bodies if body]
    return f'<div class="{style}">{"".join(kept)}</div>' if kept else ""


def details(title: str, body: str) -> str:
    """A body that is opened by its title."""
    return f"<details><summary>{html.escape(title)}</summary>{body}</details>"


def preformatted(text: str) -> str:
    """Text as it is, in lines."""
    return f'<pre tabindex="0">{html.escape(text)}</pre>'


def data(value: object, kind: str, *, unit: bool = True) -> str:
    """A number in words, with all its digits beside it for machines."""
    raw = html.escape(str(value), quote=True)
    said = html.escape(numbers.spell(value, kind, unit=unit))
    return f'<data value="{raw}">{said}</data>'


def span(figure: numbers.Figure) -> str:
    """The interval of a figure in the figure's unit, or ''."""
    if figure.low is None or figure.high is None:
        return ""
    ends = (figure.low, figure.high)
    return " to ".join(data(end, figure.meaning.kind, unit=False) for end in ends)


def tiles(figures: Sequence[tuple[str, numbers.Figure]]) -> str:
    """Headline numbers, each under a label; '' of none."""
    if not figures:
        return ""
    made = []
    for label, figure in figures:
        ends = span(figure)
        ends = f'<dd class="span">95 %: {ends}</dd>' if ends else ""
        value = data(figure.value, figure.meaning.kind)
        made.append(
            f'<div class="tile"><dt>{html.escape(label)}</dt>'
            f'<dd class="big">{value}</dd>{ends}</div>'
        )
    return f'<dl class="tiles">{"".join(made)}</dl>'


def table(figures: Iterable[numbers.Figure]) -> str:
    """Numbers with their intervals and what they mean, in groups; '' of none."""
    groups: dict[str, list[numbers.Figure]] = {}
    for figure in figures:
        groups.setdefault(figure.meaning.group, []).append(figure)
    last = groups.pop(numbers.OTHER, [])
    groups |= {numbers.OTHER: last} if last else {}
    if not groups:
        return ""
    bodies = "".join(
        f'<tbody><tr><th class="group" scope="rowgroup" colspan="3">'
        f"{html.escape(group)}</th></tr>{''.join(map(_row, rows))}</tbody>"
        for group, rows in groups.items()
    )
    return (
        '<table class="figures">'
        '<colgroup><col><col class="value"><col class="span"></colgroup>'
        '<thead><tr><th scope="col">What it is</th><th scope="col">Result</th>'
        f'<th scope="col">95 % interval</th></tr></thead>{bodies}</table>'
    )


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


def times(minutes: Sequence[tuple[str, float]]) -> str:
    """How long each of some things took, as bars."""
    longest = max((value for _, value in minutes), default=0) or 1
    rows = "".join(
        f'<dt>{html.escape(name)}</dt><dd aria-hidden="true">'
        f'<i style="width:{100 * value / longest:.1f}%"></i></dd>'
        f"<dd>{data(value, 'minutes')}</dd>"
        for name, value in minutes
    )
    return f'<dl class="times">{rows}</dl>'


def _row(figure: numbers.Figure) -> str:
    meaning = figure.meaning
    text = f"<small>{html.escape(meaning.text)}</small>" if meaning.text else ""
    return (
        f'<tr><th scope="row">{html.escape(meaning.label)} '
        f"<code>{html.escape(figure.name)}</code>{text}</th>"
        f'<td class="value">{data(figure.value, meaning.kind)}{_bar(figure)}</td>'
        f'<td class="span">{span(figure)}</td></tr>'
    )


def _bar(figure: numbers.Figure) -> str:
    """Where a share and its interval lie between 0 and 1; it repeats the numbers."""
    low, high = figure.low, figure.high
    if figure.meaning.kind != "share" or low is None or high is None:
        return ""
    left, width, at = 100 * low, 100 * (high - low), 100 * figure.value
    return (
        f'<span class="bar" aria-hidden="true"><i style="left:{left:.1f}%;'
        f'width:{width:.1f}%"></i><b style="left:{at:.1f}%"></b></span>'
    )
