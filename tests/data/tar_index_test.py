import io
import struct
import tarfile

import pytest
from PIL import Image

from mmjax.data.records import BrokenRecord
from mmjax.data.sources import open_source


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def png(k):
    file = io.BytesIO()
    Image.new("RGB", (6, 5), (20 * k, 8, 200)).save(file, "PNG")
    return file.getvalue()


def write(path, *members, **options):
    """(name, bytes) of a file, (name, (type, link)) of anything else."""
    with tarfile.open(path, "w", **options) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            if isinstance(data, tuple):
                info.type, info.linkname = data
                tar.addfile(info)
            else:
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return path


def pairs(count):
    return [m for k in range(count) for m in ((f"{k}.png", png(k)), (f"{k}.txt", b"x"))]


def read(path):
    """{key: text} of good records, [(place, reason)] of broken ones and the rest."""
    source, good, bad = open_source(f"webdataset:{path}"), [], []
    for i in range(len(source)):
        try:
            record = source[i]
            good.append((record["key"], record["text"][0]))
        except BrokenRecord as error:
            bad.append((error.place.removeprefix(str(path)).strip(", "), error.reason))
    left = [
        (part.place.removeprefix(f"{path}, "), part.reason) for part in source.left_out
    ]
    return good, bad, left


def test_keys_with_dots(tmp_path):
    song = ("song 2.0 cover.png", png(0)), ("song 2.0 cover.txt", b"a cover")
    extra = ("b.png", png(1)), ("b.seg.png", png(2)), ("b.txt", b"b")
    good, bad, left = read(write(tmp_path / "x.tar", *song, *extra))
    assert good == [("song 2.0 cover", "a cover"), ("b", "b")] and not bad
    assert left == [("member b.seg.png", "of a kind (.seg.png) that is not read")]
    both = ("song 2.png", png(0)), ("song 2.txt", b"the original")
    good, bad, left = read(write(tmp_path / "y.tar", *both, *song))
    assert good == [("song 2", "the original"), ("song 2.0 cover", "a cover")]
    assert not bad and not left


def test_a_key_that_comes_twice_is_two_samples(tmp_path):
    twice = ("a.png", png(0)), ("a.txt", b"first"), ("a.png", png(3)), ("a.txt", b"2nd")
    good, bad, _ = read(write(tmp_path / "x.tar", *twice))
    assert good == [("a", "first"), ("a", "2nd")] and not bad
    source = open_source(f"webdataset:{tmp_path}/x.tar")
    assert [source[i]["image"][0, 0, 0] for i in range(2)] == [0, 60]
    # whose caption it is, nobody can say
    good, bad, _ = read(
        write(tmp_path / "y.tar", *twice[:3], ("b.png", png(1)), ("b.txt", b"b"))
    )
    assert good == [("b", "b")] and [place for place, _ in bad] == ["sample a"] * 2
    assert all("comes more than once, with unlike members" in why for _, why in bad)
    good, bad, _ = read(write(tmp_path / "z.tar", *twice[:2], ("a.jpg", png(3))))
    assert not good and len(bad) == 2


def test_links_and_what_is_no_file(tmp_path):
    hard, soft = tarfile.LNKTYPE, tarfile.SYMTYPE
    members = [
        ("d/a.png", png(0)),
        ("d/a.txt", b"a"),
        ("d/c.png", (hard, "d/a.png")),
        ("d/c.txt", (soft, "../d/a.txt")),
        ("e.png", (soft, "gone.png")),
        ("e.txt", b"e"),
        ("f.png", (tarfile.FIFOTYPE, "")),
        ("f.txt", b"f"),
        ("g.npy", b"..."),
        ("h.npy", b"..."),
        ("._d/._a.png", b"mac"),
        ("d", (tarfile.DIRTYPE, "")),
    ]
    good, bad, left = read(write(tmp_path / "x.tar", *members))
    assert good == [("d/a", "a"), ("d/c", "a")]
    assert bad == [
        ("sample e", "the sample has no image member"),
        ("sample f", "the sample has no image member"),
    ]
    assert left == [
        ("member e.png", "a link to gone.png, which is no file of the shard"),
        ("member f.png", "a FIFO and no plain file"),
        ("member g.npy", "of a kind (.npy) that is not read (2 such members)"),
        ("member ._d/._a.png", "a hidden file"),
    ]


