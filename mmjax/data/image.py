"""Encoded bytes to uint8 pixels, and the crops and resizes that make a batch row.

OpenCV does the work where it is installed, Pillow where it is not. Their resizes differ
by a few grey levels, so `backend()` belongs on a result's card; the methods named
`pil_*` are Pillow's on every machine, and `pil_bicubic` is what CLIP was trained with.
"""

import dataclasses
import io
import math

import numpy as np
from PIL import ExifTags, Image

from mmjax.data import jpeg
from mmjax.data.records import BrokenRecord

try:
    import cv2
except ImportError:
    cv2 = None
else:
    # Parallelism is ours, one image a thread: OpenCV's own pool on top of it costs
    # more than it brings at these sizes (measured: 530 -> 370 us for a 256 px JPEG).
    cv2.setNumThreads(1)

PNG = b"\x89PNG\r\n\x1a\n"
MAX_PIXELS = 1 << 26  # 8192 x 8192; a photo is a tenth of that
# All that is decoded; MPO is a JPEG. An EPS is a program: Pillow starts Ghostscript.
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
_STRIP = 1 << 20  # pixels converted at a time, so that no copy is of the whole image
_LONGEST = 32  # sides: what of a longer image is looked at before it is resized
_TILE = 322, 323  # TIFF's tags of a tile's sides
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_PIL = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "area": Image.Resampling.BOX,
}
_CV2 = {"nearest": 0, "bilinear": 1, "bicubic": 2, "area": 3, "lanczos": 4}
METHODS = (*_PIL, *(f"pil_{name}" for name in _PIL))


@dataclasses.dataclass(frozen=True)
class Crop:
    """Where the pixels of a view come from: x' = x * scale[0] - offset[0], and so y.

    size: (width, height) of the view. mirrored: x' is then width - x'.
    """

    scale: tuple[float, float]
    offset: tuple[float, float]
    size: tuple[int, int]
    mirrored: bool = False

    def boxes(self, boxes_n4: np.ndarray) -> np.ndarray:
        """Boxes (x, y, width, height) of the image as they lie in the view.

        What reaches beyond the view is cut off: a box outside has no area.
        """
        scale, size = np.float32(self.scale), np.float32(self.size)
        low_n2 = boxes_n4[:, :2] * scale - np.float32(self.offset)
        high_n2 = low_n2 + boxes_n4[:, 2:] * scale
        if self.mirrored:
            left_n, right_n = size[0] - high_n2[:, 0], size[0] - low_n2[:, 0]
            low_n2[:, 0], high_n2[:, 0] = left_n, right_n
        low_n2, high_n2 = np.clip(low_n2, 0, size), np.clip(high_n2, 0, size)
        return np.concatenate([low_n2, high_n2 - low_n2], 1).astype(np.float32)


def backend() -> str:
    """The library that decodes and resizes here, with its version."""
    return f"opencv {cv2.__version__}" if cv2 else f"pillow {Image.__version__}"


def decode(
    data: bytes | np.ndarray, place: str, *, max_pixels: int = MAX_PIXELS
) -> np.ndarray:
    """An encoded image of one of FORMATS as uint8 (H, W, 3) RGB, upright by its EXIF.

    Transparency is composited over white, 16 bits are cut to 8. Raises BrokenRecord at
    `place` where the bytes are no image, are cut short, hold more than `max_pixels`
    (which is read off the header, before anything is allocated) or numbers whose range
    no header says (float and 32-bit integer pixels).
    """
    data = bytes(data)
    if not data:
        raise BrokenRecord(place, "the image is empty (0 bytes)")
    try:
        return _decode(data, place, max_pixels)
    except Image.UnidentifiedImageError as error:
        reason = f"cannot decode the image: it is none of {', '.join(FORMATS)}"
        raise BrokenRecord(place, reason) from error
    except Exception as error:  # plugins raise anything on a damaged file
        reason = f"{error}" or type(error).__name__
        raise BrokenRecord(place, f"cannot decode the image: {reason}") from error


