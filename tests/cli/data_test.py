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