@pytest.mark.parametrize("words", [(b"0", b"1"), (b"cat", b"dog")])
def test_a_missing_label_is_not_class_0(tmp_path, words):
    members = [("a.png", png(0)), ("a.cls", words[0]), ("b.png", png(1))]
    members += [("b.cls", words[1]), ("c.png", png(2)), ("d.png", png(3))]
    write(tmp_path / "x.tar", *members, ("d.cls", b"\xff"))
    source = open_source(f"webdataset:{tmp_path}/x.tar")
    assert source.class_names == tuple(word.decode() for word in words)
    assert [source[i]["label"] for i in range(2)] == [0, 1]
    for i, key in ((2, "c"), (3, "d")):
        with pytest.raises(BrokenRecord, match=f"sample {key}: it has no label"):
            source[i]


def headers(path):
    with tarfile.open(path) as tar:
        return {member.name: member.offset for member in tar.getmembers()}


def damaged(path, start, data):
    whole = bytearray(path.read_bytes())
    whole[start : start + len(data)] = data
    path.write_bytes(whole)
    return path


def test_a_blank_header_loses_its_member_alone(tmp_path):
    path = write(tmp_path / "x.tar", *pairs(12))
    at = headers(path)["4.png"]
    good, bad, left = read(damaged(path, at, bytes(512)))
    assert len(good) == 11
    assert bad == [("sample 4", "the sample has no image member")]
    [(place, reason)] = left
    assert place == f"byte {at}" and reason.startswith("the header here is blank, and")


def test_a_blank_header_of_the_last_member(tmp_path):
    path = write(tmp_path / "x.tar", *pairs(3))
    at = headers(path)["2.txt"]
    good, bad, _ = read(damaged(path, at, bytes(512)))
    assert [key for key, _ in good] == ["0", "1"]
    [(place, reason)] = bad
    assert place == f"at byte {at}" and "the header here is blank" in reason


def test_a_hole_is_no_end(tmp_path):
    path = write(tmp_path / "x.tar", *pairs(60))
    start = headers(path)["10.png"] + 100
    good, bad, left = read(damaged(path, start, bytes(16384)))
    lost = {str(k) for k in range(60)} - {key for key, _ in good}
    assert 5 < len(lost) < 12 and "59" not in lost
    assert len(left) == 1 and "lost what lies behind it" in left[0][1]


def test_joined_tars_are_read_to_the_end(tmp_path):
    one = write(tmp_path / "x.tar", *pairs(2)).read_bytes()
    two = write(tmp_path / "y.tar", ("k.png", png(0)), ("k.txt", b"k")).read_bytes()
    (tmp_path / "z.tar").write_bytes(one + two)
    good, bad, left = read(tmp_path / "z.tar")
    assert [key for key, _ in good] == ["0", "1", "k"] and not bad and not left


def test_a_negative_size_does_not_hang(tmp_path):
    path = write(tmp_path / "x.tar", *pairs(4), format=tarfile.GNU_FORMAT)
    at = headers(path)["2.png"]
    block = bytearray(path.read_bytes()[at : at + 512])
    block[124:136] = b"\xff" + (-512).to_bytes(11, "big", signed=True)
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    good, bad, left = read(damaged(path, at, block))
    assert [key for key, _ in good] == ["0", "1", "3"]
    assert bad == [("sample 2", "the sample has no image member")] and len(left) == 1


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names(tmp_path, form):
    key = "d" * 120 + "/" + "ü" * 120
    members = (f"{key}.png", png(1)), (f"{key}.txt", b"long"), ("b.png", png(0))
    path = write(tmp_path / "x.tar", *members, ("b.txt", b"b"), format=form)
    assert read(path) == ([(key, "long"), ("b", "b")], [], [])


def test_huge_claims_of_a_header_about_the_next(tmp_path):
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1 << 40
    path = write(tmp_path / "x.tar", *pairs(2))
    whole = path.read_bytes().rstrip(b"\0") + bytes(511)
    start = len(whole) // 512 * 512
    path.write_bytes(whole[:start] + info.tobuf(tarfile.GNU_FORMAT))
    good, bad, _ = read(path)
    assert len(good) == 2 and bad[0][0] == f"at byte {start}"
    assert "a header is incomplete" in bad[0][1]


def test_equal_sizes_other_contents(tmp_path):
    def shard(name, colour):
        data = struct.pack("<I", colour) * 5000
        return open_source(
            f"webdataset:{write(tmp_path / name, ('a.png', data), ('a.txt', b'x'))}"
        ).fingerprint()

    assert shard("x.tar", 1) == shard("copy.tar", 1) != shard("x.tar", 2)
