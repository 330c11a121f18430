import pickle
import wave

import numpy as np
import pytest
from scipy.io import wavfile

from mmjax.data.records import BrokenRecord
from mmjax.data.sources import open_source
from mmjax.errors import UserError

TONE = np.sin(np.arange(400) / 5).astype(np.float32) * 0.5
NAMES = "?label={label}_{speaker}_{n}"


@pytest.fixture
def folder(tmp_path):
    for name in ("0_ann_1", "0_bob_0", "7_ann_0"):
        wavfile.write(tmp_path / f"{name}.wav", 8000, (TONE * 32767).astype(np.int16))
    return tmp_path


def test_labels_from_names(folder):
    source = open_source(f"wav:{folder}{NAMES}")
    assert source.class_names == ("0", "7") and len(source) == 3
    record = source[2]
    assert record["label"] == 1 and record["speaker"] == "ann" and record["n"] == "0"
    assert record["key"] == "7_ann_0" and record["audio_rate"] == 8000
    assert record["audio"].dtype == np.float32 and "image" not in record
    np.testing.assert_allclose(record["audio"], TONE, atol=1e-4)
    assert pickle.loads(pickle.dumps(source))[1]["speaker"] == "bob"
    wavfile.write(folder / "noname.wav", 8000, TONE)
    source = open_source(f"wav:{folder}{NAMES}")
    assert source.class_names == ("0", "7") and source[2]["label"] == 1
    with pytest.raises(BrokenRecord, match=r"'noname' of noname\.wav does not fit"):
        source[3]


def test_labels_from_folders_and_transcripts(folder):
    (folder / "ann").mkdir()
    (folder / "0_ann_1.wav").rename(folder / "ann" / "x.wav")
    (folder / "ann" / "x.txt").write_text("zero\n")
    assert open_source(f"wav:{folder}/ann?label=")[0]["text"] == ["zero"]
    assert open_source(f"wav:{folder}/ann")[0]["text"] == []
    with pytest.raises(BrokenRecord, match=r"0_bob_0\.wav lies in no class's folder"):
        open_source(f"wav:{folder}?label=parent")[0]
    for name in ("0_bob_0", "7_ann_0"):
        (folder / f"{name}.wav").unlink()
    source = open_source(f"wav:{folder}?label=parent")
    assert source.class_names == ("ann",) and source[0]["label"] == 0
    (folder / "ann" / "x.wav").unlink()
    with pytest.raises(UserError, match="holds no recordings"):
        open_source(f"wav:{folder}")


@pytest.mark.parametrize(
    "samples",
    [
        TONE,
        (TONE * 128 + 128).round().astype(np.uint8),
        (TONE * (2**31 - 1)).astype(np.int32),
        np.stack([TONE + 0.25, TONE - 0.25], 1),
    ],
    ids=["float", "8-bit", "32-bit", "stereo"],
)
def test_forms(tmp_path, samples):
    wavfile.write(tmp_path / "x.wav", 16000, samples)
    record = open_source(f"wav:{tmp_path}")[0]
    np.testing.assert_allclose(record["audio"], TONE, atol=0.01)
    assert record["audio"].dtype == np.float32


def test_24_bit(tmp_path):
    with wave.open(str(tmp_path / "x.wav"), "wb") as file:
        file.setparams((1, 3, 8000, 0, "NONE", ""))
        file.writeframes(b"".join(n.to_bytes(3, "little") for n in (0, 1 << 22)))
    assert open_source(f"wav:{tmp_path}")[0]["audio"].tolist() == [0, 0.5]


@pytest.mark.parametrize(
    "damage, reason",
    [
        (lambda data: data[:300], "cut short: 300 bytes of 844"),
        (lambda data: b"nothing of the kind", "cannot decode"),
        (lambda data: b"", "cannot decode"),
        (lambda data: data[:20] + b"\x06" + data[21:], "cannot decode"),  # A-law
    ],
)
def test_broken_files(folder, damage, reason):
    path = folder / "0_ann_1.wav"
    path.write_bytes(damage(path.read_bytes()))
    source = open_source(f"wav:{folder}{NAMES}")
    with pytest.raises(BrokenRecord, match=reason) as error:
        source[0]
    assert error.value.place == str(path)
    assert len(source[1]["audio"]) == 400


def test_no_samples(tmp_path):
    wavfile.write(tmp_path / "x.wav", 8000, np.zeros(0, np.int16))
    with pytest.raises(BrokenRecord, match="no samples"):
        open_source(f"wav:{tmp_path}")[0]
