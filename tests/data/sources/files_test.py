"""jsonl, csv, tsv, folder and npz: one set of pictures, written five ways."""

import csv
import gzip
import json
import pickle

import numpy as np
import pytest
from PIL import Image

from mmjax.data import image
from mmjax.data.records import BrokenRecord, Source
from mmjax.data.sources import open_source
from mmjax.errors import UserError

CAPTIONS = {
    "a.png": ["red", 'a "red" one'],
    "b.png": ["green"],
    "c.png": ["blue, dark"],
}
COLOURS = {"a.png": (255, 0, 0), "b.png": (0, 255, 0), "c.png": (0, 0, 255)}


@pytest.fixture
def pictures(tmp_path):
    for name, colour in COLOURS.items():
        Image.new("RGB", (9, 7), colour).save(tmp_path / name)
    return tmp_path


def rows():
    return [(name, text) for name, texts in CAPTIONS.items() for text in texts]


def write_jsonl(folder):
    lines = [json.dumps({"image": k, "captions": v}) for k, v in CAPTIONS.items()]
    (folder / "x.jsonl").write_text("\n".join(lines) + "\n\n")
    return "jsonl:x.jsonl"


def write_jsonl_gz(folder):
    lines = [json.dumps({"file": k, "c": {"en": v}}) for k, v in CAPTIONS.items()]
    (folder / "x.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    return "jsonl:x.jsonl.gz?image=file&text=c.en"


def write_csv(folder):
    with (folder / "x.csv").open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file).writerows([("image", "caption"), *rows()])
    return "csv:x.csv"


def write_tsv(folder):
    lines = ["filepath\ttitle", *("\t".join(row) for row in rows())]
    (folder / "x.tsv").write_text("\r\n".join(lines))
    return "tsv:x.tsv?image=filepath&text=title"


def write_tsv_as_pandas_does(folder):
    with (folder / "p.tsv").open("w", newline="") as file:
        out = csv.writer(file, delimiter="\t")
        out.writerows([("image", "caption"), *rows()])
    return "tsv:p.tsv"


def write_folder(folder):
    for name, texts in CAPTIONS.items():
        (folder / name).with_suffix(".txt").write_text("\n".join(texts) + "\n")
    return "folder:."


WRITERS = (
    write_jsonl,
    write_jsonl_gz,
    write_csv,
    write_tsv,
    write_tsv_as_pandas_does,
    write_folder,
)


def opened(folder, spec):
    kind, _, path = spec.partition(":")
    return open_source(f"{kind}:{folder}/{path}")


@pytest.mark.parametrize("write", WRITERS, ids=lambda f: f.__name__)
def test_same_records_from_every_form(pictures, write):
    source = opened(pictures, write(pictures))
    assert isinstance(source, Source)
    assert len(source) == 3 and source.class_names == ()
    for i, (name, texts) in enumerate(CAPTIONS.items()):
        record = source[i]
        assert record["text"] == texts
        assert record["image"].shape == (7, 9, 3)
        assert record["image"][3, 3].tolist() == list(COLOURS[name])
        assert record["key"].startswith(name[0]) and "label" not in record
    assert list(source.texts()) == [text for _, text in rows()]
    copy = pickle.loads(pickle.dumps(source))
    assert copy[2]["text"] == CAPTIONS["c.png"]
    assert copy.fingerprint() == source.fingerprint()


@pytest.mark.parametrize(
    "line, reason",
    [
        (b'{"image": "a.png", "caption": "caf\xe9"}', "line is not UTF-8"),
        (b'{"image": "a.png", "caption": ""}', "caption is empty"),
        (b'{"image": "a.png"}', "no caption in"),
        (b'{"image": "gone.png", "caption": "x"}', "No such file"),
        (b'{"caption": "x"}', "no image path"),
        (b"{", "bad json"),
        (b"[1]", "no json object"),
    ],
)
def test_broken_lines_name_their_place(pictures, line, reason):
    path = pictures / "x.jsonl"
    path.write_bytes(b'{"image": "b.png", "caption": "fine"}\n\n' + line + b"\n")
    source = open_source(f"jsonl:{path}")
    assert source[0]["text"] == ["fine"]
    with pytest.raises(BrokenRecord, match=reason) as error:
        source[1]
    assert error.value.place == f"{path} line 3"
    assert list(source.texts())[:1] == ["fine"]


@pytest.mark.parametrize("kind, mark", [("csv", b","), ("tsv", b"\t")])
def test_broken_rows(pictures, kind, mark):
    path = pictures / f"x.{kind}"
    table = [b"image|caption", b"a.png|fine", b"b.png|caf\xe9", b"c.png|x|more"]
    path.write_bytes(b"\n".join(table).replace(b"|", mark))
    source = open_source(f"{kind}:{path}")
    assert source[0]["text"] == ["fine"]
    for i, reason in ((1, "not UTF-8"), (2, "3 cells under 2 names")):
        with pytest.raises(BrokenRecord, match=reason) as error:
            source[i]
        assert error.value.place == f"{path} line {i + 2}"


def test_tables_name_the_fields_they_have(pictures):
    (pictures / "x.csv").write_text("file,title\na.png,one\n")
    with pytest.raises(UserError, match="no field 'image'.*file, title.*image="):
        open_source(f"csv:{pictures}/x.csv")
    with pytest.raises(UserError, match="'titel'.*file, key, title.*text="):
        open_source(f"csv:{pictures}/x.csv?image=file&text=titel")
    with pytest.raises(UserError, match="no field 'class'"):
        open_source(f"csv:{pictures}/x.csv?image=file&label=class")
    (pictures / "x.csv").write_text("file,title\n")
    with pytest.raises(UserError, match="no rows"):
        open_source(f"csv:{pictures}/x.csv")
    with pytest.raises(UserError, match=r"nothere.csv does not exist"):
        open_source(f"csv:{pictures}/nothere.csv")


