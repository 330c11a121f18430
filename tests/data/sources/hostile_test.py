"""One thing amiss in a folder or a table: it is named, and takes nothing else along."""

import gzip
import json
import os

import numpy as np
import pytest
from PIL import Image

from mmjax.cli import embed
from mmjax.data.records import BrokenRecord
from mmjax.data.sources import encoded, open_source, table
from mmjax.errors import UserError


def paint(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 5), (value, 9, 9)).save(path)


def read(spec):
    """[(key, text, label)] of good records, [(place, reason)] of broken ones."""
    source, good, bad = open_source(spec), [], []
    for i in range(len(source)):
        try:
            record = source[i]
            good.append((record["key"], record["text"], record.get("label")))
        except BrokenRecord as error:
            bad.append((error.place.rpartition("/")[2], error.reason))
    return good, bad


def test_classes_that_are_numbers(tmp_path):
    for k in range(12):
        paint(tmp_path / "set" / str(k) / "a.png")
    source = open_source(f"folder:{tmp_path}/set?label=parent")
    assert source.class_names == tuple(map(str, range(12)))
    labels = {source[i]["key"]: source[i]["label"] for i in range(12)}
    assert labels == {f"{k}/a": k for k in range(12)}
    assert encoded.class_order(["10", "9", "b"]) == ("10", "9", "b")  # words


@pytest.mark.parametrize(
    ("values", "labels", "names"),
    [
        (["0", "11", "2"], [0, 11, 2], 12),
        (["0.0", "11.0", "2.0"], [0, 11, 2], 12),
        ([0.0, 3, "2"], [0, 3, 2], 4),
        (["-1", "1", "0"], [-1, 1, 0], 2),
        (["b", "a", "b"], [1, 0, 1], ("a", "b")),
        (["1", "cat", "0"], [1, 2, 0], ("0", "1", "cat")),
        (["0.5", "1.0", "0.5"], [0, 1, 0], ("0.5", "1.0")),
        ([True, False, True], [1, 0, 1], ("False", "True")),
    ],
)
def test_labels(values, labels, names):
    names = tuple(map(str, range(names))) if isinstance(names, int) else names
    assert encoded.label_index(values, "here") == (labels, names)


def test_labels_that_are_none(tmp_path):
    rows = "image,label\n0.png,0\n1.png,\n2.png,4000000000\n3.png,1\n4.png,-2\n"
    (tmp_path / "x.csv").write_text(rows)
    for k in range(5):
        paint(tmp_path / f"{k}.png")
    good, bad = read(f"csv:{tmp_path}/x.csv?label=label")
    assert [label for _, _, label in good] == [0, 1]
    assert bad == [
        ("x.csv line 3", "it has no label, as other records have"),
        ("x.csv line 4", "its label 4000000000 is not between -1 and 1048575"),
        ("x.csv line 6", "its label -2 is not between -1 and 1048575"),
    ]
    np.savez(tmp_path / "x.npz", x=np.zeros((3, 2)), label=[1, 4_000_000_000, -7])
    good, bad = read(f"npz:{tmp_path}/x.npz")
    assert good == [("0", [], 1)] and len(bad) == 2
    assert open_source(f"npz:{tmp_path}/x.npz").class_names == ("0", "1")
    with pytest.raises(BrokenRecord, match="its label 4000000000 is not between"):
        text = "a,b,label\n1,2,cat\n1,2,\n"
        (tmp_path / "v.csv").write_text(text.replace("cat", "4000000000"))
        open_source(f"csv:{tmp_path}/v.csv?vector=a,b&label=label")[0]


