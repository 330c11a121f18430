"""What a model rebuilds: shares of variance, a PNG of steps, and sound."""

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy.io import wavfile

from mmjax import evaluators
from mmjax.data import fields
from mmjax.errors import UserError

CONFIG = {"type": "rebuilt", "source": "test"}


def visible(variables, batch):
    rows = len(next(iter(batch.values())))
    image = batch.get("image", jnp.zeros((rows, 2, 2, 3))).reshape(rows, -1)
    tokens = batch.get("tokens", jnp.zeros((rows, 4)))
    return {
        "image": jnp.asarray(image, jnp.float32) / 255,
        "tokens": jnp.asarray(tokens, jnp.float32),
    }


def rebuilt(variables, batch):
    """What is given is rebuilt; of images the tokens know the mean of `make_source`."""
    rows = visible(variables, batch)
    if "image" not in batch:
        rows["image"] = jnp.full_like(rows["image"], 100 / 255)
    return rows


def build(make_env, make_source, **more):
    label = np.arange(8) % 2
    vectors = np.repeat(label[:, None] * 200, 12, 1)
    texts = [["word"] if one else ["an other"] for one in label]
    source = make_source(vectors, texts=texts)
    env = make_env({"test": source}, rebuilt=rebuilt, visible=visible)
    raw = env.raw | {"rebuilt": rebuilt, "visible": visible}
    object.__setattr__(env, "raw", raw)
    return env, evaluators.build("x", CONFIG | more, env)


def test_errors_are_shares_of_the_variance(make_env, make_source, tmp_path):
    png = tmp_path / "a/sheet.png"
    _, evaluator = build(make_env, make_source, png=str(png), shown=3)
    evaluator.check({})
    values = evaluator.run({}).values
    assert values["image_from_all"] == values["image_from_image"] == 0
    assert values["image_from_tokens"] == pytest.approx(1, abs=1e-5)
    assert values["tokens_from_image"] > 0.5
    sheet = np.asarray(Image.open(png))
    assert sheet.shape[1] > 3 * 96
    dark, light = ((sheet == shade).all(-1).sum() for shade in (0, 255))
    assert dark > 2 * 96 * 96 and light > 96 * 96


def test_sounds_are_written_where_there_is_sound(make_env, make_source, tmp_path):
    how = {"png": str(tmp_path / "x.png"), "wav": str(tmp_path / "wav"), "shown": 2}
    env, evaluator = build(make_env, make_source, **how)
    with pytest.raises(UserError, match="none of .* is of kind audio"):
        evaluator.run({})
    wave = fields.build({"audio": {"kind": "audio", "front_end": "waveform"}})
    object.__setattr__(env, "fields", {"tokens": wave["audio"]})
    evaluator.run({})
    names = sorted(path.name for path in (tmp_path / "wav").iterdir())
    assert "tokens_0_given.wav" in names and "tokens_1_image.wav" in names
    rate, samples = wavfile.read(tmp_path / "wav/tokens_0_given.wav")
    assert rate == 16_000 and samples.shape == (4,)


def test_frames_of_a_field_that_is_not_there(make_env, make_source):
    with pytest.raises(UserError, match="frames has 'lips': name one of"):
        build(make_env, make_source, frames={"lips": (2, 2)})
