"""A trained demo as one small file, and where `demo` finds one.

    mmjax demo --pack demo.tar          # its three runs, weights in float16
    MMJAX_DEMO=demo.tar mmjax sample demo "a small red star"

The archive holds `demo/recipe.json`, and of each run `run.json` and
`weights.safetensors`. Opening it runs nothing that is in it. A run of it is written
once, as training would, into the user's cache folder.
"""

import hashlib
import io
import json
import os
import pathlib
import tarfile
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from mmjax import errors, schema, tree
from mmjax.cache import cache_dir
from mmjax.errors import UserError
from mmjax.train import config as config_lib
from mmjax.train import restore, run_file, setup

NAME, VARIABLE = "demo", "MMJAX_DEMO"
RUNS = ("clip", "tokenizer", "prior")
RECIPE, _RUN, _WEIGHTS = "recipe.json", run_file.NAME, "weights.safetensors"
_MOST = 64 << 20  # bytes of one file of an archive
_Read = Callable[[str], bytes]  # a file of a packed demo; KeyError or OSError


def place(name: str | os.PathLike) -> pathlib.Path:
    """The workdir of a run: the given one, or for `demo` that of the demo's prior.

    `demo/clip`, `demo/tokenizer` and `demo/prior` name one of its runs. They are
    looked for in what MMJAX_DEMO names, an archive of `pack`, the folder that it was
    unpacked to or a demo's workdir; without it in runs/demo.

    Raises:
      UserError: `demo` is asked for and none is there, or the archive is damaged.
    """
    given = pathlib.Path(name)
    first, *rest = given.parts or ("",)
    known = not rest or (len(rest) == 1 and rest[0] in RUNS)
    packed = (given / _WEIGHTS).exists()
    if first != NAME or not known or (run_file.exists(given) and not packed):
        return given
    run = rest[0] if rest else "prior"
    asked = os.environ.get(VARIABLE, "")
    home = pathlib.Path(asked or f"runs/{NAME}").expanduser()
    if home.is_file() or (home / run / _WEIGHTS).is_file():
        return _written(home, run)
    if run_file.exists(home / run):
        return home / run
    where = f"{VARIABLE}={asked}" if asked else f"runs/{NAME} of {pathlib.Path.cwd()}"
    raise UserError(
        f"{name}: there is no trained demo in {where}: train one (mmjax demo), or set "
        f"{VARIABLE} to the archive of one, or give the workdir of another run"
    )


def pack(workdir: pathlib.Path, file: pathlib.Path, recipe: Mapping[str, Any]) -> int:
    """Writes the runs of a demo's workdir as one archive; its size in bytes.

    recipe: what it takes to train them again, kept as `demo/recipe.json`.

    Raises:
      UserError: a run is missing or not done, or a weight is too large for float16.
    """
    held = {RECIPE: json.dumps(dict(recipe), indent=1).encode() + b"\n"}
    for run in RUNS:
        home = workdir / run
        if not run_file.exists(home):
            raise UserError(f"{workdir} has no {run}: run mmjax demo there first")
        parts, state = restore.restore(home)
        if int(state.step) != parts.cfg.steps:
            raise UserError(
                f"{home} is at step {int(state.step)} of {parts.cfg.steps}: run mmjax "
                "demo there until it is done"
            )
        variables = state.eval_vars()
        frozen = {"frozen": variables.frozen} if variables.frozen else {}
        arrays = {"params": variables.params, **variables.extra, **frozen}
        leaves = tree.flatten(parts.layout.fetch(arrays))
        halves = {path: _half(path, np.asarray(x)) for path, x in leaves.items()}
        about = {**setup.about(parts), "step": int(state.step)}
        held[f"{run}/{_RUN}"] = json.dumps(
            {"format": run_file.FORMAT, **about}, indent=1, sort_keys=True
        ).encode()
        held[f"{run}/{_WEIGHTS}"] = safetensors.numpy.save(halves)
    with errors.writing(file) as part, tarfile.open(part, "w") as archive:
        for name, data in held.items():
            member = tarfile.TarInfo(f"{NAME}/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return file.stat().st_size


def _half(path: str, array: np.ndarray) -> np.ndarray:
    if array.dtype.kind != "f":
        return array
    if not (np.abs(array) <= np.finfo(np.float16).max).all():
        raise UserError(f"{path} holds what float16 cannot: {np.abs(array).max()}")
    return array.astype(np.float16)


def _written(home: pathlib.Path, run: str) -> pathlib.Path:
    """The workdir of a packed run, in the cache; written where it is not there."""
    try:
        read = _reader(home)
        about, weights = read(f"{run}/{_RUN}"), read(f"{run}/{_WEIGHTS}")
        digest = hashlib.sha256(about + weights).hexdigest()[:12]
        workdir = cache_dir() / "models" / f"demo-{run}-{digest}"
        if not run_file.exists(workdir):
            _write(schema.parse_json(about), weights, workdir)
    except UserError:
        raise
    except Exception as error:  # the file may hold anything
        said = f"{type(error).__name__}: {error}"
        raise UserError(
            f"{home} is no archive of mmjax demo --pack, or is damaged ({said:.200}): "
            f"set {VARIABLE} to another, or train a demo (mmjax demo)"
        ) from error
    return workdir


def _reader(home: pathlib.Path) -> _Read:
    if home.is_dir():
        return lambda name: (home / name).read_bytes()
    with tarfile.open(home, "r:") as archive:
        files = {}
        for member in archive:  # by their names alone: nothing is extracted
            if member.isfile() and member.size <= _MOST:
                files[member.name] = archive.extractfile(member).read()
    return lambda name: files[f"{NAME}/{name}"]


def _write(run: dict[str, Any], weights: bytes, workdir: pathlib.Path) -> None:
    """Writes a workdir as training does, weights in float32."""
    from mmjax.convert import import_export

    config = config_lib.from_json(run["config"])
    config.optim = {"name": "sgd", "momentum": 0.0, "schedule": "constant"}  # no slots
    config.parallel = {}
    parts = setup.build(config, saved=run["fields"])
    arrays = safetensors.numpy.load(weights)
    full = {
        path: x.astype(np.float32) if x.dtype == np.float16 else x
        for path, x in arrays.items()
    }
    workdir.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=workdir.parent) as part:
        made = pathlib.Path(part) / "run"
        import_export.save(parts, tree.unflatten(full), made, step=run["step"])
        os.replace(made, workdir)
