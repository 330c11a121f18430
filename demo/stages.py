"""The demo's stages: CLIP, image tokenizer, tokens, prior, samples, judgement.

    runs/demo/  clip/ tokenizer/ tokens/ prior/   runs and the token cache
                samples_*.npz                     candidates for the prompts
                summary.json results.json report.html *.png

Every stage goes on where it was stopped, and one that is finished is not done again.
"""

import json
import pathlib
import time
from collections.abc import Callable
from typing import Any

from mmjax import errors, schema
from mmjax_demo import plan as plan_lib

_CLOCK = "seconds.json"  # spent in each stage, in all the calls that it took


class Demo:
    """One workdir and its plan; `run` does the stages up to and with the last."""

    def __init__(self, plan: plan_lib.Plan, workdir: pathlib.Path):
        self.plan, self.workdir = plan, workdir
        self.values: dict[str, dict[str, float]] = {}  # of the runs' evaluators

    def run(self, last: str, say: Callable[[str], Any]) -> None:
        """Raises whatever a stage raises; the same call then goes on there."""
        self.workdir.mkdir(parents=True, exist_ok=True)
        work = {
            "clip": self._clip,
            "tokenizer": self._tokenizer,
            "tokens": self._tokens,
            "prior": self._prior,
            "samples": self._samples,
            "judge": self._judge,
        }
        stages = plan_lib.NAMES[: plan_lib.NAMES.index(last) + 1]
        for number, name in enumerate(stages, 1):
            say(f"[{number}/{len(stages)}] {plan_lib.TITLES[name]}")
            begin = time.perf_counter()
            done = self._finished(name)
            try:
                work[name]()
            finally:
                if not done:
                    self._spend(name, time.perf_counter() - begin)

    def minutes(self) -> dict[str, float]:
        """What each stage has taken, in minutes."""
        path = self.workdir / _CLOCK
        spent = schema.read_json(path, fix="delete it") if path.exists() else {}
        return {name: seconds / 60 for name, seconds in spent.items()}

    def clip_summary(self) -> dict[str, float]:
        """What CLIP alone reached, for a demo that ends there: summary.json and a
        picture of ranked labels.
        """
        from mmjax.inference import load
        from mmjax_demo import judge

        judge.zero_shot(self.workdir, load.load_run(self.workdir / "clip"))
        summary = judge.evaluated(self.values)
        summary["minutes"] = round(sum(self.minutes().values()), 2)
        with errors.writing(self.workdir / "summary.json") as part:
            part.write_text(json.dumps(summary, indent=1) + "\n")
        return summary

    def _spend(self, name: str, seconds: float) -> None:
        spent = {key: 60 * value for key, value in self.minutes().items()}
        spent[name] = spent.get(name, 0.0) + seconds
        with errors.writing(self.workdir / _CLOCK) as part:
            part.write_text(json.dumps(spent))

    def _finished(self, name: str) -> bool:
        """Whether a stage has nothing left to do, so that its time is not counted."""
        from mmjax.train import metric_writer

        if name == "tokens":
            return (self.workdir / "prior" / "run.json").exists()
        if name == "samples":
            return (self.workdir / "samples_completed.npz").exists()
        if name == "judge":
            return (self.workdir / "results.json").exists()
        rows = metric_writer.read(self.workdir / name)
        return bool(rows) and rows[-1]["step"] >= self.config(name).steps

    def config(self, name: str) -> Any:
        """The config of one of the three runs."""
        from mmjax.train import config as config_lib

        made = config_lib.load(getattr(self.plan, name), [])
        if name == "prior":
            # The tokenizer is the one trained here, and its tokens are made once.
            made.task.stage1 = self.config("tokenizer").task.tokenizer
            made.graft = {"tokenizer": str(self.workdir / "tokenizer")}
            made.data.train = f"tokens:{self.workdir / 'tokens'}"
            if self.plan.context:
                made.task.context = self.plan.context
                made.data.fields.tokens.context = self.plan.context
        return made

    def _train(self, name: str) -> None:
        from mmjax.train import loop

        self.values[name] = loop.run(self.config(name), self.workdir / name, label=name)

    def _clip(self) -> None:
        self._train("clip")

    def _tokenizer(self) -> None:
        self._train("tokenizer")

    def _tokens(self) -> None:
        from mmjax.inference import encode

        encode.encode(
            self.workdir / "tokenizer",
            self.plan.train,
            self.workdir / "tokens",
            batch_size=256,
        )

    def _prior(self) -> None:
        self._train("prior")

    def _samples(self) -> None:
        from mmjax_demo import samples

        samples.all_samples(self.plan, self.workdir)

    def _judge(self) -> None:
        from mmjax_demo import judge

        judge.judge(self.plan, self.workdir, self.values)
