"""Public weights to a run, and a run to public weights: what `mmjax convert` calls."""

import dataclasses
import json
import pathlib
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from etils import epath
from ml_collections import ConfigDict

from mmjax import errors, schema, tree
from mmjax.data import prompts
from mmjax.errors import UserError
from mmjax.state import TrainState, Vars
from mmjax.train import checkpoint, init_from, restore, run_file, setup
from mmjax.train import config as config_lib

TEMPLATES = "prompt_templates.json"  # beside weights: sentences with {}, a list
NOTE = "convert.json"  # in the workdir: the format it came from, and what that carries
# No data: training on these weights takes a config of its own and config.graft.params.
_NO_DATA = "none:the weights were imported, config.data.train has to name a source"
_ROWS, _SENTENCES = 4, ("a photo of a dog", "two red circles", "it's raining!", "a")


@dataclasses.dataclass(frozen=True)
class Done:
    """A conversion: its run, the format and the step, and lines to print."""

    workdir: pathlib.Path
    family: str
    step: int | None
    lines: tuple[str, ...]


def bring_in(
    place: str,
    workdir: pathlib.Path,
    *,
    family: str | None = None,
    config: pathlib.Path | None = None,
    overrides: Sequence[str] = (),
) -> Done:
    """Makes a workdir of public weights.

    Args:
      place: what `mmjax.convert.read.read` opens.
      family: a format's name, where it cannot be told from the files.
      config: a JSON model config for weights that come without one.
      overrides: `--config.KEY=VALUE`, such as `--config.task.scan=true`. Another
        image_size resizes the positions of patches, and a line of the result says so.

    Raises:
      UserError: the place cannot be read or is of an unknown layout, an array has no
        place or another shape, or the workdir is not empty.
    """
    from mmjax.convert import formats, name_table, read

    workdir = _empty(workdir)
    source = read.read(place)
    if config is not None:
        try:
            given = schema.parse_json(read.whole(config))
        except (OSError, ValueError) as e:
            raise UserError(f"--json {config}: cannot be read as JSON ({e})") from e
        rest = {k: v for k, v in source.files.items() if k != config.name}
        source = dataclasses.replace(source, files={config.name: given, **rest})
    name = family or formats.detect(source)
    try:
        model = formats.find(name).to_mmjax(source)
        words = model.tokenizer and model.tokenizer.to_json()
        parts = setup.build(
            config_lib.override(_config(model, source).lock(), overrides),
            saved={"tokens": words} if words else {},
        )
    except UserError:
        raise
    except Exception as e:  # files of a foreign model can say anything
        reason = " ".join(f"{type(e).__name__}: {e}".split())[:200]
        raise UserError(
            f"{place}: its files describe no {name} model that can be built ({reason})"
        ) from e
    scanned = getattr(parts.task, "scan", False)
    arrays = name_table.stacked(model.arrays) if scanned else dict(model.arrays)
    shapes, resized = _flat(parts.update.shapes), []
    want = {path: leaf.shape for path, leaf in shapes.items()}
    if getattr(parts.task, "image_size", None) != model.task.get("image_size"):
        fitted, resized = init_from.resize_positions(arrays, shapes)
        arrays = tree.flatten(fitted)
    name_table.fit(arrays, want, str(place))
    save(parts, tree.unflatten(arrays), workdir)
    kept = model.kept
    if resized:  # what else the files carry is of the old resolution
        kept = {key: kept[key] for key in kept if key == "dtypes"}
    with errors.writing(workdir / NOTE) as part:
        part.write_text(json.dumps({"family": name, "kept": kept}))
    if words:
        with errors.writing(workdir / "tokenizer.json") as part:
            part.write_text(words, encoding="utf-8")
    count = sum(int(np.prod(shape)) for shape in want.values())
    line = f"{workdir}: {count:,} numbers in {len(want)} arrays from {place} ({name})"
    return Done(workdir, name, None, (line, *resized))


def _empty(folder: str | pathlib.Path) -> pathlib.Path:
    """The path of a folder to write; UserError where it holds something."""
    folder = pathlib.Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is not an empty folder: give another")
    return folder


