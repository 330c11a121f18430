"""A recording as features over time."""

import dataclasses
import functools
import math
import numbers
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import scipy.fft
import scipy.signal

from mmjax.data.fields import base
from mmjax.data.fields.numbers import Numbers
from mmjax.data.records import Record
from mmjax.errors import UserError

_SILENCE = 1e-10  # the least power whose logarithm is taken


@dataclasses.dataclass(frozen=True)
class Field(Numbers):
    """Gives NAME float32 (frames, width) and NAME_mask bool (frames,).

    A record's value is a waveform (T,), float or 16-bit integers (which become -1 to
    1), of one channel; its OF_rate, such as `audio_rate`, is in samples a second and
    taken to be `rate` where there is none. A longer recording is cut, at random in
    training, to its centre in evaluation; a shorter one is padded, and the mask False
    of frames that begin after its end.

    front_end: `log_mel` (width `mels`), `mfcc` (width `coefficients`) or `waveform`
      (width 1, a frame a sample).
    rate: samples a second that recordings are resampled to.
    seconds: the length of a row.
    window_ms, hop_ms: the length of a frame's Hann window, and from frame to frame.
    mels: triangular filters, evenly spaced in mel (HTK's) from 0 to rate / 2.
    coefficients: of the orthonormal DCT-II of log_mel, from the 0th.
    """

    front_end: Literal["log_mel", "mfcc", "waveform"] = "log_mel"
    rate: int = 16_000
    seconds: float = 1.0
    window_ms: float = 25.0
    hop_ms: float = 10.0
    mels: int = 80
    coefficients: int = 13

    samples: ClassVar[int]  # of a row
    window: ClassVar[int]  # samples of a frame
    hop: ClassVar[int]  # samples from frame to frame

    def __post_init__(self) -> None:
        super().__post_init__()
        wave = self.front_end == "waveform"
        window, hop = (
            1 if wave else round(ms * self.rate / 1000)
            for ms in (self.window_ms, self.hop_ms)
        )
        samples = round(self.seconds * self.rate)
        vars(self).update(samples=samples, window=window, hop=hop)
        if self.front_end == "mfcc" and self.coefficients > self.mels:
            values = f"coefficients {self.coefficients} of mels {self.mels}"
            raise UserError(f"{values}: use at most as many")
        if self.hop < 1 or not self.hop <= self.window <= self.samples:
            raise UserError(
                f"hop_ms {self.hop_ms}, window_ms {self.window_ms} and seconds "
                f"{self.seconds}: use 0 < hop <= window <= the whole"
            )

    @property
    def step(self) -> tuple[int, ...]:
        widths = {"waveform": 1, "log_mel": self.mels, "mfcc": self.coefficients}
        return (widths[self.front_end],)

    @functools.cached_property
    def filters(self) -> np.ndarray:
        """The mel filters, float32 (mels, window // 2 + 1)."""
        top = 2595 * math.log10(1 + self.rate / 2 / 700)
        edges = 700 * (10 ** (np.linspace(0, top, self.mels + 2) / 2595) - 1)
        bins = np.fft.rfftfreq(self.window, 1 / self.rate)
        low, middle, high = (edges[k : k + self.mels, None] for k in range(3))
        sides = (bins - low) / (middle - low), (high - bins) / (high - middle)
        return np.maximum(0, np.minimum(*sides)).astype(np.float32)

    def shapes(self, name: str) -> base.Shapes:
        frames = 1 + (self.samples - self.window) // self.hop
        return base.series(name, (frames, *self.out), "float32")

    def facts(self, name: str) -> dict[str, Any]:
        """`rate`: frames a second."""
        return super().facts(name) | {"rate": self.rate / self.hop}

    def row(self, name: str, record: Record, rng: Any, view: base.View) -> Any:
        wave = self.waveform(name, record)
        at = base.start(len(wave), self.samples, rng)
        wave, recorded = base.padded(wave[at:], self.samples)
        frames = self.normal(self.features(wave))
        # a frame counts that begins within the recording
        mask = recorded[:: self.hop][: len(frames)]
        return {name: frames * mask[:, None], f"{name}_mask": mask}

    def numbers(self, name: str, record: Record) -> np.ndarray:
        wave = self.waveform(name, record)
        wave = base.padded(wave, max(len(wave), self.window))[0]
        return self.features(wave)

    def column(self, name: str, columns: Mapping[str, Any], index: Any) -> None:
        return None  # features are made row by row

    def waveform(self, name: str, record: Record) -> np.ndarray:
        """The recording at `rate`, float32 (T,)."""
        value = self.value(name, record)
        wave, key = self.array(name, record, value), f"{self.reads(name)}_rate"
        rate = record.get(key, self.rate)
        if not isinstance(rate, numbers.Real) or rate < 1 or rate % 1:
            reason = f"{key} {rate!r}: use a whole number of samples a second"
            raise base.misfit(name, record, reason)
        if wave.ndim != 1 or not wave.size:
            reason = f"expected a waveform (T,), got {wave.shape}"
            raise base.misfit(name, record, f"{reason}: give one channel")
        if np.asarray(value).dtype.kind == "i":
            wave = wave / np.float32(1 << 15)
        if rate == self.rate:
            return wave
        common = math.gcd(int(rate), self.rate)
        up, down = self.rate // common, int(rate) // common
        return scipy.signal.resample_poly(wave, up, down)

    def features(self, wave_t: np.ndarray) -> np.ndarray:
        """(frames, width) of all frames wholly inside a waveform."""
        if self.front_end == "waveform":
            return wave_t[:, None]
        frames_fw = np.lib.stride_tricks.sliding_window_view(wave_t, self.window)
        hann_w = scipy.signal.windows.hann(self.window, sym=False).astype(np.float32)
        power_fk = np.abs(np.fft.rfft(frames_fw[:: self.hop] * hann_w)) ** 2
        log_mel_fm = np.log(np.maximum(power_fk @ self.filters.T, _SILENCE))
        if self.front_end == "log_mel":
            return log_mel_fm
        return scipy.fft.dct(log_mel_fm, norm="ortho")[:, : self.coefficients]

    def sound(self, frames_fw: np.ndarray, *, rounds: int = 60) -> np.ndarray:
        """A waveform float32 (T,), -1 to 1, whose features are about `frames_fw`.

        Features say nothing of phases: these are found by Griffin and Lim 1984, in
        `rounds`. What the mel filters and coefficients left out stays lost.
        """
        if self.front_end == "waveform":
            return np.clip(frames_fw[:, 0], -1, 1).astype(np.float32)
        if self.front_end == "mfcc":
            frames_fw = scipy.fft.idct(frames_fw, n=self.mels, norm="ortho")
        power_fk = np.exp(frames_fw) @ np.linalg.pinv(self.filters).T
        size_fk = np.sqrt(np.maximum(power_fk, 0))
        hann_w = scipy.signal.windows.hann(self.window, sym=False)
        at_fw = np.arange(len(size_fk))[:, None] * self.hop + np.arange(self.window)

        def added(frames_fw: np.ndarray) -> np.ndarray:
            out_t = np.zeros(at_fw[-1, -1] + 1)
            np.add.at(out_t, at_fw, frames_fw)
            return out_t

        weight_t = np.maximum(added(np.broadcast_to(hann_w**2, at_fw.shape)), 1e-3)
        turn_fk = np.random.default_rng(0).uniform(0, 2 * np.pi, size_fk.shape)
        for _ in range(rounds):
            frames = np.fft.irfft(size_fk * np.exp(1j * turn_fk), self.window)
            wave_t = added(frames * hann_w) / weight_t
            turn_fk = np.angle(np.fft.rfft(wave_t[at_fw] * hann_w))
        return np.clip(wave_t, -1, 1).astype(np.float32)
