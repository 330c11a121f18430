import gzip
import os
import pickle
import shutil
import struct

import numpy as np
import pytest
from PIL import Image

from mmjax.data import build, image
from mmjax.data.records import BrokenRecord
from mmjax.data.sources import open_source
from mmjax.errors import UserError


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(5):
        img = Image.new("RGBA", (10 + i, 8), (50 * i, 0, 0, 255))
        img.save(folder / f"p{i}.png")
        (folder / f"p{i}.txt").write_text(f"photo {i}\nagain {i}")
    return folder


def test_built_data_comes_back(photos, tmp_path):
    splits = {"train": f"folder:{photos}", "val": f"folder:{photos}?limit=2"}
    folder = build.build(splits, tmp_path / "tfds", name="my_photos")
    assert folder == tmp_path / "tfds" / "my_photos" / "1.0.0"
    source = open_source(f"tfds:my_photos/train?data_dir={tmp_path}/tfds")
    original = open_source(f"folder:{photos}")
    assert len(source) == 5 and source.class_names == ()
    records = {source[i]["key"]: (i, source[i]) for i in range(5)}
    for i in range(5):
        j, record = records[original[i]["key"]]
        assert record["text"] == original[i]["text"]
        assert (record["image"] == original[i]["image"]).all()
        assert source.encoded(j) == original.encoded(i)  # byte for byte
    assert sorted(source.texts()) == sorted(original.texts())
    copy = pickle.loads(pickle.dumps(source))
    assert copy[3]["text"] == source[3]["text"]
    assert copy.fingerprint() == source.fingerprint()
    spec = f"tfds:my_photos/val?data_dir={tmp_path}/tfds&text=captions&image=image"
    assert len(open_source(spec)) == 2


def test_built_labels(tmp_path):
    spec = "shapes:val?size=16&count=8&objects=1"
    build.build({"test": spec}, tmp_path, name="shapes8")
    source = open_source(f"tfds:shapes8/test?data_dir={tmp_path}&template=a {{}}")
    original = open_source(spec)
    assert source.class_names == original.class_names
    labels = {original[i]["key"]: original[i]["label"] for i in range(8)}
    for i in range(8):
        assert source[i]["label"] == labels[source[i]["key"]]
        assert source[i]["text"] == [f"a {source.class_names[source[i]['label']]}"]


def test_broken_records_are_left_out_up_to_a_share(photos, tmp_path):
    (photos / "p2.png").write_bytes(b"nothing")
    build.build({"train": f"folder:{photos}"}, tmp_path / "a", name="x")
    assert len(open_source(f"tfds:x/train?data_dir={tmp_path}/a")) == 4
    with pytest.raises(UserError, match="p2.png"):
        build.build({"t": f"folder:{photos}"}, tmp_path / "b", name="x", max_broken=0)


def test_messages(photos, tmp_path):
    build.build({"train": f"folder:{photos}"}, tmp_path, name="x")
    where = f"data_dir={tmp_path}"
    with pytest.raises(
        UserError, match=r"no data set prepared at .*there: x.*mmjax\[tf"
    ):
        open_source(f"tfds:y/train?{where}")
    with pytest.raises(UserError, match="Unknown split 'tarin'"):
        open_source(f"tfds:x/tarin?{where}")
    with pytest.raises(
        UserError, match="no feature 'img' for image: .*captions, image"
    ):
        open_source(f"tfds:x/train?{where}&image=img")
    with pytest.raises(UserError, match="'key' is no ClassLabel"):
        open_source(f"tfds:x/train?{where}&label=key")
    with pytest.raises(UserError, match="lower case"):
        build.build({"train": f"folder:{photos}"}, tmp_path, name="My Photos")
    info = tmp_path / "x" / "1.0.0" / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(UserError, match=r"stored as tfrecord.*mmjax\[tf\]"):
        open_source(f"tfds:x/train?{where}")


def test_a_lost_class_name_renames_no_other(tmp_path):
    source = "shapes:val?size=16&count=4&objects=1"
    folder = build.build({"train": source}, tmp_path, name="x")
    names = folder / "label.labels.txt"
    whole = names.read_text()
    for text, count in (
        (whole.partition("\n")[2], 63),
        (whole.replace("\n", " ", 1), 63),
        (whole + "more\n", 65),
    ):
        names.write_text(text)
        with pytest.raises(UserError, match=rf"names {count} classes.* has 64"):
            open_source(f"tfds:x/train?data_dir={tmp_path}")


def test_builtin_builders(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="did you mean 'mnist'"):
        build.builtin("mnits", tmp_path, manual_dir=None)

    def without_tensorflow(*args, **kwargs):
        raise RuntimeError("Failed to construct: No module named 'tensorflow'")

    monkeypatch.setattr(build.tfds, "builder", without_tensorflow)
    with pytest.raises(UserError, match=r"mnist needs tensorflow.*mmjax\[tf\]"):
        build.builtin("mnist", tmp_path, manual_dir=None)


def test_read_idx(tmp_path):
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    header = bytes([0, 0, 8, 3]) + struct.pack(">3i", 2, 3, 4)
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(header + array.tobytes()))
    assert (build.read_idx(path) == array).all()


