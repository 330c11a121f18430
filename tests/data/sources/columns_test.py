"""npz, npy and tables of vectors: records that are rows of arrays."""

import pickle

import numpy as np
import pytest

from mmjax.data.records import BrokenRecord, Source
from mmjax.data.sources import open_source
from mmjax.errors import UserError

N = 6


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    return {
        "x": rng.normal(size=(N, 3)).astype(np.float32),
        "y": rng.normal(size=(N, 2, 5)).astype(np.float32),
        "price": np.arange(N) / 2,
        "label": np.array([0, 2, 1, 0, 2, 1]),
        "class_names": np.array(["ant", "bee", "cat"]),
        "title": np.array([f"title {i}" for i in range(N)]),
        "name": np.array([f"r{i}" for i in range(N)]),
    }


@pytest.fixture
def opened(tmp_path, arrays):
    """Opens the arrays as either kind: opened("npz", "?option=value", more=array)."""

    def open_kind(kind, options="", **more):
        every = {**arrays, **more}
        if kind == "npz":
            np.savez(tmp_path / "x.npz", **every)
            return open_source(f"npz:{tmp_path}/x.npz{options}")
        (tmp_path / "x").mkdir(exist_ok=True)
        for name, array in every.items():
            np.save(tmp_path / "x" / f"{name}.npy", array)
        return open_source(f"npy:{tmp_path}/x{options}")

    return open_kind


@pytest.mark.parametrize("kind", ["npz", "npy"])
def test_records_and_columns(opened, arrays, kind):
    source = opened(kind, "?text=title")
    assert isinstance(source, Source) and len(source) == N
    assert source.class_names == ("ant", "bee", "cat")
    record = source[-1]
    np.testing.assert_array_equal(record["x"], arrays["x"][5])
    np.testing.assert_array_equal(record["y"], arrays["y"][5])
    assert record["price"] == 2.5 and record["label"] == 1
    assert record["text"] == ["title 5"] and record["key"] == "r5"
    assert "title" not in record and list(source.texts())[0] == "title 0"
    assert set(source.columns) == {"x", "y", "price", "label", "name"}
    for name, column in source.columns.items():
        np.testing.assert_array_equal(column[[1, 4]], [source[i][name] for i in (1, 4)])
    copy = pickle.loads(pickle.dumps(source))
    assert copy.fingerprint() == source.fingerprint()
    assert len(pickle.dumps(source)) < 500  # the path, not the arrays
    assert isinstance(source.arrays["x"], np.memmap) == (kind == "npy")


def test_the_fingerprint_sees_a_single_number(opened, arrays):
    before = opened("npz").fingerprint()
    arrays["x"][3, 1] += 1
    assert opened("npz").fingerprint() != before
    assert opened("npz", "?columns=x").fingerprint() != opened("npz").fingerprint()


def test_columns_are_chosen_and_renamed(opened, arrays):
    source = opened("npz", "?columns=view_a:x,view_b:y&label=title&key=price")
    assert set(source[1]) == {"view_a", "view_b", "price", "label", "key", "text"}
    assert source.class_names == tuple(arrays["title"].tolist())
    assert source[2]["key"] == "1.0" and source[2]["label"] == 2
    assert set(source.columns) == {"view_a", "view_b", "price", "label"}


@pytest.mark.parametrize(
    "options, positions",
    [("?skip=1&limit=3", [1, 2, 3]), ("?limit=2&keep=true", [0, 1])],
)
def test_ranges_keep_the_columns(opened, arrays, options, positions):
    source = opened("npy", options)
    np.testing.assert_array_equal(source.columns["x"], arrays["x"][positions])
    assert np.shares_memory(source.columns["x"], source.columns["x"])
    copy = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(copy.columns["label"], arrays["label"][positions])


def test_lists_of_names_pick_rows_and_templates_drop_columns(opened, arrays, tmp_path):
    (tmp_path / "names.txt").write_text("r4\nr1\n")
    picked = opened("npz", f"?names={tmp_path}/names.txt")
    np.testing.assert_array_equal(picked.columns["x"], arrays["x"][[1, 4]])
    assert opened("npy", f"?names={tmp_path}/names.txt").columns is None  # a copy
    prompted = opened("npz", "?template=a {}")
    assert prompted[1]["text"] == ["a cat"] and not hasattr(prompted, "columns")
    assert prompted.captions(1) == ["a cat"]


