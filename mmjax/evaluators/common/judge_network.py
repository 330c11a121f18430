"""Calls to another run's predict functions: images of any size, fixed batches.

Legend: n images or texts, d width.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mmjax import schema
from mmjax.errors import UserError
from mmjax.evaluators.common.env import Batch, Env, Network

_ROWS = 256  # at most, in a call


def load(env: Env, workdir: str, needs: Sequence[str], where: str) -> Network:
    """The run of a workdir, with the predict functions that are needed.

    Raises:
      UserError: it is not a run, or its task lacks one of them.
    """
    if env.open_run is None:
        raise UserError(f"{where}: no other run can be opened from here: {workdir}")
    network = env.open_run(workdir)
    for name in needs:
        if name not in network.predict:
            hint = schema.suggest(name, network.predict)
            raise UserError(
                f"{where}: {workdir} is a run of task {network.task}, which has no "
                f"{name!r}{hint}"
            )
    return network


def of_images(network: Network, name: str, images_nhwc: np.ndarray) -> np.ndarray:
    """A function's rows (n, d) for uint8 images, each in the network's own view."""
    view = network.image_cfg.evaluate

    def batch(take: np.ndarray) -> dict[str, np.ndarray]:
        return {"image": np.stack([view(images_nhwc[i]) for i in take])}

    return _rows(network, name, len(images_nhwc), batch)


def of_texts(network: Network, name: str, texts: Sequence[str]) -> np.ndarray:
    """A function's rows (n, d) for texts, in the network's own tokens."""
    tokens_nl, mask_nl = network.tokenizer.encode(list(texts))

    def batch(take: np.ndarray) -> dict[str, np.ndarray]:
        return {"tokens": tokens_nl[take], "tokens_mask": mask_nl[take]}

    return _rows(network, name, len(texts), batch)


def describe(network: Network) -> dict[str, Any]:
    """Which network it was, wherever it lies, for a card."""
    return {key: getattr(network, key) for key in ("task", "step", "fingerprint")}


def _rows(
    network: Network, name: str, count: int, batch: Callable[[np.ndarray], Batch]
) -> np.ndarray:
    """All rows, by calls of one size: the last one's spare rows repeat."""
    size, predict = min(network.batch_size, _ROWS), network.predict[name]
    takes = (
        np.minimum(np.arange(start, start + size), count - 1)
        for start in range(0, count, size)
    )
    return np.concatenate([np.asarray(predict(batch(take))) for take in takes])[:count]
