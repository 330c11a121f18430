import io
import tarfile

import numpy as np
import pytest
from PIL import Image

from mmjax import cli
from mmjax.data import tokenizers
from mmjax.data.sources import open_source


@pytest.fixture
def folder(tmp_path):
    """Three captioned pictures, the last of them cut short."""
    inside = tmp_path / "pictures"
    inside.mkdir()
    for i, size in enumerate([(20, 10), (10, 30), (64, 64)]):
        Image.new("RGB", size, (200, 40 * i, 0)).save(inside / f"{i}.jpg")
        (inside / f"{i}.txt").write_text("one two three" + " four" * i)
    good = (inside / "2.jpg").read_bytes()
    (inside / "2.jpg").write_bytes(good[: len(good) // 2])
    return inside


def test_check_counts_and_names_what_is_broken(folder, capsys, tmp_path):
    sheet = tmp_path / "sheet.png"
    assert cli.main(["data", "check", f"folder:{folder}", "--out", str(sheet)]) == 3
    out = capsys.readouterr().out
    assert "records   3, broken 1" in out
    assert "2.jpg" in out and "words a caption" in out and str(sheet) in out
    assert Image.open(sheet).format == "PNG"


def test_check_of_good_data(capsys, tmp_path):
    specs = [
        f"shapes:{split}?size=16&count=20&objects=1" for split in ("val", "unseen")
    ]
    sheet = str(tmp_path / "sheet.png")
    assert cli.main(["data", "check", *specs, "--out", sheet]) == 0
    assert capsys.readouterr().out.count("records   20, broken 0") == 2


def test_bpe(tmp_path, capsys):
    out = tmp_path / "bpe.json"
    spec = "shapes:train?size=16&count=50"
    argv = ["data", "bpe", spec, "--vocab-size", "600", "--context", "12"]
    assert cli.main([*argv, "--out", str(out)]) == 0
    made = tokenizers.load(out)
    assert made.kind == "bpe" and made.context == 12 and made.vocab_size <= 600
    said = capsys.readouterr().out
    assert str(made.vocab_size) in said and f"tokens.path={out}" in said


def test_build(tmp_path, capsys):
    spec = "train=shapes:train?size=16&count=5"
    argv = ["data", "build", "few_shapes", "--data-dir", str(tmp_path)]
    assert cli.main([*argv, "--split", spec]) == 0
    said = capsys.readouterr().out
    place = f"tfds:few_shapes/SPLIT?data_dir={tmp_path}"
    assert place in said
    assert len(open_source(place.replace("SPLIT", "train"))) == 5


@pytest.mark.parametrize(
    ("argv", "part"),
    [
        (["--split", "shapes:train"], "write --split SPLIT=SOURCE"),
        (["--manual-dir", "/no/such"], "/no/such"),
    ],
)
def test_build_refuses(argv, part, tmp_path, capsys):
    base = ["data", "build", "mnist", "--data-dir", str(tmp_path)]
    assert cli.main([*base, *argv]) == 2
    err = capsys.readouterr().err
    assert part in err and err.count("\n") == 1


def test_check_names_all_that_is_amiss(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    photos = tmp_path / "photos"
    for name in ("a", "b", "c", ".hidden/d"):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (6, 5)).save(photos / f"{name}.png")
    (photos / "a.txt").write_bytes(b"one\r\n\r\ntwo\r\n")
    (photos / "b.txt").write_bytes(b"caf\xe9")
    (photos / "x.heic").write_text("")
    floats = Image.fromarray(np.ones((3, 4), np.float32))
    for name, write in (
        ("cut.png", lambda f: f.write((photos / "a.png").read_bytes()[:50])),
        ("e.avif", lambda f: f.write(b"\0\0\0\x1cftypavif" + bytes(60))),
        ("f.tiff", lambda f: floats.save(f, "TIFF")),
    ):
        with (photos / name).open("wb") as file:
            write(file)
        (photos / name).with_suffix(".txt").write_text("a caption\n")
    bad = ['photos/b.png,"open', "photos/a.png,a,b", "photos/a.png,", "gone.png,x"]
    rows = ["photos/a.png,fine", *bad, "photos/c.png,last"]
    (tmp_path / "x.csv").write_text("\n".join(["filepath,title", *rows]) + "\n")
    rows = ["image\tcaption", "photos/a.png\tfine", "photos/a.png", "/dev/zero\tx"]
    (tmp_path / "x.tsv").write_text("\n".join(rows))
    good = '{"image": "photos/a.png", "caption": "fine", "label": 1}'
    rows = [
        good,
        good.replace("1", "4000000000"),
        "[" * 99_999,
        good.replace("a.", "\\u0000."),
    ]
    rows += ["{", good.replace(', "label": 1', "")]
    (tmp_path / "x.jsonl").write_text("\n".join(rows))
    png = (photos / "a.png").read_bytes()
    members = [("k 1.5.png", png), ("k 1.5.cls", b"0"), ("a.png", png), ("a.cls", b"1")]
    members += [("a.png", png), ("no.png", png), ("z.npy", b""), ("e.png", png)]
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("l.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    whole = (tmp_path / "x.tar").read_bytes()
    at = whole.index(b"e.png")
    (tmp_path / "x.tar").write_bytes(whole[:at] + bytes(512) + whole[at + 512 :])
    specs = [f"folder:{photos}", f"csv:{tmp_path}/x.csv", f"tsv:{tmp_path}/x.tsv"]
    specs += [f"jsonl:{tmp_path}/x.jsonl?label=label", f"webdataset:{tmp_path}/x.tar"]
    out = str(tmp_path / "sheet")  # without a suffix
    assert cli.main(["data", "check", *specs, "--out", out]) == 3
    said = capsys.readouterr().out
    for part in (
        "b.txt: the caption is not UTF-8",
        "c.png: no captions",
        ".hidden: a hidden folder",
        "x.heic: its suffix .heic",
        "cut.png: cannot decode the image",
        "e.avif: cannot decode the image",
        "f.tiff: cannot decode the image: float pixels say no range",
        "x.csv line 3: ",
        "x.csv line 4: 3 cells under 2 names",
        "x.csv line 5: the caption is empty",
        "x.csv line 6: cannot read",
        "x.tsv line 3: 1 cells under 2 names",
        "x.tsv line 4: cannot read /dev/zero: it is no plain file",
        "x.jsonl line 2: its label 4000000000",
        "x.jsonl line 3: bad json: nested too deep",
        "x.jsonl line 4: cannot read",
        "x.jsonl line 5: bad json",
        "x.jsonl line 6: it has no label",
        "x.tar, sample a: the key comes more than once",
        "x.tar, sample no: it has no label",
        "x.tar, member z.npy: of a kind (.npy)",
        "x.tar, member l.png: a link to /etc/passwd",
        f"x.tar, byte {at}: the header here is blank",
    ):
        assert part in said, part
    assert "k 1.5" not in said and Image.open(out).format == "PNG"


def test_check_keeps_its_report_where_the_sheet_cannot_be_written(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for out in ("file/x.png", "."):
        argv = ["data", "check", "shapes:val?size=16&count=4&objects=1", "--out"]
        assert cli.main([*argv, str(tmp_path / out)]) == 2
        said = capsys.readouterr()
        assert "records   4, broken 0" in said.out
        assert "cannot write" in said.err and said.err.count("\n") == 1
