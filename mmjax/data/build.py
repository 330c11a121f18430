"""`mmjax data build`: data sets written as ArrayRecord, by TFDS without TensorFlow."""

from __future__ import annotations

import contextlib
import difflib
import gzip
import pathlib
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core import shuffle
from tensorflow_datasets.core.download import checksums, download_manager

from mmjax.data.pipeline import BrokenBudget
from mmjax.data.records import BrokenRecord, Source
from mmjax.data.sources import open_source, views
from mmjax.errors import UserError

FORMAT = "array_record"
_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_MNIST_URL = "https://storage.googleapis.com/cvdf-datasets/mnist/"
_MNIST_FILES = {"train": "train", "test": "t10k"}


class CaptionedImages(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Captioned images out of any of our sources, their bytes kept as they are.

    Features: `image`, `key`, `captions` (a sequence of text) where there are any, and
    `label` where every split has the same class names.
    """

    VERSION = tfds.core.Version("1.0.0")
    pkg_dir_path = None

    def __init__(
        self, *, splits: Mapping[str, Source], max_broken: float = 0.01, **kwargs: Any
    ):
        self.splits, self.max_broken = splits, max_broken
        names = {source.class_names for source in splits.values()}
        self.class_names = names.pop() if len(names) == 1 else ()
        self.captioned = any(any(True for _ in s.texts()) for s in splits.values())
        super().__init__(file_format=FORMAT, **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": tfds.features.Image(shape=(None, None, None)),
            "key": tfds.features.Text(),
        }
        if self.captioned:
            features["captions"] = tfds.features.Sequence(tfds.features.Text())
        if self.class_names:
            features["label"] = tfds.features.ClassLabel(names=[*self.class_names])
        return tfds.core.DatasetInfo(
            builder=self,
            description="Captioned images, written by mmjax.",
            features=tfds.features.FeaturesDict(features),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {k: self._generate_examples(s) for k, s in self.splits.items()}

    def _generate_examples(
        self, source: Source
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        budget = BrokenBudget(self.max_broken)
        for i in range(len(source)):
            try:
                record = source[i]
                data = views.encoded(source, i)
            except BrokenRecord as error:
                budget.add(1, 1, [error])
                continue
            budget.add(1, 0, [])
            out = {"image": data, "key": record["key"]}
            if self.captioned:
                out["captions"] = record["text"]
            if self.class_names:
                out["label"] = record["label"]
            yield i, out


class MmjaxMnist(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """MNIST from its four files, checked against TFDS's own sha256 of them."""

    name = "mmjax_mnist"
    VERSION = tfds.core.Version("1.0.0")
    pkg_dir_path = None
    url_infos = checksums.load_url_infos(
        tfds.core.tfds_path() / "url_checksums" / "mnist.txt"
    )

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": tfds.features.Image(shape=(28, 28, 1)),
            "label": tfds.features.ClassLabel(num_classes=10),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="The MNIST database of handwritten digits.",
            features=tfds.features.FeaturesDict(features),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        out = {}
        for split, prefix in _MNIST_FILES.items():
            names = f"{prefix}-images-idx3-ubyte.gz", f"{prefix}-labels-idx1-ubyte.gz"
            paths = [dl_manager.download(_MNIST_URL + name) for name in names]
            out[split] = self._generate_examples(*paths)
        return out

    def _generate_examples(
        self, images: Any, labels: Any
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        pairs = zip(read_idx(images), read_idx(labels), strict=True)
        for i, (pixels, label) in enumerate(pairs):
            yield i, {"image": Image.fromarray(pixels), "label": int(label)}


def read_idx(path: str | pathlib.Path) -> np.ndarray:
    """A gzipped IDX file of bytes: uint8, of the shape in its header."""
    with gzip.open(path) as file:
        data = file.read()
    rank = data[3]
    shape = np.frombuffer(data, ">i4", count=rank, offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(shape)


def build(
    splits: Mapping[str, str | Mapping[str, Any]],
    data_dir: str | pathlib.Path,
    *,
    name: str,
    max_broken: float = 0.01,
) -> pathlib.Path:
    """Writes sources as one data set; its folder, readable as `tfds:name/split`.

    Args:
      splits: split name -> source spec.
      data_dir: the folder that holds data sets, one a folder.
      name: of the data set, in lower case with underscores.
      max_broken: share of broken records, left out, at which it ends in a UserError.

    UserError where the data set is there already.
    """
    if not _NAME.fullmatch(name):
        raise UserError(f"data set name {name!r}: use lower case, digits, underscores")
    opened = {split: open_source(spec) for split, spec in splits.items()}
    members = {"name": name, "__module__": __name__}
    kind = type(CaptionedImages)(
        name, (CaptionedImages,), members, skip_registration=True
    )
    builder = kind(data_dir=str(data_dir), splits=opened, max_broken=max_broken)
    return _prepare(builder, tfds.download.DownloadConfig())


def mnist(
    data_dir: str | pathlib.Path, *, manual_dir: str | pathlib.Path
) -> pathlib.Path:
    """Prepares MNIST from `manual_dir`, offline; readable as `tfds:mmjax_mnist/train`.

    manual_dir holds the four original files; each must have the sha256 that TFDS has
    registered for it. UserError names one that is missing or differs.
    """
    for prefix in _MNIST_FILES.values():
        for part in ("images-idx3", "labels-idx1"):
            path = pathlib.Path(manual_dir, f"{prefix}-{part}-ubyte.gz")
            if not path.exists():
                raise UserError(
                    f"{path} is missing: get it from {_MNIST_URL}{path.name}"
                )
    config = tfds.download.DownloadConfig(manual_dir=str(manual_dir))
    return _prepare(MmjaxMnist(data_dir=str(data_dir), file_format=FORMAT), config)


def builtin(
    name: str, data_dir: str | pathlib.Path, *, manual_dir: str | pathlib.Path | None
) -> pathlib.Path:
    """Prepares one of TFDS's own data sets as ArrayRecord.

    Most need TensorFlow for that, once; reading never does. UserError names the extra.
    """
    try:
        builder = tfds.builder(
            name, data_dir=str(data_dir), file_format=FORMAT, try_gcs=False
        )
        manual = str(manual_dir) if manual_dir else None
        return _prepare(builder, tfds.download.DownloadConfig(manual_dir=manual))
    except tfds.core.DatasetNotFoundError:
        known = tfds.list_builders(with_community_datasets=False)
        near = difflib.get_close_matches(name, known, n=1)
        hint = f": did you mean {near[0]!r}?" if near else ""
        raise UserError(f"TFDS has no data set {name!r}{hint}") from None
    except Exception as error:  # TFDS wraps the ImportError in several kinds
        missing = re.search(r"No module named '(tensorflow|pydub|pandas)", str(error))
        if not missing:
            raise
        raise UserError(
            f"preparing {name} needs {missing[1]}, which is not installed: "
            "pip install 'mmjax[tf]'"
        ) from error


def _prepare(builder: tfds.core.DatasetBuilder, config: Any) -> pathlib.Path:
    folder = pathlib.Path(builder.data_dir)
    if folder.exists():  # TFDS would take it, whatever it was made of
        raise UserError(
            f"{folder} is there already, and nothing was built: delete it, or give "
            "the new data set another name"
        )
    try:
        with _in_memory():
            builder.download_and_prepare(download_config=config)
    except download_manager.NonMatchingChecksumError as error:
        raise UserError(
            f"{builder.name}: a file is not the registered one. {error}"
        ) from None
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error}") from None
    return folder


@contextlib.contextmanager
def _in_memory() -> Iterator[None]:
    """TFDS shuffles splits above 1 GB through TensorFlow's files; here in memory."""
    limit, shuffle.MAX_MEM_BUFFER_SIZE = shuffle.MAX_MEM_BUFFER_SIZE, sys.maxsize
    try:
        yield
    finally:
        shuffle.MAX_MEM_BUFFER_SIZE = limit
