"""Image tokens of a source, by a trained tokenizer: what `mmjax data tokenize` runs."""

import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mmjax.errors import UserError


def tokenize(
    workdir: pathlib.Path,
    sources: Sequence[str],
    out: pathlib.Path,
    *,
    step: int | None = None,
    batch_size: int | None = None,
) -> Any:
    """Writes the tokens of sources by the run in `workdir`; the cache's Header.

    Raises:
      UserError: the run encodes no pictures, or see `token_cache.write`.
    """
    import tqdm

    from mmjax.data import token_cache
    from mmjax.inference import load

    source = _one_source(sources)
    run = load.load_run(workdir, step)
    if "encode" not in run.parts.predict:
        raise UserError(
            f"{workdir} is a run of task {run.config.task.name}, which encodes no "
            "pictures: give the run of an image tokenizer"
        )
    # Lines in a log file are rarer than the bar's in a terminal.
    pause = 0.5 if sys.stderr.isatty() else 15.0
    with tqdm.tqdm(total=len(source), unit="img", mininterval=pause) as bar:
        return token_cache.write(
            source,
            _encoder(run),
            out,
            stage1=_stage1(run),
            image_cfg=run.parts.image_cfg,
            batch_size=batch_size or run.parts.cfg.batch_size,
            about={"run": str(run.workdir.absolute()), "step": run.step},
            progress=lambda done, total: bar.update(done - bar.n),
        )


def _one_source(specs: Sequence[str]) -> Any:
    """The sources of several specs, one after another."""
    from mmjax.data import records
    from mmjax.data.sources import mixture, open_source

    opened = [open_source(spec) for spec in specs]
    for source in opened:
        if records.stage1(source):
            raise UserError(f"{source.name} holds image tokens already")
    if len(opened) == 1:
        return opened[0]
    # Weighted by their lengths, the parts of a mixture come whole, in order.
    return mixture.Mixture([(source, float(len(source))) for source in opened])


def _encoder(run: Any) -> Callable[[np.ndarray], np.ndarray]:
    """uint8 (b, S, S, 3) pictures to (b, n) tokens."""
    variables, encode = run.state.eval_vars(), run.parts.predict["encode"]
    return lambda pixels_bhw3: encode(variables, {"image": pixels_bhw3})["image_tokens"]


def _stage1(run: Any) -> Any:
    """Who encodes: the weights as a model that holds them frozen would hash them."""
    from mmjax.data import token_cache

    model = run.task.model
    return token_cache.Stage1(run.fingerprint, model.grid, model.vocab_size)
