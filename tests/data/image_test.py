import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from mmjax.data import fields, image
from mmjax.data.fields import image as image_field
from mmjax.data.fields.base import View
from mmjax.data.records import BrokenRecord
from mmjax.errors import UserError


def smooth(height=64, width=96):
    y, x = np.mgrid[0:height, 0:width]
    r, g = 255 * x / width, 255 * y / height
    return np.stack([r, g, 255 - r], -1).astype(np.uint8)


def save(img, kind, **options):
    file = io.BytesIO()
    (img if isinstance(img, Image.Image) else Image.fromarray(img)).save(
        file, kind, **options
    )
    return file.getvalue()


@pytest.fixture(params=["opencv", "pillow"])
def library(request, monkeypatch):
    if request.param == "opencv":
        pytest.importorskip("cv2")
    else:
        monkeypatch.setattr(image, "cv2", None)
    return request.param


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP", "GIF", "JPEG", "TIFF"])
def test_decodes_what_pillow_wrote(kind, library):
    options = {"lossless": True} if kind == "WEBP" else {}
    out = image.decode(save(smooth(), kind, **options), "here")
    assert out.dtype == np.uint8 and out.shape == (64, 96, 3)
    far = {"JPEG": 12, "GIF": 40}.get(kind, 0)
    assert np.abs(out.astype(int) - smooth()).max() <= far


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L", "1", "I;16", "CMYK", "RGB"])
def test_every_mode_becomes_rgb(mode, library):
    kind = "JPEG" if mode == "CMYK" else "PNG"
    source = Image.new("L", (8, 6), 200)
    img = Image.new(mode, (8, 6), 51400) if mode == "I;16" else source.convert(mode)
    out = image.decode(save(img, kind), "here")
    assert out.shape == (6, 8, 3)
    expected = 255 if mode == "1" else 200
    assert abs(int(out[3, 4, 0]) - expected) <= 2


def test_transparency_is_over_white(library):
    rgba = np.zeros((2, 3, 4), np.uint8)
    rgba[:, 1] = [200, 0, 100, 255]
    rgba[:, 2] = [200, 0, 100, 128]
    out = image.decode(save(rgba, "PNG"), "here")
    assert out[0].tolist() == [[255] * 3, [200, 0, 100], [227, 127, 177]]
    palette = Image.new("P", (2, 2), 0)
    palette.putpalette([10, 20, 30, 40, 50, 60])
    out = image.decode(save(palette, "PNG", transparency=0), "here")
    assert (out == 255).all()


def test_exif_orientation_is_applied(library):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise to see it upright
    out = image.decode(save(smooth(), "JPEG", exif=exif), "here")
    assert out.shape == (96, 64, 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.95])
def test_cut_files_are_broken_records(kind, share, library):
    data = save(image.resize(smooth(), 256, "bicubic"), kind)
    with pytest.raises(BrokenRecord, match="shard.tar, sample 7") as error:
        image.decode(data[: int(len(data) * share)], "shard.tar, sample 7")
    assert error.value.place == "shard.tar, sample 7"


