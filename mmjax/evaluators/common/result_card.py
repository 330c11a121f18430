"""The card of a result: what was measured, exactly enough to measure it again."""

from collections.abc import Mapping, Sequence
from typing import Any

from mmjax.data import prompts
from mmjax.data.records import digest
from mmjax.evaluators.common.env import Env
from mmjax.evaluators.common.subset import View


def write(
    config: Any,
    env: Env,
    source: View,
    *,
    kind: str,
    counts: Mapping[str, int],
    interval: Mapping[str, Any],
    metrics: Mapping[str, str],
    task: Mapping[str, Any],
    text: bool,
) -> dict[str, Any]:
    """A card, ready for JSON.

    Args:
      kind: the evaluator's type. counts: examples, and what was left out.
      interval: from bootstrap.describe. metrics: a definition per metric.
      task: what else identifies the measurement (prompts, batch composition...).
      text: whether the tokenizer had a part in it.

    `id` is a hash of all but the counts and the interval: numbers of two runs may be
    compared where their ids are equal.
    """
    identity = {
        "evaluator": kind,
        "source": {
            "name": source.name,
            "fingerprint": source.fingerprint(),
            "records": len(source),
            "limit": None if source.whole else config.limit,
        },
        "preprocessing": preprocessing(env.image_cfg),
        "tokenizer": tokenizer(env.tokenizer) if text else None,
        "metrics": dict(metrics),
        **task,
    }
    return {
        "id": digest(identity),
        **identity,
        "counts": dict(counts),
        "interval": dict(interval),
    }


def preprocessing(image_cfg: Any) -> Any:
    """What an evaluation view of an image is made by; None without images."""
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
