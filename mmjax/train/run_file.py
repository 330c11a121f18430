"""`run.json`: the config of a run, and what its fields took from the data."""

import contextlib
import json
import secrets
from collections.abc import Mapping
from typing import Any

from etils import epath

from mmjax import schema
from mmjax.errors import UserError
from mmjax.train import checkpoint

NAME = "run.json"
_NAMED = 9  # runs, in a message
_OURS = {"cards", "evals", "metrics.jsonl", "profile", "tensorboard", checkpoint.FOLDER}
_LOGS = (".log", ".out", ".err")  # what a shell or a scheduler writes beside a run
FORMAT = 2  # 1 had config.data.image and config.data.tokenizer in place of fields


def exists(workdir: epath.PathLike) -> bool:
    """Whether a folder is a run's workdir."""
    return (epath.Path(workdir) / NAME).exists()


def write(workdir: epath.PathLike, run: Mapping) -> None:
    """Writes run.json, atomically."""
    text = json.dumps({"format": FORMAT, **run}, indent=1, sort_keys=True)
    part = epath.Path(workdir) / (NAME + ".part")
    part.write_text(text)
    part.replace(epath.Path(workdir) / NAME)


def require_own(workdir: epath.PathLike) -> None:
    """UserError for a folder that holds other things, and no run among them."""
    folder = epath.Path(workdir)
    if exists(folder) or not folder.is_dir():
        return
    others = sorted(
        path.name
        for path in folder.iterdir()
        if path.name not in _OURS and path.name[0] != "." and path.suffix not in _LOGS
    )
    if others:
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        raise UserError(
            f"workdir {folder} holds other things ({', '.join(others[:3])}{more}) and "
            f"no run: give an empty or a new folder, such as {folder / 'run'}"
        )


def identity(workdir: epath.PathLike, home: epath.PathLike) -> str:
    """The id of the run of a workdir, with checkpoints at `home`; at first, a new one.

    An empty workdir goes on with the run of one that is lost, as on a new machine.

    Raises:
      UserError: the checkpoints at `home` are of the run of another workdir, which is
        still there, or this workdir has another run.
    """
    mine, theirs = (read(p) if exists(p) else {} for p in (workdir, home))
    known = theirs.get("run")
    if str(home) == str(workdir) or not (known and checkpoint.saved_steps(home)):
        return mine.get("run") or secrets.token_hex(8)
    there = theirs.get("workdir", "")
    lost = not exists(there) or read(there).get("run") != known
    if mine.get("run") == known or (not mine and lost):
        return known
    raise UserError(
        f"config.checkpoint.folder {home} holds checkpoints of another run, that of "
        f"{there}: give this one another folder; if it is the same run, "
        f"which has moved, copy {home}/{NAME} to {workdir} first"
    )


def read(workdir: epath.PathLike) -> dict[str, Any]:
    """What `write` wrote, in today's format.

    Raises:
      UserError: the folder is not a run, or its run.json is damaged or of a later one.
    """
    path = epath.Path(workdir) / NAME
    if not exists(workdir):
        fix = inside(workdir)
        raise UserError(f"{workdir} is not a run of mmjax: it has no {NAME}{fix}")
    fix = "put back a copy of it, or use another workdir"
    run = schema.read_json(path, fix=fix)
    version = run.get("format", 1)
    if type(version) is int and version > FORMAT:
        raise UserError(
            f"{path} has format {version}, and this mmjax reads up to {FORMAT}: use "
            f"the mmjax that wrote it ({run.get('versions', {}).get('mmjax', 'newer')})"
        )
    parts = ("config", "fields") if version != 1 else ("config",)
    if type(version) is not int or not all(
        isinstance(run.get(part), dict) for part in parts
    ):
        raise UserError(
            f"{path} is damaged (it lacks {' or '.join(parts)}, or they are no "
            f"mappings): {fix}"
        )
    try:
        return _from_1(run) if version == 1 else run
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        what = f"{type(error).__name__}: {error}"
        raise UserError(f"{path} is no run of format 1 ({what}): {fix}") from None


def inside(folder: epath.PathLike) -> str:
    """The end of a message, naming the runs right below a folder; "" for none."""
    with contextlib.suppress(OSError):
        found = sorted(path.parent for path in epath.Path(folder).glob(f"*/{NAME}"))
        named = [f"{run} ({_task(run)})" for run in found[:_NAMED]]
        named += ["others"] if len(found) > _NAMED else []
        return f", and holds runs: give one of {', '.join(named)}" if named else ""
    return ""


def _task(workdir: epath.PathLike) -> str:
    with contextlib.suppress(UserError, KeyError, TypeError):
        return str(read(workdir)["config"]["task"]["name"])
    return "damaged"


def _from_1(run: dict[str, Any]) -> dict[str, Any]:
    """A run of mmjax 0.1: one image and one tokenizer, known to all."""
    data = dict(run["config"]["data"])
    saved: dict[str, Any] = {"label": []}  # so that its data need not be here
    fields = {"image": {"kind": "image", **data.pop("image", {})}}
    fields["label"] = {"kind": "label"}
    words = dict(data.pop("tokenizer", {"kind": "bytes"}))
    kind = words.pop("kind", "clip")
    if kind != "none":
        fields["tokens"] = {"kind": "text", "tokenizer": kind, **words}
        saved["tokens"] = run["tokenizer"]
        fields["image_tokens"] = {"kind": "tokens"}
        saved["image_tokens"] = 0
    task = run["config"]["task"]
    if task["name"] == "autoencoder_kl":
        task = {"autoencoder" if key == "model" else key: task[key] for key in task}
    saving = run["config"].get("checkpoint", {})
    saving = {k: v for k, v in saving.items() if k not in ("best", "best_mode")}
    config = {**run["config"], "task": task, "checkpoint": saving}
    config["data"] = {**data, "fields": fields}
    return {**run, "format": FORMAT, "config": config, "fields": saved}
