"""The demo's verdict: re-ranking, oracle, distances; summary.json and pictures.

Legend: p prompts, k candidates, n picked of them, d embedding, c classes, m images.
"""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmjax import errors, schema
from mmjax.data import image as image_lib
from mmjax.data import prompts as prompts_lib
from mmjax.data.shapes import scene
from mmjax.data.sources import open_source
from mmjax.inference import generate, load
from mmjax.metrics import judges
from mmjax.parallel import runtime
from mmjax.report import image_grid, ranked_labels
from mmjax_demo import report, samples
from mmjax_demo.plan import Plan
from mmjax_demo.samples import ACROSS, SHOWN

DRAW = {"resamples": 1000, "seed": 0}  # of the bootstrap intervals
_RENAMED = {  # summary name: evaluator's value
    "zero_shot_val": ("clip", "val/top1"),
    "zero_shot_unseen": ("clip", "unseen/top1"),
    "retrieval_r1": ("clip", "retrieval/i2t_r1"),
    "retrieval_text_to_image_r1": ("clip", "retrieval/t2i_r1"),
    "psnr": ("tokenizer", "val/psnr"),
    "code_usage": ("tokenizer", "val/used"),
    "prior_image_nats": ("prior", "val/image_nats"),
}


def judge(plan: Plan, workdir: pathlib.Path, values: Mapping[str, Any]) -> None:
    """Writes summary.json, results.json, the pictures and report.html."""
    clip, tokenizer = (load.load_run(workdir / name) for name in ("clip", "tokenizer"))
    summary = evaluated(values)
    results: dict[str, Any] = {"k_curve": {}, "judges": {}, "cards": _cards(workdir)}
    for split in samples.SPLITS:
        made = samples.load(workdir, split, tokenizer)
        cosines_pk = _cosines(clip, made)
        best = judges.picks(plan.k, cosines_pk, plan.pools)
        right, all_pn = _oracle(plan, split, made, best)
        results["k_curve"][split] = _curve(right, plan.pools)
        tag = "" if split == "val" else f"{split}_"
        for pool in plan.pools:
            _copy(summary, f"oracle_{tag}k{pool}", right, f"oracle_all_k{pool}")
        if split == "val":
            summary |= _by_novelty(plan, made.prompts, all_pn)
        results["judges"] |= {f"{split}_{k}": v for k, v in right.items()}
        scored = judges.clip_score(cosines_pk, {**best}, **DRAW)
        results["judges"] |= {f"{split}_{k}": v for k, v in scored.items()}
        if split == "val":
            results["clip_scores"] = _histogram(cosines_pk)
            _sheets(workdir, made, cosines_pk, ("samples_first", "samples_best"))
            results["judges"] |= _distances(plan, clip, made, best)
        else:
            _sheets(workdir, made, cosines_pk, ("", f"{split}_best"))
    summary |= _completions(plan, workdir, tokenizer)
    results["code_counts"] = _code_counts(plan, tokenizer)
    results["about"] = runtime.describe() | {"seed": plan.seed}
    _write(workdir / "results.json", results)
    _write(workdir / "summary.json", summary)


def evaluated(values: Mapping[str, Any]) -> dict[str, float]:
    """What the runs' own evaluators measured, under the summary's names."""
    found: dict[str, float] = {}
    for name, (run, key) in _RENAMED.items():
        for suffix in ("", "_lo", "_hi"):
            if key + suffix in values.get(run, {}):
                found[name + suffix] = values[run][key + suffix]
    return found


def finish(
    workdir: pathlib.Path, minutes: Mapping[str, float], more: Mapping[str, float]
) -> dict[str, float]:
    """Adds the time that it took, and `more`, and writes the report; the whole
    summary."""
    path = workdir / "summary.json"
    summary = schema.read_json(path, fix=f"delete it and {path.parent}/results.json")
    summary |= {f"minutes_{name}": round(v, 2) for name, v in minutes.items()}
    summary["minutes"] = round(sum(minutes.values()), 2)
    about = runtime.describe()
    summary |= {"cores": about["cores"], "devices": about["devices"], **more}
    _write(path, summary)
    report.write(workdir)
    return summary


def _write(path: pathlib.Path, values: Mapping[str, Any]) -> None:
    with errors.writing(path) as part:
        part.write_text(json.dumps(values, indent=1) + "\n")


