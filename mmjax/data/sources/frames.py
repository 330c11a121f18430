"""Short videos as frames: `frames:/d/clips?label=parent`, a folder of images a clip.

`frames:npz:/d/lips.npz?height=30` cuts the images of another source, strips of frames
one below the other, into frames; width=100&gap=50 cuts frames that stand side by side,
with 50 pixels between them. With options of its own, that source is written
{"kind": "frames", "source": "npz:/d/lips.npz?label=letter", "height": 30}.
"""

import collections
import os
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from mmjax.data import image, records
from mmjax.data.records import BrokenRecord, Record, Source
from mmjax.data.sources import encoded, folder, views
from mmjax.errors import UserError


def open(
    path: str = "",
    source: str | Mapping[str, Any] = "",
    height: int = 0,
    width: int = 0,
    gap: int = 0,
    label: str = "none",
) -> Source:
    """Records with `frames` uint8 (N, H, W, 3).

    source: the source of strips, in place of a path. height, width: of a frame in a
    strip, in pixels; one of them. gap: pixels between frames. label: of a folder of
    clips, as in folder.
    """
    from mmjax.data.sources import open_source  # it imports this module

    if bool(path) == bool(source):
        raise UserError("frames need either a path or a source of strips")
    if not source and not height and not width:
        return Clips(encoded.existing(path, "folder of clips"), label)
    if max(height, 0) + max(width, 0) < 1 or (height and width) or gap < 0:
        raise UserError(
            f"frames of {source or path} have height {height}, width {width} and gap "
            f"{gap}: give height= or width=, not both, and a gap of 0 pixels or more"
        )
    return Strips(open_source(source or path), height or width, bool(width), gap)


class Strips(views.View):
    """A source whose images are cut into frames of a height, or of a width."""

    def __init__(self, source: Source, size: int, across: bool, gap: int):
        super().__init__(source)
        self.made = size, across, gap
        self.name = f"frames:{source.name}"

    def __getitem__(self, i: int) -> Record:
        record, (size, across, gap) = dict(self.source[i]), self.made
        strip = record.pop("image")
        strip = strip.swapaxes(0, 1) if across else strip
        count, left = divmod(len(strip) + gap, size + gap)
        if left:
            term = "columns" if across else "rows"
            reason = f"a strip of {len(strip)} {term} has no frames of {size}"
            raise BrokenRecord(f"{self.name}, record {record['key']}", reason)
        starts = np.arange(count) * (size + gap)
        frames = strip[starts[:, None] + np.arange(size)]
        return {**record, "frames": frames.swapaxes(1, 2) if across else frames}

    def fingerprint(self) -> str:
        size, *more = self.made
        made = size, *(more if any(more) else ())
        return records.digest("frames", self.source.fingerprint(), *made)


class Clips(folder.Folder):
    """Folders that hold images, each a clip, in the order of their paths."""

    KIND, TERM = "frames", "folders with images"

    def listed(self) -> list[str]:
        files, self.left_out = folder.walk(self.root, self.SUFFIXES)
        self.images: dict[str, list[str]] = collections.defaultdict(list)
        for file in files:
            place, name = os.path.split(file)
            self.images[place or "."].append(name)
        for names in self.images.values():
            names.sort(key=_natural)
        return sorted(self.images)

    def contents(self) -> list[str]:
        return [os.path.join(c, name) for c in self.files for name in self.images[c]]

    def decode(self, i: int, place: str) -> dict[str, Any]:
        clip = self.files[i]
        paths = [self.root / clip / name for name in self.images[clip]]
        frames = [image.decode(encoded.read_file(p, place), str(p)) for p in paths]
        shapes = sorted({frame.shape[:2] for frame in frames})
        if len(shapes) > 1:
            raise BrokenRecord(place, f"its frames are of unlike sizes: {shapes}")
        return {"frames": np.stack(frames)}


def _natural(name: str) -> list[tuple[int, str]]:
    """A sort key by which frame 2 comes before frame 10."""
    parts = re.split(r"(\d+)", name)
    return [(int(p), "") if p.isdecimal() else (-1, p) for p in parts]
