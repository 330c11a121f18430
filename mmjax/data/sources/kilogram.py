"""KiloGram: tangrams, and what people call their seven pieces: `kilogram:/d/kilogram`.

Ji et al. 2022; the folder holds the dense annotations as one .npz (image, part_map,
tangram) and one .jsonl.gz (tangram, whole, parts) beside it.
"""

import pathlib
from typing import Any

import numpy as np

from mmjax.data import records
from mmjax.data.records import Record
from mmjax.data.sources import encoded, jsonl, npz
from mmjax.errors import UserError

PIECES, GRID = 7, 8  # pieces of a tangram; cells a side of a piece's occupancy


def open(path: str) -> "Kilogram":
    """A record an annotation: `image`, the whole shape's phrase as text, its label.

    Also `boxes` (7, 4) of the pieces, `phrases`, one for each, and `regions` float32
    (7, 73): the share of each cell of an 8 x 8 grid over the tangram that a piece
    fills, its area's root, whose piece of the game it is, and a 1. The key begins with
    the tangram's name, so that `part=train&group=_` splits by tangrams.
    """
    folder = encoded.existing(path, "folder")
    names = {end: sorted(folder.glob(f"*{end}")) for end in (".npz", ".jsonl.gz")}
    if any(len(files) != 1 for files in names.values()):
        counts = ", ".join(f"{len(files)} {end}" for end, files in names.items())
        raise UserError(f"{folder} holds {counts}: kilogram data are one of each")
    return Kilogram(names[".npz"][0], names[".jsonl.gz"][0])


class Kilogram:
    """See `open`."""

    def __init__(self, shapes: pathlib.Path, notes: pathlib.Path):
        arrays = npz.read(shapes)
        missing = {"image", "part_map", "tangram"} - arrays.keys()
        if missing:
            raise UserError(f"{shapes} has no array {min(missing)}: it has {[*arrays]}")
        self.name, self.files = f"kilogram:{shapes.parent}", (shapes, notes)
        self.class_names = tuple(arrays["tangram"].tolist())
        self.notes = [row.fields for row in jsonl.rows(notes)]
        for line, note in enumerate(self.notes, 1):
            if sorted(note.get("parts", ())) != [str(k + 1) for k in range(PIECES)]:
                raise UserError(f"{notes} line {line}: parts are not 1 to {PIECES}")
        self.tangrams = [
            {
                "image": np.repeat(image[..., None], 3, -1),
                "boxes": np.stack([_box(part_map == k + 1) for k in range(PIECES)]),
                "regions": described(part_map),
            }
            for image, part_map in zip(arrays["image"], arrays["part_map"], strict=True)
        ]

    def __len__(self) -> int:
        return len(self.notes)

    def __getitem__(self, i: int) -> Record:
        i = records.position(i, len(self))
        note, label = self.notes[i], int(self.notes[i]["tangram"])
        phrases = [note["parts"][str(k + 1)] for k in range(PIECES)]
        named: dict[str, Any] = {"text": [note["whole"]], "phrases": phrases}
        key = f"{self.class_names[label]}_{i}"
        return {**self.tangrams[label], **named, "label": label, "key": key}

    def texts(self) -> Any:
        """See mmjax.data.records.Source."""
        return records.texts(lambda i: [self.notes[i]["whole"]], len(self))

    def fingerprint(self) -> str:
        """See mmjax.data.records.Source."""
        shapes = [t["regions"].sum().item() for t in self.tangrams]
        return records.digest("kilogram", self.class_names, self.notes, shapes)


def _box(inside_hw: np.ndarray) -> np.ndarray:
    """x, y, width, height of the pixels that are True."""
    y, x = np.nonzero(inside_hw)
    low, high = np.array([x.min(), y.min()]), np.array([x.max(), y.max()]) + 1
    return np.concatenate([low, high - low]).astype(np.float32)


def described(part_map_hw: np.ndarray) -> np.ndarray:
    """`regions` of a tangram, float32 (7, 73), see `open`."""
    left, top, width, height = _box(part_map_hw > 0)
    y, x = np.nonzero(part_map_hw)
    piece = part_map_hw[y, x].astype(int) - 1
    side = max(width, height)
    cell = [((c - low) / side * GRID).astype(int) for c, low in ((y, top), (x, left))]
    counts = np.zeros((PIECES, GRID, GRID))
    np.add.at(counts, (piece, *cell), 1)
    counts /= (side / GRID) ** 2
    area = counts.sum((1, 2)) ** 0.5
    parts = (
        counts.reshape(PIECES, -1),
        area[:, None],
        np.eye(PIECES),
        np.ones((PIECES, 1)),
    )
    return np.concatenate(parts, 1).astype(np.float32)
