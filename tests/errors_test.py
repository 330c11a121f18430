"""Files that are whole or not there, and what a system refuses."""

import errno
import os

import pytest

from mmjax import errors
from mmjax.errors import UserError


def test_a_file_has_its_name_when_it_is_whole(tmp_path):
    path = tmp_path / "deep/x.json"
    with errors.writing(path) as part:
        part.write_text("1")
        assert part.suffix == ".json" and not path.exists()
    assert path.read_text() == "1"
    with pytest.raises(ZeroDivisionError), errors.writing(path) as part:
        part.write_text("2")
        raise ZeroDivisionError
    assert path.read_text() == "1" and os.listdir(path.parent) == ["x.json"]


@pytest.mark.parametrize(
    ("number", "what"),
    [
        (errno.ENOSPC, "the disk is full: make room"),
        (errno.EFBIG, "the disk is full: make room"),
        (errno.EROFS, "Read-only file system; give another place"),
        (errno.EACCES, "Permission denied; give another place"),
    ],
)
def test_what_the_system_refuses_is_one_sentence(tmp_path, number, what):
    path = tmp_path / "x"
    with pytest.raises(UserError, match=f"cannot write {path}: .*{what}"):
        with errors.writing(path) as part:
            part.write_text("half")
            raise OSError(number, os.strerror(number), str(part))
    assert not list(tmp_path.iterdir())


def test_folders_and_links(tmp_path):
    with pytest.raises(UserError, match="Is a directory"):
        with errors.writing(tmp_path) as part:
            part.write_text("x")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file: File exists"):
        with errors.writing(tmp_path / "file/x") as part:
            part.write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "absent")
    with errors.writing(tmp_path / "link") as part:
        part.write_text("x")
    assert (tmp_path / "absent").read_text() == "x" and (tmp_path / "link").is_symlink()
    said = "could not open /x for writing: Permission denied"  # as FAISS says it
    assert errors.refused(RuntimeError(said)).startswith("Permission denied; give")
    assert errors.refused(ValueError("x")) == "" == errors.refused(OSError("no number"))
