"""Fonts of sheets: what captions are written in is drawn, or said to be missing."""

from PIL import ImageFont

from mmjax.data import check
from mmjax.report import fonts


def test_cyrillic_comes_with_matplotlib(caplog):
    font = fonts.font("Собака бежит по полю", 13)
    assert font.getname()[0] == "DejaVu Sans" and not caplog.text
    missing = font.getmask("\uffff").getbbox()
    assert font.getmask("С").getbbox() != missing


def test_what_no_font_has_is_named(caplog, monkeypatch):
    held = [
        ("unused", frozenset()),
        (fonts.font("Я", 9).path, frozenset(map(ord, "狗"))),
    ]
    monkeypatch.setattr(fonts, "_installed", lambda: held)
    assert fonts.font("一只狗", 13).path == held[1][0]
    assert "no installed font has 一 只: a sheet shows boxes" in caplog.text
    assert "Noto Sans CJK" in caplog.text


def test_captions_are_wrapped_and_not_cut():
    font = ImageFont.load_default(10)
    text = "a small red star above a large blue ring on a very light grey background"
    lines = check._wrapped(text, font)
    assert "".join(lines) == text and len(lines) == 3
    assert all(font.getlength(line.rstrip()) <= check.CELL - 4 for line in lines)
    assert "".join(check._wrapped("x" * 90, font)) == "x" * 90  # it has no spaces
    assert check._wrapped(" ".join(["word"] * 200), font)[-1].endswith("…")
    assert check._wrapped("", font) == [""]
