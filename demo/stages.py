"""The demo's stages: CLIP, image tokenizer, tokens, prior, samples, judgement.

    runs/demo/  clip/ tokenizer/ tokens/ prior/   runs and the token cache
                samples_*.npz                     candidates for the prompts
                summary.json results.json report.html *.png
                stages.json                       what is done, of what; see marks.py

Every stage goes on where it was stopped, and one that is finished is not done again:
a demo that is done reads its files and no more. What was made of something that has
changed since is made anew.
"""

import json
import pathlib
import shutil
import time
from collections.abc import Callable
from typing import Any

from mmjax import errors
from mmjax.errors import UserError
from mmjax_demo import marks as marks_lib
from mmjax_demo import plan as plan_lib

RECIPE = "recipe.json"  # of an archive of `mmjax demo --pack`
RUNS = ("clip", "tokenizer", "prior")
_OF = {  # stage: those whose results it takes
    "clip": (),
    "tokenizer": (),
    "tokens": ("tokenizer",),
    "prior": ("tokenizer", "tokens"),
    "samples": ("prior",),
    "judge": ("clip", "tokenizer", "samples"),
}
_SHEETS = ("samples_first", "samples_best", "unseen_best", "completions")


class Demo:
    """One workdir and its plan; `run` does the stages up to and with the last."""

    def __init__(self, plan: plan_lib.Plan, workdir: pathlib.Path):
        self.plan, self.workdir = plan, workdir
        self._say: Callable[[str], Any] = lambda text: None
        self._begin = 0.0  # of the stage at work, on the clock

    @property
    def marks(self) -> marks_lib.Marks:
        """What is done, as the workdir says it."""
        return marks_lib.Marks(self.workdir)

    def run(self, last: str, say: Callable[[str], Any]) -> list[str]:
        """Does what is not done yet, up to and with `last`; the stages it has done.

        Raises whatever a stage raises; the same call then goes on there.
        """
        self._say = say
        self.workdir.mkdir(parents=True, exist_ok=True)
        self._check_own()
        stages, worked = plan_lib.NAMES[: plan_lib.NAMES.index(last) + 1], []
        for number, name in enumerate(stages, 1):
            title = f"[{number}/{len(stages)}] {plan_lib.TITLES[name]}"
            of = self.marks.made(_OF[name])
            if self._done(name):
                say(f"{title} (done before)")
                continue
            say(title)
            self._make_room(name, of)
            self._begin = time.perf_counter()
            try:
                made = getattr(self, f"_{name}")()
            finally:
                self.marks.spend(name, time.perf_counter() - self._begin)
            files = self._files(name)
            mark = {"config": self._settings(name), "of": of, "files": files}
            self.marks.finish(name, **mark, made=made or files)
            worked.append(name)
        return worked

    def minutes(self) -> dict[str, float]:
        """What each stage has taken, in minutes."""
        return {name: seconds / 60 for name, seconds in self.marks.seconds.items()}

    def values(self) -> dict[str, dict[str, float]]:
        """What the runs' evaluators measured last."""
        from mmjax.train import metric_writer

        return {name: metric_writer.evaluations(self.workdir / name) for name in RUNS}

    def clip_summary(self) -> dict[str, float]:
        """What CLIP alone reached. It is the summary.json of a demo that ends there."""
        from mmjax_demo import judge

        summary = judge.evaluated({"clip": self.values()["clip"]})
        summary["minutes"] = round(sum(self.minutes().values()), 2)
        summary |= self.first_image()
        if not (self.workdir / "results.json").exists():
            with errors.writing(self.workdir / "summary.json") as part:
                part.write_text(json.dumps(summary, indent=1) + "\n")
        return summary

    def first_image(self) -> dict[str, float]:
        """The seconds from the start to the first image that a model of it made."""
        first = self.marks.first_image
        return {} if first is None else {"seconds_to_first_image": round(first, 1)}

    def config(self, name: str) -> Any:
        """The config of one of the three runs."""
        from mmjax.train import config as config_lib

        changes = [f"--config.{change}" for change in self.plan.changes.get(name, ())]
        made = config_lib.load(getattr(self.plan, name), changes)
        if name == "prior":
            # The tokenizer is the one trained here, and its tokens are made once.
            made.task.stage1 = self.config("tokenizer").task.tokenizer
            made.graft = {"tokenizer": str(self.workdir / "tokenizer")}
            made.data.train = f"tokens:{self.workdir / 'tokens'}"
            if self.plan.context:
                made.task.context = self.plan.context
                made.data.fields.tokens.context = self.plan.context
        return made

    def _check_own(self) -> None:
        """UserError where the workdir holds the demo of another plan, or one to use."""
        from mmjax.train import run_file

        if (self.workdir / RECIPE).exists():
            raise UserError(
                f"{self.workdir} holds a demo that was trained elsewhere, to be used "
                "as it is: give --workdir another folder"
            )
        for name in RUNS:
            if not run_file.exists(self.workdir / name):
                continue
            held = run_file.read(self.workdir / name)["config"].get("steps")
            asked = self.config(name).steps
            if held != asked:
                others = [
                    key
                    for key, plan in plan_lib.PLANS.items()
                    if Demo(plan, self.workdir).config(name).steps == held
                ]
                fix = f"give --plan {others[0]} or " if others else "give "
                raise UserError(
                    f"{self.workdir} holds another demo, whose {name} trains {held} "
                    f"steps and not {asked}: {fix}--workdir another folder"
                )

    def _settings(self, name: str) -> str:
        """A digest of what a stage is told; where things lie has no part in it."""
        plan = self.plan
        if name in RUNS:
            config = json.loads(self.config(name).to_json())
            if name == "prior":
                del config["graft"], config["data"]["train"]
            return marks_lib.digest(config)
        told: dict[str, Any] = {"train": plan.train}
        if name != "tokens":
            told |= {"splits": [plan.source("val"), plan.source("unseen")]}
            told |= {"k": plan.k, "seed": plan.seed}
        return marks_lib.digest(told)

    def _files(self, name: str) -> str:
        """A digest of what a stage has written, "" where it has not."""
        from mmjax_demo import samples

        home = self.workdir
        if name in RUNS:
            places = [home / name / "run.json", home / name / "checkpoints"]
            places += [home / name / "metrics.jsonl"]
        elif name == "tokens":
            places = [home / "tokens"]
        elif name == "samples":
            places = [samples.path_of(home, s) for s in samples.ALL]
        else:
            places = [home / f"{sheet}.png" for sheet in _SHEETS]
            places.append(home / "results.json")
            if not (home / "summary.json").exists():  # which more than one stage writes
                return ""
        return marks_lib.of_files(places)

    def _done(self, name: str) -> bool:
        of = self.marks.made(_OF[name])
        return self.marks.done(name, self._settings(name), of, self._files(name))

    def _make_room(self, name: str, of: dict[str, str]) -> None:
        """Takes away what was made of other tokens or another tokenizer."""
        folder, marks = self.workdir / name, self.marks
        if name in ("tokens", "prior") and folder.exists() and marks.outdated(name, of):
            self._say(f"{folder} was made of other {' and '.join(_OF[name])}: anew")
            shutil.rmtree(folder)
        if name in (*RUNS, "tokens") and not folder.exists():
            marks.forget(name)
            marks.write()

    def _show(self, path: pathlib.Path) -> None:
        """Says where an image lies; the time of the first one is kept."""
        marks = self.marks
        if marks.first_image is None:
            now = time.perf_counter() - self._begin
            marks.first_image = sum(marks.seconds.values()) + now
            marks.write()
        self._say(f"  image {path}")

    def _train(self, name: str, **options: Any) -> Any:
        """The trained run."""
        from mmjax.inference import load
        from mmjax.train import loop

        folder = self.workdir / name
        loop.run(self.config(name), folder, label=name, **options)
        return load.load_run(folder)

    def _clip(self) -> str:
        from mmjax.inference import load
        from mmjax_demo import judge

        def saved(parts: Any, state: Any) -> None:
            step = int(state.step)
            if step < parts.cfg.steps:
                run = load.Run(self.workdir / "clip", parts, state)
                name = f"zero_shot_step_{step}.png"
                self._show(judge.zero_shot(self.workdir, run, name=name))

        run = self._train("clip", saved=saved)
        self._show(judge.zero_shot(self.workdir, run))
        return run.fingerprint

    def _tokenizer(self) -> str:
        from mmjax_demo import judge

        run = self._train("tokenizer")
        self._show(judge.reconstructions(self.plan, self.workdir, run))
        return run.fingerprint

    def _tokens(self) -> str:
        from mmjax.inference import encode

        header = encode.encode(
            self.workdir / "tokenizer",
            self.plan.train,
            self.workdir / "tokens",
            batch_size=256,
        )
        return marks_lib.digest(header.identity())

    def _prior(self) -> str:
        from mmjax_demo import samples

        sketch = samples.Sketch(self.plan, self.workdir, self._show)
        return self._train("prior", saved=sketch).fingerprint

    def _samples(self) -> None:
        from mmjax_demo import samples

        samples.all_samples(self.plan, self.workdir)

    def _judge(self) -> None:
        from mmjax_demo import judge

        judge.judge(self.plan, self.workdir, self.values())
