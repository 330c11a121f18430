"""What a run says before its first step, and what it would rather have otherwise."""

import logging
import math

import jax

from mmjax.data import records as records_lib
from mmjax.train.setup import Parts

log = logging.getLogger(__name__)


def opening(parts: Parts, start: int) -> list[str]:
    """Lines on devices, parameters and data of a run that has done `start` steps.

    A warning is logged where a batch is larger than the data.
    """
    cfg, devices = parts.cfg, parts.layout.devices
    leaves = jax.tree.leaves(parts.update.shapes.params)
    count = sum(math.prod(leaf.shape) for leaf in leaves)
    left, rows = cfg.steps - start, parts.layout.rows
    data, epochs = f"a stream, {parts.source.name}", ""
    if records_lib.head(parts.source) is parts.source:
        records = len(parts.source)
        data = f"{records:,} records of {parts.source.name}"
        epochs = f": {left * cfg.batch_size / records:.3g} epochs"
        if cfg.batch_size > records:
            log.warning(
                "config.batch_size is %d and config.data.train holds %d records, so "
                "that a batch holds some of them twice: --config.batch_size=%d is the "
                "largest that does not",
                *(cfg.batch_size, records, max(records // rows, 1) * rows),
            )
    kind = devices[0].device_kind
    mesh = ", ".join(f"{n} {size}" for n, size in parts.layout.shape.items())
    return [
        f"devices     {len(devices)} {kind} ({cfg.parallel.mode}, {mesh})",
        f"parameters  {count:,} in {len(leaves)} arrays",
        f"data        {data}",
        f"steps       {left} of {cfg.steps}, {cfg.batch_size} records each{epochs}",
        "compiling the training step, which is slow once ...",
    ]