def test_what_a_folder_leaves_out(tmp_path):
    root = tmp_path / "set"
    for name in ("a.png", "b.TIFF", ".c.png", ".trash/d.png", "deep/e.ppm"):
        paint(root / name)
    for name in ("a.txt", "b.txt", "deep/e.txt", "gone.txt", "x.heic", "y.heic"):
        (root / name).write_text("words")
    for name in (".DS_Store", ".git/config", "README"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text("")
    (root / "link").symlink_to(tmp_path)
    source = open_source(f"folder:{root}")
    assert [source[i]["key"] for i in range(len(source))] == ["a", "b", "deep/e"]
    read = ", ".join(encoded.SUFFIXES)
    assert sorted(map(str, source.left_out)) == [
        f"{root}/.c.png: a hidden file",
        f"{root}/.trash: a hidden folder",
        f"{root}/README: without a suffix, it is none that is read ({read})",
        f"{root}/gone.txt: there are no images of that name",
        f"{root}/link: a link to a folder: links are not followed, mount or copy it",
        f"{root}/x.heic: its suffix .heic is none that is read ({read}) (2 such files)",
    ]
    taken = [str(p.relative_to(root)) for p in embed.image_files([str(root)])[0]]
    assert taken == source.files  # one list of suffixes
    viewed = open_source(f"folder:{root}?limit=1&keep=1")
    assert [*map(str, viewed.left_out)] == [*map(str, source.left_out)]


def test_a_hidden_folder_is_no_class(tmp_path):
    for name in ("cat/0", "dog/1", ".ipynb_checkpoints/0-checkpoint"):
        paint(tmp_path / f"{name}.png")
    source = open_source(f"folder:{tmp_path}?label=parent")
    assert source.class_names == ("cat", "dog") and len(source) == 2


@pytest.mark.parametrize(
    "data",
    [
        b"a cat\n\na small cat\n\n",
        b"a cat\r\n\r\na small cat\r\n\r\n",
        b"\xef\xbb\xbfa cat\n \t\na small cat",
        b"a cat\r\ra small cat\r",
    ],
)
def test_blank_caption_lines(tmp_path, data):
    paint(tmp_path / "a.png")
    (tmp_path / "a.txt").write_bytes(data)
    assert open_source(f"folder:{tmp_path}")[0]["text"] == ["a cat", "a small cat"]


def sheet(folder, *lines, name="x.csv", end="\n"):
    for k in range(6):
        paint(folder / f"{k}.png", 40 * k)
    (folder / name).write_text(end.join(lines) + end)
    return f"{name.rpartition('.')[2]}:{folder}/{name}"


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(
    ("fourth", "reason"),
    [
        ("fine", "unexpected end of data"),
        ('the so-called "4"', "',' expected after '\"'"),
        ('of 4"', "it goes on over line 4, which is a row"),
        ('a "4",', "',' expected after '\"'"),
    ],
)
def test_an_open_quote_breaks_its_own_row(tmp_path, end, fourth, reason):
    rows = [f"{k}.png,number {k}" for k in range(6)]
    rows[1], rows[4] = '1.png,"number 1', f"4.png,{fourth}"
    good, bad = read(sheet(tmp_path, "image,caption", *rows, end=end))
    wrong = 2 if fourth.endswith(",") else 1
    assert len(good) == 6 - wrong and len(bad) == wrong
    place, why = bad[0]
    assert place == "x.csv line 3" and why.startswith(reason)


def test_quoted_line_breaks_and_quotes_are_kept(tmp_path):
    rows = '0.png,"one, two\nthree, four\nfive"', '1.png,"a ""1"""', "2.png,plain"
    good, bad = read(sheet(tmp_path, "image,caption", *rows))
    assert [text for _, text, _ in good] == [
        ["one, two\nthree, four\nfive"],
        ['a "1"'],
        ["plain"],
    ]
    assert not bad
    # a cell above csv's limit is one broken row
    good, bad = read(
        sheet(tmp_path, "image,caption", "0.png," + "x" * 200_000, "1.png,a")
    )
    assert len(good) == 1 and "larger than field limit" in bad[0][1]


def test_rows_of_one_image_that_differ_stay_apart(tmp_path):
    rows = "0.png,cat,a", "0.png,cat,b", "0.png,dog,c", "1.png,dog,d"
    spec = sheet(tmp_path, "image,label,caption", *rows)
    good, bad = read(f"{spec}?label=label&text=caption")
    assert good == [
        ("0.png", ["a", "b"], 0),
        ("0.png", ["c"], 1),
        ("1.png", ["d"], 1),
    ]
    assert read(spec)[0][0] == ("0.png", ["a", "b", "c"], None)
    source = open_source(f"{spec}?values=label")
    assert [source[i]["label"] for i in range(3)] == ["cat", "dog", "dog"]


def test_a_bad_row_spares_the_others_of_its_image(tmp_path):
    rows = "0.png,a", "0.png,b,c", "0.png,", "0.png,d"
    good, bad = read(sheet(tmp_path, "image,caption", *rows))
    assert good == [("0.png", ["a", "d"], None)]
    assert bad == [
        ("x.csv line 3", "3 cells under 2 names"),
        ("x.csv line 4", "the caption is empty"),
    ]


@pytest.mark.parametrize("mark", ["\t", ";", ","])
def test_tables_of_open_clip_just_open(tmp_path, mark):
    rows = [("filepath", "title"), ("0.png", "a, b"), ("1.png", '"c" d')]
    quoted = [(a, f'"{b}"' if "," in b else b) for a, b in rows]
    quoted[2] = ("1.png", '"""c"" d"')
    good, bad = read(sheet(tmp_path, *map(mark.join, quoted)))
    assert good == [("0.png", ["a, b"], None), ("1.png", ['"c" d'], None)] and not bad


def test_two_columns_of_one_name_are_refused(tmp_path):
    with pytest.raises(UserError, match="2 columns called 'caption'"):
        open_source(sheet(tmp_path, "image,caption,caption", "0.png,a,b"))


def test_names_with_nul_or_surrogates_and_deep_json(tmp_path):
    deep = '{"image": "0.png", "caption": ' + "[" * 100_000
    rows = [json.dumps({"image": name, "caption": "x"}) for name in ("a\0b", "\ud800")]
    rows = (*rows, deep, '{"image": "0.png", "caption": "fine"}')
    good, bad = read(sheet(tmp_path, *rows, name="x.jsonl"))
    assert good == [("0.png", ["fine"], None)]
    assert [place for place, _ in bad] == [f"x.jsonl line {k}" for k in (1, 2, 3)]
    assert "null byte" in bad[0][1] and "too deep" in bad[2][1]
    for kind in ("coco", "karpathy", "vqa"):
        (tmp_path / "deep.json").write_text("[" * 100_000)
        more = "?images=shapes:val" if kind == "vqa" else ""
        with pytest.raises(UserError, match="too deep"):
            open_source(f"{kind}:{tmp_path}/deep.json{more}")
    with pytest.raises(UserError, match="does not exist"):
        open_source("jsonl:a\0b")


def test_a_bomb_and_a_damaged_gz(tmp_path, monkeypatch):
    monkeypatch.setattr(table, "_SMALL", 1 << 16)
    path = tmp_path / "x.jsonl.gz"
    path.write_bytes(gzip.compress(bytes(1 << 24)))
    with pytest.raises(UserError, match=r"unfolds to more than 16\d{5} bytes, 100"):
        open_source(f"jsonl:{path}")
    for k, at in enumerate(range(0, 40, 3)):
        data = bytearray(gzip.compress(b'{"image": "a", "caption": "b"}\n' * 50))
        data[at] ^= 0x5A
        path.write_bytes(data[: len(data) - k])
        with pytest.raises(UserError, match="cannot read"):
            open_source(f"jsonl:{path}")


def test_a_key_that_comes_twice(tmp_path):
    lines = (
        '{"image": "0.png", "caption": "a"}',
        '{"image": "0.png", "caption": "a", "caption": "b"}',
    )
    (tmp_path / "x.jsonl").write_text("\n".join(lines))
    paint(tmp_path / "0.png")
    good, bad = read(f"jsonl:{tmp_path}/x.jsonl")
    assert [texts for _, texts, _ in good] == [["a"]]
    assert bad == [("x.jsonl line 2", "bad json: it has the key 'caption' twice")]


def test_arrays_that_unfold_beyond_memory(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "x.npz", x=np.zeros((1000, 2)))
    monkeypatch.setattr(os, "sysconf", lambda name: 64)
    with pytest.raises(UserError, match=r"unfolds to 0.0 GiB, and this machine has"):
        open_source(f"npz:{tmp_path}/x.npz")


def test_fifos_and_devices_are_refused(tmp_path):
    fifo = tmp_path / "a.png"
    os.mkfifo(fifo)
    for spec in ("jsonl:{}", "csv:{}", "npz:{}", "npy:{}", "coco:{}", "webdataset:{}"):
        for path in (fifo, "/dev/zero"):
            with pytest.raises(UserError, match="it is no plain file"):
                open_source(spec.format(path))
    with pytest.raises(UserError, match="it is no plain file"):
        open_source(f"shapes:val?size=16&count=4&names={fifo}")
    with pytest.raises(BrokenRecord, match=r"a\.png: it is no plain file"):
        open_source(f"folder:{tmp_path}?label=none")[0]
    (tmp_path / "x.csv").write_text("image,caption\n/dev/zero,a\n")
    with pytest.raises(BrokenRecord, match="zero: it is no plain file"):
        open_source(f"csv:{tmp_path}/x.csv")[0]