def _flat(variables: Vars) -> dict[str, Any]:
    """Leaves by path, as formats name them: `params/...`, `frozen/...` and extra's."""
    frozen = {"frozen": variables.frozen} if variables.frozen else {}
    return tree.flatten({"params": variables.params, **variables.extra, **frozen})


def _config(model: Any, source: Any) -> ConfigDict:
    """The config of a run that was never trained."""
    fields, templates = {"image": {"kind": "image", **model.image}}, ()
    if model.tokenizer is not None:
        if TEMPLATES in source.files:
            templates = prompts.load(str(source.folder / TEMPLATES))
        words = {"tokenizer": model.tokenizer.kind, "context": model.tokenizer.context}
        fields["tokens"] = {"kind": "text", **words}
    return ConfigDict(
        {
            "seed": 0,
            "steps": 1,
            "batch_size": 32,  # images in a call when embedding
            "task": _plain(model.task),
            "data": {"train": _NO_DATA, "fields": fields, "templates": templates},
            # without momentum: no optimizer slots to save
            "optim": {"name": "sgd", "momentum": 0.0, "schedule": "constant"},
            "checkpoint": {"keep": 1},
            "evals": {},
            "parallel": {},
        }
    )


def _plain(task: Mapping[str, Any]) -> dict[str, Any]:
    """A task's values, as a config can hold them."""
    return {
        key: _plain(value) if isinstance(value, Mapping) else value
        for key, value in task.items()
    }


def save(parts: Any, variables: Any, workdir: pathlib.Path, *, step: int = 0) -> None:
    """Writes a workdir as training does, at a step.

    variables: dicts of arrays by name: `params`, `frozen`, and all else is extra.
    """
    params, frozen = variables.pop("params"), variables.pop("frozen", {})
    params, extra, frozen = jax.tree.map(jnp.asarray, (params, variables, frozen))
    key = jax.random.key(parts.cfg.seed)
    state = TrainState(
        step=jnp.asarray(step, jnp.int32),
        vars=Vars(params=params, extra=extra, frozen=frozen),
        opt_state=parts.update.tx.init(params),
        ema=None,
        rng=jax.random.fold_in(key, 1),
    )
    workdir.mkdir(parents=True, exist_ok=True)
    saved = checkpoint.Checkpointer(workdir, parts.cfg.checkpoint)
    try:
        saved.save(state, {})
        saved.wait()
    finally:
        saved.close()
    run_file.write(epath.Path(workdir.absolute()), setup.about(parts))


def write_out(
    workdir: str | pathlib.Path,
    folder: pathlib.Path,
    family: str | None = None,
    step: int | None = None,
) -> Done:
    """Writes a run's weights (averaged where it keeps an average) as public ones.

    Args:
      family: a format's name; by default the one that the run was imported from.

    Raises:
      UserError: no such format, one of another task, or the model has parts that it
        has no place for; the folder is not empty.
    """
    workdir, folder = pathlib.Path(workdir), _empty(folder)
    parts, state = restore.restore(workdir, step)
    name = family or _noted(workdir).get("family")
    files, notes = _write(workdir, parts, state.eval_vars(), name, folder)
    lines = [f"{folder}: {', '.join(sorted(files))} ({name}, step {int(state.step)})"]
    return Done(workdir, name, step, (*lines, *(f"note: {note}" for note in notes)))


def _noted(workdir: pathlib.Path) -> dict[str, Any]:
    path = workdir / NOTE
    return schema.read_json(path) if path.is_file() else {}


