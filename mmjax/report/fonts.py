"""A font for what captions are written in: that of matplotlib, or one of the system."""

import functools
import logging
import pathlib

from PIL import ImageFont

log = logging.getLogger(__name__)
# One that has all of the text is taken, the first of them; else the first there is.
_NAMES = ("DejaVu Sans", "Noto Sans CJK", "Source Han Sans", "WenQuanYi", "Noto Sans")
_NAMES += ("PingFang", "Hiragino Sans", "Microsoft YaHei", "Arial Unicode MS")


@functools.cache
def _installed() -> list[tuple[str, frozenset[int]]]:
    """(file, characters) of fonts by _NAMES, matplotlib's DejaVu Sans among them."""
    from matplotlib import font_manager, ft2font  # slow to import

    held, every = [], sorted(font_manager.fontManager.ttflist, key=lambda f: f.name)
    for name in _NAMES:
        for entry in every:  # sorted: `Noto Sans` before `Noto Sans Bengali`
            plain = entry.style == "normal" and str(entry.weight) in ("400", "normal")
            there = pathlib.Path(entry.fname).is_file()  # its list is a cache
            if plain and there and entry.name.startswith(name):
                has = ft2font.FT2Font(entry.fname).get_charmap()
                held.append((entry.fname, frozenset(has)))
                break
    return held


def font(text: str, size: int) -> ImageFont.FreeTypeFont:
    """A font of `size` pixels for a sheet with this text.

    A warning names the characters that no installed font has: they are drawn as boxes.
    """
    wanted = {ord(c) for c in text if not c.isspace() and c.isprintable()}
    if max(wanted, default=0) < 256:
        return ImageFont.load_default(size)
    best, has = max(_installed(), key=lambda held: len(wanted & held[1]))
    if lacking := sorted(wanted - has):
        log.warning(
            "no installed font has %s: a sheet shows boxes for them; install one that "
            "has (Noto Sans CJK for Chinese, Japanese and Korean)",
            " ".join(map(chr, lacking[:10])),
        )
    return ImageFont.truetype(best, size)