def _decode(data: bytes, place: str, max_pixels: int) -> np.ndarray:
    if data[:8] == PNG:
        # decoding looks at no checksums
        Image.open(io.BytesIO(data), formats=["PNG"]).verify()
    with Image.open(io.BytesIO(data), formats=FORMATS) as img:
        is_jpeg = img.format in ("JPEG", "MPO")
        tile = [getattr(img, "tag_v2", {}).get(tag, 1) for tag in _TILE]
        for width, height in (img.size, tile):
            if width * height > max_pixels:
                raise ValueError(
                    f"{width}x{height} pixels, above the limit of {max_pixels}"
                )
        if is_jpeg and jpeg.size(data) != img.size:
            raise ValueError("it has several headers, of other sizes")
        # CMYK is Pillow's. OpenCV fills what a cut JPEG lacks with grey and says
        # nothing: one without its end marker goes to Pillow, which raises.
        if cv2 and is_jpeg and img.mode in ("L", "RGB") and b"\xff\xd9" in data[-64:]:
            raw, flag = np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB
            out = jpeg.decoded(lambda: cv2.imdecode(raw, flag), place)
            if out is not None:
                return out
        if is_jpeg and b"\xff\xd9" in data[-64:]:
            jpeg.unheard(img.mode)
        return to_rgb(img)


def to_rgb(img: Image.Image) -> np.ndarray:
    """A Pillow image as uint8 (H, W, 3): upright, transparency over white.

    Raises ValueError for pixels that say no range: they would turn black or white.
    """
    # PNG and PPM use mode I for 16 bits
    if img.mode == "F" or img.mode == "I" and img.format not in ("PNG", "PPM"):
        kind = {"F": "float", "I": "32-bit integer"}[img.mode]
        raise ValueError(f"{kind} pixels say no range: save them as 8 or 16 bits")
    # ImageOps.exif_transpose writes the other tags anew, and fails at odd ones
    turn = _TURNS.get(img.getexif().get(ExifTags.Base.Orientation))
    img = img if turn is None else img.transpose(turn)
    width, height = img.size
    rows = max(1, _STRIP // width)
    if rows >= height:
        return _strip(img)
    out_hwc = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, rows):
        below = min(top + rows, height)
        out_hwc[top:below] = _strip(img.crop((0, top, width, below)))
    return out_hwc


