import numpy as np
import pytest
import scipy.fft
import scipy.signal
from record_source import Records

from mmjax.data import fields
from mmjax.data.fields.base import View
from mmjax.errors import UserError

NOISE = np.random.default_rng(0).normal(0, 0.1, 8000).astype(np.float32)


def build(**options):
    return fields.build({"audio": {"kind": "audio", "rate": 8000, **options}})


def mel_by_hand(wave, *, mels):
    """log mel by scipy's spectrogram and filters that are written out one by one."""
    hann = scipy.signal.get_window("hann", 200, fftbins=True)
    spectra = scipy.signal.ShortTimeFFT(hann, hop=80, fs=8000)
    frames = 1 + (len(wave) - 200) // 80
    power = spectra.spectrogram(np.float64(wave), p0=0, p1=frames, k_offset=100).T
    top = 2595 * np.log10(1 + 4000 / 700)
    edges = [700 * (10 ** (top * k / (mels + 1) / 2595) - 1) for k in range(mels + 2)]
    out = np.zeros((frames, mels))
    for m in range(mels):
        low, middle, high = edges[m : m + 3]
        for k, hertz in enumerate(np.arange(101) * 40.0):
            if low < hertz <= middle:
                out[:, m] += power[:, k] * (hertz - low) / (middle - low)
            elif middle < hertz < high:
                out[:, m] += power[:, k] * (high - hertz) / (high - middle)
    return np.log(np.maximum(out, 1e-10))


def test_log_mel_and_mfcc_against_formulas():
    wanted = mel_by_hand(NOISE, mels=20)
    batch = fields.encode(build(mels=20), "audio", [NOISE])
    assert batch["audio"].shape == (1, 98, 20) and batch["audio_mask"].all()
    np.testing.assert_allclose(batch["audio"][0], wanted, atol=1e-3)
    chosen = build(mels=20, coefficients=7, front_end="mfcc")
    cepstrum = fields.encode(chosen, "audio", [NOISE])["audio"][0]
    n, k = np.arange(20), np.arange(7)[:, None]
    basis = np.cos(np.pi * k * (2 * n + 1) / 40) * np.sqrt(2 / 20)
    basis[0] /= np.sqrt(2)
    np.testing.assert_allclose(cepstrum, wanted @ basis.T, atol=1e-3)


def test_a_tone_lies_in_its_band():
    tone = np.sin(2 * np.pi * 1000 * np.arange(8000) / 8000)
    bands = fields.encode(build(mels=40), "audio", [tone])["audio"][0].argmax(1)
    top = 2595 * np.log10(1 + 4000 / 700)
    middle = 2595 * np.log10(1 + 1000 / 700) / top * 41 - 1
    assert (np.abs(bands - middle) < 1).all()


def test_waveform_keeps_samples():
    chosen = build(front_end="waveform")
    batch = fields.encode(chosen, "audio", [NOISE, NOISE[:100]])
    np.testing.assert_array_equal(batch["audio"][0, :, 0], NOISE)
    assert batch["audio_mask"].sum(1).tolist() == [8000, 100]
    assert fields.spec(chosen)["audio"]["rate"] == 8000
    whole = np.round(NOISE * 2**15).astype(np.int16)
    batch = fields.encode(chosen, "audio", [whole])
    np.testing.assert_allclose(batch["audio"][0, :, 0], NOISE, atol=2**-15)


def test_padding_is_masked():
    chosen = build(mels=8)
    batch = fields.encode(chosen, "audio", [NOISE[:1000]])
    assert batch["audio_mask"].sum() == 13  # frames at 0, 80, ... 960
    assert (batch["audio"][~batch["audio_mask"]] == 0).all()
    assert fields.spec(chosen)["audio"]["rate"] == 100


@pytest.mark.parametrize("rate", [16_000, 44_100, 4000.0])
def test_other_rates_are_resampled(rate):
    times = np.arange(int(rate)) / rate
    record = {"audio": np.sin(2 * np.pi * 440 * times), "audio_rate": rate}
    chosen = build(front_end="waveform")
    wave = fields.row(chosen, record, None, View(train=False))["audio"]["audio"][:, 0]
    wanted = np.sin(2 * np.pi * 440 * np.arange(8000) / 8000)
    np.testing.assert_allclose(wave[200:-200], wanted[200:-200], atol=0.02)