def test_bundle_mnist_is_prepared_offline(bundle, tmp_path, monkeypatch):
    whole = build.read_idx
    assert (
        whole(bundle / "tfds_manual/mnist/t10k-images-idx3-ubyte.gz").shape[0] == 10_000
    )
    monkeypatch.setattr(build, "read_idx", lambda path: whole(path)[:300])
    build.mnist(tmp_path, manual_dir=bundle / "tfds_manual" / "mnist")
    source = open_source(f"tfds:mmjax_mnist/test?data_dir={tmp_path}")
    assert len(source) == 300 and source.class_names == tuple("0123456789")
    images = whole(bundle / "tfds_manual/mnist/t10k-images-idx3-ubyte.gz")[:300]
    labels = whole(bundle / "tfds_manual/mnist/t10k-labels-idx1-ubyte.gz")[:300]
    known = {
        pixels.tobytes(): label for pixels, label in zip(images, labels, strict=True)
    }
    for i in range(300):
        record = source[i]
        assert record["image"].shape == (28, 28, 3)
        pixels = np.ascontiguousarray(record["image"][..., 0])
        assert known[pixels.tobytes()] == record["label"]


def test_bundle_mnist_with_a_wrong_file_is_refused(bundle, tmp_path):
    manual = tmp_path / "manual"
    shutil.copytree(bundle / "tfds_manual" / "mnist", manual)
    bad = manual / "t10k-labels-idx1-ubyte.gz"
    bad.chmod(0o644)
    data = bytearray(bad.read_bytes())
    data[-1] ^= 1
    bad.write_bytes(data)
    with pytest.raises(UserError, match="t10k-labels-idx1-ubyte"):
        build.mnist(tmp_path / "out", manual_dir=manual)
    manual.chmod(0o755)
    bad.unlink()
    with pytest.raises(UserError, match="t10k-labels.* is missing: get it from https"):
        build.mnist(tmp_path / "out", manual_dir=manual)


def test_encode_png():
    pixels = np.random.default_rng(0).integers(0, 256, (7, 5, 3)).astype(np.uint8)
    assert (image.decode(image.encode_png(pixels), "here") == pixels).all()


def test_a_second_build_of_one_name_is_refused(photos, tmp_path):
    build.build({"train": f"folder:{photos}?limit=2"}, tmp_path, name="x")
    with pytest.raises(UserError, match=r"x/1\.0\.0 is there already, and nothing"):
        build.build({"train": f"folder:{photos}"}, tmp_path, name="x")
    assert len(open_source(f"tfds:x/train?data_dir={tmp_path}")) == 2
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write .*file"):
        build.build({"train": f"folder:{photos}"}, tmp_path / "file", name="x")


def test_a_damaged_set_is_refused_or_loses_records(photos, tmp_path):
    folder = build.build({"train": f"folder:{photos}"}, tmp_path, name="x")
    spec = f"tfds:x/train?data_dir={tmp_path}"
    whole = {
        record["key"]: record for record in map(open_source(spec).__getitem__, range(5))
    }
    broken = refused = 0
    for path in sorted(folder.iterdir()):
        good = path.read_bytes()
        used = len(good.rstrip(b"\0"))
        for at in (*range(0, used, used // 8), None):
            for data in (
                good[:at] + b'\xff"[{' + good[at + 4 :] if at is not None else b"",
                good[:at] if at is not None else good[:-1],
            ):
                path.write_bytes(data)
                try:
                    source = open_source(spec)
                    source.fingerprint()
                    for i in range(len(source)):
                        try:
                            record = source[i]
                        except BrokenRecord as error:
                            assert "cannot be read" in error.reason
                            broken += 1
                        else:
                            original = whole[record["key"]]
                            assert record["text"] == original["text"]
                            assert (record["image"] == original["image"]).all()
                except UserError as error:
                    assert f"cannot read {folder}" in str(error)
                    refused += 1
        path.write_bytes(good)
    assert broken > 20 and refused > 20


def test_no_feature_is_imported_from_anywhere(photos, tmp_path, monkeypatch):
    folder = build.build({"train": f"folder:{photos}"}, tmp_path / "d", name="x")
    (tmp_path / "planted.py").write_text(
        "import pathlib\npathlib.Path('ran').touch()\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    path = folder / "features.json"
    text = path.read_text()
    own = "tensorflow_datasets.core.features.text_feature.Text"
    inner = '{\\"type\\": \\"planted.Text\\", \\"content\\": {}}'
    for changed in (
        text.replace(own, "planted.Text"),
        '{"type": "planted.Text", "content": {}}',
        f'{{"pythonClassName": "planted.Text", "jsonFeature": {{"json": "{inner}"}}}}',
    ):
        assert changed != text
        path.write_text(changed)
        with pytest.raises(UserError, match=r"names 'planted.Text', and only"):
            open_source(f"tfds:x/train?data_dir={tmp_path}/d")
    assert not (tmp_path / "ran").exists()
    path.write_text(text)
    assert len(open_source(f"tfds:x/train?data_dir={tmp_path}/d")) == 5


def test_a_pipe_in_a_prepared_set_is_not_waited_for(photos, tmp_path):
    folder = build.build({"train": f"folder:{photos}"}, tmp_path, name="x")
    (folder / "features.json").unlink()
    os.mkfifo(folder / "features.json")
    with pytest.raises(UserError, match=r"features\.json: it is no plain file"):
        open_source(f"tfds:x/train?data_dir={tmp_path}")
