"""Frozen features of a source's images and of regions of them, for `mmjax embed`.

Once saved, the arrays are records of their own: `npz:FILE?text=captions&key=key` gives
values for fields of kind `vector` and `sequence`.

Legend: n records, r regions of one, f features, b rows of a call, h w cells of a map.
"""

import dataclasses
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tqdm

from mmjax.data import image
from mmjax.data.records import BrokenRecord, Record, Source
from mmjax.errors import UserError
from mmjax.inference.load import Run

KINDS = "whole, cells:SIDE, boxes, search:COUNT"
_DISTINCT = 0.7  # boxes of selective search that overlap by more are one


@dataclasses.dataclass(frozen=True)
class Regions:
    """Which regions of an image have features.

    spec: one of these, or several with commas between: `whole`; `cells:SIDE`, the tiles
      of a square grid, row by row; `boxes`, those of the record; `search:COUNT`, the
      largest distinct ones of selective search (Uijlings et al. 2013), as in R-CNN.
    crop: whether the network sees a region alone, stretched to a square, as in R-CNN
      (Girshick et al. 2014). Otherwise a region is the mean of the last feature map
      over its area, one pass for all of them.
    """

    spec: str
    crop: bool = False

    def __post_init__(self) -> None:
        for part in self.spec.split(","):
            kind, _, number = part.partition(":")
            counted = kind in ("cells", "search")
            known = part in ("whole", "boxes") or counted and number.isdecimal()
            if not known or counted and not 1 <= int(number) <= 64:
                raise UserError(
                    f"regions {part!r}: use one of {KINDS}, with a number from 1 to 64"
                )

    def boxes(self, record: Record) -> np.ndarray:
        """float32 (r, 4), x y width height in pixels of the record's image."""
        parts = (part.partition(":") for part in self.spec.split(","))
        return np.concatenate(
            [_boxes(kind, int(n or 0), record) for kind, _, n in parts]
        )


def _boxes(kind: str, number: int, record: Record) -> np.ndarray:
    if kind == "search":
        return searched(record["image"], number)
    if kind != "boxes":
        return cells(record["image"].shape, number or 1)
    if "boxes" not in record:
        raise UserError(
            f"record {record['key']} has no boxes, only {sorted(record)}: give a "
            f"source with boxes, or regions of another kind ({KINDS})"
        )
    return np.asarray(record["boxes"], np.float32).reshape(-1, 4)


