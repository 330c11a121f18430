"""Public weights, damaged: `mmjax convert` refuses them, or makes the same model."""

import importlib.util
import json
import pathlib
import shutil
import struct
import zipfile

import fuzzing
import numpy as np
import pytest
import safetensors.numpy

from mmjax.convert import formats, import_export, read
from mmjax.convert.formats import _clip_tokenizer

_path = pathlib.Path(__file__).parents[1] / "convert" / "conftest.py"
_spec = importlib.util.spec_from_file_location("fuzz_weights", _path)
models = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(models)

# A pickle as torch writes it, of {"state_dict": {"w": a tensor of 4 x 6 floats}}.
PICKLE = (
    b"\x80\x02}q\x00X\n\x00\x00\x00state_dictq\x01ccollections\nOrderedDict\nq\x02)"
    b"Rq\x03X\x01\x00\x00\x00wq\x04ctorch._utils\n_rebuild_tensor_v2\nq\x05((X\x07\x00"
    b"\x00\x00storageq\x06ctorch\nFloatStorage\nq\x07X\x01\x00\x00\x000q\x08X\x03\x00"
    b"\x00\x00cpuq\tK\x18tq\nQK\x00K\x04K\x06\x86q\x0bK\x06K\x01\x86q\x0c\x89h\x02)Rq"
    b"\rtq\x0eRq\x0fss."
)
TABLE = np.arange(24, dtype=np.float32)


@pytest.fixture(scope="module")
def public(tmp_path_factory):
    """A folder of tiny weights as Hugging Face keeps CLIP."""
    folder = tmp_path_factory.mktemp("public") / "x"
    folder.mkdir()
    arrays = models.clip_arrays(np.random.default_rng(0), width=8, depth=1, embed=4)
    shared = {"hidden_size": 8, "intermediate_size": 32, "num_hidden_layers": 1}
    shared |= {"num_attention_heads": 2, "hidden_act": "gelu"}
    words = {"vocab_size": models.VOCAB, "max_position_embeddings": 12}
    config = {
        "model_type": "clip",
        "projection_dim": 4,
        "text_config": shared | words,
        "vision_config": shared | {"image_size": 8, "patch_size": 4},
    }
    safetensors.numpy.save_file(arrays, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer = _clip_tokenizer.from_merges(models.MERGES, 12)
    for name, text in _clip_tokenizer.hugging_face_files(tokenizer)[0].items():
        (folder / name).write_text(text)
    return folder


def spoiled(rng, folder, notes):
    path = rng.choice(sorted(folder.iterdir()))
    notes.append(path.name)
    if path.suffix == ".safetensors" and rng.random() < 0.55:
        data = path.read_bytes()
        (size,) = struct.unpack("<Q", data[:8])
        head = fuzzing.mutate(rng, json.loads(data[8 : 8 + size]), notes)
        head = json.dumps(head).encode()
        path.write_bytes(struct.pack("<Q", len(head)) + head + data[8 + size :])
    else:
        fuzzing.alter(rng, path, notes)


def described(source):
    """What a format makes of a source, in values that compare."""
    model = formats.find(formats.detect(source)).to_mmjax(source)
    words = model.tokenizer and model.tokenizer.to_json()
    arrays = {k: np.asarray(v) for k, v in model.arrays.items()}
    return repr((model.task, model.image, words)), arrays


def same(found, want):
    return found.keys() == want.keys() and all(
        np.array_equal(found[k], want[k], equal_nan=True) for k in want
    )


@fuzzing.counts(2, 0.03)
def test_damaged_weights_become_no_run(count, public, ledger, tmp_path):
    """All the way: neither a safetensors file nor a JSON beside it has a sum."""
    about, arrays = described(read.read(public))
    place = tmp_path / "x"

    def attempt(rng, notes):
        for folder in (place, tmp_path / "run"):
            shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(public, place)
        spoiled(rng, place, notes)
        with fuzzing.warnings() as said:
            import_export.bring_in(str(place), tmp_path / "run")
        found = described(read.read(place))
        if found[0] == about and same(found[1], arrays):
            return fuzzing.RIGHT
        return fuzzing.NAMED if said else fuzzing.UNSUMMED

    ledger.explore("weights", count, attempt)


@fuzzing.counts(10, 0.05)
def test_a_damaged_torch_archive(count, ledger, tmp_path):
    """Its members have sums: the numbers are those that were written, or refused."""
    path = tmp_path / "x.pt"

    def write(program):
        with zipfile.ZipFile(path, "w") as out:
            out.writestr("m/data.pkl", program)
            out.writestr("m/byteorder", b"little")
            out.writestr("m/data/0", TABLE.tobytes())

    def attempt(rng, notes):
        program = PICKLE
        if inside := rng.random() < 0.6:  # with a sum that fits
            program = fuzzing.damage(rng, PICKLE, notes)[0]
        write(program)
        if not inside:
            path.write_bytes(fuzzing.damage(rng, path.read_bytes(), notes)[0])
        found = read.read(path).tensors
        if same(found, {"w": TABLE.reshape(4, 6)}):
            return fuzzing.RIGHT
        return fuzzing.UNSUMMED if inside else fuzzing.SILENT

    write(PICKLE)
    assert same(read.read(path).tensors, {"w": TABLE.reshape(4, 6)})
    ledger.explore("weights", count, attempt)
