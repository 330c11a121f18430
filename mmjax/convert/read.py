"""Opens public weights: a file, a folder as Hugging Face keeps them, or `hf://org/name`.

A folder of diffusers' pipelines has a folder for each part: its keys and files are
`PART/...`.

safetensors are read by their library. Torch's zip archives are read as data, without
torch (`mmjax.convert.torch_archive`); its older format by
`torch.load(weights_only=True)`. Nothing is ever unpickled or run.
"""

import dataclasses
import functools
import pathlib
import re
import zipfile
from collections.abc import Iterable, Mapping
from typing import Any

import ml_dtypes
import numpy as np
import safetensors.numpy

from mmjax import errors, schema
from mmjax.convert import torch_archive
from mmjax.errors import UserError

HUB = "hf://"
TORCH = (".pt", ".pth", ".bin", ".pkl", ".ckpt")
# What folders call their weights, the safest first; sharded ones have an index.
_STEMS = (
    *("model", "open_clip_model", "diffusion_pytorch_model"),
    *("pytorch_model", "open_clip_pytorch_model"),
)
# Two networks in a file each, by the files' names: what leads the keys of either.
_PAIRS = (
    {"encoder": "encoder.", "decoder": "decoder."},
    {"stage1_last": "stage1.", "stage2_last": "stage2."},
)
# What holds a state dict in a checkpoint; `module` is DeepSpeed's.
_HELD = ("state_dict", "model", "model_state_dict", "module")
# What wrappers put into keys: torch.compile, FSDP and checkpointing anywhere, data
# parallelism and Lightning before all of them.
_INSIDE = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
_AROUND = ("module.", "model.")
_AVERAGED = "n_averaged"  # beside the keys of torch's AveragedModel
PIPELINE = "model_index.json"
# What is fetched of a public model: the second where the first has no weights.
_FETCHED = ("*.json", "*.safetensors", "*.txt", "*.model"), ("*.bin", "*.pt")
_VARIANTS = ("*.fp16*", "*.non_ema*")  # the same weights once more
# Parts of a pipeline that draw no image
_ASIDE = ("safety_checker", "feature_extractor", "image_encoder")
_SIDE = 64 << 20  # bytes of a JSON beside the weights; a large tokenizer has 34 MB


@dataclasses.dataclass(frozen=True)
class Source:
    """What a place held.

    place: as messages name it. tensors: arrays by key, in the dtypes they were saved
    in. files: JSON files beside the weights, parsed, by name (`config.json`). folder:
    where these lie.
    """

    place: str
    tensors: Mapping[str, np.ndarray]
    files: Mapping[str, Any]
    folder: pathlib.Path

    @property
    def config_json(self) -> Mapping[str, Any]:
        """config.json; empty where there is none."""
        config = self.files.get("config.json")
        return config if isinstance(config, Mapping) else {}

    def part(self, name: str) -> "Source":
        """A part of a pipeline, alone."""
        tensors, files = (
            {
                key.removeprefix(f"{name}/"): value
                for key, value in held.items()
                if key.startswith(f"{name}/")
            }
            for held in (self.tensors, self.files)
        )
        return Source(f"{self.place}/{name}", tensors, files, self.folder / name)


def read(place: str | pathlib.Path) -> Source:
    """Opens `place`; a file's folder is searched for its JSON files as well.

    Raises:
      UserError: nothing is there, no weights are in it, they are damaged or hold code,
        or a package or the network that is needed is missing.
    """
    path = fetch(str(place)) if str(place).startswith(HUB) else pathlib.Path(place)
    if not path.is_dir() and not path.is_file():  # a pipe would be waited for
        raise UserError(
            f"{place}: no such file or folder; public models: {HUB}ORG/NAME"
        )
    if (path / PIPELINE).is_file():
        return _pipeline(path, str(place))
    weights = _weights(path) if path.is_dir() else [path]
    tensors: dict[str, np.ndarray] = {}
    heads = _pair(weights)
    for file in weights:
        head, found = heads.get(file.stem, ""), _tensors(file)
        for name, value in (_unwrapped(found, place) if heads else found).items():
            key = head + name
            if key in tensors:
                raise UserError(f"{file}: {key} is in another shard as well")
            tensors[key] = value
    if not tensors:
        raise UserError(f"{place}: holds no tensors")
    tensors = tensors if heads else _unwrapped(tensors, place)
    folder = path if path.is_dir() else path.parent
    return Source(str(place), tensors, _files(folder), folder)


