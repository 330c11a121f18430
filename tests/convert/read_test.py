"""Opening files, damaged and malicious ones among them. No torch."""

import collections
import io
import json
import os
import pickle
import sys
import tracemalloc
import types
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


@pytest.mark.parametrize(
    ("program", "part"),
    [
        (b"(cos\nsystem\nS'true'\no.", "has the opcode OBJ"),
        (b"(S'true'\nios\nsystem\n.", "has the opcode INST"),
        (b"cos\nsystem\n(S'true'\ntR.", "calls os.system"),  # REDUCE
        (b"\x80\x02cos\nsystem\n)\x81.", "calls os.system"),  # NEWOBJ
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93)R.", "calls os.system"),
        (b"\x80\x02cos\nsystem\n}b.", "sets the state of a Name"),
    ],
)
def test_every_way_to_call_is_refused(program, part, tmp_path):
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as out:
        out.writestr("m/data.pkl", program)
    with pytest.raises(UserError, match=f"refused, its pickle {part}"):
        read.read(tmp_path / "x.pt")


class Tensor:
    """A tensor, as torch pickles it: a storage's identity and a shape."""

    def __init__(self, kind, key, offset, shape, stride):
        self.args = (("storage", kind, key, "cpu", 24), offset, shape, stride)


class FloatStorage:
    pass


class HalfStorage:
    pass


class Layer:
    """A torch module of one weight and one child."""


def torch_file(path, value, storages, monkeypatch):
    """A zip as torch writes it, with stand-ins for the names that torch pickles."""
    names = ("torch", "torch._utils", "torch.nn", "torch.nn.modules")
    modules = {name: types.ModuleType(name) for name in names}
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)

    def rebuild(*_):
        raise AssertionError("the reader called a stand-in")

    rebuild.__module__, rebuild.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    modules["torch._utils"]._rebuild_tensor_v2 = rebuild
    for kind in (FloatStorage, HalfStorage):
        kind.__module__ = "torch"
        setattr(modules["torch"], kind.__name__, kind)
    Layer.__module__, Layer.__qualname__ = "torch.nn.modules", "Layer"
    modules["torch.nn.modules"].Layer = Layer

    class Pickler(pickle.Pickler):
        def persistent_id(self, item):
            return (
                item if isinstance(item, tuple) and item[:1] == ("storage",) else None
            )

        def reducer_override(self, item):
            if not isinstance(item, Tensor):
                return NotImplemented
            return rebuild, (*item.args, False, collections.OrderedDict())

    program = io.BytesIO()
    Pickler(program, 2).dump(value)
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("m/data.pkl", program.getvalue())
        for key, array in storages.items():
            out.writestr(f"m/data/{key}", array.tobytes())
    return path


def test_tensors_of_archives_and_of_modules(tmp_path, monkeypatch):
    base = np.arange(24, dtype=np.float32)
    storages = {"0": base, "1": base.astype(np.float16)}
    whole = Tensor(FloatStorage, "0", 0, (4, 6), (6, 1))
    state = collections.OrderedDict(
        whole=whole,
        transposed=Tensor(FloatStorage, "0", 0, (6, 4), (1, 6)),
        part=Tensor(HalfStorage, "1", 6, (2, 3), (6, 2)),
        empty=Tensor(FloatStorage, "0", 0, (0, 3), (3, 1)),
    )
    state._metadata = {"version": 1}
    held = {"epoch": 3, "callbacks": {FloatStorage: 1}, "state_dict": state}
    file = torch_file(tmp_path / "a.ckpt", held, storages, monkeypatch)
    arrays = read.read(file).tensors
    table = base.reshape(4, 6)
    want = {"whole": table, "transposed": table.T, "part": table[1:3, ::2]}
    want |= {"empty": np.zeros((0, 3))}
    assert arrays.keys() == want.keys()
    assert all(np.array_equal(arrays[key], want[key]) for key in want)
    assert arrays["part"].dtype == np.float16
    inner, outer = Layer(), Layer()
    inner.__dict__ = {"_parameters": {"weight": whole}, "_modules": {}, "training": 1}
    outer.__dict__ = {"_buffers": {"mean": whole}, "_modules": {"child": inner}}
    file = torch_file(tmp_path / "b.pt", outer, storages, monkeypatch)
    assert read.read(file).tensors.keys() == {"mean", "child.weight"}
    far = {"far": Tensor(FloatStorage, "0", 8, (4, 6), (6, 1))}
    file = torch_file(tmp_path / "c.pt", far, storages, monkeypatch)
    with pytest.raises(UserError, match="reaches to 31 of 24 numbers"):
        read.read(file)


