"""`mmjax data get`: public sets as their makers give them, to the files configs read.

What the reader downloaded and unpacked is checked and converted; nothing is fetched,
since the sets have terms of use. Output goes below $MMJAX_DATA.
"""

import collections
import dataclasses
import gzip
import hashlib
import importlib.resources
import io
import json
import pathlib
import shutil
import tarfile
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from mmjax import errors, schema
from mmjax.data import image as image_lib
from mmjax.data.records import BrokenRecord
from mmjax.errors import UserError

_SPLITS = ("train", "dev", "test")  # of Flickr8k
_SIDE, _QUALITY, _SHARD = 128, 80, 1000  # of Flickr8k: pixels, JPEG, records
_ROWS = 10_000  # records of a file of CIFAR-10
_CIFAR = 1 + 3 * 32 * 32  # bytes of a record: its label, then its planes
_FRAMES, _MOST = ("00015", "00029"), 30  # of GTSRB: frames of a track, crops of a class


@dataclasses.dataclass(frozen=True)
class Set:
    """A set's public home, what FOLDER has to hold, and the function that converts it.

    convert: (places of `files`, folder to write) -> names of the files written.
    """

    home: str
    files: Sequence[str]
    convert: Callable[[Sequence[pathlib.Path], pathlib.Path], list[str]]


def get(name: str, folder: pathlib.Path, out: pathlib.Path) -> list[pathlib.Path]:
    """Converts what was downloaded of a set; the files written, below `out`.

    Raises:
      UserError: no such set; a file is missing, cut short or another than the public
        one, with the place to get it from.
    """
    if name not in SETS:
        raise UserError(f"no data set {name!r}{schema.suggest(name, SETS)}")
    known, places = SETS[name], []
    if not folder.is_dir():
        raise UserError(f"--from {folder} is no folder; {name} is at {known.home}")
    for file in known.files:
        found = sorted(folder.rglob(file))
        if not found:
            raise UserError(
                f"{folder} holds no {file}: download {name} from {known.home}, and "
                "unpack it there"
            )
        places.append(found[0])
    try:
        return [out / part for part in known.convert(places, out)]
    except (
        BrokenRecord,
        FileNotFoundError,
        ValueError,
        IndexError,
        KeyError,
        UnicodeError,
    ) as error:
        raise UserError(
            f"{folder} is not {name} as {known.home} has it: {error}"
        ) from None


def _save(path: pathlib.Path, data: bytes) -> None:
    with errors.writing(path) as part:
        part.write_bytes(data)


def _pack(path: pathlib.Path, blobs: Sequence[bytes], **arrays: Any) -> None:
    """Encoded images and arrays as an npz that sources of kind npz read."""
    offsets = np.cumsum([0, *map(len, blobs)])
    blob = np.frombuffer(b"".join(blobs), np.uint8)
    with errors.writing(path) as part:
        np.savez(part, blob=blob, offsets=offsets, **arrays)


def _labels(names: Iterable[int], class_names: Sequence[str]) -> dict[str, Any]:
    return {"label": np.array([*names], np.int32), "class_names": np.array(class_names)}


# -- sets ----------------------------------------------------------------------
def _flickr8k(places: Sequence[pathlib.Path], out: pathlib.Path) -> list[str]:
    """Shards of train, dev and test; images squashed to a square, as JPEG."""
    photo, tokens, *lists = places
    captions = collections.defaultdict(list)
    for line in tokens.read_text("utf-8").splitlines():
        name, text = line.split("\t", 1)
        captions[name.partition("#")[0]].append(text.strip())
    made = []
    for split, listed in zip(_SPLITS, lists, strict=True):
        names = listed.read_text("utf-8").split()
        if missing := [name for name in names if not photo.with_name(name).exists()]:
            raise ValueError(f"{len(missing)} photos are missing, such as {missing[0]}")
        for first in range(0, len(names), _SHARD):
            shard = f"flickr8k/flickr8k-{split}-{_SIDE}-{first // _SHARD:05d}.tar"
            with errors.writing(out / shard) as part, tarfile.open(part, "w") as tar:
                for name in names[first : first + _SHARD]:
                    about = {"captions": captions[name], "key": name[:-4]}
                    for suffix, data in (
                        ("jpg", _squashed(photo.with_name(name))),
                        ("json", json.dumps(about).encode()),
                    ):
                        member = tarfile.TarInfo(f"{name[:-4]}.{suffix}")
                        member.size = len(data)
                        tar.addfile(member, io.BytesIO(data))
            made.append(shard)
    return made


def _squashed(path: pathlib.Path) -> bytes:
    pixels = image_lib.decode(path.read_bytes(), str(path))
    small, file = image_lib.resize(pixels, (_SIDE, _SIDE), "area"), io.BytesIO()
    Image.fromarray(small).save(file, "JPEG", quality=_QUALITY)
    return file.getvalue()