def _files(folder: pathlib.Path) -> dict[str, Any]:
    """The JSON files of a folder, parsed, by name."""
    return {
        path.name: _json(path)
        for path in sorted(folder.glob("*.json"))
        if not path.name.endswith(".index.json") and path.stat().st_size <= _SIDE
    }


def _parts(folder: pathlib.Path) -> list[str]:
    """`PART/` of every part that a pipeline's index names."""
    index = _json(folder / PIPELINE)
    names = sorted(index) if isinstance(index, Mapping) else ()
    return [f"{name}/" for name in names if name not in _ASIDE]


def _pipeline(folder: pathlib.Path, place: str) -> Source:
    """The parts that the folder's index names and that it has."""
    files, tensors = _files(folder), {}
    for name in (place[:-1] for place in _parts(folder)):
        part = folder / name
        if not part.is_dir():
            continue
        if any(file.suffix in (".safetensors", *TORCH) for file in part.iterdir()):
            source = read(part)
            tensors |= {f"{name}/{key}": v for key, v in source.tensors.items()}
        files |= {f"{name}/{file}": v for file, v in _files(part).items()}
    if not tensors:
        raise UserError(f"{place}: {PIPELINE} names no part that holds weights")
    return Source(place, tensors, files, folder)


def _unwrapped(
    tensors: Mapping[str, np.ndarray], place: object
) -> dict[str, np.ndarray]:
    """Arrays by the keys that they have without wrappers."""
    names = {key: key for key in tensors}
    if any(key.startswith("module.") for key in names):
        names.pop(_AVERAGED, None)
    for part in _INSIDE:
        names = {key: name.replace(part, "") for key, name in names.items()}
    while names and (head := _head(names.values())):
        names = {key: name.removeprefix(head) for key, name in names.items()}
    if len(set(names.values())) < len(names):
        raise UserError(f"{place}: some keys are alike but for {', '.join(_INSIDE)}")
    return {name: tensors[key] for key, name in names.items()}


def _head(names: Iterable[str]) -> str:
    """The one of _AROUND that all names begin with, or nothing."""
    heads = (head for head in _AROUND if all(name.startswith(head) for name in names))
    return next(heads, "")


def fetch(place: str) -> pathlib.Path:
    """The local snapshot of `hf://org/name` or `hf://org/name@revision`."""
    name, _, revision = place.removeprefix(HUB).partition("@")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise UserError(f"{place}: write {HUB}ORG/NAME, such as {HUB}openai/clip-vit")
    try:
        import huggingface_hub as hub
    except ImportError as e:
        raise UserError(
            f"{place} needs huggingface_hub: pip install 'mmjax[convert]', or fetch "
            "the files another way and give their folder"
        ) from e
    get = functools.partial(
        hub.snapshot_download,
        name,
        revision=revision or None,
        ignore_patterns=list(_VARIANTS),
    )
    try:
        folder = pathlib.Path(get(allow_patterns=[PIPELINE]))
        places = _parts(folder) if (folder / PIPELINE).is_file() else [""]
        for names in _FETCHED:
            patterns = [place + name for place in places for name in names]
            folder = pathlib.Path(get(allow_patterns=patterns))
            if any(folder.rglob("*.safetensors")):
                break
    except Exception as e:  # of the client, its transport or the server
        reason = " ".join(str(e).split())[:200]
        raise UserError(
            f"{place} could not be fetched ({type(e).__name__}: {reason}): where there "
            "is no network, give the folder of a snapshot"
        ) from e
    return folder


