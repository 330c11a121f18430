"""`run.json`: the config of a run, and what its fields took from the data."""

import json
from collections.abc import Mapping
from typing import Any

from etils import epath

from mmjax.errors import UserError

NAME = "run.json"
FORMAT = 2  # 1 had config.data.image and config.data.tokenizer in place of fields


def exists(workdir: epath.PathLike) -> bool:
    return (epath.Path(workdir) / NAME).exists()


def write(workdir: epath.PathLike, run: Mapping) -> None:
    """Writes run.json, atomically."""
    text = json.dumps({"format": FORMAT, **run}, indent=1, sort_keys=True)
    part = epath.Path(workdir) / (NAME + ".part")
    part.write_text(text)
    part.replace(epath.Path(workdir) / NAME)


def read(workdir: epath.PathLike) -> dict[str, Any]:
    """What `write` wrote, in today's format.

    Raises:
      UserError: the folder is not a run, or its run.json is damaged or of a later one.
    """
    path = epath.Path(workdir) / NAME
    if not exists(workdir):
        raise UserError(f"{workdir} is not a run of mmjax: it has no {NAME}")
    try:
        run = json.loads(path.read_text())
    except ValueError as e:
        raise UserError(
            f"{path} is damaged ({e}): put back a copy of it, or use another workdir"
        ) from None
    version = run.get("format", 1)
    if version > FORMAT:
        raise UserError(
            f"{path} has format {version}, and this mmjax reads up to {FORMAT}: use "
            f"the mmjax that wrote it ({run.get('versions', {}).get('mmjax', 'newer')})"
        )
    return _from_1(run) if version == 1 else run


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