def _write(
    workdir: pathlib.Path,
    parts: Any,
    variables: Vars,
    name: str | None,
    folder: pathlib.Path,
) -> tuple[list[str], tuple[str, ...]]:
    """(names of the files written, notes)."""
    from mmjax.convert import formats, name_table

    task = parts.config.task.name
    legal = [n for n in formats.names() if formats.find(n).TASK == task]
    if name is None:
        raise UserError(
            f"--to is missing: a run of task {task} can be written as "
            f"{', '.join(legal) or 'no public format'}"
        )
    if name not in legal:
        hint = schema.suggest(name, legal)
        raise UserError(f"--to {name}: no format of a run of task {task}{hint}")
    note = _noted(workdir)
    arrays = {path: np.asarray(leaf) for path, leaf in _flat(variables).items()}
    name_table.finite(arrays, str(workdir))
    model = formats.Model(
        task=dataclasses.asdict(parts.task),
        image=dataclasses.asdict(parts.image_cfg),
        tokenizer=parts.tokenizer,
        arrays=name_table.unstacked(arrays),
        kept=note["kept"] if note.get("family") == name else {},
    )
    export = formats.find(name).from_mmjax(model)
    for file, tensors in export.tensors.items():
        with errors.writing(folder / file) as part:
            _write_tensors(part, tensors)
    texts = dict(export.texts)
    if parts.tokenizer and parts.cfg.templates:
        own = tuple(dict.fromkeys(prompts.load(parts.cfg.templates)))
        texts[TEMPLATES] = json.dumps(own, indent=1, ensure_ascii=False)
    for file, text in texts.items():
        with errors.writing(folder / file) as part:
            part.write_bytes(text if isinstance(text, bytes) else text.encode())
    return [*export.tensors, *texts], export.notes


def _write_tensors(path: pathlib.Path, tensors: Mapping[str, np.ndarray]) -> None:
    if path.suffix == ".safetensors":
        safetensors.numpy.save_file(dict(tensors), path, metadata={"format": "pt"})
        return
    try:
        import torch
    except ImportError as e:
        raise UserError(
            f"{path.name} is in torch's format, which needs torch to write: pip "
            "install torch, or choose a format in safetensors (open_clip, hf_clip)"
        ) from e

    def tensor(array: np.ndarray) -> Any:
        if array.dtype.name == "bfloat16":
            return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
        return torch.from_numpy(array.copy())

    torch.save({key: tensor(value) for key, value in tensors.items()}, path)


# -- the check -------------------------------------------------------------------
def check(done: Done) -> dict[str, tuple[float, float]]:
    """How far outputs are from the original library's: {name: (absolute, relative)}.

    Both are maxima over a fixed batch of random images and a few sentences; the
    relative one is over the largest value.

    The run is written out once more, to a temporary folder, and opened there by the
    library: both directions are part of what is checked.

    Raises:
      UserError: the library is not installed, or the format has no reference.
    """
    from mmjax.convert import formats

    parts, state = restore.restore(done.workdir, done.step)
    variables, family = state.eval_vars(), formats.find(done.family)
    if not hasattr(family, "reference"):
        raise UserError(f"--check: {done.family} has no reference to compare with")
    rng = np.random.default_rng(0)
    size = parts.image_cfg.size
    batch = {"image": rng.integers(0, 256, (_ROWS, size, size, 3), np.uint8)}
    if parts.tokenizer is not None:
        tokens = parts.tokenizer.encode(list(_SENTENCES))
        batch["tokens"], batch["tokens_mask"] = tokens
    with tempfile.TemporaryDirectory() as place:
        folder = pathlib.Path(place) / "export"
        _write(done.workdir, parts, variables, done.family, folder)
        try:
            want = family.reference(folder, batch)
        except ImportError as e:
            raise UserError(
                f"--check needs {e.name or 'the original library'}: pip install "
                "'mmjax[parity]'"
            ) from e
    distances = {}
    for name, reference in want.items():
        far = np.abs(_output(parts, variables, name, batch) - reference).max()
        distances[name] = float(far), float(far / max(np.abs(reference).max(), 1e-30))
    return distances


def _output(parts: Any, variables: Vars, name: str, batch: Mapping) -> np.ndarray:
    """The output of our predict function of that name.

    `NAME/KEY` is the array KEY of a function that gives several; `logits` of two towers
    are computed from their embeddings.
    """
    predict = parts.predict
    if name == "logits" and name not in predict:
        image = np.asarray(predict["embed_image"](variables, batch))
        text = np.asarray(predict["embed_text"](variables, batch))
        scale, bias = map(np.asarray, predict["scale"](variables, batch))
        return scale * (image @ text.T) + bias
    name, _, key = name.partition("/")
    output = predict[name](variables, batch)
    return np.asarray(output[key] if key else output, np.float32)
