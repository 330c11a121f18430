"""Elements of a run's page besides mmjax.report.page: panels, figures, tables.

Functions take plain text where a parameter is called text, title or label, and escape
it; `body` parameters are HTML.
"""

import html
from collections.abc import Iterable, Sequence

from mmjax.report import numbers, page


def absent(what: str) -> str:
    """The line in place of what has not been made yet."""
    return f'<p class="note">Nothing here yet: {html.escape(what)}</p>'


def finding(text: str) -> str:
    """A sentence with numbers in it, set off."""
    return page.paragraph(text, "finding")


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
