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
        assert img.size == (8 * 128, (128 + 38) * 3 + 2 * 16)
        colours = {colour for _, colour in img.convert("RGB").getcolors(1 << 20)}
    assert (40, 0, 0) in colours and (200, 0, 0) in colours
