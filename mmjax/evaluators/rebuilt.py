"""What a model of several modalities makes of one record, of all fields or one alone.

Images and series of a few records, as given and as rebuilt, in one PNG; sound also
as wav, where the field's front end can be turned back.

Legend: b rows, n records, d numbers of a field in a row.
"""

import math
import pathlib
from dataclasses import dataclass, field

import numpy as np
from PIL import Image
from scipy.io import wavfile

from mmjax import errors
from mmjax.evaluators import base
from mmjax.evaluators.common import forward
from mmjax.report import image_grid

SIDE = 96  # pixels of an image in the PNG
_DEFINITIONS = {
    "NAME_from_all": "mean squared error of the field NAME, all fields given, over its "
    "variance in these records",
    "NAME_from_GIVEN": "the same, the field GIVEN alone",
}


@dataclass(frozen=True)
class Config(base.EvalConfig):
    """png: the file to write. wav: a folder for sounds; empty writes none.

    shown: how many records the PNG has, evenly spaced.
    frames: of a field whose steps are images, their (height, width). Other series are
    shown as time by numbers, dark where large.
    """

    png: str = "rebuilt.png"
    wav: str = ""
    shown: int = 6
    frames: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least(shown=1)


class Evaluator(base.Evaluator):
    """Calls predict "rebuilt": {any fields} to (b, d) by field; "visible": the same.

    What is rebuilt is to equal what is visible.
    """

    config_class = Config

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.calls = {"rebuilt": None, "visible": None}
        self.fields = [name.rstrip("?") for name in self.env.reads]
        for name in self.config.frames:
            if name not in self.fields:
                raise self.error(f"frames has {name!r}: name one of {self.fields}")

    def check(self, vars_abstract: base.PyTree) -> None:
        """See the base."""
        for name, shapes in self.output_shapes(vars_abstract).items():
            if not isinstance(shapes, dict) or set(shapes) != set(self.fields):
                raise self.error(f"{name!r} must give rows by field, of {self.fields}")

    def run(self, variables: base.PyTree) -> base.Result:
        """Errors by field and by what was given, with intervals, and the files."""
        ways = {"all": self.fields} | {name: [name] for name in self.fields}

        def keep(outputs: dict, batch: base.Batch, valid_b: np.ndarray) -> dict:
            given = forward.inputs(batch, "rebuilt", None, self.where)
            rows = dict(outputs["visible"])
            for way, fields in ways.items():
                part = forward.of_fields(given, fields)
                out = self.env.predict["rebuilt"](variables, part)
                rows |= {f"{name}_from_{way}": out[name] for name in self.fields}
            return {
                k: np.asarray(x, np.float32)[valid_b].reshape(valid_b.sum(), -1)
                for k, x in rows.items()
            }

        arrays, counts, _ = self.collect(variables, keep=keep)
        names = [f"{name}_from_{way}" for name in self.fields for way in ways]
        error_kn, spread_kn = [], []
        for name in names:
            given_nd = arrays[name.rpartition("_from_")[0]]
            error_kn.append(np.square(arrays[name] - given_nd).mean(1))
            spread_kn.append(np.square(given_nd - given_nd.mean(0)).mean(1))
        error_kn, spread_kn = np.array(error_kn), np.array(spread_kn)
        values = self.intervals(
            names,
            lambda w: (error_kn @ w) / np.maximum(spread_kn @ w, 1e-12),
            error_kn.shape[1],
        )
        count = len(arrays["index"])
        few = np.unique(np.linspace(0, count - 1, self.config.shown).astype(int))
        shown = {key: rows_nd[few] for key, rows_nd in arrays.items()}
        self._draw(shown, list(ways))
        if self.config.wav:
            self._write_sounds(shown, list(ways))
        card = self.card(counts, _DEFINITIONS, text=False)
        return base.Result(values, card, {"index": arrays["index"]})

    def _raw(self, name: str, rows_nd: np.ndarray) -> np.ndarray:
        """Rows of a field as its records have them, (n, steps, width)."""
        kind = self.env.fields.get(name)
        width = getattr(kind, "out", None) or rows_nd.shape[1:]  # an image: one step
        steps = rows_nd.reshape(len(rows_nd), -1, *width)
        return kind.raw(steps) if hasattr(kind, "raw") else steps

    def _draw(self, arrays: dict[str, np.ndarray], ways: list[str]) -> None:
        rows, captions = [], []
        for name in self.fields:
            versions = {f"{name}, given": arrays[name]}
            versions |= {
                f"{name}, from {way}": arrays[f"{name}_from_{way}"] for way in ways
            }
            raw = {
                caption: self._raw(name, rows_nd)
                for caption, rows_nd in versions.items()
            }
            given = raw[f"{name}, given"]
            low, high = np.quantile(given, (0.01, 0.99))
            for caption, series_n in raw.items():
                shade_n = (series_n - low) / max(high - low, 1e-12)
                captions.append(caption)
                rows.append([i for one in shade_n for i in self._images(name, one)])
        image_grid.draw(self.config.png, rows, captions)

    def _images(self, name: str, shade: np.ndarray) -> list[np.ndarray]:
        """The steps of a row as images, or the row as one of time by numbers."""
        if name in self.config.frames:
            return [_square(x.reshape(self.config.frames[name])) for x in shade]
        side = math.isqrt(shade.size // 3)
        if len(shade) == 1 and side * side * 3 == shade.size:  # an RGB image
            return [_square(shade.reshape(side, side, 3))]
        side = math.isqrt(shade.size)
        if len(shade) == 1 and side * side == shade.size:
            return [_square(shade.reshape(side, side))]
        return [_square(1 - shade.T[::-1], stretch=True)]

    def _write_sounds(self, arrays: dict[str, np.ndarray], ways: list[str]) -> None:
        sounds = {n: f for n, f in self.env.fields.items() if hasattr(f, "sound")}
        heard = [name for name in self.fields if name in sounds]
        if not heard:
            raise self.error(
                f"wav is {self.config.wav!r}, and none of {self.fields} is of kind "
                "audio, whose features can be turned back into sound: leave wav empty"
            )
        for name in heard:
            for version in ("given", *ways):
                key = name if version == "given" else f"{name}_from_{version}"
                raw = self._raw(name, arrays[key])
                for i, frames_fw in enumerate(raw):
                    wave_t = sounds[name].sound(frames_fw)
                    path = pathlib.Path(self.config.wav) / f"{name}_{i}_{version}.wav"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    with errors.writing(path) as part:
                        wavfile.write(part, sounds[name].rate, wave_t)


def _square(shade: np.ndarray, *, stretch: bool = False) -> np.ndarray:
    """Shades (h, w) or (h, w, 3), 0 to 1, as an image of SIDE, padded or stretched."""
    pixels = Image.fromarray(image_grid.eight_bit(shade)).convert("RGB")
    ratio = SIDE / max(pixels.size)
    size = (SIDE, SIDE) if stretch else tuple(round(ratio * n) for n in pixels.size)
    out = Image.new("RGB", (SIDE, SIDE), image_grid.PAPER)
    out.paste(pixels.resize(size, Image.Resampling.NEAREST))
    return np.asarray(out)
