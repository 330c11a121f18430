"""`mmjax align` on files of every kind."""

import re

import numpy as np
import pytest
from PIL import Image

from mmjax import alignment, cli


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A curve, the same at another speed, and a map of it into six columns."""
    folder = tmp_path_factory.mktemp("series")
    time = np.linspace(0, 1, 30)
    curve = np.stack([np.sin(6 * time), np.cos(9 * time)], 1)
    slow = np.stack([np.sin(6 * time**2), np.cos(9 * time**2)], 1)
    np.save(folder / "a.npy", curve)
    np.savetxt(folder / "b.csv", slow, delimiter=",", header="x,y", comments="")
    mixed = slow @ np.random.default_rng(0).normal(size=(2, 6))
    np.savez(folder / "c.npz", lips=mixed, other=time)
    (folder / "cut.npz").write_bytes((folder / "c.npz").read_bytes()[:400])
    np.savez(folder / "none.npz")
    return folder


@pytest.mark.parametrize("method", ["dtw", "ddtw", "soft", "ctw"])
def test_methods(files, method, tmp_path, capsys):
    other = "c.npz:lips" if method == "ctw" else "b.csv"
    argv = ["align", f"{files}/a.npy", f"{files}/{other}", "--method", method]
    argv += ["--out", f"{tmp_path}/path.png", "--save", f"{tmp_path}/x.npz"]
    assert cli.main(argv) == 0
    out = capsys.readouterr().out
    assert "30 and 30 frames" in out and "path.png" in out
    assert np.asarray(Image.open(tmp_path / "path.png")).std() > 10
    saved = np.load(tmp_path / "x.npz")
    a = np.load(files / "a.npy")
    np.testing.assert_array_equal(saved["a"], a[saved["path"][:, 0]])
    if method == "dtw":
        slow = np.loadtxt(files / "b.csv", delimiter=",", skiprows=1)
        found = alignment.dtw(a, slow)
        np.testing.assert_array_equal(saved["path"], found.path)
        assert np.abs(saved["a"] - saved["b"]).max() < 0.4
    if method == "ctw":
        late = np.round(29 * np.sqrt(np.arange(30) / 29))  # the true map of frames
        path = saved["path"]
        assert np.abs(path[:, 1] - late[path[:, 0]]).mean() < 1.5


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["a.npy", "none.npy"], "no file .*none.npy"),
        (["a.npy", "c.npz"], "has lips, other: write .*c.npz:lips"),
        (["a.npy", "c.npz:x"], "no array 'x': it has lips, other"),
        (["a.npy", "cut.npz"], "cannot read .*cut.npz"),
        (["a.npy", "none.npz"], "none.npz has no array: save its frames"),
        (["a.npy", "c.npz:lips"], "x has 2 columns and y 6.*ctw"),
        (["a.npy", "b.csv", "--radius", "40"], "shorter than a band of radius 40"),
        (["a.npy", "b.csv", "--gamma", "0", "--method", "soft"], "gamma is 0"),
        (["a.npy", "b.csv", "--method", "ctw", "--ridge", "2"], "ridge is 2"),
    ],
)
def test_bad_input(files, argv, message, capsys):
    places = [str(files / argv[0]), str(files / argv[1]), *argv[2:]]
    assert cli.main(["align", *places]) == 2
    err = capsys.readouterr().err
    assert re.search(message, err), err
