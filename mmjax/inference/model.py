"""The public face: `m = mmjax.load("runs/demo/clip")`, and what one does with `m`."""

import dataclasses
import functools
import hashlib
import os
import pathlib
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from mmjax import schema
from mmjax.cache import cache_dir
from mmjax.data import pipeline
from mmjax.errors import UserError
from mmjax.evaluators.base import Result
from mmjax.inference import caption, generate, pretrained
from mmjax.inference.load import Image, Run, pixels_of, several
from mmjax.inference.params import Params
from mmjax.parallel import runtime
from mmjax.retrieval import gallery, store
from mmjax.state import Ctx
from mmjax.train import checkpoint, evaluate, restore, run_file
from mmjax.train import config as config_lib
from mmjax.train import step as step_lib

_HUB = "hf://"


class Model(Run):
    """A trained run, or public weights, at one checkpoint.

    Everything it was trained with is there: `config`, `task`, `tokenizer`, `params`.
    A method of another family says what kind of run it needs.
    """

    @functools.cached_property
    def raw_params(self) -> Params:
        """Parameters as the last update left them, where `params` are an average."""
        return Params.of(self.state.vars.params)

    @functools.cached_property
    def variables(self) -> Params:
        """All arrays it is evaluated with: `params/...`, `extra/...`, `frozen/...`.

        extra has batch statistics and codebooks, frozen an image tokenizer's weights.
        """
        return Params.of(self.state.eval_vars())

    @functools.cached_property
    def slots(self) -> Params:
        """The optimizer's arrays, such as `.../mu/...` of Adam, read when asked for."""
        _, state = restore.restore(self.workdir, self.step, optimizer=True)
        return Params.of(state.opt_state)

    def steps(self) -> list[int]:
        """The steps of its saved checkpoints, rising."""
        home = checkpoint.home_of(self.workdir, self.parts.cfg.checkpoint)
        return checkpoint.saved_steps(home)

    def at(self, step: int) -> "Model":
        """The same run at another saved step; UserError where there is none."""
        return load(self.workdir, step)

    def batch(self, step: int | None = None) -> dict[str, np.ndarray]:
        """The training batch of an update, by default that after this checkpoint.

        Arrays by field, as the loss reads them. Needs the training data.
        """
        cfg = self.parts.cfg
        first = (self.step if step is None else step) * cfg.batch_size
        chosen = {"rows": cfg.batch_size, "seed": cfg.seed}
        loader = pipeline.Loader(self.parts.source, self.parts.batch_fields, **chosen)
        return loader.batch(first)[0]

    def grads(self, batch: Mapping[str, np.ndarray] | None = None) -> Params:
        """Gradients of the training loss by `raw_params`, before any clipping.

        batch: As of `batch()`, which is the default. Drawn numbers, such as dropout's,
        are those of the update after this checkpoint.
        """
        layout, state = self.parts.layout, self.state
        key = jax.random.fold_in(state.rng, state.step)
        ctx = Ctx(rng=key, step=state.step, train=True, rows=layout.row_sharding)
        given = layout.load(self.batch() if batch is None else batch)
        by = jax.jit(lambda v, b: step_lib.gradients(self.task, v, b, ctx)[0])
        return Params.of(by(state.vars, given))

    def predict(self, name: str, batch: Mapping[str, np.ndarray]) -> Any:
        """The task's function of that name on a batch, with the evaluated weights.

        Raises:
          UserError: the task has no such function; the message lists those it has.
        """
        return self._predict(name)(batch)

    def sample(
        self,
        prompts: str | int | Sequence[str] | Sequence[int],
        k: int = 8,
        *,
        seed: int = 0,
        negative: str = "",
        start: Image | Sequence[Image] | None = None,
        **sampling: Any,
    ) -> generate.Candidates:
        """`k` images for each prompt, of a prior, a GAN or a diffusion model.

        Args:
          prompts: Texts, or numbers of labels for a model that was trained on labels.
          k: Candidates of a prompt; candidate c is the same whatever k is.
          seed: Another seed draws other candidates.
          negative: A text that guidance leads away from (diffusion models).
          start: An image a prompt to begin from (diffusion models).
          sampling: Changes to the model's own, such as temperature=0.7 or top_p=0.9.

        Raises:
          UserError: the run draws no images, has no such option, or a prompt is empty
            or longer than the model reads.
        """
        if start is not None:
            start = [pixels_of(image) for image in several(start)]
        more = {"seed": seed, "negative": negative, "start": start}
        return self._generator(sampling).sample(_prompts(prompts), k=k, **more)

    def complete(
        self,
        images: Image | Sequence[Image],
        prompts: str | Sequence[str],
        k: int = 8,
        *,
        rows: int | None = None,
        known: np.ndarray | None = None,
        seed: int = 0,
        **sampling: Any,
    ) -> generate.Candidates:
        """`k` images for each prompt, with some pixels of an image given.

        Args:
          images: One a prompt; the model's view of it is what is completed.
          prompts: Texts.
          k: Candidates of a prompt.
          rows: How many rows of pixels are given, from the top; or
          known: bool (s, s) or (p, s, s), which pixels of the view are given.
          seed: Another seed draws other candidates.
          sampling: As of `sample`.

        Raises:
          UserError: neither or both of rows and known, or see `sample`.
        """
        if (rows is None) == (known is None):
            raise UserError("say which pixels are given: either rows=N or known=array")
        listed, generator = several(images), self._generator(sampling)
        if known is None:
            side = self.view(listed[0]).shape[0]
            known = np.broadcast_to(np.arange(side)[:, None] < rows, (side, side))
        pixels, options = [pixels_of(image) for image in listed], {"k": k, "seed": seed}
        return generator.complete(pixels, _prompts(prompts), known=known, **options)

    def caption(
        self,
        images: Image | Sequence[Image],
        *,
        features: Run | None = None,
        **sampling: Any,
    ) -> list[list[str]]:
        """Captions of each image, the best or first drawn before others (captioners).

        Args:
          images: As of `embed_images`.
          features: Of a run that reads features, the run that made them.
          sampling: Changes to the model's own, such as k=5 or length_norm=0.7.
        """
        captioner = caption.Captioner(self, sampling, features)
        return captioner.say([pixels_of(image) for image in several(images)])[0]

    def index(
        self, folder: str | os.PathLike, source: str | None = None
    ) -> gallery.Gallery:
        """An index of images, to be searched by embeddings (dual encoders).

        Args:
          folder: Where it lies. One that another model made is a UserError.
          source: Data, such as "folder:photos", that are embedded into it if they are
            not yet.
        """
        if source is not None:
            return gallery.build_gallery(self, source, folder)
        opened = store.open_store(folder)
        opened.check_model(self.fingerprint, self.workdir)
        return gallery.Gallery(opened, self)

    def evaluate(
        self,
        evals: str | Sequence[str] | None = None,
        *,
        source: str | None = None,
        **options: Any,
    ) -> dict[str, Result]:
        """Runs evaluators of its config: values, their intervals and cards by name.

        Args:
          evals: Names under config.evals; all by default.
          source: Other data than the config's, such as "folder:photos?label=parent".
          options: Other keys of these evaluators, such as templates="photo".

        Raises:
          UserError: no such evaluator or key, or an evaluator has no data.
        """
        names = [evals] if isinstance(evals, str) else evals
        config = evaluate.choose(
            self.config, self.workdir, names=names, source=source, options=options
        )
        cfg = schema.from_mapping(config_lib.RunConfig, config, "config")
        parts = dataclasses.replace(self.parts, config=config, cfg=cfg)
        return evaluate.evaluate(parts, self.state.eval_vars())

    def _generator(self, sampling: Mapping[str, Any]) -> generate.Generator:
        return generate.Generator(self, sampling=sampling)