def test_a_byte_order_that_unfolds(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pt", "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("m/data.pkl", pickle.dumps({}, 2))
        out.writestr("m/byteorder", b"little" + bytes(1 << 26))
    tracemalloc.start()
    with pytest.raises(UserError, match="big-endian"):
        read.read(tmp_path / "a.pt")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 22


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.safetensors")
    with pytest.raises(UserError, match="no such file or folder"):
        read.read(tmp_path / "a.safetensors")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_pipe_or_device_in_a_folder_is_not_read(name, tmp_path):
    safetensors.numpy.save_file({"a": np.ones(2)}, tmp_path / "model.safetensors")
    path = tmp_path / name
    for put in (os.mkfifo, lambda path: path.symlink_to("/dev/zero")):
        path.unlink(missing_ok=True)
        put(path)
        with pytest.raises(UserError, match=f"{name}: it is no plain file|no weights"):
            read.read(tmp_path)


def test_damaged_archives(tmp_path):
    for name, raw in (("a.pt", b"PK\x03\x04" + bytes(100)), ("b.pt", b"")):
        (tmp_path / name).write_bytes(raw)
        with pytest.raises(UserError, match="damaged or cut short"):
            read.read(tmp_path / name)
    with zipfile.ZipFile(tmp_path / "c.pt", "w") as out:
        out.writestr("m/data.pkl", b"\x80\x02}")  # no end
    with pytest.raises(UserError, match="damaged or cut short"):
        read.read(tmp_path / "c.pt")


def test_a_byte_order_that_unfolds_is_not_unfolded(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.bin", "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("m/byteorder", bytes(1 << 26))
        out.writestr("m/data.pkl", b"\x80\x02}.", zipfile.ZIP_STORED)
    with pytest.raises(UserError, match="big-endian"):
        read.read(tmp_path / "x.bin")


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


@pytest.mark.parametrize(
    "around",
    [
        *("module.{}", "_orig_mod.{}", "module._orig_mod.{}", "model.{}"),
        *("model._orig_mod.module.{}", "_fsdp_wrapped_module.{}"),
    ],
)
def test_keys_without_their_wrappers(around, tmp_path):
    keys = ("visual.conv1.weight", "model_scale", "visual.model.x")
    arrays = {around.format(k): np.full(2, i, np.float32) for i, k in enumerate(keys)}
    found = read.read(save(tmp_path / "x.safetensors", **arrays)).tensors
    assert {k: v[0] for k, v in found.items()} == {k: i for i, k in enumerate(keys)}


def test_wrappers_of_parts(tmp_path):
    parts = {"visual._orig_mod.a": np.ones(1), "text.b": np.ones(1)}
    found = read.read(save(tmp_path / "x.safetensors", **parts)).tensors
    assert found.keys() == {"visual.a", "text.b"}
    averaged = {"module.a": np.ones(1), "n_averaged": np.ones(1)}
    found = read.read(save(tmp_path / "y.safetensors", **averaged)).tensors
    assert found.keys() == {"a"}
    alone = {"model.a": np.ones(1), "loss.b": np.ones(1)}  # not all are the model's
    assert read.read(save(tmp_path / "z.safetensors", **alone)).tensors.keys() == {
        *alone
    }
    alike = {"_orig_mod.a": np.ones(1), "a": np.ones(1)}
    with pytest.raises(UserError, match="alike but for _orig_mod."):
        read.read(save(tmp_path / "w.safetensors", **alike))


@pytest.mark.parametrize(
    "held", [["module"], ["state_dict"], ["model", "module"], ["state_dict", "model"]]
)
def test_state_dicts_inside_of_checkpoints(held, tmp_path, monkeypatch):
    tensor = Tensor(FloatStorage, "0", 0, (4, 6), (6, 1))
    value = {"module.visual.a": tensor, "module._orig_mod.b": tensor}
    for name in reversed(held):
        value = {"epoch": 3, name: value, "optimizer": {"state": {}}}
    storages = {"0": np.arange(24, dtype=np.float32)}
    file = torch_file(tmp_path / "a.pt", value, storages, monkeypatch)
    assert read.read(file).tensors.keys() == {"visual.a", "b"}


def test_modules_that_hold_one_another(tmp_path, monkeypatch):
    layer = Layer()
    layer.__dict__ = {"_parameters": {}, "_modules": {"child": layer}}
    with pytest.raises(UserError, match="hold one another"):
        read.read(torch_file(tmp_path / "a.pt", {"m": layer}, {}, monkeypatch))
