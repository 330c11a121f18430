"""Opening files, damaged and malicious ones among them. No torch."""

import json
import pickle
import zipfile

import numpy as np
import pytest
import safetensors.numpy

from mmjax.convert import read
from mmjax.errors import UserError


def save(path, **arrays):
    safetensors.numpy.save_file(arrays, path)
    return path


def test_a_file_and_what_lies_beside_it(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    file = save(tmp_path / "x.safetensors", a=np.ones((2, 3), np.float16))
    found = read.read(file)
    assert found.tensors["a"].dtype == np.float16
    assert found.files["config.json"] == {"model_type": "clip"}
    assert read.read(tmp_path).tensors.keys() == {"a"}


def test_shards(tmp_path):
    save(tmp_path / "model-1.safetensors", a=np.ones(2, np.float32))
    save(tmp_path / "model-2.safetensors", b=np.ones(3, np.float32))
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert read.read(tmp_path).tensors.keys() == {"a", "b"}
    (tmp_path / "model-2.safetensors").unlink()
    with pytest.raises(UserError, match="model-2.safetensors is missing"):
        read.read(tmp_path)
    index["weight_map"]["b"] = "../outside.safetensors"
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match="not an index of shards"):
        read.read(tmp_path)


@pytest.mark.parametrize("keep", [3, 60, -3])
def test_truncated_safetensors(keep, tmp_path):
    file = save(tmp_path / "x.safetensors", a=np.ones((64, 64), np.float32))
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(UserError, match="not a whole safetensors file"):
        read.read(file)


class Evil:
    def __reduce__(self):
        return print, ("code ran",)


def archive(path, found, storages=()):
    """A zip as torch writes it, around the pickle of `found`."""
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("m/data.pkl", pickle.dumps(found, 2))
        for key, raw in enumerate(storages):
            out.writestr(f"m/data/{key}", raw)
    return path


@pytest.mark.parametrize("suffix", [".pt", ".bin", ".ckpt", ".pkl"])
def test_a_pickle_with_code_is_refused(suffix, tmp_path, capsys):
    file = archive(tmp_path / f"x{suffix}", {"state_dict": {"a": Evil()}})
    with pytest.raises(UserError, match="calls .*print"):
        read.read(file)
    assert "code ran" not in capsys.readouterr().out


def test_other_opcodes_are_refused(tmp_path):
    program = b"cos\nsystem\n(S'true'\no."  # OBJ: makes an instance
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as out:
        out.writestr("m/data.pkl", program)
    with pytest.raises(UserError, match="opcode OBJ"):
        read.read(tmp_path / "x.pt")


def test_damaged_archives(tmp_path):
    for name, raw in (("a.pt", b"PK\x03\x04" + bytes(100)), ("b.pt", b"")):
        (tmp_path / name).write_bytes(raw)
        with pytest.raises(UserError, match="damaged or cut short"):
            read.read(tmp_path / name)
    with zipfile.ZipFile(tmp_path / "c.pt", "w") as out:
        out.writestr("m/data.pkl", b"\x80\x02}")  # no end
    with pytest.raises(UserError, match="damaged or cut short"):
        read.read(tmp_path / "c.pt")


@pytest.mark.parametrize(
    ("place", "part"),
    [
        ("nothing.safetensors", "no such file"),
        ("hf://only-a-name", "hf://ORG/NAME"),
    ],
)
def test_places(place, part):
    with pytest.raises(UserError, match=part):
        read.read(place)


def test_folders_without_one_file_of_weights(tmp_path):
    with pytest.raises(UserError, match="no weights"):
        read.read(tmp_path)
    save(tmp_path / "a.safetensors", a=np.ones(1, np.float32))
    save(tmp_path / "b.safetensors", a=np.ones(1, np.float32))
    with pytest.raises(UserError, match="a.safetensors, b.safetensors: name the file"):
        read.read(tmp_path)
    (tmp_path / "x.gguf").write_bytes(b"abc")
    with pytest.raises(UserError, match=".gguf is not among"):
        read.read(tmp_path / "x.gguf")