def _prompts(given: str | int | Sequence) -> list:
    listed = [given] if isinstance(given, str | int) else list(given)
    if not listed:
        raise UserError("there are no prompts: give one or more")
    return listed


def load(place: str | os.PathLike, step: int | None = None) -> Model:
    """Opens a trained run or public weights.

    Args:
      place: The workdir of a run or one of its checkpoints; `hf://ORG/NAME`; a file or
        folder of public weights that `mmjax convert` knows; or `demo`, for the prior
        of the demo (`demo/clip`, `demo/tokenizer`, see `mmjax.inference.pretrained`).
        Public weights are converted once, into the user's cache folder.
      step: One of the saved steps, the newest by default.

    Raises:
      UserError: nothing is there, it is neither a run nor known weights, or there is
        no such checkpoint.
    """
    if not isinstance(place, (str, os.PathLike)):
        kind = type(place).__name__
        raise UserError(f"load opens one run, and was given a {kind}: give one path")
    runtime.configure()
    if str(place).startswith(_HUB):
        workdir = _converted(str(place), str(place))
    else:
        workdir = pretrained.place(place).expanduser()
        if workdir.parent.name == checkpoint.FOLDER and workdir.name.isdigit():
            step = int(workdir.name) if step is None else step
            workdir = workdir.parents[1]
        if not workdir.exists():
            raise UserError(
                f"{place}: there is no such folder or file (from {pathlib.Path.cwd()})"
                ": give a run's workdir, public weights or hf://ORG/NAME"
            )
        if within := run_file.inside(workdir):
            if not run_file.exists(workdir):
                raise UserError(f"{workdir} is not a run of mmjax{within}")
        if not run_file.exists(workdir):
            workdir = _converted(str(workdir), _identity(workdir))
    return Model(workdir, *restore.restore(workdir, step))


def _identity(place: pathlib.Path) -> str:
    """Of public weights: their path, and the sizes and times of their files."""
    files = sorted(place.rglob("*")) if place.is_dir() else [place]
    stats = [(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in files]
    return repr((str(place.absolute()), stats))


def _converted(place: str, identity: str) -> pathlib.Path:
    """The workdir of public weights, in the cache; converted where it is not there."""
    from mmjax.convert import import_export

    digest = hashlib.sha256(identity.encode()).hexdigest()[:12]
    name = place.rstrip("/").replace(_HUB, "").replace("/", "--")[-60:]
    workdir = cache_dir() / "models" / f"{name}-{digest}"
    if run_file.exists(workdir):
        return workdir
    workdir.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=workdir.parent) as part:
        try:
            import_export.bring_in(place, pathlib.Path(part) / "run")
        except UserError as error:
            raise UserError(
                f"{place} is no run, and no public weights: {error}"
            ) from error
        os.replace(pathlib.Path(part) / "run", workdir)
    return workdir