def _copy(to: dict, name: str, source: Mapping[str, float], key: str) -> None:
    for suffix in ("", "_lo", "_hi"):
        to[name + suffix] = source[key + suffix]


def _cards(workdir: pathlib.Path) -> dict[str, Any]:
    """name -> card of every evaluator of the three runs."""
    found = {}
    for run in ("clip", "tokenizer", "prior"):
        for path in sorted((workdir / run / "cards").glob("*.json")):
            found[f"{run}/{path.stem}"] = schema.read_json(path, fix="delete it")
    return found


def _cosines(clip: load.Run, made: generate.Candidates) -> np.ndarray:
    image_pkd, text_pd = generate.embeddings(clip, made)
    return np.einsum("pkd,pd->pk", image_pkd, text_pd)


def _oracle(
    plan: Plan, split: str, made: generate.Candidates, best: judges.Picks
) -> tuple[dict[str, float], np.ndarray]:
    """oracle_<attribute>_k<pool>: of the best of the first `pool` candidates; and 1
    where all is right in it, by prompt and pool.

    The best of one is the first: nothing is chosen.
    """
    scenes = [record["scene"] for record in samples.records(plan, split)]
    order_pn = np.concatenate([best[f"_best{pool}"] for pool in plan.pools], axis=1)
    rows_p1 = np.arange(len(order_pn))[:, None]
    picks = {f"_k{pool}": np.array([[n]]) for n, pool in enumerate(plan.pools)}
    return judges.oracle(made.images[rows_p1, order_pn], scenes, picks, **DRAW)


def _by_novelty(
    plan: Plan, prompts: Sequence[str], all_pn: np.ndarray
) -> dict[str, float]:
    """oracle_new_k<pool>: of the prompts that are no caption of a training picture,
    word for word; oracle_seen_k<pool>: of those that are. And how many are new."""
    known = {text for spec in plan.train for text in open_source(spec).texts()}
    new_p = np.array([prompt not in known for prompt in prompts])
    columns = {
        f"oracle_{{}}_k{pool}": all_pn[:, [n]] for n, pool in enumerate(plan.pools)
    }
    return judges.by_novelty(columns, new_p, **DRAW)


def _curve(right: Mapping[str, float], pools: tuple[int, ...]) -> dict[str, list]:
    curve: dict[str, list] = {"k": list(pools)}
    for name in judges.ORDER:
        keys = [f"oracle_{name}_k{pool}" for pool in pools]
        curve[name] = [right[key] for key in keys]
        for suffix in ("_lo", "_hi"):
            curve[name + suffix] = [right[key + suffix] for key in keys]
    return curve


def _histogram(cosines_pk: np.ndarray) -> dict[str, list]:
    """How the first and the best candidates of the prompts score."""
    edges = np.linspace(cosines_pk.min(), cosines_pk.max(), 31)
    return {
        "edges": edges.tolist(),
        "first": np.histogram(cosines_pk[:, 0], edges)[0].tolist(),
        "best": np.histogram(cosines_pk.max(1), edges)[0].tolist(),
    }


def _sheets(
    workdir: pathlib.Path,
    made: generate.Candidates,
    cosines_pk: np.ndarray,
    names: tuple[str, str],
) -> None:
    """Two sheets of the same prompts: candidates as drawn, and CLIP's best of all."""
    order_pk = np.argsort(-cosines_pk, axis=1, kind="stable")
    as_drawn_pk = np.broadcast_to(np.arange(cosines_pk.shape[1]), order_pk.shape)
    for name, chosen_pk in zip(names, (as_drawn_pk, order_pk), strict=True):
        if name:
            rows = [
                [made.images[p, c] for c in chosen_pk[p, :ACROSS]]
                for p in range(min(SHOWN, len(made.prompts)))
            ]
            image_grid.draw(workdir / f"{name}.png", rows, made.prompts[: len(rows)])