def searched(pixels: np.ndarray, count: int) -> np.ndarray:
    """The largest `count` boxes of selective search, float32 (r, 4), r <= count."""
    import cv2

    if not hasattr(cv2, "ximgproc"):
        raise UserError(
            f"regions search:{count} need OpenCV's ximgproc, and {cv2.__version__} "
            "here is without: pip install opencv-contrib-python-headless in its place, "
            "or use cells:SIDE"
        )
    search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(np.ascontiguousarray(pixels[..., ::-1]))
    search.switchToSelectiveSearchFast()
    found = np.asarray(search.process(), np.float32).reshape(-1, 4)
    kept: list[np.ndarray] = []  # by area alone: its own order is drawn at random
    for box in found[np.lexsort((*found.T, -found[:, 2] * found[:, 3]))]:
        if len(kept) < count and all(
            _overlap(box, other) < _DISTINCT for other in kept
        ):
            kept.append(box)
    return np.asarray(kept, np.float32).reshape(-1, 4)


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes."""
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[:2] + a[2:], b[:2] + b[2:])
    shared = np.maximum(high - low, 0).prod()
    return float(shared / max(a[2:].prod() + b[2:].prod() - shared, 1e-12))


def cells(shape: tuple[int, ...], side: int) -> np.ndarray:
    """The tiles of an image of (height, width, ...), float32 (side^2, 4), by rows."""
    size_2 = np.array([shape[1], shape[0]]) / side
    row, column = np.divmod(np.arange(side * side), side)
    corner_r2 = np.stack([column, row], 1) * size_2
    boxes_r4 = np.concatenate([corner_r2, np.tile(size_2, (len(row), 1))], 1)
    return boxes_r4.astype(np.float32)


def pooled(map_hwf: np.ndarray, boxes_r4: np.ndarray, size: int) -> np.ndarray:
    """Means of a map over boxes of an image of `size` pixels a side, (r, f).

    Cells weigh as much as they share with the box; a box without an area has zeros.
    """

    def weights(low_r: np.ndarray, high_r: np.ndarray, count: int) -> np.ndarray:
        edge = np.arange(count + 1) * (size / count)
        shared = np.minimum(high_r[:, None], edge[1:])
        return np.maximum(shared - np.maximum(low_r[:, None], edge[:-1]), 0)

    low, high = boxes_r4[:, :2], boxes_r4[:, :2] + boxes_r4[:, 2:]
    h, w, f = map_hwf.shape
    x_rw, y_rh = weights(low[:, 0], high[:, 0], w), weights(low[:, 1], high[:, 1], h)
    area_rc = (y_rh[:, :, None] * x_rw[:, None, :]).reshape(-1, h * w)
    area_rc /= np.maximum(area_rc.sum(1, keepdims=True), 1e-12)
    return area_rc.astype(np.float32) @ map_hwf.reshape(-1, f)


def of_records(
    run: Run, source: Source, regions: Regions | None = None
) -> tuple[dict[str, np.ndarray], list[BrokenRecord]]:
    """Arrays with a row for each record, in order, and the broken records.

    features float32 (n, f); key; captions (n, k), and label where records have these.
    With regions of equal number, also regions float16 (n, r, f) and boxes float32
    (n, r, 4), in pixels of the record's image; of other numbers, all of them in one
    array beside NAME_offsets, as npz sources read them.

    Raises:
      UserError: the run gives no such features, records have no images or boxes, or all
        are broken.
    """
    name = "feature_map" if regions and not regions.crop else "features"
    if not {name, "features"} <= run.parts.predict.keys() or not run.parts.image_cfg:
        raise UserError(
            f"{run.workdir} is a run of task {run.config.task.name}, which has no "
            f"{name} of images: give a classifier or a dual encoder"
        )
    columns: dict[str, list[Any]] = {}
    broken: list[BrokenRecord] = []
    rows = max(1, min(run.parts.cfg.batch_size, 256))
    bar = tqdm.tqdm(total=len(source), unit="img", file=sys.stderr, mininterval=5.0)
    with bar:
        for chunk in _chunks(source, rows, broken, bar):
            for values in _features(run, chunk, regions, rows):
                for key, value in values.items():
                    columns.setdefault(key, []).append(value)
    if not columns:
        raise UserError(f"{source.name}: all of {len(broken)} records are broken")
    if not any(columns["captions"]):
        del columns["captions"]
    arrays: dict[str, np.ndarray] = {}
    for key, values in columns.items():
        arrays |= _joined(key, values)
    if source.class_names:
        arrays["class_names"] = np.asarray(source.class_names)
    return arrays, broken


def _chunks(
    source: Source, rows: int, broken: list[BrokenRecord], bar: Any
) -> Iterator[list[Record]]:
    """Records in lists of at most `rows`; the broken ones are added to `broken`."""
    chunk: list[Record] = []
    for i in range(len(source)):
        try:
            record = source[i]
        except BrokenRecord as error:
            broken.append(error)
            continue
        finally:
            bar.update()
        if "image" not in record:
            raise UserError(
                f"{source.name}: record {record['key']} has no image, only "
                f"{sorted(record)}: give a source of images"
            )
        chunk.append(record)
        if len(chunk) == rows:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _features(
    run: Run, chunk: list[Record], regions: Regions | None, rows: int
) -> Iterator[dict[str, Any]]:
    """What is kept of each record."""
    field, variables = run.parts.image_cfg, run.state.eval_vars()

    def call(name: str, pixels: list[np.ndarray]) -> Any:
        padded = np.stack(pixels + pixels[:1] * (rows - len(pixels)))
        return run.parts.predict[name](variables, {"image": padded})

    views = [field.view(record["image"], None) for record in chunk]
    pixels, maps = [view for view, _ in views], None
    if regions is None or regions.crop:
        features = call("features", pixels)
    else:
        out = call("feature_map", pixels)
        features, maps = out["features"], np.asarray(out["map"])
    boxes = [regions.boxes(record) for record in chunk] if regions else []
    if boxes and regions.crop:
        cropped = _crops(chunk, boxes, field, lambda p: call("features", p), rows)
    for i, record in enumerate(chunk):
        row = {"features": np.asarray(features[i], np.float32), "key": record["key"]}
        row |= {"captions": record["text"]}
        row |= {"label": record["label"]} if "label" in record else {}
        if boxes:
            if regions.crop:
                found = cropped[i]
            else:
                found = pooled(maps[i], views[i][1].boxes(boxes[i]), field.size)
            row |= {"regions": found.astype(np.float16), "boxes": boxes[i]}
        yield row


def _crops(
    chunk: list[Record],
    boxes: list[np.ndarray],
    field: Any,
    call: Callable[[list[np.ndarray]], Any],
    rows: int,
) -> list[np.ndarray]:
    """Features of each record's boxes, cut out and stretched to a square."""
    parts = []
    for record, boxes_r4 in zip(chunk, boxes, strict=True):
        height, width = record["image"].shape[:2]
        for x, y, w, h in boxes_r4:
            left, top = min(max(int(x), 0), width - 1), min(max(int(y), 0), height - 1)
            right, bottom = min(round(x + w), width), min(round(y + h), height)
            box = top, left, max(bottom - top, 1), max(right - left, 1)
            parts.append(image.cut(record["image"], box, field.size, field.method)[0])
    out = [np.asarray(call(parts[s : s + rows])) for s in range(0, len(parts), rows)]
    flat = np.concatenate(out)[: len(parts)] if out else np.zeros((0, 1))
    return np.split(flat, np.cumsum([len(b) for b in boxes])[:-1])


def _joined(name: str, values: list[Any]) -> dict[str, np.ndarray]:
    """One array of all records' values; with offsets where their lengths differ."""
    series = isinstance(values[0], list) or np.ndim(values[0]) > 1
    if not series or len({len(value) for value in values}) == 1:
        return {name: np.stack([np.asarray(value) for value in values])}
    offsets = np.cumsum([0, *map(len, values)])
    flat = [np.asarray(value) for value in values if len(value)]
    return {name: np.concatenate(flat), f"{name}_offsets": offsets}
