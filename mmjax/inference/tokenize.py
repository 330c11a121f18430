"""Image tokens of a source, by a trained tokenizer: what `mmjax data tokenize` runs."""

import pathlib
import sys
from collections.abc import Sequence

import tqdm

from mmjax.data import records, token_cache
from mmjax.data.sources import mixture, open_source
from mmjax.errors import UserError
from mmjax.inference import load


def tokenize(
    workdir: pathlib.Path,
    sources: Sequence[str],
    out: pathlib.Path,
    *,
    step: int | None = None,
    batch_size: int | None = None,
) -> token_cache.Header:
    """Writes the tokens of sources, one after another, by the run in `workdir`.

    Raises:
      UserError: the run encodes no images, or see `token_cache.write`.
    """
    opened = [open_source(spec) for spec in sources]
    for source in opened:
        if records.stage1(source):
            raise UserError(f"{source.name} holds image tokens already")
    source = opened[0]
    if len(opened) > 1:  # parts of a mixture weighted by their lengths come in order
        source = mixture.Mixture([(part, float(len(part))) for part in opened])
    run = load.load_run(workdir, step)
    if "encode" not in run.parts.predict:
        raise UserError(
            f"{workdir} is a run of task {run.config.task.name}, which encodes no "
            "images: give the run of an image tokenizer"
        )
    variables, encode = run.state.eval_vars(), run.parts.predict["encode"]
    model = run.task.model
    # Lines in a log file are rarer than the bar's in a terminal.
    pause = 0.5 if sys.stderr.isatty() else 15.0
    with tqdm.tqdm(total=len(source), unit="img", mininterval=pause) as bar:
        return token_cache.write(
            source,
            lambda pixels_bhw3: encode(variables, {"image": pixels_bhw3})[
                "image_tokens"
            ],
            out,
            stage1=token_cache.Stage1(run.fingerprint, model.grid, model.vocab_size),
            image_cfg=run.parts.image_cfg,
            batch_size=batch_size or run.parts.cfg.batch_size,
            about={"run": str(run.workdir.absolute()), "step": run.step},
            progress=lambda done, total: bar.update(done - bar.n),
        )
