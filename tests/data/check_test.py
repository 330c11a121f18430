import numpy as np
from PIL import Image

from mmjax.data import check


def test_report_and_contact_sheet(tmp_path):
    for i in range(6):
        Image.new("RGB", (10, 20), (40 * i, 0, 0)).save(tmp_path / f"p{i}.png")
        (tmp_path / f"p{i}.txt").write_text("one two three\none" + " more" * i)
    (tmp_path / "p2.png").write_bytes(b"nothing")
    (tmp_path / "p4.txt").write_bytes(b"caf\xe9")
    sheet = tmp_path / "out" / "sheet.png"
    shapes = "shapes:val?size=32&count=20&objects=1"
    report = check.check([f"folder:{tmp_path}", shapes], sheet)
    photos, drawn = report.sources
    assert photos.records == 6 and photos.captions == 8 and report.broken == 2
    assert [error.place.rpartition("/")[2] for error in photos.broken] == [
        "p2.png",
        "p4.txt",
    ]
    assert photos.words == {3: 4, 1: 1, 2: 1, 4: 1, 6: 1}
    assert photos.sizes == {(20, 10): 4}
    assert drawn.records == 20 and sum(drawn.labels.values()) == 20
    text = report.text()
    assert "records   6, broken 2" in text and "p2.png: cannot decode" in text
    assert "10x20 (4)" in text and "classes" in text and str(sheet) in text
    assert "     3-3           4 " + "#" * 40 in text
    with Image.open(sheet) as img:
        # three rows under two names, each with room for a line of captions or more
        assert img.width == 8 * 128 and img.height >= (128 + 4 + 12) * 3 + 2 * 16
        colours = {colour for _, colour in img.convert("RGB").getcolors(1 << 20)}
    assert (40, 0, 0) in colours and (200, 0, 0) in colours


def test_records_without_an_image(tmp_path):
    frames = np.zeros((3, 4, 6, 3), np.uint8)
    frames[:] = (90, 7, 7)
    frames[1] = (200, 100, 50)
    rows = {"frames": frames[None].repeat(4, 0), "audio": np.zeros((4, 5), np.float32)}
    words = np.array(["ab cd"] * 4)
    np.savez(tmp_path / "x.npz", **rows, title=words, label=[0, 1, 0, 0])
    np.savez(tmp_path / "y.npz", x=np.zeros((3, 2)), price=np.zeros(3))
    specs = [f"npz:{tmp_path}/x.npz?text=title", f"npz:{tmp_path}/y.npz"]
    report = check.check(specs, tmp_path / "sheet.png")
    clips, vectors = report.sources
    assert (
        not clips.sizes and clips.words == {2: 4} and clips.labels == {"0": 3, "1": 1}
    )
    assert clips.values == {
        ("frames", "uint8", (3, 4, 6, 3)): 4,
        ("audio", "float32", (5,)): 4,
    }
    assert vectors.values == {("x", "float64", (2,)): 3, ("price", "float", ()): 3}
    assert "  audio     float32, 4 records of (5,)" in report.text()
    assert "  price     float, 3 records\n" in report.text()
    with Image.open(tmp_path / "sheet.png") as img:
        colours = {colour for _, colour in img.convert("RGB").getcolors(1 << 20)}
    assert (200, 100, 50) in colours and (90, 7, 7) not in colours  # the middle frame


def test_shapes_that_differ(tmp_path):
    lengths = np.array([0, 2, 5, 7])
    np.savez(tmp_path / "x.npz", mfcc=np.zeros((7, 3)), mfcc_offsets=lengths)
    report = check.check([f"npz:{tmp_path}/x.npz"], tmp_path / "sheet.png")
    assert "3 records, 2 shapes, most often (2, 3) (2)" in report.text()