def _weights(folder: pathlib.Path) -> list[pathlib.Path]:
    """The files of weights in a folder: one, or the shards of an index."""
    for suffix in (".safetensors", ".bin"):
        for stem in _STEMS:
            file = folder / (stem + suffix)
            if file.is_file():
                return [file]
            index = folder / f"{stem}{suffix}.index.json"
            if index.is_file():
                return _shards(index)
    files = [
        p for p in sorted(folder.iterdir()) if p.suffix in (".safetensors", *TORCH)
    ]
    if len(files) == 1 or _pair(files):
        return files
    names = ", ".join(p.name for p in files) or "no weights"
    raise UserError(f"{folder} holds {names}: name the file to read")


def _pair(files: list[pathlib.Path]) -> Mapping[str, str]:
    """The one of _PAIRS that these files are, or nothing."""
    stems = sorted(file.stem for file in files)
    return next((pair for pair in _PAIRS if sorted(pair) == stems), {})


def _shards(index: pathlib.Path) -> list[pathlib.Path]:
    names = sorted(set(_json(index).get("weight_map", {}).values()))
    if not names or any(pathlib.PurePath(n).name != n for n in names):
        raise UserError(f"{index}: not an index of shards beside it")
    missing = [n for n in names if not (index.parent / n).is_file()]
    if missing:
        raise UserError(f"{index}: {missing[0]} is missing; {len(names)} are named")
    return [index.parent / n for n in names]


def _tensors(file: pathlib.Path) -> dict[str, np.ndarray]:
    if file.suffix in TORCH:
        return _torch(file)
    if file.suffix != ".safetensors":
        legal = ", ".join((".safetensors", *TORCH))
        raise UserError(f"{file}: {file.suffix or 'no suffix'} is not among {legal}")
    if reason := errors.plain(file):
        raise UserError(f"{file}: {reason}: fetch it again")
    try:
        return safetensors.numpy.load_file(file)
    except (safetensors.SafetensorError, OSError) as e:
        raise UserError(
            f"{file}: not a whole safetensors file ({e}): fetch it again"
        ) from e


def _torch(file: pathlib.Path) -> dict[str, np.ndarray]:
    value = torch_archive.read(file) if zipfile.is_zipfile(file) else _legacy(file)
    for _ in _HELD:  # one in another
        held = value if isinstance(value, dict) else {}
        inner = [held[n] for n in _HELD if isinstance(held.get(n), dict)]
        value = inner[0] if inner else value
    try:
        return torch_archive.tensors(value)
    except RecursionError as e:
        raise UserError(f"{file}: its modules hold one another") from e


def _legacy(file: pathlib.Path) -> Any:
    """The value in a file of torch's format before 1.6, with arrays for tensors."""
    with file.open("rb") as opened:
        if opened.read(2) in (b"PK", b"") or file.stat().st_size < 64:
            raise UserError(f"{file}: damaged or cut short: fetch it again")
    try:
        import torch
    except ImportError as e:
        raise UserError(
            f"{file} is in torch's format of before 2020, which needs torch to read: "
            "pip install torch"
        ) from e
    try:
        value = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as e:  # a foreign file can raise anything
        raise UserError(
            f"{file}: refused, not tensors alone ({' '.join(str(e).split())[:160]}); "
            "ask its author for a safetensors file"
        ) from e

    def arrays(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {k: arrays(v) for k, v in value.items()}
        if not isinstance(value, torch.Tensor):
            return value
        if value.dtype == torch.bfloat16:
            raw = value.detach().contiguous().view(torch.int16).numpy()
            return raw.view(ml_dtypes.bfloat16)
        return value.detach().contiguous().numpy()

    return arrays(value)


def _json(path: pathlib.Path) -> Any:
    try:
        return schema.parse_json(whole(path))
    except ValueError as e:
        raise UserError(f"{path}: not JSON ({e})") from e


def whole(path: pathlib.Path) -> bytes:
    """A plain file's bytes: a pipe in its place would be waited for."""
    if reason := errors.plain(path):
        raise UserError(f"{path}: {reason}: fetch it again")
    return path.read_bytes()
