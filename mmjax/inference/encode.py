"""Tokens or latents of a source's images, by a trained run: `mmjax data encode`."""

import pathlib
import sys
from collections.abc import Callable, Sequence

import tqdm

from mmjax.data import records, token_cache
from mmjax.data.sources import mixture, open_source
from mmjax.errors import UserError
from mmjax.inference import load


def encode(
    workdir: pathlib.Path,
    sources: Sequence[str],
    out: pathlib.Path,
    *,
    step: int | None = None,
    batch_size: int | None = None,
    files: Callable[[Sequence], Sequence] = lambda all_files: all_files,
) -> token_cache.Header:
    """Writes the codes of sources, one after another, by the run in `workdir`.

    files: chooses those that this process writes; see `token_cache.write`.

    Raises:
      UserError: the run encodes no images, or see `token_cache.write`.
    """
    opened = [open_source(spec) for spec in sources]
    for source in opened:
        if records.stage1(source):
            raise UserError(f"{source.name} holds encoded images already")
    source = opened[0]
    if len(opened) > 1:  # parts of a mixture weighted by their lengths come in order
        source = mixture.Mixture([(part, float(len(part))) for part in opened])
    run = load.load_run(workdir, step)
    if not {"encode", "reconstruct"} <= run.parts.predict.keys():
        raise UserError(
            f"{workdir} is a run of task {run.config.task.name}, which encodes no "
            "images: give the run of an image tokenizer or an autoencoder"
        )
    variables, predict = run.state.eval_vars(), run.parts.predict["encode"]
    model = run.task.model
    sizes = {
        key: getattr(model, name)
        for key, name in (("vocab_size", "vocab_size"), ("channels", "code_dim"))
        if hasattr(model, name)
    }
    if "vocab_size" in sizes:
        sizes.pop("channels", None)
    stage1 = token_cache.Stage1(run.fingerprint, model.grid, **sizes)
    # Lines in a log file are rarer than the bar's in a terminal.
    pause = 0.5 if sys.stderr.isatty() else 15.0
    with tqdm.tqdm(total=len(source), unit="img", mininterval=pause) as bar:
        return token_cache.write(
            source,
            lambda image: predict(variables, {"image": image})[stage1.name],
            out,
            stage1=stage1,
            image_cfg=run.parts.image_cfg,
            batch_size=batch_size or run.parts.cfg.batch_size,
            files=files,
            about={"run": str(run.workdir.absolute()), "step": run.step},
            progress=lambda done, total: bar.update(done - bar.n),
        )