def test_damaged_png_and_noise_are_broken_records(library):
    data = bytearray(save(smooth(), "PNG"))
    data[len(data) // 2] ^= 0xFF
    for bad in (bytes(data), b"not a picture", b"\xff\xd8\xff" + bytes(50)):
        with pytest.raises(BrokenRecord):
            image.decode(bad, "here")


def bomb(side):
    """A small PNG file whose header promises side x side pixels."""

    def chunk(kind, body):
        crc = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + crc

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


def test_bombs_are_refused_by_their_header(library):
    with pytest.raises(BrokenRecord, match="3600000000 pixels"):
        image.decode(bomb(60_000), "here")
    jpeg = bytearray(save(smooth(), "JPEG"))
    at = jpeg.index(b"\xff\xc0")
    jpeg[at + 5 : at + 9] = struct.pack(">HH", 65_000, 65_001)
    with pytest.raises(BrokenRecord, match="4225065000 pixels"):
        image.decode(bytes(jpeg), "here")
    assert image.decode(save(smooth(), "PNG"), "", max_pixels=64 * 96).shape[0] == 64
    with pytest.raises(BrokenRecord, match="limit of 6143"):
        image.decode(save(smooth(), "PNG"), "", max_pixels=64 * 96 - 1)


@pytest.mark.parametrize("method", image.METHODS)
@pytest.mark.parametrize("size", [7, 24, (100, 50), (64, 96), (33, 200)])
def test_resize_keeps_a_ramp_a_ramp(method, size, library):
    height, width = (size, size) if isinstance(size, int) else size
    out = image.resize(smooth(), size, method)
    assert out.shape == (height, width, 3) and out.dtype == np.uint8
    expected = 255 * (np.arange(width) + 0.5) / width
    rows = np.abs(out[height // 2, :, 0] - expected)[2:-2]
    assert rows.max() < (40 if "nearest" in method else 8)  # aligned, not shifted


@pytest.mark.parametrize("method", ["bilinear", "bicubic", "lanczos", "area"])
def test_shrinking_averages(method, library):
    board = (np.indices((256, 256)).sum(0) % 2 * 255).astype(np.uint8)
    out = image.resize(np.repeat(board[..., None], 3, 2), 32, method)
    assert np.abs(out.astype(int) - 127).max() <= 2


def test_pil_bicubic_is_what_clip_uses():
    img = np.random.default_rng(0).integers(0, 256, (50, 70, 3)).astype(np.uint8)
    expected = Image.fromarray(img).resize((24, 24), Image.Resampling.BICUBIC)
    assert (image.resize(img, 24, "pil_bicubic") == np.asarray(expected)).all()


def test_center_crop_and_squash():
    img = smooth(60, 120)
    crop = image.center_crop(img, 30, "bilinear")[0]
    assert crop.shape == (30, 30, 3)
    assert 60 < crop[:, 0].mean(0)[0] < 70  # starts at a quarter of the width
    assert image.resize(img, 30, "bilinear")[0, 0, 0] < 5


def test_random_crops_keep_to_their_range(library):
    rng = np.random.default_rng(0)
    views = {cropped(smooth(), rng, scale=(0.3, 1)).tobytes() for _ in range(20)}
    assert len(views) == 20
    same = [cropped(smooth(), np.random.default_rng(5)) for _ in range(2)]
    assert (same[0] == same[1]).all()
    strip = smooth(8, 400)  # no draw fits: the centre, at the widest shape allowed
    out = cropped(strip, rng, scale=(1, 1), ratio=(0.9, 1.1))
    assert 115 < out[8, 8, 0] < 140


def test_config_views():
    cfg = image_field.Field(size=32, train_scale=(1.0, 1.0), flip=True)
    square = smooth(32, 32)
    rng = np.random.default_rng(0)
    seen = {cfg.view(square, rng)[0].tobytes() for _ in range(20)}
    assert seen == {square.tobytes(), square[:, ::-1].tobytes()}
    assert cfg.evaluate(smooth()).shape == (32, 32, 3)


def cropped(img, rng, **ranges):
    return image.cut(img, image.random_crop(img.shape, rng, **ranges), 16, "bilinear")[
        0
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": 0},
        {"method": "bicubci"},
        {"mode": "stretch"},
        {"train_scale": (0.0, 1.0)},
        {"train_ratio": (2.0, 1.0)},
        {"train_zoom": (0.5, 1.0), "train_crop": "square"},
        {"train_zoom": (1.0, 1.5)},
        {"train_scale": (0.5, 1.0), "train_crop": "square"},
        {"train_ratio": (1.0, 1.0), "train_crop": "near_centre"},
    ],
)
def test_config_refuses(wrong):
    with pytest.raises(UserError):
        fields.build({"image": {"kind": "image", **wrong}})


@pytest.mark.parametrize("mode", ["crop", "squash"])
@pytest.mark.parametrize(
    "crop",
    [
        {"train_scale": (0.4, 0.9)},
        {"train_crop": "square", "train_zoom": (1.0, 1.5)},
        {"train_crop": "near_centre"},
    ],
)
def test_boxes_follow_the_view(mode, crop):
    """A bright rectangle lies where its box says, in every view."""
    rng = np.random.default_rng(0)
    img = np.zeros((60, 90, 3), np.uint8)
    img[12:40, 30:66] = 255
    box = np.float32([[30, 12, 36, 28]])
    field = image_field.Field(size=32, mode=mode, flip=True, **crop)
    for train in [False] + 20 * [True]:
        view = View(train=train)
        pixels = field.row("image", {"image": img}, rng, view)["image"]
        [(x, y, w, h)] = view.crops["image"].boxes(box)
        rows, columns = np.nonzero(pixels[..., 0] > 127)
        ends = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
        np.testing.assert_allclose((x, y, x + w, y + h), ends, atol=1.01)


def squares(shape, size, count=4000, **options):
    """Boxes (count, 4) of random square crops."""
    rng = np.random.default_rng(0)
    drawn = (image.square_crop(shape, rng, size, **options) for _ in range(count))
    return np.array(list(drawn))


@pytest.mark.parametrize("shape", [(300, 400), (400, 300)])
def test_square_crop_is_the_short_side_anywhere(shape):
    """CLIP's crop: 400 x 300 gives 101 squares of 300."""
    box = squares(shape, 224)
    assert (box[:, 2:] == 300).all()
    along, across = (1, 0) if shape[1] == 400 else (0, 1)
    assert set(box[:, along]) == set(range(101)) and set(box[:, across]) == {0}
    assert abs(box[:, along].mean() - 50) < 2


def test_near_centre_is_listing_2():
    """Offsets from 3/8 up to, and without, 5/8 of the slack; then 256 of 256 to 288."""
    whole = squares((512, 912), 256, near_centre=True)
    assert set(whole[:, 1]) == set(range(150, 250)) and set(whole[:, 0]) == {0}
    zoomed = squares((512, 912), 256, near_centre=True, zoom=(1.0, 9 / 8))
    sides = {round(512 * 256 / t) for t in range(256, 289)}
    assert set(zoomed[:, 2]) == sides and (zoomed[:, 2] == zoomed[:, 3]).all()
    assert zoomed[:, 0].max() <= 512 - 455 and zoomed[:, 1].max() <= 249 + 512 - 455


def test_zoom_is_listing_1():
    """256 px of 288 to 384; of a smaller image at most its own pixels, or all of it."""
    box = squares((768, 768), 256, zoom=(9 / 8, 12 / 8))
    assert set(box[:, 2]) == {round(768 * 256 / t) for t in range(288, 385)}
    assert ((box[:, :2] >= 0) & (box[:, :2] + box[:, 2:] <= 768)).all()
    assert set(squares((300, 300), 256, zoom=(9 / 8, 12 / 8))[:, 2]) == {
        round(300 * 256 / t) for t in range(288, 301)
    }
    assert set(squares((100, 140), 256, zoom=(9 / 8, 12 / 8))[:, 2]) == {100}
    assert set(squares((1, 5), 256)[:, 2]) == {1}


def test_a_square_of_the_size_is_kept_and_nothing_drawn():
    field = image_field.Field(size=32, train_crop="square")
    rng, img = np.random.default_rng(0), smooth(32, 32)
    before = rng.bit_generator.state
    assert (field.view(img, rng)[0] == img).all()
    assert rng.bit_generator.state == before and not field.still
    assert field.gather("image", img[None])["image"] is not None


@pytest.mark.parametrize(
    ("options", "stretches"),
    [
        ({"train_crop": "square"}, None),
        ({"train_scale": (0.5, 1.0), "train_ratio": (1.0, 1.0)}, None),
        ({}, "64x48 by up to 1.33 in training and 1.00 in evaluation"),
        ({"train_crop": "square", "mode": "squash"}, "1.00 in training and 1.33 in"),
    ],
)
def test_stretched_images_are_said(options, stretches, caplog):
    class Source(list):
        name = "memory"

    field = image_field.Field(size=32, **options)
    field.check("image", {}, Source([{"image": smooth(48, 64)}]))
    assert stretches in caplog.text if stretches else not caplog.records


@pytest.mark.parametrize("kind", ["BLP", "DDS", "EPS", "ICO", "PCX", "SGI", "TGA"])
def test_formats_that_are_not_read(kind, monkeypatch):
    """An EPS is a program: nothing may be started for it."""
    from PIL import EpsImagePlugin

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", None)
    img = Image.fromarray(smooth()).convert("P" if kind == "BLP" else "RGB")
    with pytest.raises(BrokenRecord, match="it is none of AVIF, BMP, GIF, JPEG, PNG"):
        image.decode(save(img, kind), "here")


@pytest.mark.parametrize("kind", ["AVIF", "BMP", "GIF", "JPEG", "PPM", "TIFF", "WEBP"])
def test_any_damage_is_a_broken_record(kind, library):
    """Whatever the decoder raises: struct.error, RuntimeError, KeyError, ..."""
    rng, data = np.random.default_rng(0), save(smooth(), kind)
    for _ in range(60):
        bad = bytearray(data)
        at = int(rng.integers(len(bad)))
        bad[at : at + 8] = rng.bytes(len(bad[at : at + 8]))
        try:
            image.decode(bytes(bad), "here")
        except BrokenRecord as error:
            assert error.place == "here"


def test_a_decoder_may_raise_anything(monkeypatch):
    for error in (RuntimeError("odd"), struct.error("odd"), MemoryError(), KeyError()):
        monkeypatch.setattr(image, "to_rgb", lambda img, e=error: exec("raise e"))
        with pytest.raises(BrokenRecord, match=f"odd|{type(error).__name__}"):
            image.decode(save(smooth(), "PNG"), "here")


def test_an_odd_exif_tag_keeps_its_image(library):
    tags = struct.pack("<HHII", 0x0112, 3, 1, 6)  # Orientation
    tags += struct.pack("<HHI4s", 0x0128, 2, 2, b"2\0\0\0")  # ResolutionUnit, as text
    exif = b"eXIfII*\0" + struct.pack("<IH", 8, 2) + tags + bytes(4)
    data, size = save(smooth(), "PNG"), struct.pack(">I", len(exif) - 4)
    chunk = size + exif + struct.pack(">I", zlib.crc32(exif))
    out = image.decode(data[:33] + chunk + data[33:], "here")
    assert (out == np.rot90(smooth(), -1)).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_pillows(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = save(smooth(), "PNG", exif=exif)
    want = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert (image.decode(data, "here") == np.asarray(want)).all()


def test_grey_of_16_bits_is_cut_and_other_ranges_are_refused():
    ramp = np.linspace(0, 1, 64)[None].repeat(8, 0)
    want = (ramp * 65535).astype(np.uint16) >> 8
    for kind in ("TIFF", "PNG", "PPM"):
        out = image.decode(save((ramp * 65535).astype(np.uint16), kind), "here")
        assert (out == want[..., None]).all(), kind
    for kind, part in (("float32", "float"), ("int32", "32-bit integer")):
        for scale in (1, 255):
            data = save((ramp * scale).astype(kind), "TIFF")
            with pytest.raises(BrokenRecord, match=f"{part} pixels say no range"):
                image.decode(data, "here")


def test_a_jpeg_with_a_header_that_libjpeg_skips(library):
    """Pillow walks into a segment: a frame of 16 x 16 and a scan lie in it."""
    data, small = save(smooth(), "JPEG"), save(smooth(16, 16), "JPEG")
    at, start = small.index(b"\xff\xc0"), small.index(b"\xff\xda")
    inside = small[at : start + 14]
    segment = b"\xff\xf0" + struct.pack(">H", len(inside) + 2) + inside
    start = data.index(b"\xff\xda")
    bad = data[:start] + segment + data[start:]
    with Image.open(io.BytesIO(bad)) as seen:
        assert seen.size == (16, 16)
    with pytest.raises(BrokenRecord, match="several headers"):
        image.decode(bad, "here")


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "I;16", "P", "CMYK"])
def test_strips_are_as_the_whole_and_cost_little(mode, monkeypatch):
    rgba = np.random.default_rng(0).integers(0, 256, (1500, 1000, 4), np.uint8)
    if mode == "I;16":
        img = Image.fromarray(rgba[..., 0].astype(np.uint16) * 256)
    else:
        img = Image.fromarray(rgba if mode == "RGBA" else rgba[..., :3]).convert(mode)
    whole = image._strip(img)
    monkeypatch.setattr(image, "_STRIP", 1 << 14)
    tracemalloc.start()
    out = image.to_rgb(img)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (out == whole).all()
    assert peak < 1.5 * out.nbytes


@pytest.mark.parametrize("method", ["bilinear", "pil_bicubic", "area", "nearest"])
@pytest.mark.parametrize("shape", [(1, 60_000), (60_000, 1), (2, 1 << 20)])
def test_thin_images_cost_no_more_than_others(shape, method, library):
    """The cut comes before the resize, which would make 13,440,000 x 224 pixels."""
    ramp = np.linspace(0, 255, max(shape)).astype(np.uint8)
    ramp = ramp[None] if shape[0] < shape[1] else ramp[:, None]
    img = np.broadcast_to(ramp[..., None], (*shape, 3))
    tracemalloc.start()
    crop, where = image.center_crop(img, 224, method)
    squashed = image.resize(img, 224, method)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert crop.shape == squashed.shape == (224, 224, 3)
    assert peak < 100e6
    assert 125 <= crop.min() <= crop.max() <= 130  # the middle
    ends = np.sort(squashed[[0, -1], [0, -1], 0])
    assert ends[0] < 4 and ends[1] > 250
    longer = int(np.argmax(shape))
    middle = max(shape) / 2 * where.scale[1 - longer] - where.offset[1 - longer]
    assert abs(middle - 112) <= 1
