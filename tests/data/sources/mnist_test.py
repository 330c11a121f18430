"""MNIST's files, and the two views of Wang et al. 2015."""

import gzip

import numpy as np
import pytest

from mmjax.data.sources import open_source
from mmjax.errors import UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Sixty digits of 8 x 8 pixels: a bright row in the middle, or a column."""
    path = tmp_path_factory.mktemp("mnist")
    labels = np.arange(60, dtype=np.uint8) % 2
    images = np.zeros((60, 8, 8), np.uint8)
    images[labels == 0, 3:5] = 200
    images[labels == 1, :, 3:5] = 200
    images[:, 0, 0] = np.arange(60)  # which one it is
    for name in ("train", "t10k"):
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
            file = path / f"{name}-{kind}-ubyte.gz"
            file.write_bytes(gzip.compress(head + array.tobytes()))
    return path


def test_records_are_the_files_own(folder):
    source = open_source(f"mnist:{folder}?split=test&skip=3&limit=10")
    assert len(source) == 10 and source.class_names[:2] == ("0", "1")
    record = source[0]
    assert record["label"] == 1 and record["image"].shape == (8, 8, 3)
    assert record["image"][0, 0, 0] == 3


def test_views_share_the_class_and_nothing_else(folder):
    source = open_source(f"mnist:{folder}?noisy=true")
    again = open_source(f"mnist:{folder}?noisy=true")
    other = open_source(f"mnist:{folder}?noisy=true&seed=1")
    assert source.fingerprint() == again.fingerprint() != other.fingerprint()
    images = source.columns["image"][..., 0]
    noisy, rotated = source.columns["noisy"], source.columns["rotated"]
    for i in range(len(source)):
        # noise only adds: the partner lies under it, and is another image
        fits = (noisy[i].astype(int) >= images).all((1, 2))
        fits &= source.columns["label"] == source.columns["label"][i]
        assert fits[np.arange(len(source)) != i].any()
    assert (noisy > images.max()).any() and noisy.dtype == np.uint8
    turned = np.abs(rotated.astype(int) - images).sum((1, 2))
    assert np.unique(turned).size > 20  # by angles of their own
    middle = rotated[:, 3:5, 3:5].mean((1, 2))
    assert (middle > 120).all()  # about the centre


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("mnist:{}?split=val", "split='val': use train or test"),
        ("mnist:{}/none", "cannot read .*train-images"),
    ],
)
def test_errors_say_what_to_change(folder, spec, message):
    with pytest.raises(UserError, match=message):
        open_source(spec.format(folder))


def test_a_cut_file_is_no_idx_file(folder, tmp_path):
    for file in folder.iterdir():
        data = gzip.decompress(file.read_bytes())
        (tmp_path / file.name).write_bytes(gzip.compress(data[:-1]))
    with pytest.raises(UserError, match="is no IDX file of 3 axes"):
        open_source(f"mnist:{tmp_path}")