def test_labels_of_a_table_and_another_root(pictures):
    (pictures / "lists").mkdir()
    path = pictures / "lists" / "x.csv"
    path.write_text("image,class\na.png,dog\nb.png,cat\nc.png,dog\n")
    source = open_source(f"csv:{path}?label=class&root=..&template=a photo of a {{}}.")
    assert source.class_names == ("cat", "dog")
    assert [source[i]["label"] for i in range(3)] == [1, 0, 1]
    assert source[1]["text"] == ["a photo of a cat."]
    assert list(source.texts()) == ["a photo of a cat.", "a photo of a dog."]


def test_folder_of_classes_and_missing_captions(pictures):
    for name, kind in (("1.png", "dog"), ("2.png", "cat"), ("3.png", "dog")):
        (pictures / "set" / kind).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(pictures / "set" / kind / name)
    source = open_source(f"folder:{pictures}/set?label=parent")
    assert source.class_names == ("cat", "dog")
    assert [source[i]["label"] for i in range(3)] == [0, 1, 1]
    assert source[0]["text"] == [] and source[0]["key"] == "cat/2"
    bare = open_source(f"folder:{pictures}/set")  # no image of it has captions
    assert bare[0]["text"] == [] and bare[0]["image"].shape == (4, 4, 3)
    (pictures / "set" / "dog" / "1.txt").write_text("a dog")
    with pytest.raises(BrokenRecord, match=r"2.txt is missing"):
        open_source(f"folder:{pictures}/set")[0]
    with pytest.raises(BrokenRecord, match="a.png lies in no class"):
        open_source(f"folder:{pictures}?label=parent")[0]
    with pytest.raises(UserError, match="1.png lies in no class"):
        open_source(f"folder:{pictures}/set/dog?label=parent")
    (pictures / "empty").mkdir()
    with pytest.raises(UserError, match="holds no images"):
        open_source(f"folder:{pictures}/empty")


def pack(path, **extra):
    blobs = [image.encode_png(np.full((5, 6, 3), 40 * i, np.uint8)) for i in range(4)]
    offsets = np.cumsum([0, *map(len, blobs)])
    blob = np.frombuffer(b"".join(blobs), np.uint8)
    np.savez(path, blob=blob, offsets=offsets, **extra)
    return f"npz:{path}"


def test_packed_bytes(tmp_path):
    label, names = np.array([1, 0, 1, 1], np.int32), np.array(["cat", "dog"])
    spec = pack(tmp_path / "x.npz", label=label, class_names=names)
    source = open_source(spec)
    assert source.class_names == ("cat", "dog")
    assert source[3]["label"] == 1 and (source[3]["image"] == 120).all()
    assert source[3]["text"] == [] and source[3]["key"] == "3"
    copy = pickle.loads(pickle.dumps(source))
    assert copy[0]["label"] == 1 and copy.fingerprint() == source.fingerprint()
    assert len(pickle.dumps(source)) < 1000
    prompted = open_source(spec + "?template=a {}&skip=1&limit=2")
    assert [prompted[i]["text"] for i in range(2)] == [["a cat"], ["a dog"]]
    assert len(prompted) == 2


def test_packed_pixels_and_text(tmp_path):
    np.savez(tmp_path / "x.npz", image=np.zeros((3, 8, 8), np.uint8), title=list("abc"))
    source = open_source(f"npz:{tmp_path}/x.npz?text=title")
    assert source[1]["image"].shape == (8, 8, 3) and source[1]["text"] == ["b"]


def test_packed_refuses(tmp_path):
    with pytest.raises(UserError, match="label 4 has none of 2 names"):
        names = np.array(["cat", "dog"])
        open_source(pack(tmp_path / "x.npz", label=np.arange(1, 5), class_names=names))
    np.savez(tmp_path / "y.npz", weights=np.zeros(3))
    assert set(open_source(f"npz:{tmp_path}/y.npz")[0]) == {"weights", "text", "key"}
    with pytest.raises(UserError, match="no array 'image': it has weights"):
        open_source(f"npz:{tmp_path}/y.npz?columns=image")
    offsets = np.array([0, 5, 99])
    np.savez(tmp_path / "s.npz", blob=np.zeros(9, np.uint8), offsets=offsets)
    with pytest.raises(BrokenRecord, match=r"offsets 5\.\.99 outside image of 9"):
        open_source(f"npz:{tmp_path}/s.npz")[1]
    (tmp_path / "z.npz").write_bytes(b"no zip")
    with pytest.raises(UserError, match="cannot read"):
        open_source(f"npz:{tmp_path}/z.npz")
    np.savez(tmp_path / "o.npz", blob=np.zeros(9, np.uint8), label=np.array([{}]))
    with pytest.raises(UserError, match="cannot read"):  # pickled: never loaded
        open_source(f"npz:{tmp_path}/o.npz")


def test_bundle_cifar10(bundle):
    source = open_source(f"npz:{bundle}/cifar10/cifar10-test-2k.npz")
    assert len(source) == 2000 and source.class_names[0] == "airplane"
    labels = [source[i]["label"] for i in range(0, 2000, 200)]
    assert labels == list(range(10))
    assert source[1999]["image"].shape == (32, 32, 3)