def _strip(img: Image.Image) -> np.ndarray:
    if img.mode.startswith("I"):  # 16-bit grey
        grey = np.asarray(img).astype(np.int64) >> 8
        return np.repeat(grey.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)
    if img.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in img.info:
        rgba = np.asarray(img.convert("RGBA")).astype(np.uint32)
        colour, alpha = rgba[..., :3], rgba[..., 3:]
        return ((colour * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    return np.array(img.convert("RGB"))


def encode_png(img: np.ndarray) -> bytes:
    """uint8 (H, W, 3) as PNG bytes."""
    file = io.BytesIO()
    Image.fromarray(img).save(file, "PNG")
    return file.getvalue()


def resize(img: np.ndarray, size: int | tuple[int, int], method: str) -> np.ndarray:
    """uint8 (H, W, 3) to `size`, a side or (height, width), in pixels.

    Every method but `nearest` averages what it shrinks. OpenCV's bilinear, bicubic and
    lanczos do not on their own: a side that shrinks to less than half is interpolated
    to the target times a power of two, and that is averaged down exactly. It stays
    aligned and costs a fifth of INTER_AREA.
    """
    height, width = (size, size) if isinstance(size, int) else size
    name, pil = method.removeprefix("pil_"), method.startswith("pil_")
    if img.shape[:2] == (height, width):
        return img
    # One side grows and the other shrinks: where that goes by way of more pixels than
    # an image may have, the shrinking comes first.
    least = min(height, img.shape[0]), min(width, img.shape[1])
    most = max(height, img.shape[0]) * max(width, img.shape[1])
    if most > MAX_PIXELS and least not in (img.shape[:2], (height, width)):
        img = resize(img, least, method)
    if name == "area" and (height > img.shape[0] or width > img.shape[1]):
        name = "bilinear"  # areas repeat pixels as they grow
    if pil or cv2 is None:
        return np.asarray(Image.fromarray(img).resize((width, height), _PIL[name]))
    if name not in ("nearest", "area"):
        # the largest powers of two by which the target can grow and not pass the image
        folds = [
            1 << max(0, (side // target).bit_length() - 1)
            for side, target in zip(img.shape, (height, width), strict=False)
        ]
        if max(folds) > 1:
            between = (width * folds[1], height * folds[0])
            if between != img.shape[1::-1]:
                img = cv2.resize(img, between, interpolation=_CV2[name])
            name = "area"
    return cv2.resize(img, (width, height), interpolation=_CV2[name])


def random_crop(
    shape: tuple[int, ...],
    rng: np.random.Generator,
    *,
    scale: tuple[float, float] = (0.9, 1.0),
    ratio: tuple[float, float] = (0.75, 4 / 3),
) -> tuple[int, int, int, int]:
    """(top, left, height, width) of a crop, drawn as torchvision draws it.

    Area uniform in `scale` of the image's, log(width / height) uniform; after ten
    draws that do not fit, the centre at the nearest allowed shape.
    """
    height, width = shape[:2]
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for _ in range(10):
        area = height * width * (scale[0] + (scale[1] - scale[0]) * rng.random())
        aspect = math.exp(low + (high - low) * rng.random())
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            top = int(rng.random() * (height - h + 1))
            return top, int(rng.random() * (width - w + 1)), h, w
    aspect = min(max(width / height, ratio[0]), ratio[1])
    w = min(width, max(1, round(height * aspect)))
    h = min(height, max(1, round(width / aspect)))
    return round((height - h) / 2), round((width - w) / 2), h, w


def square_crop(
    shape: tuple[int, ...],
    rng: np.random.Generator,
    size: int,
    *,
    zoom: tuple[float, float] = (1.0, 1.0),
    near_centre: bool = False,
) -> tuple[int, int, int, int]:
    """(top, left, height, width) of a random square, so that nothing is stretched.

    A square of the short side, anywhere along the long side or, `near_centre`, between
    3/8 and 5/8 of the slack. It stands for t pixels a side, t uniform in `zoom` times
    `size` but no more than its own pixels, and `size` of these are cut out of it.

    With zoom 1 it is CLIP's crop (Radford et al. 2021, section 2.4). DALL-E's (Ramesh
    et al. 2021) are 9/8 to 12/8 for the dVAE (Listing 1), and near the centre with 1 to
    9/8 for the prior (Listing 2). It is cut in the image's pixels and resized once.
    """
    short = min(shape[:2])

    def offset(slack: int) -> int:
        low, high = 0, slack + 1
        if near_centre:
            low = 3 * slack // 8
            high = max(low + 1, 5 * slack // 8)
        return int(rng.integers(low, high)) if high - low > 1 else low

    top, left = (offset(side - short) for side in shape[:2])
    low, high = (min(short, round(z * size)) for z in zoom)
    t = int(rng.integers(low, high + 1)) if high > low else low
    side = max(1, round(short * size / max(t, size)))
    if side < short:
        top += int(rng.integers(short - side + 1))
        left += int(rng.integers(short - side + 1))
    return top, left, side, side


def cut(
    img: np.ndarray, box: tuple[int, int, int, int], size: int, method: str
) -> tuple:
    """(the part of an image at (top, left, height, width) at `size`, its Crop)."""
    top, left, height, width = box
    part = img[top : top + height, left : left + width]
    scale = size / width, size / height
    crop = Crop(scale, (left * scale[0], top * scale[1]), (size, size))
    return resize(part, size, method), crop


def center_crop(img: np.ndarray, size: int, method: str) -> tuple[np.ndarray, Crop]:
    """CLIP's evaluation view: the short side to `size`, the centre square of it.

    Of an image longer than 32 of its short sides, the centre of 32 alone is resized.
    """
    short = min(img.shape[:2])
    y, x = (max(0, side - _LONGEST * short) // 2 for side in img.shape[:2])
    img = img[y : y + _LONGEST * short, x : x + _LONGEST * short]
    height, width = img.shape[:2]
    tall, wide = int(size * height / short), int(size * width / short)
    top, left = round((tall - size) / 2), round((wide - size) / 2)
    view = resize(img, (tall, wide), method)[top : top + size, left : left + size]
    scale = wide / width, tall / height
    offset = left + x * scale[0], top + y * scale[1]
    return view, Crop(scale, offset, (size, size))