def _cifar10(places: Sequence[pathlib.Path], out: pathlib.Path) -> list[str]:
    """The first 600 of each class to train on, and the first 200 to test, as PNG."""
    *batches, meta = places
    names, made = meta.read_text("utf-8").split(), []
    sizes = {path.stat().st_size for path in batches}
    if sizes != {_ROWS * _CIFAR} or len(names) != 10:
        whole = f"and not {_ROWS * _CIFAR}"
        raise ValueError(f"its batches have {sorted(sizes)} bytes, {whole}")
    for file, most, paths in (
        ("cifar10-train-6k.npz", 600, batches[:-1]),
        ("cifar10-test-2k.npz", 200, batches[-1:]),
    ):
        blobs, labels, seen = [], [], collections.Counter()
        for row in np.concatenate([np.fromfile(p, np.uint8) for p in paths]).reshape(
            -1, _CIFAR
        ):
            label = int(row[0])
            seen[names[label]] += 1
            if seen[names[label]] <= most:
                pixels = row[1:].reshape(3, 32, 32).transpose(1, 2, 0)
                blobs.append(image_lib.encode_png(np.ascontiguousarray(pixels)))
                labels.append(label)
        _pack(out / "cifar10" / file, blobs, **_labels(labels, names))
        made.append(f"cifar10/{file}")
    return made


def _gtsrb(places: Sequence[pathlib.Path], out: pathlib.Path) -> list[str]:
    """At most 30 crops of a class, frame 15 of each track and then frame 29, as PNG."""
    shipped = importlib.resources.files("mmjax.data") / "templates/gtsrb_names.json"
    classes = json.loads(shipped.read_text("utf-8"))["names"]
    blobs, keys, labels = [], [], []
    for label in range(len(classes)):
        folder = places[0].parent.parent / f"{label:05d}"
        found = [p for frame in _FRAMES for p in sorted(folder.glob(f"*_{frame}.ppm"))]
        if not found:
            raise ValueError(f"there are no *_00015.ppm in {folder}")
        for path in found[:_MOST]:
            pixels = image_lib.decode(path.read_bytes(), str(path))
            blobs.append(image_lib.encode_png(image_lib.resize(pixels, 32, "area")))
            keys.append(f"{folder.name}/{path.name}")
            labels.append(label)
    file = "gtsrb/gtsrb-train.npz"
    _pack(out / file, blobs, name=np.array(keys), **_labels(labels, classes))
    return [file]


def _mnist(places: Sequence[pathlib.Path], out: pathlib.Path) -> list[str]:
    """The four files, each with the sha256 that tensorflow-datasets has of it."""
    from tensorflow_datasets.core.download import checksums
    from tensorflow_datasets.core.utils import resource_utils

    listed = resource_utils.tfds_path() / "url_checksums" / "mnist.txt"
    known = {
        url.split("/")[-1]: i for url, i in checksums.load_url_infos(listed).items()
    }
    for path in places:
        if hashlib.sha256(path.read_bytes()).hexdigest() != known[path.name].checksum:
            raise ValueError(f"{path} has another sha256 than the public file")
    made = [f"tfds_manual/mnist/{path.name}" for path in places]
    for path, file in zip(places, made, strict=True):
        with errors.writing(out / file) as part:
            shutil.copyfile(path, part)
    return made


def _easy_vqa(places: Sequence[pathlib.Path], out: pathlib.Path) -> list[str]:
    """Training images, packed in the order of their numbers, questions and answers."""
    questions, answers = places
    asked = json.loads(questions.read_text("utf-8"))
    photos = sorted(
        (questions.parent / "images").glob("*.png"), key=lambda p: int(p.stem)
    )
    if [int(path.stem) for path in photos] != [*range(len(photos))]:
        raise ValueError("its images are not numbered from 0")
    rows = [
        dict(zip(("question", "answer", "image"), row, strict=True)) for row in asked
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    made = [
        f"easy_vqa/easy_vqa-train-{f}" for f in ("images.npz", "questions.jsonl.gz")
    ]
    _pack(out / made[0], [path.read_bytes() for path in photos])
    _save(out / made[1], gzip.compress(text.encode(), mtime=0))
    _save(out / "easy_vqa/answers.txt", answers.read_bytes())
    return [*made, "easy_vqa/answers.txt"]


_LISTS = [f"Flickr_8k.{split}Images.txt" for split in _SPLITS]
_BATCHES = (*(f"data_batch_{k}.bin" for k in range(1, 6)), "test_batch.bin")
_IDX = [f"{split}-images-idx3-ubyte.gz" for split in ("train", "t10k")]
SETS = {
    "cifar10": Set(
        "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        (*_BATCHES, "batches.meta.txt"),
        _cifar10,
    ),
    "easy_vqa": Set(
        "https://github.com/vzhou842/easy-VQA (easy_vqa/data)",
        ("train/questions.json", "answers.txt"),
        _easy_vqa,
    ),
    "flickr8k": Set(
        "https://github.com/jbrownlee/Datasets/releases (Flickr8k_Dataset.zip, "
        "Flickr8k_text.zip)",
        ("1000268201_693b08cb0e.jpg", "Flickr8k.token.txt", *_LISTS),
        _flickr8k,
    ),
    "gtsrb": Set(
        "https://benchmark.ini.rub.de (GTSRB_Final_Training_Images.zip)",
        ("00000/00000_00015.ppm",),
        _gtsrb,
    ),
    "mnist": Set(
        "https://storage.googleapis.com/cvdf-datasets/mnist",
        (*_IDX, *(file.replace("images-idx3", "labels-idx1") for file in _IDX)),
        _mnist,
    ),
}