def test_pieces_by_offsets(opened):
    rows = np.arange(20).reshape(10, 2)
    bounds = np.array([0, 3, 3, 4, 6, 9, 10])
    source = opened("npz", mfcc=rows, mfcc_offsets=bounds)
    np.testing.assert_array_equal(source[4]["mfcc"], rows[6:9])
    assert source[1]["mfcc"].shape == (0, 2) and "mfcc" not in source.columns
    broken = opened("npz", mfcc=rows, mfcc_offsets=bounds + 1)
    with pytest.raises(BrokenRecord, match=r"offsets 10\.\.11 outside mfcc of 10"):
        broken[5]


@pytest.mark.parametrize(
    "options, more, message",
    [
        ("", {"text": np.zeros((N, 4))}, "text is float64.*columns=NAME:text"),
        ("", {"image": np.zeros((N, 4))}, "image is float64.*columns=NAME:image"),
        ("?columns=x,z", {"z": np.zeros(4)}, "'x': 6, 'z': 4.*columns=x"),
        ("?columns=w", {}, "no array 'w': it has.* x, y"),
        ("?label=x", {}, r"labels are float32 \(6, 3\), expected integers"),
        ("", {"label": np.arange(N)}, "label 5 has none of 3 names"),
        ("?text=titel", {}, "no captions in 'titel'"),
        ("", {"z": np.array([{}])}, "cannot read"),  # pickled: never loaded
    ],
)
def test_refuses(opened, options, more, message):
    with pytest.raises(UserError, match=message):
        opened("npz", options, **more)


def test_npy_refuses(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{}]))
    with pytest.raises(UserError, match=r"cannot read .*a\.npy"):
        open_source(f"npy:{tmp_path}")
    (tmp_path / "a.npy").unlink()
    with pytest.raises(UserError, match=r"holds no \.npy files"):
        open_source(f"npy:{tmp_path}")


IRIS = """sepal,petal,species,site
5.1,1.4,setosa,a
7.0,4.7,virginica,b
6.3,?,virginica,b
4.9,1.3,setosa
"""


@pytest.mark.parametrize("vector", ["sepal,petal", ":2", ":"])
def test_vectors_of_a_table(tmp_path, vector):
    (tmp_path / "iris.csv").write_text("\n".join(IRIS.split("\n")[:3]))
    spec = f"csv:{tmp_path}/iris.csv?vector={vector}&label=species&key=site"
    source = open_source(spec)
    assert source.class_names == ("setosa", "virginica")
    assert source[1]["vector"].tolist() == [7, np.float32(4.7)]
    assert source[1]["label"] == 1 and source[1]["key"] == "b"
    assert source.columns["vector"].dtype == np.float32
    assert pickle.loads(pickle.dumps(source)).fingerprint() == source.fingerprint()


def test_rows_that_are_no_numbers(tmp_path):
    (tmp_path / "iris.csv").write_text(IRIS)
    source = open_source(f"csv:{tmp_path}/iris.csv?vector=petal&label=species")
    assert source.columns is None  # a whole batch would take the broken rows along
    assert source[0]["sepal"] == np.float32(5.1) and source[1]["site"] == "b"
    with pytest.raises(BrokenRecord, match=r"line 4: no number: .*'\?'"):
        source[2]
    with pytest.raises(BrokenRecord, match="line 5: 3 cells under 4 names"):
        source[3]
    with pytest.raises(UserError, match="no field 'petals': it has sepal, petal"):
        open_source(f"csv:{tmp_path}/iris.csv?vector=petals")


def test_bundle_views(bundle):
    source = open_source(f"npz:{bundle}/cca/uci_mfeat-train1500.npz?columns=pix,label")
    assert len(source) == 1500 and source[0]["pix"].shape == (240,)
    source = open_source(
        f"npz:{bundle}/mosi/mosi_unimodal50-train.npz?columns=words:text,audio,video"
    )
    assert source[61]["words"].shape == source[61]["video"].shape == (63, 50)


def test_a_file_of_embeddings(tmp_path):
    """As `mmjax embed` writes it: images and texts, not as many of each."""
    np.savez(
        tmp_path / "e.npz",
        image_embeddings=np.eye(3, dtype=np.float32),
        image_paths=["a.png", "b.png", "c.png"],
        text_embeddings=np.ones((2, 3), np.float32),
        texts=["one", "two"],
    )
    with pytest.raises(UserError, match="unlike numbers of rows.*choose with columns="):
        open_source(f"npz:{tmp_path}/e.npz")
    images = "columns=vector:image_embeddings&key=image_paths"
    record = open_source(f"npz:{tmp_path}/e.npz?{images}")[1]
    assert record["key"] == "b.png" and record["vector"].tolist() == [0, 1, 0]
    texts = open_source(
        f"npz:{tmp_path}/e.npz?columns=vector:text_embeddings&text=texts"
    )
    assert list(texts.texts()) == ["one", "two"] and set(texts.columns) == {"vector"}
