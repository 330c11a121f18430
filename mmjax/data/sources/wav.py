"""A folder of wav files: `wav:/d/recordings?label={label}_{speaker}_{n}`."""

import io
from typing import Any

import numpy as np
from scipy.io import wavfile

from mmjax.data.records import BrokenRecord
from mmjax.data.sources import encoded, folder

_UNKNOWN = 0xFFFFFFFF  # the size in the header of a file that was streamed


def open(path: str, label: str = "none") -> "Wav":
    """Every wav file under `path`, at any depth, sorted by path.

    label: as in folder, from the parent folder, from a pattern of names, or `none`;
    empty: transcripts, the lines of the text file of the same name.

    Records have `audio` float32 (T,) in [-1, 1], channels averaged, and `audio_rate`
    in Hz.
    """
    return Wav(encoded.existing(path, "folder"), label)


class Wav(folder.Folder):
    """Recordings of a folder, in the order of their paths."""

    KIND, TERM, SUFFIXES = "wav", "recordings", ("wav",)

    def decode(self, i: int, place: str) -> dict[str, Any]:
        rate, audio = decode(self.encoded(i), place)
        return {"audio": audio, "audio_rate": rate}


def decode(data: bytes, place: str) -> tuple[int, np.ndarray]:
    """(Hz, float32 (T,) in [-1, 1]) of a wav file's bytes.

    PCM of 8 to 32 bits, or floats. Raises BrokenRecord at `place` for anything else,
    and where the file is cut short.
    """
    size = int.from_bytes(data[4:8], "little")
    if data[:4] == b"RIFF" and size != _UNKNOWN and len(data) < size + 8:
        reason = f"the wav is cut short: {len(data)} bytes of {size + 8}"
        raise BrokenRecord(place, reason)
    try:
        rate, samples = wavfile.read(io.BytesIO(data))
    except Exception as error:  # of a damaged header scipy raises whatever it meets
        raise BrokenRecord(place, f"cannot decode the wav: {error}") from error
    if not samples.size:
        raise BrokenRecord(place, "the wav has no samples")
    audio = samples.astype(np.float32)
    if samples.dtype == np.uint8:
        audio = (audio - 128) / 128
    elif samples.dtype.kind == "i":
        audio /= 2.0 ** (8 * samples.dtype.itemsize - 1)
    return int(rate), audio if audio.ndim == 1 else audio.mean(axis=1)