def _distances(
    plan: Plan, clip: load.Run, made: generate.Candidates, best: judges.Picks
) -> dict[str, float]:
    """Frechet and Inception-like numbers over our CLIP, and the copying check."""
    one = {"": best[f"_best{plan.pools[-1]}"]}
    real = open_source(f"shapes:val?size={plan.size}&count={4 * plan.prompts}")
    # other scenes than those the prompts were taken from
    later = range(plan.prompts, len(real))
    real_md = clip.embed_images([real[i]["image"] for i in later])
    image_pkd, _ = generate.embeddings(clip, made)
    found = judges.fid(image_pkd, real_md, one, **DRAW)
    classes_cd = clip.embed_texts([f"a {name}" for name in scene.CLASS_NAMES])
    logits_pkc = clip.logits(image_pkd, classes_cd)
    found |= judges.inception_score(logits_pkc, one, **DRAW)
    train = [open_source(spec) for spec in plan.train]
    most = 10_000 // len(train)
    seen = np.stack([s[i]["image"] for s in train for i in range(min(len(s), most))])
    held = np.stack([real[i]["image"] for i in later])
    picked = made.images[np.arange(len(made.prompts))[:, None], one[""]]
    copies = judges.copies(picked, seen, held, **DRAW)
    return {f"clip_{k}": v for k, v in found.items()} | copies


def _completions(
    plan: Plan, workdir: pathlib.Path, tokenizer: load.Run
) -> dict[str, float]:
    """completion_oracle, and a sheet of what was given, the truth and the result."""
    made = samples.load(workdir, samples.COMPLETED, tokenizer)
    true = samples.records(plan, "val")
    scenes = [record["scene"] for record in true]
    picks = {"": np.array([[0]])}
    found, _ = judges.oracle(made.images, scenes, picks, **DRAW)
    rows = []
    for p in range(min(2 * SHOWN, len(true))):
        given = true[p]["image"].copy()
        given[plan.size // 2 :] = 255
        rows.append([given, true[p]["image"], made.images[p, 0]])
    captions = [f"{text}: given, true, completed" for text in made.prompts[: len(rows)]]
    image_grid.draw(workdir / "completions.png", rows, captions)
    summary: dict[str, float] = {}
    _copy(summary, "completion_oracle", found, "oracle_all")
    return summary


def _held_out(plan: Plan, count: int) -> np.ndarray:
    """Images that nothing was trained on, (count, s, s, 3)."""
    source = open_source(f"shapes:val?size={plan.size}&count=1000")
    return np.stack([source[i]["image"] for i in range(count)])


def _code_counts(plan: Plan, run: load.Run) -> list[int]:
    """How often each code is used in held-out images, by the tokenizer."""
    ids = _reconstructed(run, _held_out(plan, 1000), "image_tokens")
    return np.bincount(ids.ravel(), minlength=run.task.model.vocab_size).tolist()


def _reconstructed(run: load.Run, image_m: np.ndarray, name: str) -> np.ndarray:
    """One of the arrays that "reconstruct" gives of images, 200 in a call."""
    reconstruct, variables = run.parts.predict["reconstruct"], run.state.eval_vars()
    calls = [
        reconstruct(variables, {"image": image_b})[name]
        for image_b in np.split(image_m, len(image_m) // 200)
    ]
    return np.concatenate(calls)


def reconstructions(plan: Plan, workdir: pathlib.Path, run: load.Run) -> pathlib.Path:
    """A PNG of held-out images, each row above the same from their tokens."""
    image = _held_out(plan, 200)
    made = image_grid.eight_bit(_reconstructed(run, image, "image"))
    rows = [image[:16], made[:16], image[16:32], made[16:32]]
    captions = ["held-out images", "the same from their tokens", "", ""]
    return image_grid.draw(workdir / "reconstructions.png", rows, captions)


def zero_shot(
    workdir: pathlib.Path,
    clip: load.Run,
    *,
    each: int = 6,
    name: str = "zero_shot.png",
) -> pathlib.Path:
    """A PNG of val and unseen images with their ranked labels."""
    evals = clip.config.evals
    records, names = [], []
    for split in samples.SPLITS:
        source = open_source(evals[split].source)
        chosen = np.linspace(0, len(source) - 1, each).astype(int)
        records += [source[int(i)] for i in chosen]
        names += [split] * each
    images = [record["image"] for record in records]
    labels = source.class_names
    with errors.writing(workdir / "scene.png") as part:  # to try commands on
        part.write_bytes(image_lib.encode_png(images[0]))
    path = workdir / name
    ranked_labels.ranked(
        path,
        images,
        labels,
        clip.classify(images, labels, prompts_lib.load(evals.val.templates)),
        truth=[record["label"] for record in records],
        captions=names,
        title="Zero-shot: images never seen, labels by name",
    )
    return path
