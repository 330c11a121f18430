"""Parts of a result's card: what was measured, exactly enough to measure it again."""

from collections.abc import Sequence
from typing import Any

from mmjax.data import prompts


def preprocessing(image_cfg: Any) -> dict[str, Any] | None:
    """How the evaluation view of an image is computed; None without images."""
    if image_cfg is None:
        return None
    return {key: getattr(image_cfg, key) for key in ("size", "method", "mode")}


def tokenizer(tokenizer: Any) -> dict[str, Any] | None:
    """Which tokenizer read the texts."""
    if tokenizer is None:
        return None
    return {
        "kind": tokenizer.kind,
        "context": tokenizer.context,
        "fingerprint": tokenizer.fingerprint(),
    }


def listing(texts: Sequence[str], name: str | None = None) -> dict[str, Any]:
    """A list of strings by its hash and length, and its name where it has one."""
    entry: dict[str, Any] = {"name": name} if name else {}
    return entry | {"sha256": prompts.sha256(texts), "count": len(texts)}