def test_windows():
    record = {"audio": np.arange(12_000.0)}
    chosen = build(front_end="waveform", seconds=0.5)
    row = fields.row(chosen, record, None, View(train=False))["audio"]
    assert row["audio"][0, 0] == 4000 and row["audio_mask"].all()
    rng = np.random.default_rng(0)
    rows = [fields.row(chosen, record, rng, View(train=True)) for _ in range(50)]
    starts = {row["audio"]["audio"][0, 0] for row in rows}
    assert len(starts) > 40 and min(starts) < 1000 and max(starts) > 7000


def test_features_are_standardised_over_the_training_records():
    source = Records([{"audio": NOISE[:n] * n} for n in (100, 3000, 8000)])
    built = build(mels=8, normalize="standard")
    chosen = fields.open_fields(built, lambda: source, {})
    rows = [fields.row(chosen, source[i], None, View(train=False)) for i in (1, 2)]
    batch = fields.collate(chosen, rows)
    frames = batch["audio"][batch["audio_mask"]]
    np.testing.assert_allclose(frames.mean(0), 0, atol=0.3)
    np.testing.assert_allclose(frames.std(0), 1, atol=0.3)


@pytest.mark.parametrize(
    "record, message",
    [
        ({"audio": np.zeros((100, 2))}, r"waveform \(T,\), got \(100, 2\): give one"),
        ({"audio": np.zeros(0)}, r"got \(0,\)"),
        ({"audio": NOISE, "audio_rate": 0}, "audio_rate 0: use a whole number"),
        ({"audio": NOISE, "audio_rate": 44.1}, "audio_rate 44.1: use a whole number"),
        ({"audio": NOISE, "audio_rate": "8k"}, "audio_rate '8k': use a whole number"),
    ],
)
def test_records_that_do_not_fit(record, message):
    with pytest.raises(fields.BrokenRecord, match=message):
        fields.row(build(), record, None, View(train=False))


def test_options():
    with pytest.raises(UserError, match="hop <= window <= the whole"):
        build(seconds=0.01)
    with pytest.raises(UserError, match="hop <= window <= the whole"):
        build(hop_ms=0.0)
    with pytest.raises(UserError, match="coefficients 13 of mels 8"):
        build(front_end="mfcc", mels=8)
    with pytest.raises(UserError, match="'log_mle' is not one of 'log_mel', 'mfcc'"):
        build(front_end="log_mle")


@pytest.mark.parametrize("front_end", ["log_mel", "mfcc"])
def test_sound_of_features_has_these_features(front_end):
    chirp = scipy.signal.chirp(np.arange(8000) / 8000, 300, 1, 2500)
    wave = (0.5 * chirp).astype(np.float32)
    field = build(front_end=front_end, mels=40, coefficients=40)["audio"]
    again = field.sound(field.features(wave))
    assert again.shape == (97 * 80 + 200,) and np.abs(again).max() <= 1
    mels = build(mels=40)["audio"]
    wanted, got = (np.exp(mels.features(x)) for x in (wave[: len(again)], again))
    # in the band of the tone the energy is that of the original, frame by frame
    where = wanted.argmax(1)
    rows = np.arange(5, len(wanted) - 5)
    ratio = got[rows, where[rows]] / wanted[rows, where[rows]]
    assert 0.5 < np.median(ratio) < 1.5
    assert (np.abs(got.argmax(1)[rows] - where[rows]) <= 1).mean() > 0.95
    # without the phases that are found it is a chirp no longer
    assert np.median(ratio) > np.median(
        np.exp(mels.features(field.sound(field.features(wave), rounds=1)))[
            rows, where[rows]
        ]
        / wanted[rows, where[rows]]
    )


def test_sound_of_a_waveform_is_the_waveform():
    field = build(front_end="waveform")["audio"]
    np.testing.assert_array_equal(field.sound(field.features(NOISE)), NOISE)
