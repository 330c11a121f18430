"""Candidates for held-out prompts, and completions of held-out images, into npz files.

Legend: p prompts, k candidates, s image side.
"""

import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
from tqdm import tqdm

from mmjax import errors
from mmjax.data import token_cache
from mmjax.data.sources import open_source
from mmjax.inference import generate
from mmjax.inference import load as load_lib
from mmjax.report import image_grid
from mmjax.state import TrainState
from mmjax.train import setup
from mmjax_demo.plan import Plan

SPLITS = ("val", "unseen")
COMPLETED = "completed"
ALL = (*SPLITS, COMPLETED)
SHOWN, ACROSS = 8, 8  # prompts and pictures of a sheet
_DECODED = 256  # images in a call of the tokenizer


def all_samples(plan: Plan, workdir: pathlib.Path) -> None:
    """`samples_val.npz`, `samples_unseen.npz` and `samples_completed.npz`."""
    run = load_lib.load_run(workdir / "prior")
    generator = generate.Generator(run, batch=plan.batch)
    mark = token_cache.fingerprint({"params": generator.variables.params})
    mark = f"{mark} {plan.prompts} {plan.k} {plan.seed} {generator.options}"
    for split in SPLITS:
        if not _saved(workdir, split, mark):
            prompts = [record["text"][0] for record in records(plan, split)]
            with _bar(plan.prompts * plan.k, split) as bar:
                drawn = generator.sample(
                    prompts, k=plan.k, seed=plan.seed, tick=bar.update
                )
            _save(workdir, split, mark, drawn)
    if not _saved(workdir, COMPLETED, mark):
        shown = records(plan, "val")
        known_ss = np.zeros((plan.size, plan.size), bool)
        known_ss[: plan.size // 2] = True
        with _bar(plan.prompts, COMPLETED) as bar:
            drawn = generator.complete(
                [record["image"] for record in shown],
                [record["text"][0] for record in shown],
                known=known_ss,
                k=1,
                seed=plan.seed,
                tick=bar.update,
            )
        _save(workdir, COMPLETED, mark, drawn)


class Sketch:
    """Draws a sheet of samples of a prior that is being trained, as often as it saves.

    The prompts are those of `all_samples`, as many as it draws in a call, so that the
    sampler is compiled once for both.

    show: Told the path of each sheet.
    """

    def __init__(
        self, plan: Plan, workdir: pathlib.Path, show: Callable[[pathlib.Path], Any]
    ):
        self._plan, self._workdir, self._show = plan, workdir, show
        self._generator: generate.Generator | None = None

    def __call__(self, parts: setup.Parts, state: TrainState) -> None:
        plan = self._plan
        if int(state.step) == parts.cfg.steps:
            return  # all samples are drawn from these weights next
        if self._generator is None:
            run = load_lib.Run(self._workdir / "prior", parts, state)
            self._generator = generate.Generator(run, batch=plan.batch)
        self._generator.variables = state.eval_vars()
        count = max(1, min(plan.prompts, plan.batch // plan.k))
        prompts = [record["text"][0] for record in records(plan, "val")[:count]]
        drawn = self._generator.sample(prompts, k=plan.k, seed=plan.seed)
        rows = [images[:ACROSS] for images in drawn.images[:SHOWN]]
        path = self._workdir / f"samples_step_{int(state.step)}.png"
        self._show(image_grid.draw(path, rows, prompts[: len(rows)]))


def records(plan: Plan, split: str) -> list[Any]:
    """The scenes of a split whose captions are the prompts."""
    source = open_source(plan.source(split))
    return [source[i] for i in range(len(source))]


def load(
    workdir: pathlib.Path, name: str, tokenizer: load_lib.Run
) -> generate.Candidates:
    """What `all_samples` wrote under a name, and its images by the image tokenizer."""
    with np.load(path_of(workdir, name), allow_pickle=False) as file:
        names = [name for name in file.files if name not in ("mark", "prompts")]
        arrays = {name: file[name] for name in names}
        prompts = tuple(file["prompts"].tolist())
    ids_pkn = arrays["image_tokens"]
    p, k, n = ids_pkn.shape
    ids_bn = ids_pkn.reshape(-1, n).astype(np.int32)
    decode, weights = tokenizer.parts.predict["decode"], tokenizer.state.eval_vars()
    calls = []
    for start in range(0, p * k, _DECODED):
        take = np.minimum(np.arange(start, start + _DECODED), p * k - 1)
        image = decode(weights, {"image_tokens": ids_bn[take]})["image"]
        calls.append(image_grid.eight_bit(np.asarray(image)))
    image_bhw3 = np.concatenate(calls)[: p * k]
    arrays["image"] = image_bhw3.reshape(p, k, *image_bhw3.shape[1:])
    return generate.Candidates(prompts, arrays)


def path_of(workdir: pathlib.Path, name: str) -> pathlib.Path:
    return workdir / f"samples_{name}.npz"


def _bar(total: int, name: str) -> tqdm:
    # without a terminal, a line at the end and every 20 seconds
    return tqdm(total=total, unit="image", desc=name, dynamic_ncols=True, mininterval=2)


def _saved(workdir: pathlib.Path, name: str, mark: str) -> bool:
    path = path_of(workdir, name)
    if not path.exists():
        return False
    with np.load(path, allow_pickle=False) as file:
        return str(file["mark"]) == mark


def _save(
    workdir: pathlib.Path, name: str, mark: str, drawn: generate.Candidates
) -> None:
    path = path_of(workdir, name)
    # images follow from their tokens, and are a hundred times as large
    arrays = {key: value for key, value in drawn.arrays.items() if key != "image"}
    arrays["image_tokens"] = arrays["image_tokens"].astype(np.uint16)
    with errors.writing(path) as part:
        np.savez_compressed(
            part, mark=np.array(mark), prompts=np.array(drawn.prompts), **arrays
        )
