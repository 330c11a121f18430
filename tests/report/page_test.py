"""What pages of HTML are made of."""

import pytest
from PIL import Image

from mmjax.report import page


def test_an_interval_stands_below_its_value():
    rows = [["set", "top1"], ["a", "0.5 (0.4 to 0.6)"], ["b", "x < y (z)"]]
    text = page.table("t", rows)
    assert '<td>0.5<small class="span">0.4 to 0.6</small></td>' in text
    assert "<td>x &lt; y (z)</td>" in text


@pytest.mark.parametrize(
    ("width", "least", "style", "pixels"),
    [(700, None, "", 0), (1200, None, "wide", 720), (1200, 900, "wide", 900)],
)
def test_wide_images_alone_are_scrolled(width, least, style, pixels, tmp_path):
    Image.new("RGB", (width, 9)).save(tmp_path / "a.png")
    text = page.image(tmp_path / "a.png", alt="a <b>", text="t", least=least)
    assert f'<figure class="{style}">' in text and f"min-width:{pixels}px" in text
    assert 'alt="a &lt;b&gt;"' in text
