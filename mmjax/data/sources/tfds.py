"""A prepared TFDS data set, read without TensorFlow: `tfds:NAME/SPLIT?data_dir=DIR`.

It must be stored as ArrayRecord. `mmjax data build` writes such sets; a built-in one is
prepared with `tfds.builder(NAME, file_format="array_record").download_and_prepare()`,
which for many builders needs TensorFlow: the extra `tf`.
"""

from __future__ import annotations

import contextlib
import functools
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from mmjax import errors, schema
from mmjax.data import content, records
from mmjax.data import image as images
from mmjax.data.records import BrokenRecord
from mmjax.data.sources import encoded
from mmjax.errors import UserError

READABLE = ("array_record", "parquet")
INSTALL = "pip install 'mmjax[tf]'"


def open(
    name: str,
    data_dir: str = "",
    image: str = "image",
    text: str = "",
    label: str = "",
    boxes: str = "",
) -> Prepared:
    """A split of a prepared set: `name` is NAME/SPLIT, such as mnist/train[:9%].

    NAME may carry a config and a version (`coco/2017/1.1.0`). data_dir: default is
    $TFDS_DATA_DIR or ~/tensorflow_datasets. image, text, label, boxes: feature names;
    text takes several, comma separated (default: `captions`, `caption` or `text` when
    there is one), label may stay empty where the set has a feature `label`, boxes is a
    BBox sequence, [ymin, xmin, ymax, xmax] in shares of the image's sides.
    """
    base, slash, split = name.rpartition("/")
    if not slash or not base or not split:
        raise UserError(f"tfds data {name!r}: write NAME/SPLIT, such as mnist/train")
    home = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    folder = find(base, pathlib.Path(home).expanduser())
    return Prepared(folder, split, image=image, text=text, label=label, boxes=boxes)


def find(name: str, data_dir: pathlib.Path) -> pathlib.Path:
    """The folder of the set's newest version; UserError where none is prepared."""
    base, folders = data_dir / name, []
    for depth in ("", "*/", "*/*/"):
        folders = folders or [i.parent for i in base.glob(f"{depth}dataset_info.json")]
    if not folders:
        infos = [
            info
            for depth in ("*/*", "*/*/*")
            for info in data_dir.glob(f"{depth}/dataset_info.json")
        ]
        have = sorted({info.parts[len(data_dir.parts)] for info in infos})
        raise UserError(
            f"no data set prepared at {base} (there: {', '.join(have) or 'none'}). "
            f"Prepare it with `mmjax data build`, or a built-in one with `{INSTALL}` "
            f'and tfds.builder({name!r}, file_format="array_record")'
            ".download_and_prepare()"
        )
    configs = {folder.parent for folder in folders}
    if len(configs) > 1:
        say = ", ".join(sorted(str(c.relative_to(data_dir)) for c in configs))
        raise UserError(f"{base} holds several configurations: name one of {say}")
    return max(folders, key=lambda folder: _version(folder.name))


def _version(name: str) -> tuple[int, ...]:
    return tuple(int(part) for part in name.split(".") if part.isdecimal())


