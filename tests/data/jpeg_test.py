"""JPEGs that libjpeg decodes with a warning: counted, and refused in strict mode."""

import io
import os

import numpy as np
import pytest
from PIL import Image

from mmjax.data import check, image, jpeg
from mmjax.data.records import BrokenRecord

pytest.importorskip("cv2")


@pytest.fixture(scope="module")
def damaged():
    """A JPEG with half of its data missing, and its end marker in place."""
    data = whole()
    return data[: len(data) // 2] + b"\xff\xd9"


def whole():
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


def test_a_damaged_jpeg_is_read_and_named(damaged, capfd):
    assert image.decode(damaged, "here").shape == (64, 64, 3)
    assert "Corrupt JPEG data" in capfd.readouterr().err
    with jpeg.watch() as seen:
        assert image.decode(whole(), "whole").shape == (64, 64, 3)
        for place in ("a", "b"):
            assert image.decode(damaged, place).shape == (64, 64, 3)
    said = "Corrupt JPEG data: premature end of data segment"
    assert seen == [("a", said), ("b", said)]
    image.decode(damaged, "later")
    assert len(seen) == 2


def test_strict_mode_refuses_it(damaged, monkeypatch, capfd):
    monkeypatch.setenv(jpeg.STRICT, "1")
    assert image.decode(whole(), "whole").shape == (64, 64, 3)
    with pytest.raises(BrokenRecord, match="here: .*the JPEG is damaged .Corrupt"):
        image.decode(damaged, "here")
    assert capfd.readouterr().err == ""
    monkeypatch.setenv(jpeg.STRICT, "0")
    assert image.decode(damaged, "here").shape == (64, 64, 3)


@pytest.mark.parametrize("how", ["CMYK", "without OpenCV"])
def test_strict_mode_refuses_what_nobody_can_tell(how, monkeypatch):
    data = whole()
    if how == "CMYK":
        file = io.BytesIO()
        Image.open(io.BytesIO(data)).convert("CMYK").save(file, "JPEG")
        data = file.getvalue()
    else:
        monkeypatch.setattr(image, "cv2", None)
    assert image.decode(data, "here").shape == (64, 64, 3)
    monkeypatch.setenv(jpeg.STRICT, "1")
    mode = "CMYK" if how == "CMYK" else "RGB"
    with pytest.raises(BrokenRecord, match=rf"of this one \({mode}\) nobody can tell"):
        image.decode(data, "here")


def test_what_others_print_meanwhile_is_handed_on(damaged, capfd):
    def read():
        os.write(2, b"Corrupt JPEG data: x\nother words\n")
        return 3

    with jpeg.watch() as seen:
        assert jpeg.decoded(read, "here") == 3
    assert seen == [("here", "Corrupt JPEG data: x")]
    assert capfd.readouterr().err == "other words\n"


def test_check_names_them(damaged, tmp_path):
    (tmp_path / "photos").mkdir()
    for name, data in (("a", damaged), ("b", whole()), ("c", damaged)):
        (tmp_path / f"photos/{name}.jpg").write_bytes(data)
    found = check.check([f"folder:{tmp_path}/photos?label=none"], tmp_path / "x.png")
    assert [place[-5:] for place, _ in found.sources[0].damaged] == ["a.jpg", "c.jpg"]
    assert found.broken == 0
    assert found.text().count("  damaged   ") == 2
