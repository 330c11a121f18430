"""Candidates for held-out prompts, and completions of held-out images, into npz files.

Legend: p prompts, k candidates, s image side.
"""

import pathlib
from typing import Any

import numpy as np
from tqdm import tqdm

from mmjax import errors
from mmjax.data import token_cache
from mmjax.data.sources import open_source
from mmjax.inference import generate
from mmjax.inference import load as load_lib
from mmjax_demo.plan import Plan

SPLITS = ("val", "unseen")
COMPLETED = "completed"


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


def records(plan: Plan, split: str) -> list[Any]:
    """The scenes of a split whose captions are the prompts."""
    source = open_source(plan.source(split))
    return [source[i] for i in range(len(source))]


def load(workdir: pathlib.Path, name: str) -> generate.Candidates:
    """What `all_samples` wrote under a name."""
    with np.load(path_of(workdir, name), allow_pickle=False) as file:
        names = [name for name in file.files if name not in ("mark", "prompts")]
        arrays = {name: file[name] for name in names}
        return generate.Candidates(tuple(file["prompts"].tolist()), arrays)


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
    arrays = dict(drawn.arrays)
    arrays["image_tokens"] = arrays["image_tokens"].astype(np.uint16)
    with errors.writing(path) as part:
        np.savez_compressed(
            part, mark=np.array(mark), prompts=np.array(drawn.prompts), **arrays
        )