class Prepared(encoded.Encoded):
    """Records of a prepared set, by the names of its features."""

    covers = content.COVERS

    def __init__(
        self,
        folder: pathlib.Path,
        split: str,
        *,
        image: str,
        text: str,
        label: str,
        boxes: str,
    ):
        import tensorflow_datasets as tfds  # 0.4 s, for this kind alone

        self.args = (folder, split)
        self.names = {"image": image, "text": text, "label": label, "boxes": boxes}
        for path in folder.iterdir():  # a pipe or a device may never end
            if not path.is_dir() and (reason := errors.plain(path)):
                raise UserError(f"cannot read {path}: {reason}")
        with _readable(folder), _known_features():
            builder = tfds.builder_from_directory(folder)
        stored = builder.info.file_format.value
        if stored not in READABLE:
            raise UserError(
                f"{folder} is stored as {stored}, which needs TensorFlow to read: "
                f'prepare it again with file_format="array_record" ({INSTALL})'
            )
        features = builder.info.features
        self._require(features, folder)
        raw = {image: tfds.decode.SkipDecoding()}  # our decoder checks the bytes
        say = ", ".join(builder.info.splits)
        with _readable(folder, f"split {split!r}, where it has {say}: "):
            self.data = builder.as_data_source(split, decoders=raw)
            self.length = len(self.data)
        self.name = f"tfds:{builder.info.full_name}/{split}"
        auto = [name for name in encoded.AUTO.split(",") if name in features]
        self.caption_fields = text or (auto[0] if auto else "")
        self.label = label or ("label" if "label" in features else "")
        if self.label:
            feature = features[self.label]
            if not isinstance(feature, tfds.features.ClassLabel):
                raise UserError(f"{folder}: {self.label!r} is no ClassLabel: {feature}")
            self.class_names = tuple(feature.names)
            self._check_names(folder)
        if text:
            self.check_fields()

    def __reduce__(self):  # the data source is opened again
        return functools.partial(type(self), *self.args, **self.names), ()

    def _check_names(self, folder: pathlib.Path) -> None:
        """A line lost or added in the file of names would rename every later class."""
        from tensorflow_datasets.core.features.feature import FeatureConnector

        described = schema.read_json(folder / "features.json")
        with _readable(folder), _known_features():
            count = FeatureConnector.from_json(described)[self.label].num_classes
        if count is not None and count != len(self.class_names):
            raise UserError(
                f"{folder}: {self.label}.labels.txt names {len(self.class_names)} "
                f"classes, and features.json has {count}: put back a copy of them"
            )

    def _require(self, features: Mapping[str, Any], folder: pathlib.Path) -> None:
        for role, value in self.names.items():
            for name in filter(None, value.split(",")):
                if name.split(".")[0] not in features:
                    raise UserError(
                        f"{folder} has no feature {name!r} for {role}: it has "
                        f"{', '.join(sorted(features))}; name one with {role}="
                    )

    def place(self, i: int) -> str:
        return f"{self.args[0]}, {self.args[1]} record {i}"

    def encoded(self, i: int) -> bytes:
        return self._row(i)[self.names["image"]]

    def fields(self, i: int) -> Mapping[str, Any]:
        return self._named(self._row(i), i)

    def _row(self, i: int) -> Mapping[str, Any]:
        try:
            return self.data[i]
        except Exception as error:  # of a damaged chunk or example, whatever TFDS met
            reason = str(error).partition("; ")[0] or type(error).__name__
            raise BrokenRecord(self.place(i), f"cannot be read: {reason}") from None

    def _named(self, row: Mapping[str, Any], i: int) -> dict[str, Any]:
        out = {k: _listed(v) for k, v in row.items() if k != self.names["image"]}
        if self.label:
            out["label"] = int(row[self.label])
            if not -1 <= out["label"] < len(self.class_names):
                reason = f"label {out['label']} of {len(self.class_names)} classes"
                raise BrokenRecord(self.place(i), reason)
        for name in ("key", "id", "tfds_id", "image/filename"):
            if isinstance(out.get(name), bytes):
                return {**out, "key": out[name].decode("utf-8", "replace")}
        return {**out, "key": str(i)}

    def __getitem__(self, i: int) -> records.Record:
        i = records.position(i, self.length)
        row, place = self._row(i), self.place(i)
        fields = self._named(row, i)
        pixels = images.decode(row[self.names["image"]], place)
        texts = self._texts_of(fields, place)
        out = records.Record(image=pixels, text=texts, key=fields["key"])
        if self.class_names:
            out["label"] = fields["label"]
        if self.names["boxes"]:
            out["boxes"] = _pixels(row[self.names["boxes"]], pixels.shape)
        return out

    def fingerprint(self) -> str:
        files = sorted(path for path in self.args[0].iterdir() if path.is_file())
        names = [path.name for path in files]
        return records.digest(
            "tfds", names, content.sums(files), self.args[1], self.names
        )


@contextlib.contextmanager
def _readable(folder: pathlib.Path, more: str = "") -> Iterator[None]:
    """UserError for whatever TFDS raises of a set that is damaged."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UserError(
            f"cannot read {folder}: {more}{reason}. Where it is damaged, build it again"
        ) from None


@contextlib.contextmanager
def _known_features() -> Iterator[None]:
    """TFDS imports whatever `features.json` names; here only what is imported."""
    from tensorflow_datasets.core.features.feature import FeatureConnector

    whole = vars(FeatureConnector)["cls_from_name"]

    def named(name: str) -> Any:
        if name not in FeatureConnector._registered_features:
            raise UserError(
                f"features.json names {name!r}, and only features that are imported "
                "already are read: TFDS's own, or import that module first"
            )
        return whole.__get__(None, FeatureConnector)(name)

    FeatureConnector.cls_from_name = staticmethod(named)
    try:
        yield
    finally:
        FeatureConnector.cls_from_name = whole


def _listed(value: Any) -> Any:
    """Sequences of text as lists, and the text inside sequences of mappings too."""
    if isinstance(value, Mapping):
        return {name: _listed(inner) for name, inner in value.items()}
    if isinstance(value, np.ndarray) and value.dtype.kind in "OSU":
        return value.tolist()
    return value


def _pixels(boxes: Any, shape: tuple[int, ...]) -> np.ndarray:
    """TFDS boxes as float32 (N, 4): (x, y, width, height) in pixels."""
    height, width = shape[:2]
    top, left, bottom, right = np.asarray(boxes, np.float32).reshape(-1, 4).T
    return np.stack(
        [left * width, top * height, (right - left) * width, (bottom - top) * height], 1
    )
